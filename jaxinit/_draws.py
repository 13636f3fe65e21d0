"""Draws that builders of several rooms are made of, with their moments and extents."""

import math
from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit import _check as check
from jaxinit import random
from jaxinit._axes import Connections
from jaxinit._extent import Extent, exactly, normal, of_values, symmetric
from jaxinit._fill import Independent
from jaxinit._initializer import Draw, Drawn, Moments, Spread, Stated

Mode = Literal["fan_in", "fan_out", "fan_avg", "fan_geo_avg"]
Distribution = Literal["truncated_normal", "normal", "uniform"]

# Standard deviation of a standard normal number truncated to [-2, 2]; JAX has the same.
TRUNCATED_STDDEV = 0.87962566103423978
_REACH = {"truncated_normal": 2 / TRUNCATED_STDDEV, "uniform": math.sqrt(3)}


# Below this mass float32 no longer resolves the law: its spacing near 1, where the
# distribution function is inverted, is 6e-8.
LEAST_MASS = 1e-5


def filled(value: Any, name: str = "value", exact: bool = False) -> Drawn:
    """Returns a draw that broadcasts an argument, a number or array, to the shape.

    If exact, the array must have that shape already.
    """
    try:
        array = np.asarray(value)
        numeric = jnp.issubdtype(array.dtype, np.number) or array.dtype == np.bool_
        if jnp.issubdtype(array.dtype, np.floating):  # some of these lack arithmetic
            array = array.astype(np.float64)
    except ValueError:  # rows of different lengths
        numeric = False
    if not numeric:
        rule = f"{name} must be a number or a regular array of numbers."
        raise check.Unfit(rule, TypeError, **{name: value})

    def fits(shape: tuple[int, ...]) -> None:
        if exact and array.shape != shape:
            rule = f"the array has shape {array.shape}."
            if array.ndim > 1 and array.T.shape == shape:
                rule += " Transpose it."
            raise check.Unfit(rule, shape=shape)
        try:
            fitting = np.broadcast_shapes(array.shape, shape) == shape
        except ValueError:
            fitting = False
        if not fitting:
            rule = f"{name} has shape {array.shape}, which does not broadcast to this "
            rule += "one."
            raise check.Unfit(rule, shape=shape)

    def fill(key: Any, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
        fits(shape)
        return jnp.broadcast_to(jnp.asarray(exactly(array, dtype, name)), shape)

    def moments(shape: tuple[int, ...]) -> Moments:
        fits(shape)
        wide = array.astype(complex if np.iscomplexobj(array) else float)
        with np.errstate(all="ignore"):  # some values may not be finite
            return Moments(wide.mean().item(), wide.var().item())

    spread = of_values(array)
    return fill, moments, lambda shape: spread


def tabulated(
    values: Callable[[tuple[int, ...]], np.ndarray], name: str = "a weight"
) -> tuple[Draw, Stated, Spread]:
    """Returns a draw of fixed numbers that follow from the shape.

    Args:
      values: computes them for a shape, to which they broadcast; it refuses others.
      name: what they are called where a dtype cannot hold them.
    """

    def fill(key: Any, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
        return jnp.broadcast_to(jnp.asarray(exactly(values(shape), dtype, name)), shape)

    def moments(shape: tuple[int, ...]) -> Moments:
        numbers = values(shape)
        wide = numbers.astype(complex if np.iscomplexobj(numbers) else float)
        with np.errstate(over="ignore"):
            return Moments(wide.mean().item(), wide.var().item())

    return fill, moments, lambda shape: of_values(values(shape))


def needs_real(dtype: np.dtype, cure: str = "") -> None:
    """Refuses complex weights of a law that has none."""
    if jnp.issubdtype(dtype, np.complexfloating):
        rule = f"this law is one of real numbers.{cure}"
        raise check.Unfit(rule, dtype=dtype.name)


def scaled(
    scale: float,
    mode: Mode,
    distribution: Distribution,
    connections: Connections,
) -> Drawn:
    """Returns the draw of variance scaling."""
    check.choice(get_args(Mode), mode=mode)
    check.choice(get_args(Distribution), distribution=distribution)
    connections.check()

    def variance(shape: tuple[int, ...]) -> float:
        fan_in, fan_out = connections.fans(shape)
        if mode == "fan_in":
            return scale / fan_in
        if mode == "fan_out":
            return scale / fan_out
        if mode == "fan_avg":
            return scale / ((fan_in + fan_out) / 2)
        mean: float = (fan_in * fan_out) ** 0.5
        return scale / mean

    def unit(key: jax.Array, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
        if distribution == "normal":
            return random.normal(key, shape, dtype)
        if not jnp.issubdtype(dtype, np.complexfloating):
            if distribution == "uniform":
                return random.uniform(key, shape, dtype, -1, 1)
            return random.truncated_normal(key, -2, 2, shape, dtype)
        if distribution == "uniform":
            return random.disk(key, shape, dtype)
        return random.truncated_normal(key, 0.0, 2.0, shape, dtype)

    def factor(shape: tuple[int, ...], dtype: np.dtype) -> Any:
        # The constants are rounded to the dtype at each step, as JAX rounds them.
        real = np.zeros(0, dtype).real.dtype.type
        var = _number(variance(shape), real)
        if distribution == "normal":
            return np.sqrt(var).astype(dtype)
        if jnp.issubdtype(dtype, np.complexfloating):
            if distribution == "truncated_normal":
                var = var / random.complex_truncated_variance(2.0)
            return np.sqrt(var).astype(dtype)
        if distribution == "uniform":
            return np.sqrt(real(3) * var)
        return np.sqrt(var) / real(TRUNCATED_STDDEV)

    def moments(shape: tuple[int, ...]) -> Moments:
        return Moments(0.0, variance(shape))

    def extent(shape: tuple[int, ...]) -> Extent:
        stddev = math.sqrt(variance(shape))
        if distribution == "normal":
            return normal(0.0, stddev)
        return symmetric(_REACH[distribution] * stddev, stddev)

    return Independent(unit, factor), moments, extent


def _number(variance: float, real: Callable[[float], Any]) -> Any:
    """Returns a variance in the real dtype of the weights."""
    with np.errstate(all="ignore"):
        found = real(variance)
    if not np.isfinite(found) or variance and not found:
        rule = f"the variance, {variance:.3g}, is no number of this type."
        raise check.Unfit(rule, dtype=found.dtype.name)
    return found
