"""Threads: the one pool of all that runs side by side.

What one thread calls JAX runs one after another, and most of a program that loops runs
on one core; so on a CPU each core gets a thread, which waits for its results itself.

Settings of JAX that are made by `with` hold in the thread that makes them: a program is
traced and lowered by the thread of the caller, and a pool only compiles it, or calls
what is compiled. A call that needs a setting makes it there.
"""

import functools
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax


def open_pool(workers: int | None = None) -> ThreadPoolExecutor:
    """Opens a pool of so many threads, by default one for each core."""
    return ThreadPoolExecutor(os.cpu_count() if workers is None else workers)


def map_on_threads(
    function: Callable[..., Any], *items: Iterable[Any], workers: int | None = None
) -> list[Any]:
    """Applies a function as `map` does, on the threads of a pool of its own.

    Args:
      function: is called with an item of each iterable.
      *items: the iterables.
      workers: as for `open_pool`.

    Returns:
      What the calls return, in the order of the items.

    Raises:
      Exception: what the first of the calls raises that fails, once no call runs.
    """
    with open_pool(workers) as pool:
        return list(pool.map(functools.partial(call_plainly, function), *items))


def call_plainly(function: Callable[..., Any], *args: Any) -> Any:
    """Calls a function on a thread, where it may call what is compiled.

    That cannot be called where `jax.disable_jit` holds, as it may for all threads
    although the caller has switched it off for itself.
    """
    with jax.disable_jit(False):
        return function(*args)
