"""What the process keeps: a program that was compiled before compiles nothing."""

import collections
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Executor, Future
from typing import Any

import jax

from jaxinit._jaxpr.spelling import spell_program

MOST = 24  # of a model: its draw, its pass and the products with its Jacobian
# What changes a program though its text stays.
_SETTINGS = ("default_device", "default_matmul_precision", "threefry_partitionable")
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


def forget() -> None:
    """Drops all that is kept, as `jax.clear_caches` drops what `jax.jit` keeps."""
    with _lock:
        _kept.clear()


def compile_once(pool: Executor, traced: Any, *args: Any) -> Future[Any]:
    """Compiles a traced function, unless an equal program was compiled before.

    Programs are equal if their equations and constants are, whatever function they were
    traced from.

    Args:
      pool: where it is compiled.
      traced: what ``jax.jit(function).trace(*args)`` returns.
      *args: the arguments, or their shapes.

    Returns:
      The compiled program, once it is there; any thread may call it.
    """
    places = tuple(getattr(leaf, "sharding", None) for leaf in jax.tree.leaves(args))
    trees = jax.tree.structure(args), jax.tree.structure(traced.out_info)
    settings = tuple(str(getattr(jax.config, f"jax_{name}")) for name in _SETTINGS)
    quickly = jax.config.read("jax_disable_most_optimizations")
    token = spell_program(traced.jaxpr), places, trees, settings, quickly

    def drop_failure(job: Future[Any]) -> None:
        if job.cancelled() or job.exception():
            with _lock:
                _kept.pop(token, None)

    compiled: Future[Any] = keep(token, lambda: pool.submit(traced.lower().compile))
    compiled.add_done_callback(drop_failure)
    return compiled


def call(compiled: Future[Any], *args: Any) -> Any:
    """Calls what `compile_once` returns; where devices share the work, as it asks."""
    program = compiled.result()
    arrays = (leaf for leaf in jax.tree.leaves(args) if isinstance(leaf, jax.Array))
    if any(len(array.sharding.device_set) > 1 for array in arrays):
        args = jax.device_put(args, program.input_shardings[0])
    return program(*args)
