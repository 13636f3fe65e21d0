"""Weights whose variance follows the fans: variance scaling and its presets.

Var[w] = scale / n. A layer with n = fan_in keeps the variance of a linear signal when
scale = 1; an activation with gain g needs scale = g^2 (`jaxinit.gain`).
"""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxinit import _check as check
from jaxinit import random
from jaxinit._axes import Axes, fan_sizes
from jaxinit._gain import Gain, squared_gain
from jaxinit._initializer import Drawn, Moments, alias, initializer

Mode = Literal["fan_in", "fan_out", "fan_avg", "fan_geo_avg"]
Distribution = Literal["truncated_normal", "normal", "uniform"]

# Standard deviation of a standard normal number truncated to [-2, 2]; JAX has the same.
TRUNCATED_STDDEV = 0.87962566103423978


def _scaled(
    scale: float,
    mode: Mode,
    distribution: Distribution,
    in_axis: Axes,
    out_axis: Axes,
    batch_axis: Axes,
) -> Drawn:
    """Returns the draw of variance scaling."""
    check.choice(get_args(Mode), mode=mode)
    check.choice(get_args(Distribution), distribution=distribution)
    check.axes(in_axis=in_axis)
    check.axes(out_axis=out_axis)
    check.axes(batch_axis=batch_axis)

    def variance(shape: tuple[int, ...]) -> float:
        fan_in, fan_out = fan_sizes(shape, in_axis, out_axis, batch_axis)
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
        var = real(variance(shape))
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

    return draw, moments


