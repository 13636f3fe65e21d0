"""Models on the command line: what is imported, and what it is called with."""

import argparse
import ast
import contextlib
import math
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxinit
from jaxinit import _check as check
from jaxinit._adapt.kinds import is_built, set_arguments
from jaxinit._import import load
from jaxinit._initializer import REGISTRY
from jaxinit._value import as_dtype
from jaxinit.cli import _shapes
from jaxinit.cli._terminal import MOST, BadInput, allow_imports, try_call

_WORDS = ("True", "False", "None")
_LONGEST_NAME = 100
_DIGITS = 12  # of a size; Python refuses to read thousands
_BRIEF = 160  # characters of an error that leave room for more on its line
_CALL = re.compile(r"[\w.]+\(.*\)", re.DOTALL)  # what looks like an initializer


def add_model(parser: argparse.ArgumentParser) -> Callable[..., Any]:
    """Adds the model, and what it is made and called with.

    Returns:
      The function that adds an option about the call.
    """
    group = parser.add_argument_group("model").add_argument
    group(
        "model",
        metavar="MODULE:OBJECT",
        help="what to import, from here or from what is installed: a Flax class, a "
        "Linen module, a function that makes a model, a class of Equinox, what "
        "hk.transform of Haiku returns, or a pair of functions (init, apply)",
    )
    _add_inputs(group)
    _add_arguments(group)
    return group


def _add_inputs(option: Callable[..., Any]) -> None:
    """Adds the options about the inputs that are drawn."""
    option(
        "--input",
        metavar="SHAPE",
        action="append",
        nargs="+",
        dest="inputs",
        required=True,
        help=f"of an input, the first size over examples, {_shapes.HELP}; with a dtype "
        "of its own 8x128:int32; repeatable",
    )
    option("--dtype", default="float32", help="dtype of the inputs (default: float32)")


def _add_arguments(option: Callable[..., Any]) -> None:
    """Adds the options about what the model is called with beside its inputs."""
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
        type=_read_axis,
        action="append",
        default=[],
        dest="axes",
        help="an axis that the model reads, such as the axis_name of a BatchNorm: it "
        "is bound with one entry; repeatable",
    )


def read_call(options: argparse.Namespace) -> dict[str, Any]:
    """Reads what the model is called with beside its inputs, as `check` takes it."""
    axes = {"axis_name": tuple(options.axes)} if options.axes else {}
    return {"arguments": read_pairs("--call", options.arguments)} | axes


def build_model(options: argparse.Namespace, settings: dict[str, Any]) -> Any:
    """Imports an object, and makes a model of it."""
    imported = _import(options.model)
    if not is_built(imported):
        return set_arguments(imported, settings)
    if settings:
        rule = "is built already: --set needs a class or a function."
        raise BadInput(f"{options.model}: {rule}")
    return imported


def explain(
    options: argparse.Namespace,
    settings: dict[str, Any],
    inputs: Sequence[Any],
    error: BaseException,
) -> BadInput:
    """Makes one line of an error that a user's code raised."""
    brief = check.brief(error)
    _, _, message = brief.partition(": ")
    if message.startswith((f"{options.name}(",)):
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
    return BadInput(f"{options.model} failed: {brief}{more * (len(brief) < _BRIEF)}")


def draw_inputs(options: argparse.Namespace, key: jax.Array) -> tuple[jax.Array, ...]:
    """Draws normal numbers, tokens or truth values."""
    keys = jax.random.split(key, len(options.inputs))
    specs = zip(map(" ".join, options.inputs), keys, strict=True)
    inputs = [_draw_input(spec, key, options) for spec, key in specs]
    if options.vocabulary is not None and not any(map(_is_integer, inputs)):
        raise BadInput("--vocabulary goes with inputs of integers: add --dtype int32.")
    return tuple(inputs)


