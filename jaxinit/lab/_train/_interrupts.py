"""Ctrl-C while JAX runs a program."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

import jax

from jaxinit._watch import watch
from jaxinit.lab._train import processes

_PROMISE = "stopping after this block… Ctrl-C again ends at once."


class Agreed(KeyboardInterrupt):
    """An interrupt that every process knows about."""


@contextlib.contextmanager
def defer() -> Iterator[Callable[[], None]]:
    """Defers the first Ctrl-C until the run asks for it; a second one interrupts.

    An exception at any moment would do harm: Python drops one that is raised in a
    callback (JAX has a callback of the garbage collector, and orbax runs an event
    loop), and a module whose import is cut short cannot be imported again. Python
    interrupts only the main thread.

    On the command line a thread answers Ctrl-C. There it is deferred from the first
    time on that the run asks: before the first block has ended there is nothing to
    keep.

    Yields:
      A function that raises `Agreed` if Ctrl-C was pressed, in this process or another
      of `jax.distributed`; all must call it.
    """
    if watch.on:
        with _defer_by_thread() as ask:
            yield ask
        return
    pressed = False

    def press(*_: object) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    before = signal.getsignal(signal.SIGINT)
    main = threading.current_thread() is threading.main_thread()
    if not main or before is not signal.default_int_handler:  # not ours to change
        yield lambda: _agree(pressed)
        return
    signal.signal(signal.SIGINT, press)
    try:
        yield lambda: _agree(pressed)
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _defer_by_thread() -> Iterator[Callable[[], None]]:
    def ask() -> None:
        watch.hold(_PROMISE)
        _agree(watch.pressed)

    if jax.process_count() > 1:  # the others would wait for this one in vain
        watch.hold(_PROMISE)
    try:
        yield ask
    finally:
        watch.release()


def _agree(pressed: bool) -> None:
    """Raises if Ctrl-C was pressed in any of the processes."""
    if not processes.take_least(not pressed):
        raise Agreed
