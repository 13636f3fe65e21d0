"""What every command needs: a parser, a console, and errors of one line."""

import argparse
import contextlib
import errno
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import jax
import jax.numpy as jnp

FULL = (errno.ENOSPC, errno.EDQUOT)  # what a full disk raises
MOST = 2**28  # entries of an array that a command draws
_PIPED_WIDTH = 160  # columns of a table that no terminal limits


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


class BadInput(Exception):
    """What a user gave cannot be used; the message is the one line to print."""


def cannot_write(error: OSError) -> str:
    """Returns what a full disk is answered with."""
    where = f" {error.filename}" if error.filename else ""
    return f"cannot write{where}: {error.strerror}."


@contextlib.contextmanager
def silenced(logger: str) -> Iterator[None]:
    """Keeps a logger still that reports what it raises as well."""
    found = logging.getLogger(logger)
    before = found.level
    found.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        found.setLevel(before)


@contextlib.contextmanager
def one_line_warnings() -> Iterator[None]:
    """Prints warnings as the command's own lines, without the code that they are of."""
    before = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"jaxinit: {message}\n"
    try:
        yield
    finally:
        warnings.formatwarning = before


@contextlib.contextmanager
def wide(needed: bool) -> Iterator[None]:
    """Switches JAX's 64-bit types on where they are needed, for all threads."""
    if not needed or jnp.result_type(float) == jnp.float64:
        yield
        return
    jax.config.update("jax_enable_x64", True)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", False)


def checked(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Calls a function whose ValueError and TypeError speak of what the user gave."""
    try:
        return function(*args, **kwargs)
    except (ValueError, TypeError) as error:
        raise BadInput(str(error)) from error


def importable() -> None:
    """Lets modules of the working directory be imported, as ``python -m`` does."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())


def console() -> Any:
    """Returns a console of rich."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH)


def key_of(seed: int) -> jax.Array:
    """Returns the key of ``--seed``."""
    if not 0 <= seed < 2**32:
        raise BadInput("--seed must lie between 0 and 2**32 - 1.")
    return jax.random.key(seed)


def writable(directory: Path, make: bool = False) -> None:
    """Checks that a file can be written to a directory, which may be made first."""
    try:
        if make:
            directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise BadInput(f"cannot write to {directory}: {error.strerror}.") from error
