"""Weights that pass the signal on unchanged."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike

from jaxinit import _check as check
from jaxinit._axes import Axes, positions
from jaxinit._initializer import Drawn, Moments, initializer


@initializer(random=False)
def identity(
    gain: float = 1.0,
    in_axis: int = -2,
    out_axis: int = -1,
    batch_axis: Axes = (),
    dtype: DTypeLike | None = None,
) -> Drawn:
    """Builds an initializer of layers that return their input.

    Law: w = gain where input and output index agree, in the middle of the receptive
    field, else 0; Var[w] = gain^2 (p - p^2), p the share of entries that are not 0.

    Of a dense kernel that is the identity matrix, of a convolution with odd window and
    "same" padding the identity map. Where inputs and outputs differ in number, the
    first min(inputs, outputs) are passed on.

    Args:
      gain: the factor on the signal.
      in_axis: the axis of the inputs.
      out_axis: the axis of the outputs.
      batch_axis: axes that stack independent weights, each an identity. All axes not
        named are the receptive field.
      dtype: default dtype of the weights, any number type.

    Returns:
      An `Initializer`; it ignores the key.

    Raises:
      ValueError: at the call, if the shape lacks an axis.

    Example:
      >>> identity(2.0)(None, (2, 3)).tolist()
      [[2.0, 0.0, 0.0], [0.0, 2.0, 0.0]]

    References:
      Le, Jaitly, Hinton. A Simple Way to Initialize Recurrent Networks of Rectified
      Linear Units. 2015. https://arxiv.org/abs/1504.00941
    """
    gain = check.real(gain=gain)
    check.axis(in_axis=in_axis)
    check.axis(out_axis=out_axis)
    check.axes(batch_axis=batch_axis)

    def roles(shape: tuple[int, ...]) -> tuple[int, int, list[int]]:
        """Returns the input axis, the output axis and the receptive field."""
        if len(shape) < 2:
            raise check.Unfit(
                "needs an axis of inputs and one of outputs.", shape=shape
            )
        (source,) = positions(shape, in_axis=in_axis)
        (target,) = positions(shape, out_axis=out_axis)
        batch = positions(shape, batch_axis=batch_axis)
        if len({source, target, *batch}) < 2 + len(batch):
            rule = (
                f"in_axis={in_axis}, out_axis={out_axis} and batch_axis={batch_axis} "
            )
            raise check.Unfit(rule + "share an axis.", shape=shape)
        named = {source, target, *batch}
        return source, target, [axis for axis in range(len(shape)) if axis not in named]

    def fill(key: Any, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
        source, target, field = roles(shape)

        def index(axis: int) -> jax.Array:
            return lax.broadcasted_iota("int32", shape, axis)

        mask = index(source) == index(target)
        for axis in field:
            mask &= index(axis) == (shape[axis] - 1) // 2
        return jnp.where(mask, np.asarray(gain, dtype), np.zeros((), dtype))

    def moments(shape: tuple[int, ...]) -> Moments:
        source, target, field = roles(shape)
        taps = math.prod(shape[axis] for axis in field)
        share = 1 / (max(shape[source], shape[target]) * taps)
        return Moments(gain * share, gain**2 * (share - share**2))

    return fill, moments
