"""``--json`` of every command: prints the numbers, or writes them to a file."""

import errno
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

from jaxinit._initializer import REGISTRY
from jaxinit.cli._terminal import BadInput, check_writable, parse_path, write

PRINTED = "-"
_FILE = re.compile(r"-|[^:(]*[./][^:(]*")  # neither a model nor an initializer


def add_json(option: Callable[..., Any], what: str) -> None:
    """Adds the option; ``options.json`` is then None, "-" or a path."""
    option(
        "--json",
        nargs="?",
        const=PRINTED,
        type=_read_file,
        metavar="FILE",
        help=f"print {what} as JSON instead of the table; with a FILE, such as "
        "numbers.json, write it there beside the table",
    )


def _read_file(word: str) -> Path | str:
    return PRINTED if word == PRINTED else parse_path(word)


def tell_files(words: Sequence[str]) -> list[str]:
    """Closes a ``--json`` that no file follows, but a model or an initializer."""
    after = [*words, "--"][1:]
    return [
        f"{word}={PRINTED}" if word == "--json" and not _is_next(follower) else word
        for word, follower in zip(words, after, strict=True)
    ]


def _is_next(word: str) -> bool:
    """Returns whether a word behind --json is its file, or the next option."""
    if not word or word.startswith("--"):  # argparse refuses an empty name
        return True
    return bool(_FILE.fullmatch(word)) and word not in REGISTRY


def check_json(file: Path | str | None) -> None:
    """Checks before time is spent that the file can be written."""
    if isinstance(file, Path):
        if file.is_dir():
            raise BadInput(f"cannot write {file}: {os.strerror(errno.EISDIR)}.")
        check_writable(file.parent)


def write_json(file: Path | str | None, text: str, note: TextIO | None = None) -> None:
    """Prints the text or writes the file, where one is asked for, and says so."""
    if file == PRINTED:
        print(text)
    elif isinstance(file, Path):
        write(file, text + "\n")
        print(f"Written to {file}", file=note)
