"""Weights whose variance follows the fans.

Var[w] = scale / n. A layer with n = fan_in keeps the variance of a linear signal when
scale = 1; an activation with gain g needs scale = g^2 (`jaxinit.gain`).
"""

import math
from typing import Any

import jax
import numpy as np
from jax.typing import DTypeLike

from jaxinit import _check as check
from jaxinit import _extent as extents
from jaxinit import random
from jaxinit._axes import Axes, Connections, Strides
from jaxinit._draws import Distribution, Mode, scaled
from jaxinit._extent import Extent
from jaxinit._fill import Independent
from jaxinit._initializer import Drawn, Moments, initializer


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


@initializer
def spectral(
    scale: float = 1.0,
    in_axis: Axes = -2,
    out_axis: Axes = -1,
    batch_axis: Axes = (),
    dtype: DTypeLike | None = None,
) -> Drawn:
    r"""Builds an initializer whose largest singular value suits features at any width.

    Law: normal, mean 0, stddev = scale min(1, sqrt(fan_out / fan_in)) / sqrt(fan_in);
    Var[w] = stddev^2.

    The spectral norm is then of the order of sqrt(fan_out / fan_in), which lets
    features of size 1 stay so in every layer as widths grow, and train at a rate
    that does not depend on them. Unlike the laws of fan_in it shrinks layers that
    narrow, such as the readout.

    Args:
      scale: the factor on the standard deviation, 0 or above.
      in_axis: see `variance_scaling`, like every axis.
      out_axis: see `variance_scaling`.
      batch_axis: see `variance_scaling`.
      dtype: default dtype of the weights, float or complex.

    Returns:
      An `Initializer`.

    Raises:
      ValueError: if scale is negative; at the call, if the shape lacks an axis.

    Example:
      >>> [round(spectral().moments(shape).variance * 256, 4)
      ...  for shape in [(256, 1024), (256, 256), (256, 64)]]
      [1.0, 1.0, 0.25]

    References:
      Yang, Simon, Bernstein. A Spectral Condition for Feature Learning. 2023.
      https://arxiv.org/abs/2310.17813
    """
    check.squared(scale=scale)
    connections = Connections(in_axis, out_axis, batch_axis)
    connections.check()

    def stddev(shape: tuple[int, ...]) -> float:
        fan_in, fan_out = connections.fans(shape)
        return scale * min(1.0, math.sqrt(fan_out / fan_in)) / math.sqrt(fan_in)

    def unit(key: jax.Array, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
        return random.normal(key, shape, dtype)

    def factor(shape: tuple[int, ...], dtype: np.dtype) -> Any:
        return np.asarray(stddev(shape), dtype)[()]

    def moments(shape: tuple[int, ...]) -> Moments:
        return Moments(0.0, stddev(shape) ** 2)

    def extent(shape: tuple[int, ...]) -> Extent:
        return extents.normal(0.0, stddev(shape))

    return Independent(unit, factor), moments, extent
