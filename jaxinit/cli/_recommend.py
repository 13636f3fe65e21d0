"""``jaxinit recommend``: which initializer suits a layer, and why."""

import argparse
import shutil
import textwrap
from typing import Any

from jaxinit._check import Unfit
from jaxinit._import import load
from jaxinit.cli._json import PRINTED, add_json, check_json, write_json
from jaxinit.cli._parser import add_parser
from jaxinit.cli._terminal import BadInput, allow_imports, try_call
from jaxinit.signal import Recommendation, recommend

_NARROW, _WIDE = 40, 100  # columns within which a paragraph reads well

# The argument of Flax that takes the initializer, where it is not kernel_init.
_ARGUMENTS = {"embedding": "embedding_init", "recurrent": "recurrent_kernel_init"}
# The shape of a weight that shows it, where 512 256 is none of that layer.
_SHAPES = {"conv": "3 3 64 128", "depthwise": "3 3 1 128", "recurrent": "256 256"}


def add(commands: Any) -> None:
    """Adds the command."""
    text = "recommend an initializer for a layer, and say why"
    parser = add_parser(
        commands,
        "recommend",
        text,
        usage="ACTIVATION",
        examples=[
            "jaxinit recommend gelu",
            "jaxinit recommend relu --layer conv --norm batch",
            "jaxinit recommend silu --residual --depth 24 --json",
        ],
    )
    parser.set_defaults(run=run)
    option = parser.add_argument_group("the layer").add_argument
    option(
        "activation",
        metavar="ACTIVATION",
        help="what stands behind the layer: a name such as relu, gelu or tanh, "
        "identity for none, or your own function as MODULE:OBJECT",
    )
    option(
        "--layer",
        default="dense",
        help="dense, conv, depthwise, recurrent (from step to step), embedding, "
        "attention (its projections) or output (default: dense)",
    )
    option(
        "--norm",
        help="the normalization behind the layer: batch, layer, rms, group, instance "
        "or weight",
    )
    option(
        "--residual",
        action="store_true",
        help="the layer is the last one of a branch that is added to its input",
    )
    option(
        "--depth", metavar="COUNT", type=int, help="how many such branches there are"
    )
    add_json(parser.add_argument_group("output").add_argument, "the advice")


def run(options: argparse.Namespace) -> int:
    """Runs the command."""
    check_json(options.json)
    if options.depth is not None and not options.residual:
        raise BadInput(f"--depth {options.depth}: it counts branches: add --residual.")
    advice: Recommendation = try_call(
        recommend,
        _read_activation(options.activation),
        layer=options.layer,
        norm=options.norm,
        residual=options.residual,
        depth=options.depth,
    )
    if options.json != PRINTED:
        _print_advice(advice, options.layer)
    write_json(options.json, advice.to_json(indent=1))
    return 0


def _print_advice(advice: Recommendation, layer: str) -> None:
    argument = _ARGUMENTS.get(layer, "kernel_init")
    shape = _SHAPES.get(layer, "512 256")
    parts = {
        "in Flax": f"{argument}=jaxinit.{advice.initializer}",
        "to see": f'jaxinit show "{advice.initializer}" --shape {shape}',
        "why": advice.reason,
        "source": advice.reference,
    }
    width = min(max(_NARROW, shutil.get_terminal_size().columns), _WIDE)
    print(advice.initializer)
    for name, text in parts.items():
        print(_paragraph(name, text, width if name in ("why", "source") else None))


def _paragraph(name: str, text: str, width: int | None) -> str:
    """Returns a named paragraph; what is to be pasted keeps its one line."""
    head = f"  {name:8} "
    if width is None:
        return head + text
    return textwrap.fill(
        text,
        width,
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _read_activation(word: str) -> Any:
    """Reads the name of an activation, or imports a function."""
    if ":" not in word:
        return word
    allow_imports()
    try:
        return load(word)
    except Unfit as error:
        raise BadInput(f"{word}: {error}") from error
