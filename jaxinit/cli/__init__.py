"""The command line: ``check``, ``compare``, ``list``, ``show`` and others."""

import argparse
import contextlib
import io
import os
import shlex
import sys
from collections.abc import Sequence

from jaxinit._watch import CODE, NO_RESULT, watch
from jaxinit.cli import (
    _check,
    _compare,
    _list,
    _recommend,
    _show,
    _structure,
    _transfer,
)
from jaxinit.cli._list import describe as describe
from jaxinit.cli._overview import Overview
from jaxinit.cli._parser import Command
from jaxinit.cli._parser import Parser as Parser
from jaxinit.cli._programs import keep_programs
from jaxinit.cli._terminal import FULL, cannot_write, one_line
from jaxinit.cli._terminal import BadInput as BadInput

# The commands, as `jaxinit` alone lists them.
_GROUPS = {
    "Choose and draw": (_recommend, _list, _show),
    "Structure, by which a model is filled": (_structure,),
    "Check": (_check,),
    "Compare and transfer": (_compare, _transfer),
}
_COMPILE = ("check", "compare", "show", "transfer")
_LAB = ("bokeh", "flax", "jinja2", "matplotlib", "optax", "orbax", "rich", "sklearn")
_EXTRA = dict.fromkeys(_LAB, "lab") | {"tensorboardX": "tensorboard"}  # by package


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
      arguments: the words after ``jaxinit``; by default those of the process. A thread
        then answers Ctrl-C, see `jaxinit._watch`.

    Returns:
      The exit code: 0, 1 for a model that is not healthy, 2 for bad input, 130 after an
      interrupt.
    """
    words = _prepare_process() if arguments is None else list(arguments)
    try:
        parsed = _read(words)
        parsed.command = shlex.join(["jaxinit", *words])
        # A process of its own keeps what it compiles; a caller's JAX stays as it is.
        own = arguments is None and getattr(parsed, "cache", False)
        with keep_programs() if own else contextlib.nullcontext():
            code: int = parsed.run(parsed)
        sys.stdout.flush()  # so that a closed pipe is noticed here
        return CODE if watch.pressed else code
    except BadInput as error:
        print(one_line(f"jaxinit: {error}"), file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        extra = _EXTRA.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        cure = f"Run: pip install 'jaxinit[{extra}]'"
        print(f"jaxinit: {error.name} is missing. {cure}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        _leave_output()
        return 0
    except OSError as error:
        if error.errno not in FULL:
            raise
        print(one_line(f"jaxinit: {cannot_write(error)}"), file=sys.stderr)
        try:
            sys.stdout.flush()
        except OSError:  # standard output itself; Python would try again at the end
            _leave_output()
        return 2
    except KeyboardInterrupt:
        print(f"jaxinit: {NO_RESULT}", file=sys.stderr)
        return CODE


def _leave_output() -> None:
    """Discards the rest of the output."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _prepare_process() -> list[str]:
    """Takes charge of Ctrl-C and of the output, and returns the command's words."""
    if not watch.on:
        watch.start()
    if isinstance(sys.stdout, io.TextIOWrapper):  # it may lack a letter
        sys.stdout.reconfigure(errors="backslashreplace")
    return sys.argv[1:]


def _read(words: list[str]) -> argparse.Namespace:
    """Reads the words of a command."""
    parser = Overview(prog="jaxinit")
    parser.add_argument("--version", action="version", version=_read_version())
    commands = parser.add_subparsers(
        dest="name", metavar="COMMAND", parser_class=Command
    )
    for title, modules in _GROUPS.items():
        for command in modules:
            command.add(commands)
        names = [command.__name__.rpartition("._")[2] for command in modules]
        parser.groups[title] = {name: commands.choices[name] for name in names}
    for name in _COMPILE:
        _add_cache(commands.choices[name])
    if any("\ud800" <= letter <= "\udfff" for letter in "".join(words)):
        parser.error("the arguments must be UTF-8.")
    parsed, rest = parser.parse_known_args(words)
    if rest:
        commands.choices.get(parsed.name, parser).refuse(rest)
    return parsed


def _add_cache(parser: argparse.ArgumentParser) -> None:
    """Adds the option of commands that compile."""
    parser.add_argument(
        "--no-cache",
        dest="cache",
        action="store_false",
        help="do not keep compiled programs for the next command; they are in "
        "~/.cache/jaxinit, or in jaxinit within XDG_CACHE_HOME",
    )


def _read_version() -> str:
    from importlib import metadata

    return f"jaxinit {metadata.version('jaxinit')}"
