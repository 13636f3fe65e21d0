"""What the process keeps: a program that was compiled before compiles nothing."""

import collections
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Executor, Future
from typing import Any

import jax

from jaxinit._caches import cleared_by

MOST = 32  # of a model: its draw, layers, pass and the products with its Jacobian
_kept: collections.OrderedDict[Hashable, Any] = collections.OrderedDict()
_lock = threading.Lock()


def keep(token: Hashable, make: Callable[[], Any]) -> Any:
    """Returns what was made for a token, or makes it and drops what is oldest."""
    with _lock:
        if token in _kept:
            _kept.move_to_end(token)
            return _kept[token]
    value = make()
    with _lock:
        _kept[token] = value
        while len(_kept) > MOST:
            _kept.popitem(last=False)
    return value


@cleared_by
def forget() -> None:
    """Drops all that is kept; JAX lets no library know that its caches are cleared."""
    with _lock:
        _kept.clear()


def compile_once(
    pool: Executor, function: Callable[..., Any], about: Hashable, *args: Any
) -> Future[Any]:
    """Traces and compiles a function, unless an equal one was compiled before.

    Args:
      pool: where it is compiled.
      function: the function.
      about: what it computes, by its name and the types of its arguments: such as the
        spelling of the program that it differentiates.
      *args: the arguments, or their types.

    Returns:
      The compiled program, once it is there; any thread may call it.
    """
    leaves, tree = jax.tree.flatten(args)
    types = tuple(
        (x.shape, x.dtype, getattr(x, "weak_type", False), getattr(x, "sharding", None))
        for x in leaves
    )
    token = function.__name__, about, tree, types, read_settings()

    def drop_failure(job: Future[Any]) -> None:
        if job.cancelled() or job.exception():
            with _lock:
                _kept.pop(token, None)

    def start() -> Future[Any]:
        return pool.submit(jax.jit(function).lower(*args).compile)

    compiled: Future[Any] = keep(token, start)
    compiled.add_done_callback(drop_failure)
    return compiled


def read_settings() -> tuple[str, ...]:
    """Reads all settings of JAX: any may change what is traced, or how it compiles."""
    names = sorted(jax.config.values)
    # Those that hold for a thread are attributes; the others are read by name.
    return tuple(str(getattr(jax.config, n, jax.config.values[n])) for n in names)


def call(compiled: Future[Any], *args: Any) -> Any:
    """Calls what `compile_once` returns; where devices share the work, as it asks."""
    program = compiled.result()
    arrays = (leaf for leaf in jax.tree.leaves(args) if isinstance(leaf, jax.Array))
    if any(len(array.sharding.device_set) > 1 for array in arrays):
        args = jax.device_put(args, program.input_shardings[0])
    return program(*args)
