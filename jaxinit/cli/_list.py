"""``jaxinit list``: the builders, by purpose."""

import argparse
import inspect
import json
from collections.abc import Callable
from typing import Any

from jaxinit._initializer import REGISTRY, registered
from jaxinit._table import Column, Table
from jaxinit.cli._purposes import group
from jaxinit.cli._terminal import console

# Shares of the width by column; that of names is as wide as they are.
_RATIOS = {"name": None, "summary": 3, "law": 4, "variance": 3, "reference": 4}


def add(commands: Any) -> None:
    """Adds the command."""
    text = "list the builders by purpose, with their law, variance and reference"
    parser = commands.add_parser("list", help=text, description=text.capitalize() + ".")
    parser.add_argument(
        "--json", action="store_true", help="print JSON instead of a table"
    )
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
    if options.json:
        builders = [
            {"name": builder["name"], "purpose": purpose, **builder}
            for purpose, members in groups.items()
            for builder in members
        ]
        print(json.dumps(builders, indent=1, ensure_ascii=False))
        return 0
    columns = [Column[str](name, left=True, wraps=name != "name") for name in _RATIOS]
    for purpose, members in groups.items():
        rows = [list(builder.values()) for builder in members]
        table = Table(columns, rows).rich(framed=True, show_lines=True)
        for column, ratio in zip(table.columns, _RATIOS.values(), strict=True):
            column.ratio = ratio
        console().print(purpose, table, sep="\n")
    return 0
