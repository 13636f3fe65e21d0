"""Gains: the factor on a weight's standard deviation that makes up for an activation.

A layer x -> W f(z) with z standard normal keeps unit variance when Var[W] * fan_in is
1 / E[f(z)^2]: the squared gain. For relu and its kin that is exact and has a closed
form. For any other function the expectation is an integral, computed here by
quadrature.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit import _check as check

Activation = Callable[[Any], Any]
Gain = float | str | tuple[str, float] | Activation  # what builders take as `gain`


def identity(x: Any) -> Any:
    """Returns its argument: the activation of a linear layer."""
    return x


# Every activation that has a name here. Those in PARAMETER take one parameter, whose
# default stands there.
ACTIVATIONS: dict[str, Activation] = {
    "abs": jnp.abs,
    "celu": jax.nn.celu,
    "elu": jax.nn.elu,
    "gelu": jax.nn.gelu,
    "hard_sigmoid": jax.nn.hard_sigmoid,
    "hard_swish": jax.nn.hard_swish,
    "hard_tanh": jax.nn.hard_tanh,
    "identity": identity,
    "leaky_relu": jax.nn.leaky_relu,
    "linear": identity,
    "log_sigmoid": jax.nn.log_sigmoid,
    "mish": jax.nn.mish,
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "selu": jax.nn.selu,
    "sigmoid": jax.nn.sigmoid,
    "silu": jax.nn.silu,
    "sin": jnp.sin,
    "soft_sign": jax.nn.soft_sign,
    "softplus": jax.nn.softplus,
    "squareplus": jax.nn.squareplus,
    "swish": jax.nn.swish,
    "tanh": jnp.tanh,
}
PARAMETER = {"celu": 1.0, "elu": 1.0, "leaky_relu": 0.01}

# Squared gains that are settled by convention or by a closed form. tanh (5/3) and selu
# (3/4) are torch's round numbers, and sigmoid (1) is torch's too: the exact values
# follow from passing the function itself.
_CONVOLUTIONS = tuple(f"conv{t}{n}d" for t in ("", "_transpose") for n in (1, 2, 3))
_SQUARED = {
    "identity": 1.0,
    "linear": 1.0,
    "relu": 2.0,
    "selu": 9 / 16,
    "sigmoid": 1.0,
    "tanh": 25 / 9,
    **dict.fromkeys(_CONVOLUTIONS, 1.0),
}
NONLINEARITIES = tuple(sorted({*ACTIVATIONS, *_SQUARED}))

# Gauss-Legendre with 8 nodes on panels of 1/64, so that kinks of the usual activations
# (at 0, 1, 3, 6) fall on panel borders. Beyond 12 the normal density is below 1e-31.
_REACH, _PANELS_PER_UNIT = 12, 64
_RULE = np.polynomial.legendre.leggauss(8)


def on_panels(
    borders: np.ndarray, rule: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Puts a quadrature rule for [-1, 1] on every panel between borders.

    A rule is a pair (nodes, weights). Borders rise along the last axis; nodes of an
    empty panel have weight 0.
    """
    node, weight = rule
    half = np.diff(borders)[..., None] / 2
    nodes = borders[..., :-1, None] + half + half * node
    shape = (*borders.shape[:-1], -1)
    return nodes.reshape(shape), (half * weight).reshape(shape)


def normal_density(z: np.ndarray) -> np.ndarray:
    """Computes the density of the standard normal law."""
    return np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)


def _quadrature() -> tuple[np.ndarray, np.ndarray]:  # both [nodes]
    """Computes nodes and weights of the standard normal measure."""
    count = 2 * _REACH * _PANELS_PER_UNIT
    z, weight = on_panels(np.linspace(-_REACH, _REACH, count + 1), _RULE)
    return z, weight * normal_density(z)


def _second_moment(function: Activation, **argument: Any) -> float:
    """Computes E[f(z)^2] for z standard normal; errors name the argument."""
    z, weight = _quadrature()
    try:
        # A builder may run while a model is traced, and numbers may overflow.
        with jax.ensure_compile_time_eval(), np.errstate(all="ignore"):
            value = np.asarray(function(jnp.asarray(z, float)), np.float64)
    except Exception as error:  # the function is the user's
        rule = f"the activation fails for an array of numbers ({check.brief(error)})."
        raise check.Unfit(rule, TypeError, **argument) from None
    if value.shape != z.shape:
        rule = "the activation must work on each entry alone and keep the shape."
        raise check.Unfit(rule, **argument)
    with np.errstate(all="ignore"):  # some values may not be finite
        return float(weight @ value**2)


