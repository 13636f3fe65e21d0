"""Mamba, Mamba-2 and Mamba-3: rates and steps that depend on the data."""

import math
from typing import Any

import numpy as np
from jax.typing import DTypeLike

from jaxinit import _check as check
from jaxinit._axes import Axes, Connections
from jaxinit._draws import scaled
from jaxinit._initializer import Drawn
from jaxinit.ssm._form import along_last, between, fixed, of_uniform, random


@fixed
def mamba_a_log(dtype: DTypeLike | None = None) -> Drawn:
    """Builds an initializer of the logarithms of Mamba's rates, one for each state.

    Law: w = log(1), log(2), ... log(N) along the last axis; Var[w] = that of these N.

    The layer has A = -exp(w), of shape (channels, N): every channel has the rates of
    S4D-real. Do not draw them at random.

    Args:
      dtype: default dtype of the weights.

    Returns:
      An `Initializer`; it ignores the key.

    Raises:
      ValueError: at the call, if the shape has no axis.

    Example:
      >>> jnp.exp(jaxinit.ssm.mamba_a_log()(None, (2, 3))).round(4).tolist()
      [[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]

    References:
      Gu, Dao. Mamba: Linear-Time Sequence Modeling with Selective State Spaces. 2023.
      https://arxiv.org/abs/2312.00752
    """
    return along_last(lambda states: np.log(np.arange(1.0, states + 1)))


@random
def mamba2_a_log(
    low: float = 1.0, high: float = 16.0, dtype: DTypeLike | None = None
) -> Drawn:
    """Builds an initializer of the logarithms of Mamba-2's rates, one for each head.

    Law: w = log(u), u uniform on [low, high); Var[w] = that of log(u).

    Args:
      low: the smallest rate, above 0.
      high: the largest.
      dtype: default dtype of the weights, real.

    Returns:
      An `Initializer`.

    Raises:
      ValueError: if low is not above 0, or high not above low.

    Example:
      >>> a = -jnp.exp(jaxinit.ssm.mamba2_a_log()(jax.random.key(0), (24,)))
      >>> bool(((a <= -1) & (a > -16)).all())
      True

    References:
      Dao, Gu. Transformers are SSMs: Generalized Models and Efficient Algorithms
      Through Structured State Space Duality. 2024. https://arxiv.org/abs/2405.21060
    """
    start, stop = between(low=low, high=high)
    return of_uniform(lambda rates, xp: xp.log(rates), start, stop)


@random
def mamba_dt_bias(
    low: float = 0.001,
    high: float = 0.1,
    floor: float = 1e-4,
    dtype: DTypeLike | None = None,
) -> Drawn:
    """Builds an initializer of the bias behind which a softplus makes time steps.

    Law: softplus(w) = max(s, floor), log(s) uniform between log(low) and log(high);
    Var[w] = that of log(exp(s) - 1).

    Steps that are drawn from another law, or a bias that is the step itself, leave many
    channels at an end of the range.

    Args:
      low: the smallest step, above 0.
      high: the largest.
      floor: below it no step lies, 0 or above.
      dtype: default dtype of the weights, real.

    Returns:
      An `Initializer`.

    Raises:
      ValueError: if low is not above 0, high not above low, or floor not between 0 and
        high.

    Example:
      >>> w = jaxinit.ssm.mamba_dt_bias()(jax.random.key(0), (4096,))
      >>> abs(float(jnp.median(jax.nn.softplus(w))) - 0.01) < 1e-3
      True

    References:
      Gu, Dao. Mamba: Linear-Time Sequence Modeling with Selective State Spaces. 2023.
      https://arxiv.org/abs/2312.00752
    """
    start, stop = between(low=low, high=high)
    least = check.not_negative(floor=floor)
    if least >= stop:
        raise check.Unfit(f"floor must be below high, {stop:g}.", floor=floor)

    def invert(logs: Any, xp: Any) -> Any:
        steps = xp.exp(logs if least == 0 else xp.maximum(logs, math.log(least)))
        return steps + xp.log(-xp.expm1(-steps))

    return of_uniform(invert, math.log(start), math.log(stop))


@random
def mamba_dt_kernel(
    scale: float = 1.0,
    in_axis: Axes = -2,
    out_axis: Axes = -1,
    dtype: DTypeLike | None = None,
) -> Drawn:
    """Builds an initializer of the kernel that makes Mamba's steps from few inputs.

    Law: uniform on (-a, a), a = scale / sqrt(fan_in), fan_in the rank; Var[w] = a^2 /
    3.

    Args:
      scale: the factor on the end, 0 or above.
      in_axis: the axis of the inputs, whose size is the rank.
      out_axis: the axis of the channels.
      dtype: default dtype of the weights, float or complex.

    Returns:
      An `Initializer`.

    Raises:
      ValueError: if scale is negative; at the call, if the shape lacks an axis.

    Example:
      >>> w = jaxinit.ssm.mamba_dt_kernel()(jax.random.key(0), (16, 512))
      >>> bool((abs(w) < 1 / 4).all())
      True

    References:
      Gu, Dao. Mamba: Linear-Time Sequence Modeling with Selective State Spaces. 2023.
      https://arxiv.org/abs/2312.00752
    """
    squared = check.squared(scale=scale)
    return scaled(squared / 3, "fan_in", "uniform", Connections(in_axis, out_axis))
