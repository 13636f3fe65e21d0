"""Ctrl-C while a program of JAX runs."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

from jaxinit.lab import processes


class Agreed(KeyboardInterrupt):
    """An interrupt that every process knows of."""


@contextlib.contextmanager
def held() -> Iterator[Callable[[], None]]:
    """Holds the first Ctrl-C back until it is asked for; a second one interrupts.

    The interpreter drops an exception that is raised in a callback (JAX has one of the
    garbage collector, and orbax runs an event loop), and a module whose import it cuts
    short cannot be imported again. Only the main thread is ever interrupted.

    Yields:
      A function that raises `Agreed` if Ctrl-C was pressed, in this process or another
      of `jax.distributed`; all must call it.
    """
    pressed = False

    def press(*_: object) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    def ask() -> None:
        if not processes.least(not pressed):
            raise Agreed

    before = signal.getsignal(signal.SIGINT)
    main = threading.current_thread() is threading.main_thread()
    if not main or before is not signal.default_int_handler:  # not ours to change
        yield ask
        return
    signal.signal(signal.SIGINT, press)
    try:
        yield ask
    finally:
        signal.signal(signal.SIGINT, before)
