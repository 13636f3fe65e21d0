"""A step of an optimizer, of optax or as optax has them, for any model.

Leaves that are not floats have no gradient and stay as they are.
"""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxinit.signal._measure.statistics import is_float


def move(
    optimizer: Any,
    slopes: Any,
    kept: Any,
    trained: Any,
    loss: jax.Array,
    value_fn: Callable[[Any], jax.Array],
) -> tuple[Any, Any]:
    """Takes a step.

    Args:
      optimizer: a pair (init, update).
      slopes: the gradient, as JAX computes it.
      kept: what the optimizer keeps.
      trained: the parameters, those of `pick_trained`.
      loss: the loss there.
      value_fn: computes the loss elsewhere, for optimizers that search.

    Returns:
      The parameters behind the step, and what the optimizer keeps then.
    """
    # JAX's gradient of a complex number is the conjugate of the way up.
    slopes = jax.tree.map(jnp.conj, slopes)
    reads = inspect.signature(optimizer.update).parameters.values()
    extra: dict[str, Any] = {}
    if any(each.kind is each.VAR_KEYWORD for each in reads):
        extra = {"value": loss, "grad": slopes, "value_fn": value_fn}
    with jax.numpy_dtype_promotion("standard"):  # optax mixes dtypes
        updates, kept = optimizer.update(slopes, kept, trained, **extra)
    return _add(trained, updates), kept


def pick_trained(params: Any) -> Any:
    """Returns the parameters that have a gradient, with None in place of others."""
    return jax.tree.map(lambda leaf: leaf if is_float(leaf.dtype) else None, params)


def put_trained(params: Any, trained: Any) -> Any:
    """Returns parameters with others in place of those that have a gradient."""
    new = iter(jax.tree.leaves(trained))
    return jax.tree.map(lambda x: next(new) if is_float(x.dtype) else x, params)


def _add(trained: Any, updates: Any) -> Any:
    def add(leaf: Any, update: Any) -> Any:
        if leaf is None or update is None:
            return leaf
        return jnp.asarray(leaf + update, leaf.dtype)

    return jax.tree.map(add, trained, updates, is_leaf=lambda leaf: leaf is None)
