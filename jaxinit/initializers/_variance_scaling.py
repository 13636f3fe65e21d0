"""Weights whose variance follows the fans.

Var[w] = scale / n. A layer with n = fan_in keeps the variance of a linear signal when
scale = 1; an activation with gain g needs scale = g^2 (`jaxinit.gain`).
"""

import math
from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxinit import _check as check
from jaxinit import random
from jaxinit._axes import Axes, Connections, Strides
from jaxinit._extent import Extent, normal, symmetric
from jaxinit._initializer import Drawn, Moments, initializer

Mode = Literal["fan_in", "fan_out", "fan_avg", "fan_geo_avg"]
Distribution = Literal["truncated_normal", "normal", "uniform"]

# Standard deviation of a standard normal number truncated to [-2, 2]; JAX has the same.
TRUNCATED_STDDEV = 0.87962566103423978
_REACH = {"truncated_normal": 2 / TRUNCATED_STDDEV, "uniform": math.sqrt(3)}


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

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
        # The constants are rounded to the dtype at each step, as JAX rounds them.
        real = np.zeros(0, dtype).real.dtype.type
        var = _number(variance(shape), real)
        if distribution == "normal":
            unit = random.normal(key, shape, dtype)
            factor = np.sqrt(var).astype(dtype)
        elif jnp.issubdtype(dtype, np.complexfloating):
            if distribution == "uniform":
                unit = random.disk(key, shape, dtype)
            else:
                unit = random.truncated_normal(key, 0.0, 2.0, shape, dtype)
                var = var / random.complex_truncated_variance(2.0)
            factor = np.sqrt(var).astype(dtype)
        elif distribution == "uniform":
            unit = random.uniform(key, shape, dtype, -1, 1)
            factor = np.sqrt(real(3) * var)
        else:
            unit = random.truncated_normal(key, -2, 2, shape, dtype)
            factor = np.sqrt(var) / real(TRUNCATED_STDDEV)
        weight: jax.Array = unit * factor
        return weight

    def moments(shape: tuple[int, ...]) -> Moments:
        return Moments(0.0, variance(shape))

    def extent(shape: tuple[int, ...]) -> Extent:
        stddev = math.sqrt(variance(shape))
        if distribution == "normal":
            return normal(0.0, stddev)
        return symmetric(_REACH[distribution] * stddev, stddev)

    return draw, moments, extent


def _number(variance: float, real: Callable[[float], Any]) -> Any:
    """Returns a variance in the real dtype of the weights."""
    with np.errstate(all="ignore"):
        found = real(variance)
    if not np.isfinite(found) or variance and not found:
        rule = f"the variance, {variance:.3g}, is no number of this type."
        raise check.Unfit(rule, dtype=found.dtype.name)
    return found


@initializer
def variance_scaling(
    scale: float,
    mode: Mode,
    distribution: Distribution,
    in_axis: Axes = -2,
    out_axis: Axes = -1,
    batch_axis: Axes = (),
    dtype: DTypeLike | None = None,
    *,
    groups: int = 1,
    strides: Strides = 1,
    transposed: bool = False,
) -> Drawn:
    r"""Builds an initializer whose variance follows the number of inputs or outputs.

    Law: of the named distribution, mean 0; Var[w] = scale / n with n from
    `jaxinit.fans`.

    n is fan_in, fan_out, (fan_in + fan_out) / 2 or sqrt(fan_in fan_out), by mode. The
    distributions:

    - "normal": N(0, scale / n); complex weights are circular, E\|w\|^2 = scale / n;
    - "truncated_normal": a normal law cut at two of its standard deviations, which are
      widened so that the variance after the cut is scale / n; complex weights are cut
      in modulus;
    - "uniform": on (-a, a) with a = sqrt(3 scale / n); complex weights on a disk.

    Args:
      scale: the factor on the variance, 0 or above; a squared gain.
      mode: what n is: "fan_in", "fan_out", "fan_avg" or "fan_geo_avg".
      distribution: "truncated_normal", "normal" or "uniform".
      in_axis: the axis, or axes, that inputs run along.
      out_axis: the axis, or axes, that outputs run along.
      batch_axis: axes that stack independent weights. All axes not named are the
        receptive field of a convolution, which counts toward both fans.
      dtype: default dtype of the weights, float or complex.
      groups: how many blocks the outputs fall into, as in `jaxinit.fans`.
      strides: of a convolution, as in `jaxinit.fans`.
      transposed: whether the convolution is transposed, as in `jaxinit.fans`.

    Returns:
      An `Initializer`.

    Raises:
      ValueError: if scale is negative, or mode or distribution is unknown; at the call,
        if the shape lacks an axis, or groups or strides do not fit it.

    Example:
      >>> w = variance_scaling(1.0, "fan_in", "normal")(jax.random.key(0), (256, 512))
      >>> abs(float(w.var()) * 256 - 1) < 0.03
      True

    References:
      He, Zhang, Ren, Sun. Delving Deep into Rectifiers. 2015.
      https://arxiv.org/abs/1502.01852
    """
    scale = check.not_negative(scale=scale)
    connections = Connections(
        in_axis, out_axis, batch_axis, groups, strides, transposed
    )
    return scaled(scale, mode, distribution, connections)


@initializer
def uniform_unit_scaling(scale: float = 1.0, dtype: DTypeLike | None = None) -> Drawn:
    """Builds an initializer that keeps the variance of a linear signal, for any rank.

    Law: uniform on (-a, a), a = scale sqrt(3 / n), n the product of all sizes but the
    last; Var[w] = scale^2 / n.

    As `lecun_uniform` with ``gain=scale``, and n = 1 for a vector: the initializer that
    Haiku calls UniformScaling and TensorFlow uniform_unit_scaling.

    Args:
      scale: the factor on the standard deviation, 0 or above.
      dtype: default dtype of the weights, float or complex.

    Returns:
      An `Initializer`.

    Raises:
      ValueError: if scale is negative; at the call, if the shape has no axis.

    Example:
      >>> w = uniform_unit_scaling(2.0)(jax.random.key(0), (3, 4, 512))
      >>> bool((abs(w) < 1).all())
      True

    References:
      Sussillo, Abbott. Random Walk Initialization for Training Very Deep Feedforward
      Networks. 2014. https://arxiv.org/abs/1412.6558
    """
    squared = check.squared(scale=scale)
    # Without an axis of inputs all axes but the outputs' are the receptive field.
    return scaled(squared, "fan_in", "uniform", Connections(in_axis=()))
