"""Ctrl-C in the command line: a thread answers it, whatever the main thread is doing.

Python makes Ctrl-C an exception of the main thread, wherever that is: in an import, in
a callback that drops it (https://github.com/jax-ml/jax/issues/18246), or waiting for
XLA. XLA compiles in a thread of JAX's client, which the exception does not stop: the
interpreter ends, frees the client under the thread's feet, and the process dies of a
segmentation fault. So the command raises nothing. Python's C handler writes each Ctrl-C
to a pipe; a thread that reads it prints a line and ends the process, tearing nothing
down. Only while training has something to save does the first Ctrl-C wait.

`jaxinit` imports this module before all others, for JAX takes a second to import.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

CODE = 130  # as shells report a process that Ctrl-C has ended
NO_RESULT = "interrupted before there was a result."


class Watch:
    """The handling of Ctrl-C in this process.

    Attributes:
      on: whether a thread answers.
      pressed: whether a Ctrl-C was answered with a promise to stop.
    """

    def __init__(self) -> None:
        """Leaves Ctrl-C to Python."""
        self.on = False
        self.pressed = False
        self._last_line = NO_RESULT
        self._promise: str | None = None
        self._close: Callable[[], None] | None = None
        self._changing = threading.Lock()

    def start(self) -> None:
        """Answers Ctrl-C from now on, unless it is ignored or has another handler."""
        main = threading.current_thread() is threading.main_thread()
        default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if not (main and default and hasattr(os, "set_blocking")):
            return
        self.on = True
        read, write = os.pipe()
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        signal.signal(signal.SIGINT, _leave_to_the_thread)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_give_back)
        threading.Thread(target=self._answer, args=[read], daemon=True).start()

    def leaves_with(self, line: str) -> None:
        """Sets the line that is printed when Ctrl-C ends the process."""
        self._last_line = line

    def hold(self, promise: str) -> None:
        """Lets the next Ctrl-C print a promise and set `pressed`; a second one ends."""
        with self._changing:
            self._promise = promise

    def release(self) -> None:
        """Lets the next Ctrl-C end the process again."""
        with self._changing:
            self._promise = None

    @contextlib.contextmanager
    def closing(self, close: Callable[[], None]) -> Iterator[None]:
        """Calls a function before a line is printed, to clear the terminal for it."""
        self._close = close
        try:
            yield
        finally:
            self._close = None

    def _answer(self, pipe: int) -> None:
        while True:
            for number in os.read(pipe, 64):  # a byte for each signal that is handled
                if number == signal.SIGINT:
                    self._press()

    def _press(self) -> None:
        with self._changing:
            if self._promise is None or self.pressed:
                self._say(self._last_line)
                os._exit(CODE)
            self.pressed = True
            self._say(self._promise)

    def _say(self, line: str) -> None:
        # Past sys.stderr, whose lock the main thread may hold.
        with contextlib.suppress(Exception):
            if self._close is not None:
                self._close()
        with contextlib.suppress(OSError):
            os.write(2, f"jaxinit: {line}\n".encode(errors="replace"))


def _leave_to_the_thread(*_: Any) -> None:
    """Ignores a signal, which the pipe has already reported."""


def _give_back() -> None:
    """Lets a forked child, which has no thread, handle Ctrl-C as Python does."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _is_the_command() -> bool:
    """Returns whether this process was started as the command line."""
    words: list[str] = getattr(sys, "argv", None) or [""]
    if words[0] == "-m":  # while Python looks for the module that it is to run
        return sys.orig_argv[-len(words)] in ("jaxinit", "-mjaxinit")
    return os.path.splitext(os.path.basename(words[0]))[0] == "jaxinit"


watch = Watch()
if _is_the_command():
    watch.start()
