"""Presets of variance scaling by the names of their papers: Glorot, LeCun, He."""

from jax.typing import DTypeLike

from jaxinit._axes import Axes, Connections, Strides
from jaxinit._draws import Mode, scaled
from jaxinit._gain import Gain, squared_gain
from jaxinit._initializer import Drawn, alias, initializer


@initializer
def glorot_uniform(
    in_axis: Axes = -2,
    out_axis: Axes = -1,
    batch_axis: Axes = (),
    dtype: DTypeLike | None = None,
    *,
    gain: Gain = 1.0,
    mode: Mode = "fan_avg",
    groups: int = 1,
    strides: Strides = 1,
    transposed: bool = False,
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
      groups: see `variance_scaling`.
      strides: see `variance_scaling`.
      transposed: see `variance_scaling`.

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
    connections = Connections(
        in_axis, out_axis, batch_axis, groups, strides, transposed
    )
    return scaled(squared_gain(gain), mode, "uniform", connections)


@initializer
def glorot_normal(
    in_axis: Axes = -2,
    out_axis: Axes = -1,
    batch_axis: Axes = (),
    dtype: DTypeLike | None = None,
    *,
    gain: Gain = 1.0,
    mode: Mode = "fan_avg",
    groups: int = 1,
    strides: Strides = 1,
    transposed: bool = False,
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
      groups: see `variance_scaling`.
      strides: see `variance_scaling`.
      transposed: see `variance_scaling`.

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
    connections = Connections(
        in_axis, out_axis, batch_axis, groups, strides, transposed
    )
    return scaled(squared_gain(gain), mode, "truncated_normal", connections)


@initializer
def lecun_uniform(
    in_axis: Axes = -2,
    out_axis: Axes = -1,
    batch_axis: Axes = (),
    dtype: DTypeLike | None = None,
    *,
    gain: Gain = 1.0,
    mode: Mode = "fan_in",
    groups: int = 1,
    strides: Strides = 1,
    transposed: bool = False,
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
      groups: see `variance_scaling`.
      strides: see `variance_scaling`.
      transposed: see `variance_scaling`.

    Returns:
      An `Initializer`.

    Example:
      >>> w = lecun_uniform()(jax.random.key(0), (256, 512))
      >>> abs(float(w.var()) * 256 - 1) < 0.03
      True

    References:
      LeCun, Bottou, Orr, Müller. Efficient BackProp. 1998.
    """
    connections = Connections(
        in_axis, out_axis, batch_axis, groups, strides, transposed
    )
    return scaled(squared_gain(gain), mode, "uniform", connections)


@initializer
def lecun_normal(
    in_axis: Axes = -2,
    out_axis: Axes = -1,
    batch_axis: Axes = (),
    dtype: DTypeLike | None = None,
    *,
    gain: Gain = 1.0,
    mode: Mode = "fan_in",
    groups: int = 1,
    strides: Strides = 1,
    transposed: bool = False,
) -> Drawn:
    """Builds an initializer that keeps the variance of a linear signal, normal.

    Law: truncated normal, mean 0; Var[w] = gain^2 / fan_in.

    As `variance_scaling` with ``scale=gain^2``, ``mode="fan_in"`` and a truncated
    normal law. With selu it makes the signal normalize itself.

    Args:
      in_axis: see `variance_scaling`, like every axis.
      out_axis: see `variance_scaling`.
      batch_axis: see `variance_scaling`.
      dtype: default dtype of the weights.
      gain: a number, the name of an activation, (name, parameter) or a function.
      mode: see `variance_scaling`.
      groups: see `variance_scaling`.
      strides: see `variance_scaling`.
      transposed: see `variance_scaling`.

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
    connections = Connections(
        in_axis, out_axis, batch_axis, groups, strides, transposed
    )
    return scaled(squared_gain(gain), mode, "truncated_normal", connections)


@initializer
def he_uniform(
    in_axis: Axes = -2,
    out_axis: Axes = -1,
    batch_axis: Axes = (),
    dtype: DTypeLike | None = None,
    *,
    gain: Gain = "relu",
    mode: Mode = "fan_in",
    groups: int = 1,
    strides: Strides = 1,
    transposed: bool = False,
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
      groups: see `variance_scaling`.
      strides: see `variance_scaling`.
      transposed: see `variance_scaling`.

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
    connections = Connections(
        in_axis, out_axis, batch_axis, groups, strides, transposed
    )
    return scaled(squared_gain(gain), mode, "uniform", connections)


@initializer
def he_normal(
    in_axis: Axes = -2,
    out_axis: Axes = -1,
    batch_axis: Axes = (),
    dtype: DTypeLike | None = None,
    *,
    gain: Gain = "relu",
    mode: Mode = "fan_in",
    groups: int = 1,
    strides: Strides = 1,
    transposed: bool = False,
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
      groups: see `variance_scaling`.
      strides: see `variance_scaling`.
      transposed: see `variance_scaling`.

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
    connections = Connections(
        in_axis, out_axis, batch_axis, groups, strides, transposed
    )
    return scaled(squared_gain(gain), mode, "truncated_normal", connections)


xavier_uniform = alias("xavier_uniform", glorot_uniform)
xavier_normal = alias("xavier_normal", glorot_normal)
kaiming_uniform = alias("kaiming_uniform", he_uniform)
kaiming_normal = alias("kaiming_normal", he_normal)
