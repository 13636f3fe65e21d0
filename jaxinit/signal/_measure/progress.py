"""What a check is doing, told to whoever waits for it at a terminal or a notebook."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

_PATIENCE = 2.0  # seconds before anything is said
_PERIOD = 1.0  # seconds between two counts
_speaking = threading.Lock()  # one line has room for one check


@contextlib.contextmanager
def telling(call: str) -> Iterator[Callable[[str], None]]:
    """Tells what goes on in a call that takes longer than two seconds.

    The line is on standard error, and is wiped at the end. Where nobody looks (no
    terminal and no notebook), and in all but the first of several threads, it is quiet.

    Args:
      call: what was called.

    Yields:
      A function that takes what is being done now.
    """
    stream = sys.stderr
    if not _watched(stream) or not _speaking.acquire(blocking=False):
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


def _watched(stream: Any) -> bool:
    """Returns whether somebody sees what a stream is given."""
    if getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)() is not None:
        return True  # a notebook, or a terminal of IPython
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):  # none, or closed
        return False


def _tick(stream: Any, call: str, now: list[str], over: threading.Event) -> None:
    """Writes a line again and again, and wipes it at the end."""
    start, written = time.monotonic(), 0
    wait = _PATIENCE
    with contextlib.suppress(OSError, ValueError):  # whoever looked has gone
        while not over.wait(wait):
            line = f"{call}: {now[0]} ({time.monotonic() - start:.0f} s)"
            stream.write("\r" + line.ljust(written))
            stream.flush()
            written, wait = len(line), _PERIOD
        if written:
            stream.write("\r" + " " * written + "\r")
            stream.flush()
