"""Batches by step, from whatever holds them."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from jaxinit import _check as check


def read_batches(batches: Any) -> Callable[[int], Any]:
    """Returns a function that makes the batch of a step.

    A function stays one; of a list, batches take turns; an iterator or another
    iterable is read on at each step, from its beginning again after its end; all else,
    such as a tuple or a mapping of arrays, is one batch.

    Raises:
      Unfit: when called, if an iterator has no further batch.
    """
    if callable(batches):
        return batches  # type: ignore[no-any-return]
    if isinstance(batches, list):
        if not batches:
            raise check.Unfit("batches must hold a batch.", batches=batches)
        return lambda step: batches[step % len(batches)]
    is_batch = isinstance(batches, (tuple, Mapping)) or hasattr(batches, "shape")
    if not is_batch and isinstance(batches, Iterable):
        return _Turns(batches)
    return lambda step: batches


class _Turns:
    """Reads an iterable on, and once more from its beginning where that is possible.

    A call that resumes another begins at a later step: it reads past the batches before
    it, unless it is given an iterator, which knows its place itself.
    """

    def __init__(self, batches: Any):
        self._batches = batches
        self._ahead: Iterator[Any] = iter(batches)
        self._begins = self._ahead is not batches

    def __call__(self, step: int) -> Any:
        before = step if self._begins else 0
        self._begins = False
        for number in range(step - before, step):
            self._read(number)
        return self._read(step)

    def _read(self, step: int) -> Any:
        for _ in range(2):
            try:
                return next(self._ahead)
            except StopIteration:
                self._ahead = iter(self._batches)
        rule = f"there is no batch for step {step}. Pass more of them, fewer steps, or "
        raise check.Unfit(
            rule + "a list, whose batches take turns.", batches=self._batches
        )
