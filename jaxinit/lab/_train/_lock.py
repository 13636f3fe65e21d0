"""A lock on a directory, so that one run at a time writes there."""

import contextlib
import os
from pathlib import Path
from typing import Any


class Lock:
    """Is held until it is closed, or until its process ends, however that ends.

    It is the kernel's, on the directory itself: no file is left that could outlive the
    run. Where a system or a network's file system has no such locks, nothing is locked.
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
        except OSError:  # whoever writes there will say why
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
        """Lets others in."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
