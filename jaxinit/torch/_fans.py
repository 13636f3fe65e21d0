"""torch's initializers whose variance follows the fans: Xavier and Kaiming."""

import math
from typing import Literal, get_args

from jax.typing import DTypeLike

from jaxinit import _check as check
from jaxinit._draws import scaled
from jaxinit._gain import NONLINEARITIES, PARAMETER, Gain, squared_gain, squared_gain_of
from jaxinit._initializer import Drawn
from jaxinit.torch._form import Layout, connections, random

Mode = Literal["fan_in", "fan_out"]


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """Computes the gain of an activation, as torch does.

    As `jaxinit.gain`, which has the names of torch's table and more, except that
    activations without a parameter ignore it.

    Args:
      nonlinearity: the name of an activation, or of a linear layer.
      param: the negative slope of "leaky_relu", by default 0.01; alpha of "elu" and
        "celu", by default 1.

    Returns:
      The factor on the standard deviation.

    Raises:
      ValueError: if the name is unknown.
      TypeError: if the parameter is not a number.

    Example:
      >>> jaxinit.torch.calculate_gain("tanh")
      1.6666666666666667
    """
    try:
        return math.sqrt(_squared(nonlinearity, param))
    except check.Unfit as error:
        raise error.at("torch.calculate_gain") from None


def _squared(nonlinearity: str, param: float | None) -> float:
    check.choice(NONLINEARITIES, nonlinearity=nonlinearity)
    return squared_gain_of(nonlinearity, param if nonlinearity in PARAMETER else None)


@random
def xavier_uniform(
    gain: Gain = 1.0, dtype: DTypeLike | None = None, *, layout: Layout = "jax"
) -> Drawn:
    """Builds an initializer that balances signal and gradient, uniform.

    Law: uniform on (-a, a), a = gain sqrt(6 / (fan_in + fan_out)); Var[w] = 2 gain^2 /
    (fan_in + fan_out).

    Args:
      gain: the factor on the standard deviation: a number, or as in `jaxinit.gain`.
      dtype: default dtype of the weights.
      layout: "jax", (inputs, outputs), or "torch", (outputs, inputs).

    Returns:
      An `Initializer`.

    Raises:
      ValueError: if gain is negative; at the call, if the shape has one axis.

    Example:
      >>> w = jaxinit.torch.xavier_uniform()(jax.random.key(0), (256, 512))
      >>> abs(float(w.var()) * 384 - 1) < 0.03
      True

    References:
      PyTorch, torch.nn.init.xavier_uniform_. 2019.
      https://docs.pytorch.org/docs/stable/nn.init.html
    """
    return scaled(squared_gain(gain), "fan_avg", "uniform", connections(layout))


@random
def xavier_normal(
    gain: Gain = 1.0, dtype: DTypeLike | None = None, *, layout: Layout = "jax"
) -> Drawn:
    """Builds an initializer that balances signal and gradient, normal.

    Law: normal, mean 0; Var[w] = 2 gain^2 / (fan_in + fan_out).

    Unlike `jaxinit.glorot_normal` the law is not truncated.

    Args:
      gain: the factor on the standard deviation: a number, or as in `jaxinit.gain`.
      dtype: default dtype of the weights.
      layout: "jax", (inputs, outputs), or "torch", (outputs, inputs).

    Returns:
      An `Initializer`.

    Raises:
      ValueError: if gain is negative; at the call, if the shape has one axis.

    Example:
      >>> w = jaxinit.torch.xavier_normal()(jax.random.key(0), (256, 512))
      >>> abs(float(w.var()) * 384 - 1) < 0.03
      True

    References:
      PyTorch, torch.nn.init.xavier_normal_. 2019.
      https://docs.pytorch.org/docs/stable/nn.init.html
    """
    return scaled(squared_gain(gain), "fan_avg", "normal", connections(layout))


@random
def kaiming_uniform(
    a: float = 0.0,
    mode: Mode = "fan_in",
    nonlinearity: str = "leaky_relu",
    dtype: DTypeLike | None = None,
    *,
    layout: Layout = "jax",
) -> Drawn:
    """Builds an initializer that keeps the variance through relu's kin, uniform.

    Law: uniform on (-c, c), c = gain sqrt(3 / n); Var[w] = gain^2 / n with n = fan_in
    or fan_out by mode.

    Args:
      a: the negative slope of "leaky_relu"; other activations ignore it.
      mode: "fan_in" keeps the signal, "fan_out" the gradient.
      nonlinearity: the name of the activation, for `calculate_gain`.
      dtype: default dtype of the weights.
      layout: "jax", (inputs, outputs), or "torch", (outputs, inputs).

    Returns:
      An `Initializer`.

    Raises:
      ValueError: if mode or nonlinearity is unknown; at the call, if the shape has one
        axis.

    Example:
      >>> w = jaxinit.torch.kaiming_uniform(a=1)(jax.random.key(0), (256, 512))
      >>> abs(float(w.var()) * 256 - 1) < 0.03
      True

    References:
      PyTorch, torch.nn.init.kaiming_uniform_. 2019.
      https://docs.pytorch.org/docs/stable/nn.init.html
    """
    check.choice(get_args(Mode), mode=mode)
    return scaled(_kaiming(a, nonlinearity), mode, "uniform", connections(layout))


def _kaiming(a: float, nonlinearity: str) -> float:
    """Returns the squared gain."""
    slope = check.real(a=a)
    check.choice(NONLINEARITIES, nonlinearity=nonlinearity)
    return _squared(nonlinearity, slope if nonlinearity == "leaky_relu" else None)


@random
def kaiming_normal(
    a: float = 0.0,
    mode: Mode = "fan_in",
    nonlinearity: str = "leaky_relu",
    dtype: DTypeLike | None = None,
    *,
    layout: Layout = "jax",
) -> Drawn:
    """Builds an initializer that keeps the variance through relu's kin, normal.

    Law: normal, mean 0; Var[w] = gain^2 / n with n = fan_in or fan_out by mode.

    Unlike `jaxinit.he_normal` the law is not truncated.

    Args:
      a: the negative slope of "leaky_relu"; other activations ignore it.
      mode: "fan_in" keeps the signal, "fan_out" the gradient.
      nonlinearity: the name of the activation, for `calculate_gain`.
      dtype: default dtype of the weights.
      layout: "jax", (inputs, outputs), or "torch", (outputs, inputs).

    Returns:
      An `Initializer`.

    Raises:
      ValueError: if mode or nonlinearity is unknown; at the call, if the shape has one
        axis.

    Example:
      >>> w = jaxinit.torch.kaiming_normal()(jax.random.key(0), (256, 512))
      >>> abs(float(w.var()) * 256 / 2 - 1) < 0.03
      True

    References:
      PyTorch, torch.nn.init.kaiming_normal_. 2019.
      https://docs.pytorch.org/docs/stable/nn.init.html
    """
    check.choice(get_args(Mode), mode=mode)
    return scaled(_kaiming(a, nonlinearity), mode, "normal", connections(layout))
