"""Files that are there as a whole or not at all."""

import contextlib
import os
from pathlib import Path


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
