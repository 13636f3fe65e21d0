"""Checks the arguments of `reinit`, `preview` and `describe`, before any work."""

import inspect
from collections.abc import Iterable, Mapping, Set
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit import _check as check
from jaxinit._initializer import Initializer
from jaxinit.model._rules.patterns import is_pattern

_WIDEST = 8  # bytes of a real number that JAX knows; NumPy's long double has more
_HOW = 'Pass what model.init(key, x) returns, or nnx.state(model), or {"w": array}.'


def checked_key(call: str, key: Any, params: Any) -> jax.Array:
    """Returns one PRNG key, which must stand before the parameters."""
    if is_key(params) and not is_key(key):
        raise TypeError(
            f"{call}(key=..., params=...): the key stands before the parameters, and "
            f"here it stands behind them. Write {call}(key, params, rules)."
        )
    try:
        return check.key(key)
    except check.Unfit as error:
        raise error.at(call) from None


def is_key(leaf: Any) -> bool:
    """Returns whether this is a typed PRNG key, or an array of them."""
    return isinstance(leaf, jax.Array) and jnp.issubdtype(
        leaf.dtype, jax.dtypes.prng_key
    )


def listed(call: str, rules: Any) -> list[Any]:
    """Returns rules as a list; the single rules are checked later."""
    pair = isinstance(rules, tuple) and len(rules) == 2 and is_pattern(rules[0])
    ordered = isinstance(rules, Iterable) and not isinstance(rules, (str, Mapping, Set))
    if not ordered or pair or isinstance(rules, (np.ndarray, jax.Array)):
        raise TypeError(
            f"{call}(rules={check.show(rules)}): rules must be a list of pairs "
            f"(pattern, what). {_cure(rules, pair)}"
        )
    if not (pairs := list(rules)):
        raise ValueError(f"{call}(rules=...): there is no rule.")
    return pairs


def _cure(rules: Any, pair: bool) -> str:
    """Returns what to write instead of rules that are not a list of pairs."""
    if pair:
        return "Put the pair into a list."
    if isinstance(rules, (str, Initializer)):
        what = rules if isinstance(rules, Initializer) else check.show(rules)
        return f'For all kernels write [("kernel", {what})].'
    if hasattr(rules, "registered"):
        return f'For all kernels write [("kernel", {rules.registered}())].'
    if inspect.isfunction(rules):
        room = "recipes." if ".recipes." in rules.__module__ else ""
        return f"If this function makes a recipe, call it: {room}{rules.__name__}()."
    if any(is_array(leaf) for leaf in jax.tree.leaves(rules)):
        return "Parameters stand before the rules."
    if isinstance(rules, Mapping) and rules:
        return "Write list(rules.items())."
    return 'Write [("kernel", jaxinit.he_normal())], or pass a recipe.'


def check_strict(call: str, strict: Any) -> None:
    """Checks that strict is True, False or None."""
    try:
        if strict is not None:
            check.boolean(strict=strict)
    except check.Unfit as error:
        raise error.at(call) from None


def no_array(call: str, params: Any, cure: str = _HOW) -> Exception:
    """Returns the error for a tree without an array to draw or measure."""
    leaves = jax.tree.leaves(params)
    kinds = ", ".join(sorted({_kind(leaf) for leaf in leaves})[:3])
    if not leaves:
        came = f"{check.show(params)} has no leaves"
    else:
        came = f"{'What came is' if leaves[0] is params else 'Its leaves are'} {kinds}"
    return ValueError(
        f"{call}(params=...): there is no array in the tree that could be a parameter. "
        f"{came}. {cure}"
    )


def _kind(leaf: Any) -> str:
    if isinstance(leaf, type):
        return f"the class {leaf.__name__}"
    if is_key(leaf):
        return "a PRNG key"
    if isinstance(leaf, (jax.Array, np.ndarray, np.generic)):
        return f"{leaf.dtype} array"
    return type(leaf).__name__


def is_array(leaf: Any) -> bool:
    """Returns whether a leaf is an array of numbers, or stands for one by its shape.

    Types have a dtype too (`jnp.float32`), and so have tensors of other libraries.
    """
    dtype, shape = getattr(leaf, "dtype", None), getattr(leaf, "shape", None)
    if not isinstance(dtype, np.dtype) or not isinstance(shape, tuple):
        return False
    numeric = jnp.issubdtype(dtype, np.number) or dtype == np.bool_
    return numeric and dtype.itemsize <= _WIDEST * (1 + (dtype.kind == "c"))


def is_parameter(leaf: Any) -> bool:
    """Returns whether a leaf is an array of floats, or stands for one."""
    return is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.inexact)
