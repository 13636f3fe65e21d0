"""``jaxinit structure``: what each parameter of a model does in its program."""

import argparse
import contextlib
import sys
from typing import Any

from jaxinit._structure.result import Structure
from jaxinit._structure.structure import structure
from jaxinit.cli._json import PRINTED, add_json, check_json, write_json
from jaxinit.cli._model import (
    add_model,
    build_model,
    explain,
    read_call,
    read_inputs,
    read_pairs,
)
from jaxinit.cli._parser import add_parser
from jaxinit.cli._terminal import BadInput, print_table


def add(commands: Any) -> None:
    """Adds the command."""
    text = "tell what each parameter of a model does, whatever its name and layout"
    parser = add_parser(
        commands,
        "structure",
        text,
        usage="MODULE:OBJECT --input SHAPE",
        more=": its role, fans and axes, as read from the traced program. No weight is "
        "drawn",
        examples=[
            "jaxinit structure package.module:Model --input 16x64",
            "jaxinit structure package.module:Model --input 8x128:int32 --outline",
            "jaxinit structure package.module:Model --input 16x64 --json",
        ],
    )
    parser.set_defaults(run=run)
    arguments = add_model(parser)
    arguments(
        "--train",
        action=argparse.BooleanOptionalAction,
        help="set the keyword by which the model's call tells training from "
        "evaluation, whatever it is called",
    )
    option = parser.add_argument_group("output").add_argument
    option(
        "--outline",
        action="store_true",
        help="print the layers in order, with residual branches set apart",
    )
    add_json(option, "the rows")


def run(options: argparse.Namespace) -> int:
    """Runs the command."""
    if options.json == PRINTED and options.outline:
        raise BadInput("--json - prints the rows alone: leave --outline out.")
    check_json(options.json)
    inputs = read_inputs(options)
    settings = read_pairs("--set", options.settings)
    call = read_call(options)
    try:
        model = build_model(options, settings)
        found = structure(model, *inputs, train=options.train, **call)
    except BadInput:
        raise
    except Exception as error:  # the model's own, or ours about an argument
        raise explain(options, settings, inputs, error) from error
    if options.json != PRINTED:
        _print(found, options.outline)
    write_json(options.json, found.to_json(indent=1))
    return 0


def _print(found: Structure, outline: bool) -> None:
    """Prints the table; on a terminal as wide as it is, if rich is installed."""
    if outline:
        print(found.outline())
        return
    if sys.stdout.isatty():
        with contextlib.suppress(ModuleNotFoundError):
            print_table(found._table())
            return
    print(found)
