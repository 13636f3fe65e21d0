"""``jaxinit check``: signal and gradient of a model that can be imported."""

import argparse
import ast
import contextlib
import functools
import importlib
import inspect
import math
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxinit
from jaxinit import _check as check
from jaxinit._import import load
from jaxinit._initializer import REGISTRY
from jaxinit._value import as_dtype
from jaxinit.cli._terminal import (
    MOST,
    BadInput,
    checked,
    console,
    importable,
    key_of,
    writable,
)
from jaxinit.signal import SignalReport

_FRAMEWORKS = ("flax.linen", "flax.nnx", "equinox")
_PLOTS = (".png", ".svg", ".pdf")
_WORDS = ("True", "False", "None")
_LONGEST_NAME = 100
_DIGITS = 12  # of a size; Python refuses to read thousands
_BRIEF = 160  # characters of an error that leave room for more on its line
_CALL = re.compile(r"[\w.]+\(.*\)", re.DOTALL)  # what looks like an initializer


def add(commands: Any) -> None:
    """Adds the command."""
    text = "measure a model's signal and gradient at initialisation and judge them"
    parser = commands.add_parser(
        "check",
        help=text,
        description=text.capitalize() + ".",
        epilog="Exit code: 0 for a healthy model, 1 for an unhealthy one, 2 for bad "
        "input.",
    )
    option = parser.add_argument
    option(
        "model",
        metavar="MODULE:OBJECT",
        help="what to import, from here or from what is installed: a Flax class, a "
        "Linen module, a function that makes a model, a class of Equinox, what "
        "hk.transform of Haiku returns, or a pair of functions (init, apply)",
    )
    option(
        "--input",
        metavar="SHAPE",
        action="append",
        dest="inputs",
        required=True,
        help="sizes of an input, the first one over examples, such as 32x784; with a "
        "dtype of its own 8x128:int32; repeatable",
    )
    option("--dtype", default="float32", help="dtype of the inputs (default: float32)")
    option(
        "--vocabulary",
        metavar="SIZE",
        type=int,
        help="how many tokens there are, for inputs of integers",
    )
    option(
        "--set",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        dest="settings",
        help="an argument of the model's constructor: a Python literal, an initializer "
        'such as "kernel_init=he_normal()", or text; repeatable',
    )
    option(
        "--call",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        dest="arguments",
        help="a keyword of the model's call, such as train=False; repeatable",
    )
    option(
        "--axis",
        metavar="NAME",
        type=_axis,
        action="append",
        default=[],
        dest="axes",
        help="an axis that the model reads, such as the axis_name of a BatchNorm: it "
        "is bound with one entry; repeatable",
    )
    option("--seeds", type=int, default=32, help="draws of the weights (default: 32)")
    option("--seed", type=int, default=0, help="seed of all of them (default: 0)")
    option(
        "--limit",
        metavar="FACTOR",
        type=float,
        default=100.0,
        help="over all layers, by which a signal vanishes or explodes (default: 100)",
    )
    option(
        "--json",
        metavar="FILE",
        help="write the report as JSON there; - prints it instead of the table",
    )
    option(
        "--plot",
        metavar="FILE",
        type=Path,
        help="draw the report there, as PNG, SVG or PDF",
    )
    option("--all", action="store_true", help="print a row for every layer")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Runs the command."""
    from jaxinit.signal import check as signal_of

    piped = given.json == "-"
    files = [given.plot, None if piped or not given.json else Path(given.json)]
    for file in filter(None, files):
        writable(file.parent)
    if given.plot is not None:
        importlib.import_module("matplotlib")  # a missing plot library shows here
        if given.plot.suffix.lower() not in _PLOTS:
            rule = f"the file must end in {', '.join(_PLOTS)}."
            raise BadInput(f"--plot {given.plot}: {rule}")
    noise, key = jax.random.split(key_of(given.seed))
    inputs = _inputs(given, noise)
    settings = _named("--set", given.settings)
    arguments = _named("--call", given.arguments)
    axes: dict[str, Any] = {"axis_name": tuple(given.axes)} if given.axes else {}
    try:
        model = _built(_imported(given.model), settings, given.model)
        report = signal_of(
            model,
            inputs,
            key=key,
            seeds=given.seeds,
            arguments=arguments,
            limit=given.limit,
            **axes,
        )
    except BadInput:
        raise
    except Exception as error:  # the model's own, or ours of an argument
        raise _failure(given, settings, inputs, error) from error
    if piped:
        print(report.to_json(indent=1))
    else:
        _print(report, given.all)
    plot, numbers = files
    note = sys.stderr if piped else sys.stdout
    try:
        if numbers is not None:
            numbers.write_text(report.to_json(indent=1) + "\n")
            print(f"Written to {numbers}", file=note)
        if plot is not None:
            report.plot().savefig(plot)
            print(f"Written to {plot}", file=note)
    except OSError as error:
        raise BadInput(f"cannot write {error.filename}: {error.strerror}.") from error
    return 0 if report.healthy else 1


def _print(report: SignalReport, all_layers: bool) -> None:
    """Prints a report, on a terminal in colours if rich is there."""
    if sys.stdout.isatty():
        with contextlib.suppress(ModuleNotFoundError):
            from jaxinit.signal._report.console import parts

            screen = console()
            screen.print(*parts(report, screen.width, all_layers), sep="\n")
            return
    print(report.table(all_layers=all_layers))


def _failure(
    given: argparse.Namespace,
    settings: dict[str, Any],
    inputs: Sequence[jax.Array],
    error: BaseException,
) -> BadInput:
    """Returns the error of a user's code in one line."""
    brief = check.brief(error)
    _, _, message = brief.partition(": ")
    if message.startswith("check("):
        return BadInput(message)
    if "'str' object is not callable" in brief:
        for name, value in settings.items():
            if isinstance(value, str):
                near = check.suggestion(value, REGISTRY)
                named = value if value in REGISTRY else "he_normal"
                cure = f"For an initializer write such as {name}={named}()."
                rule = f"is text, which the model calls. {near.strip()} {cure}"
                return BadInput(f"--set {name}={value}: {' '.join(rule.split())}")
    called = ", ".join(f"{x.dtype}{list(x.shape)}" for x in inputs)
    more = "." * (brief[-1] not in ".: ")
    more += f" It was called with {called}; the first size counts examples."
    return BadInput(f"{given.model} failed: {brief}{more * (len(brief) < _BRIEF)}")