@initializer
def variance_scaling(
    scale: float,
    mode: Mode,
    distribution: Distribution,
    in_axis: Axes = -2,
    out_axis: Axes = -1,
    batch_axis: Axes = (),
    dtype: DTypeLike | None = None,
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
        receptive field of a convolution, which counts towards both fans.
      dtype: default dtype of the weights, float or complex.

    Returns:
      An `Initializer`.

    Raises:
      ValueError: if scale is negative, or mode or distribution is unknown; at the call,
        if the shape lacks an axis.

    Example:
      >>> w = variance_scaling(1.0, "fan_in", "normal")(jax.random.key(0), (256, 512))
      >>> abs(float(w.var()) * 256 - 1) < 0.03
      True

    References:
      He, Zhang, Ren, Sun. Delving Deep into Rectifiers. 2015.
      https://arxiv.org/abs/1502.01852
    """
    scale = check.not_negative(scale=scale)
    return _scaled(scale, mode, distribution, in_axis, out_axis, batch_axis)


@initializer
def glorot_uniform(
    in_axis: Axes = -2,
    out_axis: Axes = -1,
    batch_axis: Axes = (),
    dtype: DTypeLike | None = None,
    *,
    gain: Gain = 1.0,
    mode: Mode = "fan_avg",
) -> Drawn:
    """Builds an initializer that balances signal and gradient, uniform (Xavier).

    Law: uniform on (-a, a), a = sqrt(6 / (fan_in + fan_out)) gain; Var[w] = 2 gain^2 /
    (fan_in + fan_out).

    As `variance_scaling` with ``scale=gain^2``, ``mode="fan_avg"`` and a uniform law.
    For sigmoid and tanh, which are nearly linear around 0. `xavier_uniform` is the
    same.

    Args:
      in_axis: see `variance_scaling`, like every axis.
      out_axis: see `variance_scaling`.
      batch_axis: see `variance_scaling`.
      dtype: default dtype of the weights.
      gain: a number, the name of an activation, (name, parameter) or a function.
      mode: see `variance_scaling`.

    Returns:
      An `Initializer`.

    Example:
      >>> w = glorot_uniform()(jax.random.key(0), (256, 512))
      >>> abs(float(w.var()) * 384 - 1) < 0.03
      True

    References:
      Glorot, Bengio. Understanding the difficulty of training deep feedforward neural
      networks. 2010. https://proceedings.mlr.press/v9/glorot10a.html
    """
    return _scaled(squared_gain(gain), mode, "uniform", in_axis, out_axis, batch_axis)


@initializer
def glorot_normal(
    in_axis: Axes = -2,
    out_axis: Axes = -1,
    batch_axis: Axes = (),
    dtype: DTypeLike | None = None,
    *,
    gain: Gain = 1.0,
    mode: Mode = "fan_avg",
) -> Drawn:
    """Builds an initializer that balances signal and gradient, normal (Xavier).

    Law: truncated normal, mean 0; Var[w] = 2 gain^2 / (fan_in + fan_out).

    As `variance_scaling` with ``scale=gain^2``, ``mode="fan_avg"`` and a truncated
    normal law. `xavier_normal` is the same.

    Args:
      in_axis: see `variance_scaling`, like every axis.
      out_axis: see `variance_scaling`.
      batch_axis: see `variance_scaling`.
      dtype: default dtype of the weights.
      gain: a number, the name of an activation, (name, parameter) or a function.
      mode: see `variance_scaling`.

    Returns:
      An `Initializer`.

    Example:
      >>> w = glorot_normal(gain="tanh")(jax.random.key(0), (256, 512))
      >>> abs(float(w.var()) * 384 / (5 / 3) ** 2 - 1) < 0.03
      True

    References:
      Glorot, Bengio. Understanding the difficulty of training deep feedforward neural
      networks. 2010. https://proceedings.mlr.press/v9/glorot10a.html
    """
    squared = squared_gain(gain)
    return _scaled(squared, mode, "truncated_normal", in_axis, out_axis, batch_axis)


@initializer
def lecun_uniform(
    in_axis: Axes = -2,
    out_axis: Axes = -1,
    batch_axis: Axes = (),
    dtype: DTypeLike | None = None,
    *,
    gain: Gain = 1.0,
    mode: Mode = "fan_in",
) -> Drawn:
    """Builds an initializer that keeps the variance of a linear signal, uniform.

    Law: uniform on (-a, a), a = sqrt(3 / fan_in) gain; Var[w] = gain^2 / fan_in.

    As `variance_scaling` with ``scale=gain^2``, ``mode="fan_in"`` and a uniform law.

    Args:
      in_axis: see `variance_scaling`, like every axis.
      out_axis: see `variance_scaling`.
      batch_axis: see `variance_scaling`.
      dtype: default dtype of the weights.
      gain: a number, the name of an activation, (name, parameter) or a function.
      mode: see `variance_scaling`.

    Returns:
      An `Initializer`.

    Example:
      >>> w = lecun_uniform()(jax.random.key(0), (256, 512))
      >>> abs(float(w.var()) * 256 - 1) < 0.03
      True

    References:
      LeCun, Bottou, Orr, Müller. Efficient BackProp. 1998.
    """
    return _scaled(squared_gain(gain), mode, "uniform", in_axis, out_axis, batch_axis)


@initializer
def lecun_normal(
    in_axis: Axes = -2,
    out_axis: Axes = -1,
    batch_axis: Axes = (),
    dtype: DTypeLike | None = None,
    *,
    gain: Gain = 1.0,
    mode: Mode = "fan_in",
) -> Drawn:
    """Builds an initializer that keeps the variance of a linear signal, normal.

    Law: truncated normal, mean 0; Var[w] = gain^2 / fan_in.

    As `variance_scaling` with ``scale=gain^2``, ``mode="fan_in"`` and a truncated
    normal law. With selu it makes the signal normalise itself.

    Args:
      in_axis: see `variance_scaling`, like every axis.
      out_axis: see `variance_scaling`.
      batch_axis: see `variance_scaling`.
      dtype: default dtype of the weights.
      gain: a number, the name of an activation, (name, parameter) or a function.
      mode: see `variance_scaling`.

    Returns:
      An `Initializer`.

    Example:
      >>> w = lecun_normal()(jax.random.key(0), (256, 512))
      >>> abs(float(w.var()) * 256 - 1) < 0.03
      True

    References:
      LeCun, Bottou, Orr, Müller. Efficient BackProp. 1998.
      Klambauer, Unterthiner, Mayr, Hochreiter. Self-Normalizing Neural Networks. 2017.
      https://arxiv.org/abs/1706.02515
    """
    squared = squared_gain(gain)
    return _scaled(squared, mode, "truncated_normal", in_axis, out_axis, batch_axis)


@initializer
def he_uniform(
    in_axis: Axes = -2,
    out_axis: Axes = -1,
    batch_axis: Axes = (),
    dtype: DTypeLike | None = None,
    *,
    gain: Gain = "relu",
    mode: Mode = "fan_in",
) -> Drawn:
    """Builds an initializer that keeps the signal's variance through relu, uniform.

    Law: uniform on (-a, a), a = sqrt(3 / fan_in) gain; Var[w] = gain^2 / fan_in.

    As `variance_scaling` with ``scale=gain^2``, ``mode="fan_in"`` and a uniform law.
    ``mode="fan_out"`` keeps the gradient instead. `kaiming_uniform` is the same.

    Args:
      in_axis: see `variance_scaling`, like every axis.
      out_axis: see `variance_scaling`.
      batch_axis: see `variance_scaling`.
      dtype: default dtype of the weights.
      gain: a number, the name of an activation, (name, parameter) or a function.
      mode: see `variance_scaling`.

    Returns:
      An `Initializer`.

    Example:
      >>> w = he_uniform(gain=("leaky_relu", 0.2))(jax.random.key(0), (256, 512))
      >>> abs(float(w.var()) * 256 * 1.04 / 2 - 1) < 0.03
      True

    References:
      He, Zhang, Ren, Sun. Delving Deep into Rectifiers. 2015.
      https://arxiv.org/abs/1502.01852
    """
    return _scaled(squared_gain(gain), mode, "uniform", in_axis, out_axis, batch_axis)


@initializer
def he_normal(
    in_axis: Axes = -2,
    out_axis: Axes = -1,
    batch_axis: Axes = (),
    dtype: DTypeLike | None = None,
    *,
    gain: Gain = "relu",
    mode: Mode = "fan_in",
) -> Drawn:
    """Builds an initializer that keeps the signal's variance through relu, normal.

    Law: truncated normal, mean 0; Var[w] = gain^2 / fan_in.

    As `variance_scaling` with ``scale=gain^2``, ``mode="fan_in"`` and a truncated
    normal law. ``gain="gelu"`` or any other activation, function included, makes up
    for that one; ``mode="fan_out"`` keeps the gradient instead. `kaiming_normal` is the
    same.

    Args:
      in_axis: see `variance_scaling`, like every axis.
      out_axis: see `variance_scaling`.
      batch_axis: see `variance_scaling`.
      dtype: default dtype of the weights.
      gain: a number, the name of an activation, (name, parameter) or a function.
      mode: see `variance_scaling`.

    Returns:
      An `Initializer`.

    Example:
      >>> w = he_normal()(jax.random.key(0), (256, 512))
      >>> abs(float(w.var()) * 256 / 2 - 1) < 0.03
      True

    References:
      He, Zhang, Ren, Sun. Delving Deep into Rectifiers. 2015.
      https://arxiv.org/abs/1502.01852
    """
    squared = squared_gain(gain)
    return _scaled(squared, mode, "truncated_normal", in_axis, out_axis, batch_axis)


xavier_uniform = alias("xavier_uniform", glorot_uniform)
xavier_normal = alias("xavier_normal", glorot_normal)
kaiming_uniform = alias("kaiming_uniform", he_uniform)
kaiming_normal = alias("kaiming_normal", he_normal)
