"""The parser: errors in one line, help in groups, the same words in every command."""

import argparse
import re
import shutil
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from jaxinit._check import suggestion
from jaxinit.cli._json import tell_files
from jaxinit.cli._shapes import join_sizes
from jaxinit.cli._terminal import one_line

# A spec such as -he_normal() is no option; behind a space argparse sees that.
_SPEC = re.compile(r"^-[\s(]*(?=[a-z][\w.]*\()")
_CHOICES = re.compile(r"invalid choice: '(.*)' \(choose from (.*)\)", re.DOTALL)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line.

    Attributes:
      fill: adds the options when the parser is first used: the options of `compare`
        come from the lab, which the other commands do not import.
    """

    fill: Callable[[argparse.ArgumentParser], None] | None = None

    def __init__(self, **settings: Any):
        """Makes a parser whose examples, the epilog, keep their lines."""
        settings.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(**settings)

    def parse_known_args(  # type: ignore[override]  # argparse has four overloads
        self, args: Any = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        if self.fill is not None:
            fill, self.fill = self.fill, None
            fill(self)
        if args is not None:
            args = [_SPEC.sub(r" \g<0>", word) for word in args]
        return super().parse_known_args(args, namespace)

    def format_help(self) -> str:
        """Writes the help in the width of the terminal, as argparse does."""
        width = shutil.get_terminal_size().columns - 2
        self.description = textwrap.fill(self.description or "", width)
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        if choice := _CHOICES.search(message):
            message += "." + suggestion(choice[1], re.findall(r"[\w-]+", choice[2]))
        self.exit(2, f"{one_line(f'{self.prog}: {message}')}\n")

    def refuse(self, words: Sequence[str]) -> NoReturn:
        """Refuses words that no option takes."""
        known = re.findall(r"--[\w-]+", self.format_help())
        name = words[0].partition("=")[0]
        near = suggestion(name, dict.fromkeys(known))
        if name in known:
            near = f" Write {name} behind the command: {self.prog} {name}."
        self.error(f"unrecognized arguments: {' '.join(words)}.{near}")


class Command(Parser):
    """The parser of a command, in which shapes and ``--json`` are written alike.

    Attributes:
      about: what it does, in the list of commands.
      example: how it is called, in that list.
    """

    about = example = ""

    def parse_known_args(  # type: ignore[override]  # as above
        self, args: Any = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        if args is not None:
            args = tell_files(join_sizes(args))
        return super().parse_known_args(args, namespace)


def add_parser(
    commands: Any,
    name: str,
    about: str,
    *,
    usage: str = "",
    more: str = "",
    examples: Sequence[str],
    end: str = "",
) -> Command:
    """Adds the parser of a command.

    Args:
      commands: the commands so far.
      name: what it is called.
      about: what it does, as the list of commands says it.
      usage: what it needs, options aside.
      more: goes on after that in the command's own help, with a colon or the like.
      examples: commands to copy; the first one stands in the list of commands, too.
      end: what is said below them.
    """
    shown = "\n".join(f"  {example}" for example in examples)
    parser: Command = commands.add_parser(
        name,
        help=about,
        usage=f"%(prog)s{f' {usage}' if usage else ''} [options]",
        description=f"{about[0].upper()}{about[1:]}{more}.",
        epilog=f"examples:\n{shown}" + (f"\n\n{end}" if end else ""),
    )
    parser.about, parser.example = about, examples[0]
    return parser
