"""``jaxinit check``: signal and gradient of a model that can be imported."""

import argparse
import contextlib
import importlib
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxinit._check import Unfit
from jaxinit.cli._json import PRINTED, add_json, check_json, write_json
from jaxinit.cli._model import (
    add_model,
    build_model,
    draw_inputs,
    explain,
    read_call,
    read_pairs,
)
from jaxinit.cli._parser import add_parser
from jaxinit.cli._terminal import (
    BadInput,
    cannot_write,
    check_writable,
    console,
    make_key,
)
from jaxinit.signal import SignalReport

_PLOTS = (".png", ".svg", ".pdf")


def add(commands: Any) -> None:
    """Adds the command."""
    text = "measure a model's signal and gradient at initialization and judge them"
    parser = add_parser(
        commands,
        "check",
        text,
        usage="MODULE:OBJECT --input SHAPE",
        examples=[
            "jaxinit check package.module:Model --input 16x64",
            "jaxinit check package.module:Model --input 16,64 --set width=256 \\\n"
            '      --set "kernel_init=he_normal()" --call train=False',
            "jaxinit check package.module:Model --input 8x128:int32 --vocabulary 1000",
            "jaxinit check package.module:Model --input 16 64 --steps 5 --json",
        ],
        end="Exit code: 0 for a healthy model, 1 for an unhealthy one, 2 for bad "
        "input.",
    )
    parser.set_defaults(run=run)
    _add_vocabulary(add_model(parser))
    _add_measurement(parser.add_argument_group("measurement").add_argument)
    _add_steps(parser.add_argument_group("steps of training").add_argument)
    _add_output(parser.add_argument_group("output").add_argument)


def _add_vocabulary(option: Callable[..., Any]) -> None:
    """Adds the option about inputs that are tokens."""
    option(
        "--vocabulary",
        metavar="SIZE",
        type=int,
        help="how many tokens there are, for inputs of integers",
    )


def _add_measurement(option: Callable[..., Any]) -> None:
    """Adds the options about the measurement and its limit."""
    option("--seeds", type=int, default=32, help="draws of the weights (default: 32)")
    option("--seed", type=int, default=0, help="seed of all of them (default: 0)")
    option(
        "--limit",
        metavar="FACTOR",
        type=float,
        default=100.0,
        help="over all layers, by which a signal vanishes or explodes (default: 100)",
    )


def _add_steps(option: Callable[..., Any]) -> None:
    """Adds the options about steps of training."""
    option(
        "--steps",
        type=int,
        default=0,
        help="steps of an optimizer to take then, on the inputs and random classes "
        "(default: 0)",
    )
    option(
        "--optimizer",
        metavar="SPEC",
        help="that takes the steps: one of compare's, such as sgd or "
        '"adamw(weight_decay=0.01)" (default: adam)',
    )
    option("--lr", metavar="RATE", type=float, help="its learning rate (default: 1e-3)")


def _add_output(option: Callable[..., Any]) -> None:
    """Adds the options about what is printed and written."""
    add_json(option, "the report")
    option(
        "--plot",
        metavar="FILE",
        type=Path,
        help="draw the report there, as PNG, SVG or PDF",
    )
    option("--all", action="store_true", help="print a row for every layer")


def run(options: argparse.Namespace) -> int:
    """Runs the command."""
    from jaxinit.signal import check as measure

    check_json(options.json)
    if options.plot is not None:
        check_writable(options.plot.parent)
        importlib.import_module("matplotlib")  # a missing plot library shows here
        if options.plot.suffix.lower() not in _PLOTS:
            rule = f"the file must end in {', '.join(_PLOTS)}."
            raise BadInput(f"--plot {options.plot}: {rule}")
    noise, key = jax.random.split(make_key(options.seed))
    inputs = draw_inputs(options, noise)
    settings = read_pairs("--set", options.settings)
    call = read_call(options) | _read_steps(options, jax.random.fold_in(key, 1))
    try:
        report = measure(
            build_model(options, settings),
            inputs,
            key=key,
            seeds=options.seeds,
            limit=options.limit,
            **call,
        )
    except BadInput:
        raise
    except Exception as error:  # the model's own, or ours about an argument
        raise explain(options, settings, inputs, error) from error
    piped = options.json == PRINTED
    if not piped:
        _print(report, options.all)
    write_json(options.json, report.to_json(indent=1))
    if options.plot is not None:
        try:
            report.plot().savefig(options.plot)
        except OSError as error:
            raise BadInput(cannot_write(error)) from error
        print(f"Written to {options.plot}", file=sys.stderr if piped else None)
    return 0 if report.healthy else 1


def _read_steps(options: argparse.Namespace, key: jax.Array) -> dict[str, Any]:
    """Reads the steps of training, as `check` takes them."""
    if not options.steps:
        for name in ("optimizer", "lr"):
            if (given := getattr(options, name)) is not None:
                raise BadInput(f"--{name} {given}: it goes with --steps, such as 5.")
        return {}
    from jaxinit.lab.command import read_optimizer

    spec = options.optimizer or "adam"
    try:
        build = read_optimizer(spec)
    except Unfit as error:
        raise BadInput(f"--optimizer {spec}: {error}") from error
    rate = 1e-3 if options.lr is None else options.lr
    if not 0 < rate < math.inf:
        raise BadInput(f"--lr {rate}: a learning rate is a finite number above 0.")

    def loss(output: Any) -> jax.Array:
        """Computes the cross-entropy of random classes."""
        z, *others = jax.tree.leaves(output)
        if others or jnp.ndim(z) < 2 or not jnp.issubdtype(z.dtype, jnp.floating):
            rule = "the model must return one array of logits, classes last."
            raise BadInput(f"--steps {options.steps}: {rule}")
        logs = jax.nn.log_softmax(z.astype(jnp.promote_types(z.dtype, jnp.float32)))
        labels = jax.random.randint(key, (*z.shape[:-1], 1), 0, z.shape[-1])
        return -jnp.take_along_axis(logs, labels, -1).mean()

    return {"steps": options.steps, "optimizer": build(rate), "loss": loss}


def _print(report: SignalReport, all_layers: bool) -> None:
    """Prints a report, on a terminal in colors if rich is installed."""
    if sys.stdout.isatty():
        with contextlib.suppress(ModuleNotFoundError):
            from jaxinit.signal.console import parts

            screen = console()
            screen.print(*parts(report, screen.width, all_layers), sep="\n")
            return
    print(report.table(all_layers=all_layers))
