"""What ``jaxinit`` says on its own: its commands in groups, with an example each."""

import argparse
import shutil
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from jaxinit.cli._parser import Command, Parser

_ABOUT = "Chooses, draws, checks and compares initial weights of JAX models."
_WIDEST = 100  # columns in which a line reads well
_END = (
    "jaxinit COMMAND --help tells the options of a command, with examples. A model is "
    "anything that Python can import, from the working directory too: a class of Flax, "
    "of Equinox, a function of Haiku, or a pair of functions.",
    "In Python there is more: jaxinit.jit_init fills a model fast, jaxinit.reinit "
    "draws it anew by rules, jaxinit.calibrate fits it to data, jaxinit.scaling takes "
    "it from a small width to a large one.",
)


class Overview(Parser):
    """The parser of ``jaxinit`` itself, whose help has the commands by group.

    Attributes:
      groups: the parsers of commands by name, by the title of their group.
    """

    def __init__(self, **settings: Any):
        """Makes a parser that prints its help if there is no command."""
        super().__init__(**settings)
        self.groups: dict[str, Mapping[str, Command]] = {}
        self.set_defaults(run=self.run)

    def run(self, options: argparse.Namespace) -> int:
        """Says what there is."""
        self.print_help()
        return 0

    def format_help(self) -> str:
        """Writes the commands by group, in the width of the terminal."""
        width = min(_WIDEST, shutil.get_terminal_size().columns)
        side = 4 + max(
            len(name) for parsers in self.groups.values() for name in parsers
        )
        lines = [*textwrap.wrap(_ABOUT, width), ""]
        for title, parsers in self.groups.items():
            lines.append(title)
            for name, parser in parsers.items():
                lines += _describe(name, parser, width, side)
            lines.append("")
        for paragraph in _END:
            lines += [*textwrap.wrap(paragraph, width), ""]
        return "\n".join(lines[:-1]) + "\n"


def _describe(name: str, parser: Command, width: int, side: int) -> Iterator[str]:
    """Yields what a command does, and how it is called."""
    yield from textwrap.wrap(
        parser.about,
        width,
        initial_indent=f"  {name}".ljust(side),
        subsequent_indent=" " * side,
    )
    yield f"{' ' * side}$ {parser.example}"
