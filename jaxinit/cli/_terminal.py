"""What every command needs: a console, files, and errors in one line."""

import argparse
import contextlib
import errno
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxinit._check import show
from jaxinit._table import Table

FULL = (errno.ENOSPC, errno.EDQUOT)  # what a full disk raises
MOST = 2**28  # entries of an array that a command draws
_PIPED_WIDTH = 160  # columns of a table that no terminal limits
_LONGEST = 1000  # characters of a line that says what is wrong


def one_line(text: str) -> str:
    """Returns a text in one line, whatever the names in it contain."""
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 3]}..."


def parse_path(word: str) -> Path:
    """Reads the path of an option."""
    try:
        return read_path(word)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def read_path(word: str) -> Path:
    """Reads the path of a file or directory, which need not exist."""
    try:
        if not word:
            raise ValueError("it is empty")
        os.lstat(word.encode())
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass  # reported when it is opened
    except (ValueError, OSError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"{show(word)} is no path: {said}.") from None
    return Path(word)


class BadInput(Exception):
    """The user's input cannot be used; the message is the one line to print."""


def cannot_write(error: OSError) -> str:
    """Returns the message about a file that cannot be written."""
    where = f" {error.filename}" if error.filename else ""
    return f"cannot write{where}: {error.strerror}."


@contextlib.contextmanager
def silence(logger: str) -> Iterator[None]:
    """Silences a logger that reports errors which are raised as well."""
    chosen = logging.getLogger(logger)
    before = chosen.level
    chosen.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        chosen.setLevel(before)


@contextlib.contextmanager
def shorten_warnings() -> Iterator[None]:
    """Prints warnings as lines of the command, without the code that caused them."""
    before = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"jaxinit: {message}\n"
    try:
        yield
    finally:
        warnings.formatwarning = before


@contextlib.contextmanager
def enable_types(needed: bool) -> Iterator[None]:
    """Switches JAX's 64-bit types on where they are needed, for all threads."""
    if not needed or jnp.result_type(float) == jnp.float64:
        yield
        return
    jax.config.update("jax_enable_x64", True)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", False)


def try_call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Calls a function; its ValueError or TypeError becomes `BadInput`."""
    try:
        return function(*args, **kwargs)
    except (ValueError, TypeError) as error:
        raise BadInput(str(error)) from error


def allow_imports() -> None:
    """Lets modules of the working directory be imported, as ``python -m`` does."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())


def write(path: Path, text: str) -> None:
    """Writes a file that the user named."""
    try:
        path.write_text(text)
    except OSError as error:
        raise BadInput(f"cannot write {error.filename}: {error.strerror}.") from error
    except ValueError as error:  # a null byte in the name
        raise BadInput(f"cannot write {show(str(path))}: {error}.") from error


def console() -> Any:
    """Returns a console of rich."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else _PIPED_WIDTH
    # Text is text: specs and names have brackets and colons of their own.
    return Console(width=width, markup=False, emoji=False)


def print_table(table: Table) -> None:
    """Prints a table and its notes in the width of the console."""
    screen = console()
    fitting = table.fit(screen.width)
    screen.print(fitting.show(screen.width))
    for note in ("", *(text for text, _ in fitting.notes)) if fitting.notes else ():
        screen.print(note, highlight=False)


def make_key(seed: int) -> jax.Array:
    """Returns the key of ``--seed``."""
    if not 0 <= seed < 2**32:
        raise BadInput("--seed must lie between 0 and 2**32 - 1.")
    return jax.random.key(seed)


def check_writable(directory: Path, make: bool = False) -> None:
    """Checks that a file can be written to a directory, created first if ``make``."""
    try:
        if make:
            directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise BadInput(f"cannot write to {directory}: {error.strerror}.") from error


def check_makable(directory: Path) -> None:
    """Checks that a directory can be written to, or created."""
    check_writable(next(p for p in (directory, *directory.parents) if p.exists()))


def check_target(option: str, file: Path, kinds: Sequence[str]) -> None:
    """Checks before time is spent that a file of one of these kinds can be written."""
    if file.suffix.lower() not in kinds:
        raise BadInput(f"{option} {file}: the file must end in {', '.join(kinds)}.")
    if file.is_dir():
        raise BadInput(f"cannot write {file}: {os.strerror(errno.EISDIR)}.")
    check_writable(file.parent)


def write_whole(file: Path, data: bytes) -> None:
    """Writes a file as a whole or, if the disk is full or Ctrl-C comes, not at all."""
    partial = file.with_name(f".{file.name}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(file)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise BadInput(f"cannot write {file}: {error.strerror}.") from error
