"""Derives keys on the host, where that is simple: each saves a compilation.

An init function folds numbers into keys, splits them, and takes arrays of keys apart.
JAX compiles each of these for every shape; for Threefry they are a few operations on
integers, which NumPy computes from the same words.
"""

from typing import Any

import jax
import numpy as np
from jax.extend import core

from jaxinit._jaxpr.equation import bind, is_key, name_generator
from jaxinit.random import threefry

_THREEFRY = "threefry2x32"


def derived(eqn: core.JaxprEqn, values: list[Any]) -> list[Any]:
    """Evaluates an equation that leads to a key, from values on the default device.

    Threefry keys are passed and returned as their words, NumPy arrays, [..., 2].
    """
    made = _on_host(eqn, values)
    if made is not None:
        return [made]
    types = [atom.aval for atom in eqn.invars]
    return bind(eqn, list(map(whole, values, types)))


def whole(value: Any, aval: Any) -> Any:
    """Returns a value of a type as JAX has it: words become a key."""
    if not isinstance(value, (np.ndarray, np.generic)):
        return value
    if is_key(aval):
        return jax.random.wrap_key_data(value, impl=_THREEFRY)  # type: ignore[arg-type]
    return jax.numpy.asarray(value)


def _on_host(eqn: core.JaxprEqn, values: list[Any]) -> np.ndarray | None:
    """Evaluates an equation with NumPy; returns None if that is not simple."""
    types: list[Any] = [atom.aval for atom in (*eqn.invars[:1], *eqn.outvars)]
    if is_key(types[0]):
        if name_generator(types[0].dtype) != _THREEFRY:
            return None
        is_words = isinstance(values[0], np.ndarray)
        keys = values[0] if is_words else np.asarray(jax.random.key_data(values[0]))
        return _words(eqn, keys, values[1:])
    if not values or any(t.dtype != np.uint32 or t.weak_type for t in types):
        return None
    if eqn.primitive.name == "add":  # counts of keys, as Flax NNX has them
        return np.asarray(np.add(*map(np.asarray, values)))
    return _part(eqn, np.asarray(values[0]))  # the words of legacy keys


def _words(eqn: core.JaxprEqn, keys: np.ndarray, rest: list[Any]) -> np.ndarray | None:
    """Returns the words of the keys that an equation derives from others, [..., 2]."""
    match eqn.primitive.name:
        case "random_fold_in":
            return threefry.fold_in(keys, np.asarray(rest[0]))
        case "random_split":
            with eqn.ctx.manager:
                by_index = jax.config.jax_threefry_partitionable  # type: ignore[attr-defined]
            return threefry.split(keys, eqn.params["shape"], by_index)
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