def read_inputs(options: argparse.Namespace) -> tuple[jax.ShapeDtypeStruct, ...]:
    """Reads the sizes and types of the inputs."""
    return tuple(_read_input(" ".join(x), options) for x in options.inputs)


def _read_axis(word: str) -> str:
    """Reads the name of an axis."""
    if not word.isidentifier() or len(word) > _LONGEST_NAME:
        rule = "must be a word of letters, digits and _, such as batch"
        raise argparse.ArgumentTypeError(f"{check.show(word)} {rule}.")
    return word


def _read_input(spec: str, options: argparse.Namespace) -> jax.ShapeDtypeStruct:
    text, _, own = spec.partition(":")
    sizes = _shapes.split_sizes(text)
    if not all(size.isdecimal() and 0 < int(size[:_DIGITS]) for size in sizes):
        rule = "a shape is sizes of 1 or above with x between them, such as 32x784."
        raise BadInput(f"--input {spec}: {rule}")
    shape = tuple(int(size[:_DIGITS]) for size in sizes)
    if any(len(size) > _DIGITS for size in sizes) or math.prod(shape) > MOST:
        shown = check.show(spec)
        raise BadInput(f"--input {shown}: an input has at most {MOST} entries.")
    try:
        dtype = as_dtype(own or options.dtype)
    except check.Unfit as error:
        where = f"--input {spec}" if own else f"--dtype {options.dtype}"
        raise BadInput(f"{where}: {error}") from error
    return jax.ShapeDtypeStruct(shape, dtype)


def _draw_input(spec: str, key: jax.Array, options: argparse.Namespace) -> jax.Array:
    entry = _read_input(spec, options)
    shape, dtype = entry.shape, entry.dtype
    if dtype == np.bool_:
        return jax.random.bernoulli(key, shape=shape)
    if not jnp.issubdtype(dtype, np.integer):
        wide = np.float32 if dtype.itemsize == 1 else dtype  # JAX draws no float8
        drawn: jax.Array = try_call(jax.random.normal, key, shape, wide)
        return drawn.astype(dtype)
    if options.vocabulary is None:
        rule = "integers are tokens: say how many there are, as --vocabulary 1000."
        raise BadInput(f"--input {spec}: {rule}")
    if not 1 <= options.vocabulary <= jnp.iinfo(dtype).max:
        rule = f"must lie between 1 and {jnp.iinfo(dtype).max}, the largest {dtype}."
        raise BadInput(f"--vocabulary {options.vocabulary}: {rule}")
    return jax.random.randint(key, shape, 0, options.vocabulary, dtype)


def _is_integer(array: jax.Array) -> bool:
    return bool(jnp.issubdtype(array.dtype, np.integer))


def read_pairs(option: str, items: Sequence[str]) -> dict[str, Any]:
    """Reads NAME=VALUE pairs."""
    values: dict[str, Any] = {}
    for item in items:
        name, equals, text = item.partition("=")
        if not equals or not name.isidentifier():
            raise BadInput(f"{option} {item}: must be NAME=VALUE, such as width=256.")
        if name in values:
            raise BadInput(f"{option} {item}: {name} is given twice.")
        if text not in _WORDS and text.capitalize() in _WORDS:
            word = f"{name}={text.capitalize()}"
            rule = f"write {word} for the value, {name}='\"{text}\"' for text."
            raise BadInput(f"{option} {item}: {rule}")
        values[name] = _read(text)
    return values


def _read(text: str) -> Any:
    """Reads a literal, an initializer, or text."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python's, about odd literals
        with contextlib.suppress(
            ValueError, SyntaxError, TypeError, MemoryError, RecursionError
        ):
            return ast.literal_eval(text)
    return try_call(jaxinit.parse, text) if _CALL.fullmatch(text) else text


def _import(spec: str) -> Any:
    """Imports an object; the current directory counts as installed."""
    allow_imports()
    try:
        return load(spec)
    except check.Unfit as error:
        raise BadInput(f"{spec}: {error}") from error
