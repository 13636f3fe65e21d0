"""``jaxinit structure``: what each parameter of a model does in its program."""

import argparse
import contextlib
import sys
from pathlib import Path
from typing import Any

from jaxinit._structure.structure import structure
from jaxinit.cli._model import (
    add_model,
    build_model,
    explain,
    read_call,
    read_inputs,
    read_pairs,
)
from jaxinit.cli._terminal import BadInput, check_writable, console, write


def add(commands: Any) -> None:
    """Adds the command."""
    text = "tell what each parameter of a model does, whatever its name and layout"
    parser = commands.add_parser(
        "structure",
        help=text,
        description=text.capitalize() + ": its role, fans and axes, as read from the "
        "traced program. No weight is drawn.",
    )
    parser.set_defaults(run=run)
    add_model(parser)
    parser.add_argument(
        "--train",
        action=argparse.BooleanOptionalAction,
        help="set the keyword by which the model's call tells training from "
        "evaluation, whatever it is called",
    )
    parser.add_argument(
        "--outline",
        action="store_true",
        help="print the layers in order, with residual branches set apart",
    )
    parser.add_argument(
        "--json",
        metavar="FILE",
        help="write the rows as JSON there; - prints them instead of the table",
    )


def run(options: argparse.Namespace) -> int:
    """Runs the command."""
    file = None if options.json in (None, "-") else Path(options.json)
    if options.json == "-" and options.outline:
        raise BadInput("--json - prints the rows alone: leave --outline out.")
    if file is not None:
        check_writable(file.parent)
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
    if file is not None:
        write(file, found.to_json(indent=1) + "\n")
    if options.json == "-":
        print(found.to_json(indent=1))
    elif options.outline:
        print(found.outline())
    else:
        _print(found)
    if file is not None:
        print(f"Written to {file}")
    return 0


def _print(found: Any) -> None:
    """Prints the table; on a terminal as wide as it is, if rich is installed."""
    if sys.stdout.isatty():
        with contextlib.suppress(ModuleNotFoundError):
            screen = console()
            table = found._table()
            room = table.choose(table.widths, screen.width)
            screen.print(table.pick(room).rich())
            return
    print(found)