def activation(name: str, param: float | None = None) -> Activation:
    """Returns a named activation with its parameter."""
    check.choice(tuple(ACTIVATIONS), nonlinearity=name)
    if name in PARAMETER:
        value = PARAMETER[name] if param is None else check.real(param=param)
        return partial(ACTIVATIONS[name], **{_parameter_name(name): value})
    if param is not None:
        takers = ", ".join(map(repr, PARAMETER))
        raise check.Unfit(f"only {takers} take a parameter, not {name!r}.", param=param)
    return ACTIVATIONS[name]


def _parameter_name(name: str) -> str:
    return "negative_slope" if name == "leaky_relu" else "alpha"


def squared_gain(gain: Any) -> float:
    """Computes the squared gain of a number, name, (name, parameter) or function.

    Squared, because variance scaling multiplies variances: relu gives 2.0, exactly.
    """
    if isinstance(gain, (tuple, list)) and len(gain) == 2:
        try:
            return squared_gain_of(check.choice(NONLINEARITIES, gain=gain[0]), gain[1])
        except check.Unfit as error:  # names the whole pair
            raise check.Unfit(str(error), error.kind, gain=gain) from None
    if isinstance(gain, str) or callable(gain):
        return squared_gain_of(gain, gain=gain)
    return check.squared(gain=gain)


def squared_gain_of(
    nonlinearity: str | Activation, param: float | None = None, **argument: Any
) -> float:
    """Computes the squared gain of an activation; errors name the argument."""
    argument = argument or {"nonlinearity": nonlinearity}
    if isinstance(nonlinearity, str):
        check.choice(NONLINEARITIES, **argument)
        if nonlinearity in _SQUARED and param is None:
            return _SQUARED[nonlinearity]
        if nonlinearity == "leaky_relu":
            slope = check.real(
                param=PARAMETER[nonlinearity] if param is None else param
            )
            moment = (1 + slope * slope) / 2
        else:
            moment = _second_moment(activation(nonlinearity, param), **argument)
    else:
        if param is not None:
            raise check.Unfit("param goes with the name of an activation.", param=param)
        moment = _second_moment(nonlinearity, **argument)
    if not 0 < moment < math.inf or 1 / moment == math.inf:
        rule = f"E[f(z)^2] is {moment:g} for z standard normal: "
        raise check.Unfit(rule + "no gain makes up for that.", **argument)
    return 1 / moment


def gain(nonlinearity: str | Activation, param: float | None = None) -> float:
    """Computes the gain of an activation f.

    gain = 1 / sqrt(E[f(z)^2]) for z standard normal, so that weights of variance
    gain^2 / fan_in keep the second moment of a signal that passes through f.

    For the names that torch's table has, the value is torch's: 1 for linear, conv* and
    sigmoid, 5/3 for tanh, sqrt(2) for relu, sqrt(2 / (1 + slope^2)) for leaky_relu, 3/4
    for selu. For every other name and for functions the formula is integrated to 1e-6.
    The function itself gives the exact value where torch rounds: ``gain(jnp.tanh)`` is
    1.5925, ``gain("tanh")`` is 5/3.

    Args:
      nonlinearity: a name, or a function that works on each entry of an array alone.
      param: the negative slope of "leaky_relu" (default 0.01), alpha of "elu" and
        "celu" (default 1).

    Returns:
      The factor on the standard deviation, above 0.

    Raises:
      ValueError: if the name is unknown, the parameter is not one that it takes, or the
        function has no finite second moment above 0.

    Example:
      >>> abs(gain("relu") - 2**0.5) < 1e-12
      True
      >>> abs(gain(lambda z: z) - 1) < 1e-6
      True

    References:
      He, Zhang, Ren, Sun. Delving Deep into Rectifiers. 2015. https://arxiv.org/abs/1502.01852
    """
    try:
        if not isinstance(nonlinearity, str) and not callable(nonlinearity):
            raise check.Unfit(
                "nonlinearity must be a name or a function.",
                TypeError,
                nonlinearity=nonlinearity,
            )
        return math.sqrt(squared_gain_of(nonlinearity, param))
    except check.Unfit as error:
        raise error.at("gain") from None
