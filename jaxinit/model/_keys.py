"""Keys derived on the host, where that is simple: each spares a compilation.

An init function folds numbers into keys, splits them, and takes arrays of keys apart.
JAX compiles each of these for every shape; of Threefry they are a few operations on
integers, which NumPy does to the same words.
"""

from typing import Any

import jax
import numpy as np
from jax.extend import core

from jaxinit.model._equation import bind, generator, is_key
from jaxinit.random import _threefry

_THREEFRY = "threefry2x32"


def derived(eqn: core.JaxprEqn, values: list[Any]) -> list[Any]:
    """Evaluates an equation before a key, of values on the default device."""
    types: list[Any] = [atom.aval for atom in (*eqn.invars[:1], *eqn.outvars)]
    made = None
    if is_key(types[0]) and generator(types[0].dtype) == _THREEFRY:
        made = _words(eqn, np.asarray(jax.random.key_data(values[0])), values[1:])
        if made is not None:
            return [jax.random.wrap_key_data(made, impl=_THREEFRY)]  # type: ignore[arg-type]
    elif all(t.dtype == np.uint32 for t in types):  # words of legacy keys
        made = _part(eqn, np.asarray(values[0])) if values else None
    return bind(eqn, values) if made is None else [jax.numpy.asarray(made)]


def _words(eqn: core.JaxprEqn, keys: np.ndarray, rest: list[Any]) -> np.ndarray | None:
    """Returns the words of the keys that an equation makes of others, [..., 2]."""
    match eqn.primitive.name:
        case "random_fold_in":
            return _threefry.fold_in(keys, np.asarray(rest[0]))
        case "random_split":
            with eqn.ctx.manager:
                by_index = jax.config.jax_threefry_partitionable  # type: ignore[attr-defined]
            return _threefry.split(keys, eqn.params["shape"], by_index)
    return _part(eqn, keys)


def _part(eqn: core.JaxprEqn, array: np.ndarray) -> np.ndarray | None:
    """Returns what an equation takes out of an array; None if it does anything else."""
    match eqn.primitive.name:
        case "slice":
            names = ("start_indices", "limit_indices", "strides")
            starts, limits, steps = (eqn.params[name] for name in names)
            steps = steps or [None] * len(starts)
            return array[tuple(map(slice, starts, limits, steps))]
        case "squeeze":
            return array.squeeze(eqn.params["dimensions"])
    return None
