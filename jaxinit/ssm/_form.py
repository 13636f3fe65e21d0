"""What the builders of state spaces share."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit import _check as check
from jaxinit import random as draws
from jaxinit._draws import needs_real, tabulated
from jaxinit._extent import Extent
from jaxinit._initializer import Drawn, Moments, initializer

random = initializer(namespace="ssm")
fixed = initializer(namespace="ssm", random=False)


def between(**ends: Any) -> tuple[float, float]:
    """Checks two numbers above 0, the first below the second."""
    (first, low), (second, high) = ends.items()
    start, stop = check.real(**{first: low}), check.real(**{second: high})
    if start <= 0:
        raise check.Unfit(f"{first} must be above 0.", **{first: low})
    if not start < stop:
        raise check.Unfit(f"{second} must be above {start:g}.", **{second: high})
    if start < 1e-30 or stop > 1e30:  # float32 would draw 0 or infinity
        name, value = (first, low) if start < 1e-30 else (second, high)
        raise check.Unfit(f"{name} must lie between 1e-30 and 1e+30.", **{name: value})
    return start, stop


def of_uniform(function: Callable[[Any, Any], Any], low: float, high: float) -> Drawn:
    """Returns the draw of an increasing or decreasing function of uniform numbers.

    Args:
      function: of numbers in [low, high], by JAX's or NumPy's functions: the second
        argument is one of the modules.
      low: the lower end.
      high: the upper end.
    """

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
        needs_real(dtype)
        made: jax.Array = function(draws.uniform(key, shape, dtype, low, high), jnp)
        return made

    # Gauss-Legendre, with nodes crowded at the ends, where a logarithm may be steep.
    nodes, weights = np.polynomial.legendre.leggauss(128)
    angles = np.pi / 4 * (1 + nodes)
    shares = np.sin(np.pi / 2 * np.sin(angles) ** 2) ** 2
    slopes = np.sin(np.pi * np.sin(angles) ** 2) * np.sin(2 * angles)
    weights = weights * slopes * np.pi**2 / 8
    with np.errstate(all="ignore"):
        values = np.asarray(function(low + (high - low) * shares, np))
        mean = float(weights @ values)
        stated = Moments(mean, float(weights @ (values - mean) ** 2))
        ends = sorted(map(float, np.asarray(function(np.array([low, high]), np))))
    spread = Extent((ends[0], ends[1]), max(abs(mean), math.sqrt(stated.variance)))
    return draw, lambda shape: stated, lambda shape: spread


def along_last(values: Callable[[int], np.ndarray]) -> Drawn:
    """Returns a draw of fixed numbers along the last axis, repeated along others."""

    def row(shape: tuple[int, ...]) -> np.ndarray:
        if not shape:
            raise check.Unfit("needs an axis of states.", shape=shape)
        return values(shape[-1])

    return tabulated(row, "it")
