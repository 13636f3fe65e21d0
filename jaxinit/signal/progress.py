"""Reports the progress of a call to a user who waits at a terminal or a notebook."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

_PATIENCE = 2.0  # seconds before the line appears
_PERIOD = 1.0  # seconds between two updates
_speaking = threading.Lock()  # one line has room for one call


@contextlib.contextmanager
def report_progress(call: str) -> Iterator[Callable[[str], None]]:
    """Reports the progress of a call that takes longer than two seconds.

    The line is on standard error, and is wiped at the end. Without a terminal or a
    notebook, and in all but the first of several threads, nothing is written.

    Args:
      call: the name of the function that was called.

    Yields:
      A function that takes the name of the present step.
    """
    stream = sys.stderr
    if not _is_watched(stream) or not _speaking.acquire(blocking=False):
        yield lambda what: None
        return
    now, over = [""], threading.Event()
    ticker = threading.Thread(target=_tick, args=(stream, call, now, over), daemon=True)
    ticker.start()

    def say(what: str) -> None:
        now[0] = what

    try:
        yield say
    finally:
        over.set()
        ticker.join()
        _speaking.release()


def _is_watched(stream: Any) -> bool:
    """Returns whether a stream is shown to a user."""
    if getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)() is not None:
        return True  # a notebook, or a terminal of IPython
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):  # there is no stream, or it is closed
        return False


def _tick(stream: Any, call: str, now: list[str], over: threading.Event) -> None:
    """Writes the line every second, and wipes it at the end."""
    start, written = time.monotonic(), 0
    wait = _PATIENCE
    with contextlib.suppress(OSError, ValueError):  # the terminal is gone
        while not over.wait(wait):
            line = f"{call}: {now[0]} ({time.monotonic() - start:.0f} s)"
            stream.write("\r" + line.ljust(written))
            stream.flush()
            written, wait = len(line), _PERIOD
        if written:
            stream.write("\r" + " " * written + "\r")
            stream.flush()
