"""Weights that are given, loaded or trained, in place of those that would be drawn."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxinit import _check as check
from jaxinit import _paths, _placement
from jaxinit._adapt.functions import Model
from jaxinit.model import jit_init

_HOW = "Pass what model.init(key, x) returns, or its parameters, or the model itself."


def fix_weights(model: Model, given: Any, key: jax.Array) -> Model:
    """Returns the model with given weights: every key makes these.

    Args:
      model: the model.
      given: a tree that has all parameters, by their paths; what else the model stores
        is taken from it too, or drawn if it is not there.
      key: the key of what is drawn.

    Raises:
      Unfit: if a parameter is not there, or has other sizes.
    """
    values = dict(_paths.named(given))
    params, rest = jax.eval_shape(model.init, key)
    # A tree of Linen may have the collection of its parameters around their paths.
    plain = {path for path, _ in _paths.named(params)} <= values.keys()
    fixed = _fill(params, given, values, prefix="" if plain else "params/")
    others = {path for path, _ in _paths.named(rest)}
    if not others <= values.keys():
        rest = jit_init(model.init)(key)[1]
        values = dict(_paths.named(rest)) | values
    stored = fixed, _fill(rest, given, values)
    return Model(lambda key: stored, model.apply, model.framework)


def _fill(tree: Any, given: Any, values: Mapping[str, Any], prefix: str = "") -> Any:
    """Returns a tree with the values of its paths."""
    filled = []
    for path, leaf in _paths.named(tree):
        value = values.get(prefix + path, values.get(path))
        shown = _paths.shown(path)
        if value is None or not hasattr(value, "dtype"):
            near = ", ".join(list(values)[:3]) or "none"
            rule = f"has no array {shown}. Its paths are such as {near}. {_HOW}"
            raise check.Unfit(rule, params=given)
        if tuple(value.shape) != tuple(leaf.shape):
            rule = f"has {shown} of sizes {tuple(value.shape)}, and the model's are "
            raise check.Unfit(f"{rule}{tuple(leaf.shape)}.", params=given)
        floating = jnp.issubdtype(leaf.dtype, jnp.inexact)
        if floating and not jnp.issubdtype(value.dtype, jnp.inexact):
            rule = f"has {shown} of {value.dtype}, and the model's are {leaf.dtype}. "
            raise check.Unfit(f"{rule}Pass them as floats.", params=given)
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        filled.append(value if is_key else _placement.untyped(jnp.asarray(value)))
    return jax.tree.unflatten(jax.tree.structure(tree), filled)
