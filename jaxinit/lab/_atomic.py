"""Files that are there as a whole or not at all, and files that have an end."""

import contextlib
import os
import stat
from pathlib import Path
from typing import BinaryIO

_MOST = 2**28  # bytes of a file of ours that is read


def open_file(path: str | Path) -> BinaryIO:
    """Opens a file for reading, but no pipe and no device, which may have no end.

    Raises:
      OSError: if it cannot be opened, or is no file.
    """
    try:
        mode = os.stat(path).st_mode
    except ValueError as error:  # how Python answers to a name with a null in it
        raise OSError(None, str(error)) from None
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # open refuses directories
        raise OSError(None, "it is a pipe or a device, and no file")
    return open(path, "rb")


def read_bytes(path: Path) -> bytes:
    """Reads a file that a run has written.

    Raises:
      OSError: if it cannot be read, or is no file of ours by its kind or length.
    """
    with open_file(path) as stream:
        found = stream.read(_MOST + 1)
    if len(found) > _MOST:
        raise OSError(None, "it is too long")
    return found


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file; a failure or a kill on the way leaves what was there before."""
    # In the same directory: a rename is atomic within one file system only. The name is
    # the same every time, so that the next write clears what a kill has left.
    partial = path.with_name(f".{path.name}.partial")
    try:
        with open(partial, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())  # else a crash could keep the name without data
        os.replace(partial, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        if isinstance(error, OSError):
            error.filename = error.filename or str(path)  # a full disk names no file
        raise
