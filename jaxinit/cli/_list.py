"""``jaxinit list``: the builders, by purpose."""

import argparse
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxinit._initializer import REGISTRY, registered
from jaxinit._table import Column, Table, fold
from jaxinit.cli._json import PRINTED, add_json, check_json, write_json
from jaxinit.cli._parser import add_parser
from jaxinit.cli._purposes import group
from jaxinit.cli._terminal import console

_HEADS = ("name", "summary", "law", "variance", "reference")
_FRAME = 3 * len(_HEADS) + 1  # columns of text that borders and their padding take
_NARROW = 100  # columns of text in which so many of a table are hard to read


def add(commands: Any) -> None:
    """Adds the command."""
    text = "list the builders by purpose, with their law, variance and reference"
    parser = add_parser(
        commands,
        "list",
        text,
        examples=["jaxinit list", "jaxinit list --json builders.json"],
    )
    add_json(parser.add_argument_group("output").add_argument, "the builders")
    parser.set_defaults(run=run)


def describe(builder: Callable[..., Any]) -> dict[str, str]:
    """Reads a builder's documentation: summary, law, variance and first reference."""
    sections: dict[str, list[str]] = {"": []}
    name = ""
    for line in (inspect.getdoc(builder) or "").splitlines():
        if line.endswith(":") and not line.startswith(" ") and line[:-1].isalpha():
            name = line[:-1]
        sections.setdefault(name, []).append(line.strip())
    body = "\n".join(sections[""])
    law = " ".join(body.partition("Law: ")[2].partition("\n\n")[0].split())
    law, _, variance = law.partition("; ")
    references = sections.get("References", ["", ""])[1:]
    return {
        "name": getattr(builder, "registered", builder.__name__),
        "summary": body.partition("\n")[0],
        "law": law,
        "variance": variance.rstrip("."),
        "reference": " ".join(references),
    }


def run(options: argparse.Namespace) -> int:
    """Runs the command."""
    names = (name for name, b in REGISTRY.items() if registered(b) == name)
    groups = {
        purpose: [describe(REGISTRY[name]) for name in members]
        for purpose, members in group(names).items()
    }
    check_json(options.json)
    if options.json != PRINTED:
        _print(groups)
    builders = [
        {"name": builder["name"], "purpose": purpose, **builder}
        for purpose, members in groups.items()
        for builder in members
    ]
    write_json(options.json, json.dumps(builders, indent=1, ensure_ascii=False))
    return 0


def _print(groups: Mapping[str, Sequence[Mapping[str, str]]]) -> None:
    """Prints a table for each purpose, or records where the terminal is narrow."""
    columns = [Column[str](name, left=True, wraps=name != "name") for name in _HEADS]
    screen = console()
    for purpose, members in groups.items():
        rows = [list(builder.values()) for builder in members]
        table = Table(columns, rows)
        if screen.width < _NARROW:
            screen.print(purpose, table.records(screen.width), sep="\n\n")
            continue
        share = (screen.width - table.widths[0] - _FRAME) // (len(_HEADS) - 1)
        folded = [[name, *(fold(text, share) for text in rest)] for name, *rest in rows]
        grid = Table(columns, folded).rich(framed=True, show_lines=True)
        for column in grid.columns[1:]:
            column.width = share
        screen.print(purpose, grid, sep="\n")