def _inputs(given: argparse.Namespace, key: jax.Array) -> tuple[jax.Array, ...]:
    """Draws normal numbers, tokens or truth values."""
    keys = jax.random.split(key, len(given.inputs))
    found = [_input(*pair, given) for pair in zip(given.inputs, keys, strict=True)]
    if given.vocabulary is not None and not any(map(_is_integer, found)):
        raise BadInput("--vocabulary goes with inputs of integers: add --dtype int32.")
    return tuple(found)


def _axis(word: str) -> str:
    """Reads the name of an axis."""
    if not word.isidentifier() or len(word) > _LONGEST_NAME:
        rule = "must be a word of letters, digits and _, such as batch"
        raise argparse.ArgumentTypeError(f"{check.show(word)} {rule}.")
    return word


def _input(spec: str, key: jax.Array, given: argparse.Namespace) -> jax.Array:
    text, _, own = spec.partition(":")
    sizes = text.split("x")
    if not all(size.isdecimal() and 0 < int(size[:_DIGITS]) for size in sizes):
        rule = "a shape is sizes of 1 or above with x between them, such as 32x784."
        raise BadInput(f"--input {spec}: {rule}")
    shape = tuple(int(size[:_DIGITS]) for size in sizes)
    if any(len(size) > _DIGITS for size in sizes) or math.prod(shape) > MOST:
        shown = check.show(spec)
        raise BadInput(f"--input {shown}: an input has at most {MOST} entries.")
    try:
        dtype = as_dtype(own or given.dtype)
    except check.Unfit as error:
        where = f"--input {spec}" if own else f"--dtype {given.dtype}"
        raise BadInput(f"{where}: {error}") from error
    if dtype == np.bool_:
        return jax.random.bernoulli(key, shape=shape)
    if not jnp.issubdtype(dtype, np.integer):
        wide = np.float32 if dtype.itemsize == 1 else dtype  # JAX draws no float8
        drawn: jax.Array = checked(jax.random.normal, key, shape, wide)
        return drawn.astype(dtype)
    if given.vocabulary is None:
        rule = "integers are tokens: say how many there are, as --vocabulary 1000."
        raise BadInput(f"--input {spec}: {rule}")
    if not 1 <= given.vocabulary <= jnp.iinfo(dtype).max:
        rule = f"must lie between 1 and {jnp.iinfo(dtype).max}, the largest {dtype}."
        raise BadInput(f"--vocabulary {given.vocabulary}: {rule}")
    return jax.random.randint(key, shape, 0, given.vocabulary, dtype)


def _is_integer(array: jax.Array) -> bool:
    return bool(jnp.issubdtype(array.dtype, np.integer))


def _named(option: str, items: Sequence[str]) -> dict[str, Any]:
    """Reads NAME=VALUE pairs."""
    found: dict[str, Any] = {}
    for item in items:
        name, equals, text = item.partition("=")
        if not equals or not name.isidentifier():
            raise BadInput(f"{option} {item}: must be NAME=VALUE, such as width=256.")
        if name in found:
            raise BadInput(f"{option} {item}: {name} is given twice.")
        if text not in _WORDS and text.capitalize() in _WORDS:
            word = f"{name}={text.capitalize()}"
            rule = f"write {word} for the value, {name}='\"{text}\"' for text."
            raise BadInput(f"{option} {item}: {rule}")
        found[name] = _read(text)
    return found


def _read(text: str) -> Any:
    """Reads a literal, an initializer, or text."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Python's parser, about odd literals
        with contextlib.suppress(
            ValueError, SyntaxError, TypeError, MemoryError, RecursionError
        ):
            return ast.literal_eval(text)
    return checked(jaxinit.parse, text) if _CALL.fullmatch(text) else text


def _imported(spec: str) -> Any:
    """Imports an object; the current directory counts as installed."""
    importable()
    try:
        return load(spec)
    except check.Unfit as error:
        raise BadInput(f"{spec}: {error}") from error


def _built(found: Any, settings: dict[str, Any], spec: str) -> Any:
    """Makes of what was imported what `jaxinit.check` takes."""
    if not callable(found) or isinstance(found, _modules(*_FRAMEWORKS)):
        if settings:
            rule = "is built already: --set needs a class or a function."
            raise BadInput(f"{spec}: {rule}")
        return found
    parameters = inspect.signature(found).parameters
    is_nnx = isinstance(found, type) and issubclass(found, _modules("flax.nnx"))
    if "rngs" in parameters or is_nnx:
        return lambda rngs: found(**settings, rngs=rngs)
    waiting = [
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    left = set(waiting) - set(settings)
    if "key" in parameters or (inspect.isfunction(found) and len(left) == 1):
        return functools.partial(found, **settings)  # of the key, or random streams
    return found(**settings)


def _modules(*frameworks: str) -> tuple[type, ...]:
    """Returns the classes of modules of those frameworks that are loaded."""
    loaded = (sys.modules.get(name) for name in frameworks)
    return tuple(framework.Module for framework in loaded if framework)
