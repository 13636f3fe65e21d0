"""Writes files as a whole or not at all, and reads regular files only."""

import contextlib
import os
import stat
from pathlib import Path
from typing import BinaryIO

_MOST = 2**28  # bytes: no file that a run writes and reads again is longer


def open_file(path: str | Path) -> BinaryIO:
    """Opens a regular file for reading; pipes and devices, which may never end, fail.

    Raises:
      OSError: if the file cannot be opened, or is not a regular file.
    """
    try:
        mode = os.stat(path).st_mode
    except ValueError as error:  # Python's answer to a null character in a name
        raise OSError(None, str(error)) from None
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # open refuses directories
        raise OSError(None, "it is a pipe or a device, and no file")
    return open(path, "rb")


def read_bytes(path: Path) -> bytes:
    """Reads a file that a run has written.

    Raises:
      OSError: if it cannot be read, is not a regular file, or is longer than any that a
        run writes.
    """
    with open_file(path) as stream:
        content = stream.read(_MOST + 1)
    if len(content) > _MOST:
        raise OSError(None, "it is too long")
    return content


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file; after a failure or a kill the old content is still there."""
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
