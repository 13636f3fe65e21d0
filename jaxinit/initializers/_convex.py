"""Weights of input-convex networks, whose kernels must not be negative."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxinit import _check as check
from jaxinit import random
from jaxinit._axes import Axes, Connections
from jaxinit._draws import filled, needs_real
from jaxinit._extent import Extent
from jaxinit._initializer import Drawn, Moments, initializer


def _denominator(fan_in: float) -> float:
    """Returns what both laws of the paper divide by, for a correlation of 1/2."""
    slope = 3 * math.sqrt(3) + 2 * math.pi - 6
    return 6 * (math.pi - 1) + (fan_in - 1) * slope


@initializer
def convex(
    in_axis: Axes = -2,
    out_axis: Axes = -1,
    batch_axis: Axes = (),
    dtype: DTypeLike | None = None,
) -> Drawn:
    """Builds an initializer of the positive kernels of input-convex relu networks.

    Law: log-normal, mean sqrt(6 pi / (n d)), d = 6 (pi - 1) + (n - 1) (3 sqrt(3) + 2 pi
    - 6), n = fan_in; Var[w] = 1 / n.

    Together with biases of `convex_bias` it keeps mean, variance and correlation (1/2)
    of the signal through relu layers, which no law of mean 0 could in such a network.

    Args:
      in_axis: see `variance_scaling`, like every axis.
      out_axis: see `variance_scaling`.
      batch_axis: see `variance_scaling`.
      dtype: default dtype of the weights, real.

    Returns:
      An `Initializer`.

    Raises:
      ValueError: at the call, if the shape lacks an axis.

    Example:
      >>> w = convex()(jax.random.key(0), (64, 4096))
      >>> bool((w > 0).all())
      True

    References:
      Hoedt, Klambauer. Principled Weight Initialisation for Input-Convex Neural
      Networks. 2023. https://arxiv.org/abs/2312.12474
    """
    connections = Connections(in_axis, out_axis, batch_axis)
    connections.check()

    def moments(shape: tuple[int, ...]) -> Moments:
        n, _ = connections.fans(shape)
        return Moments(math.sqrt(6 * math.pi / (n * _denominator(n))), 1 / n)

    def logs(shape: tuple[int, ...]) -> tuple[float, float]:
        mean, variance = moments(shape)
        spread = math.log1p(variance / mean**2)
        return math.log(mean) - spread / 2, math.sqrt(spread)

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
        needs_real(dtype)
        mean, stddev = (np.asarray(x, dtype) for x in logs(shape))
        return jnp.exp(random.normal(key, shape, dtype) * stddev + mean)

    def extent(shape: tuple[int, ...]) -> Extent:
        mean, stddev = logs(shape)
        return Extent((0.0, math.exp(mean + 5.5 * stddev)), math.exp(mean))

    return draw, moments, extent


@initializer(random=False)
def convex_bias(fan_in: int, dtype: DTypeLike | None = None) -> Drawn:
    """Builds an initializer of the biases beside kernels of `convex`.

    Law: w = -sqrt(3 n / d), d = 6 (pi - 1) + (n - 1) (3 sqrt(3) + 2 pi - 6), n =
    fan_in; Var[w] = 0.

    It takes back the mean that positive weights add to a signal behind relu.

    Args:
      fan_in: how many inputs feed one output, 1 or above.
      dtype: default dtype of the weights.

    Returns:
      An `Initializer`; it ignores the key.

    Raises:
      ValueError: if fan_in is below 1.

    Example:
      >>> round(float(convex_bias(64)(None, ())), 3)
      -0.732

    References:
      Hoedt, Klambauer. Principled Weight Initialisation for Input-Convex Neural
      Networks. 2023. https://arxiv.org/abs/2312.12474
    """
    n = check.at_least(1, fan_in=fan_in)
    if n >= 2**63:
        raise check.Unfit("fan_in must be below 2^63.", fan_in=fan_in)
    return filled(-math.sqrt(3 * n / _denominator(n)))
