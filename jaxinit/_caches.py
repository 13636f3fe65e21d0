"""What the library keeps in a process, and how all of it is dropped."""

from collections.abc import Callable
from typing import TypeVar

_Clear = TypeVar("_Clear", bound=Callable[[], object])
_CLEARED: list[Callable[[], object]] = []


def cleared_by(clear: _Clear) -> _Clear:
    """Lets `clear_caches` call a function that drops what its module keeps."""
    _CLEARED.append(clear)
    return clear


def clear_caches() -> None:
    """Drops what jaxinit keeps in this process: programs of checks, draws and fills.

    They are bounded in number, and found again by what they do; results do not change.
    `jax.clear_caches` drops those of JAX, and cannot know of these.

    Example:
      >>> jax.clear_caches()
      >>> jaxinit.clear_caches()
    """
    for clear in _CLEARED:
        clear()
