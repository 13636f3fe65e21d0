"""A lock on a directory, so that one run at a time writes there."""

import contextlib
import os
from pathlib import Path
from typing import Any


class Lock:
    """A lock that is held until it is closed, or its process ends in whatever way.

    The kernel locks the directory itself, so that no file can outlive the run. Where
    the system or a network file system has no such locks, nothing is locked.
    """

    def __init__(self, directory: Path):
        """Takes the lock.

        Raises:
          BlockingIOError: if another run holds it.
        """
        self._descriptor: int | None = None
        with contextlib.suppress(ImportError):
            import fcntl

            self._take(directory, fcntl)

    def _take(self, directory: Path, fcntl: Any) -> None:
        try:
            descriptor = os.open(directory, os.O_RDONLY)
        except OSError:  # the first file written there reports why
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if isinstance(error, BlockingIOError):
                raise
        else:
            self._descriptor = descriptor

    def close(self) -> None:
        """Releases the lock."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
