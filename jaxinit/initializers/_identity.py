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
from jaxinit._extent import exactly, of_values
from jaxinit._initializer import Drawn, Moments, initializer


@initializer(random=False)
def identity(
    gain: float = 1.0,
    in_axis: int = -2,
    out_axis: int = -1,
    batch_axis: Axes = (),
    dtype: DTypeLike | None = None,
    *,
    shift: int | tuple[int, ...] = 0,
) -> Drawn:
    """Builds an initializer of layers that return their input.

    Law: w = gain where input and output index agree, in the middle of the receptive
    field, else 0; Var[w] = gain^2 (p - p^2), p the share of entries that are not 0.

    A dense kernel is then the identity matrix, and a convolution with an odd window and
    "same" padding the identity map. If inputs and outputs differ in number, the first
    min(inputs, outputs) are passed on.

    Args:
      gain: the factor on the signal.
      in_axis: the axis of the inputs.
      out_axis: the axis of the outputs.
      batch_axis: axes that stack independent weights, each an identity. All axes not
        named are the receptive field.
      dtype: default dtype of the weights, any number type.
      shift: how far the weight is rolled: an integer along ``out_axis``, so that input
        i feeds output i + shift, or one integer for each axis of the shape.

    Returns:
      An `Initializer`; it ignores the key.

    Raises:
      ValueError: at the call, if the shape lacks an axis, or shifts are not one for
        each axis.

    Example:
      >>> identity(2.0)(None, (2, 3)).tolist()
      [[2.0, 0.0, 0.0], [0.0, 2.0, 0.0]]
      >>> identity(shift=1)(None, (3, 3)).tolist()
      [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]

    References:
      Le, Jaitly, Hinton. A Simple Way to Initialize Recurrent Networks of Rectified
      Linear Units. 2015. https://arxiv.org/abs/1504.00941
    """
    gain = check.real(gain=gain)
    check.axis(in_axis=in_axis)
    check.axis(out_axis=out_axis)
    check.axes(batch_axis=batch_axis)
    for step in shift if isinstance(shift, tuple) else (shift,):
        check.integer(shift=step)

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
        if isinstance(shift, tuple) and len(shift) != len(shape):
            raise check.Unfit(f"shift={shift} is not one for each axis.", shape=shape)
        named = {source, target, *batch}
        return source, target, [axis for axis in range(len(shape)) if axis not in named]

    def fill(key: Any, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
        source, target, field = roles(shape)
        if isinstance(shift, tuple):
            steps = dict(enumerate(shift))
        else:
            steps = {target: shift}

        def index(axis: int) -> jax.Array:
            """Returns the index along an axis, before the roll."""
            here = lax.broadcasted_iota("int32", shape, axis)
            step = steps.get(axis, 0) % shape[axis] if shape[axis] else 0
            return here if step == 0 else (here - step) % shape[axis]

        mask = index(source) == index(target)
        for axis in field:
            mask &= index(axis) == (shape[axis] - 1) // 2
        return jnp.where(mask, *_values(gain, dtype))

    def moments(shape: tuple[int, ...]) -> Moments:
        source, target, field = roles(shape)
        taps = math.prod(shape[axis] for axis in field)
        return _share(gain, 1 / (max(shape[source], shape[target]) * taps))

    return fill, moments, lambda shape: of_values([0.0, gain])


def _values(gain: float, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Returns gain and zero in a dtype."""
    return exactly(np.asarray(gain), dtype, "gain"), np.zeros((), dtype)


def _share(gain: float, share: float) -> Moments:
    """Returns the moments where a share of the entries is gain and the rest 0."""
    return Moments(gain * share, gain * gain * (share - share**2))


@initializer(random=False)
def dirac(
    groups: int = 1, dtype: DTypeLike | None = None, *, gain: float = 1.0
) -> Drawn:
    """Builds an initializer of convolutions that return their input, group by group.

    Law: w = gain in the middle tap where an output's index in its group is the input's,
    else 0; Var[w] = gain^2 (p - p^2), p the share of entries that are not 0.

    Kernels are laid out (*window, inputs / groups, outputs), as in Flax with
    ``feature_group_count=groups``. Each group passes on as many channels as it has
    inputs and outputs for; with one group this is `identity`. The middle of an even
    window is the tap that "same" padding puts above the input.

    Args:
      groups: the number of groups that the outputs fall into.
      dtype: default dtype of the weights, any number type.
      gain: the factor on the signal.

    Returns:
      An `Initializer`; it ignores the key.

    Raises:
      ValueError: if groups is below 1; at the call, if the shape does not have 3 to 5
        axes, or groups do not divide its outputs.

    Example:
      >>> dirac(groups=2)(None, (3, 1, 2))[1].tolist()
      [[1.0, 1.0]]

    References:
      Zagoruyko, Komodakis. DiracNets: Training Very Deep Neural Networks Without
      Skip-Connections. 2017. https://arxiv.org/abs/1706.00388
    """
    groups = check.at_least(1, groups=groups)
    gain = check.real(gain=gain)

    def block(shape: tuple[int, ...]) -> int:
        """Returns the number of outputs of a group."""
        check.kernel(shape)
        if shape[-1] % groups:
            rule = f"groups={groups} do not divide the {shape[-1]} outputs."
            raise check.Unfit(rule, shape=shape)
        return shape[-1] // groups

    def fill(key: Any, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
        outputs = max(block(shape), 1)
        place = lax.broadcasted_iota("int32", shape, len(shape) - 1) % outputs
        mask = lax.broadcasted_iota("int32", shape, len(shape) - 2) == place
        for axis, size in enumerate(shape[:-2]):
            mask &= lax.broadcasted_iota("int32", shape, axis) == (size - 1) // 2
        return jnp.where(mask, *_values(gain, dtype))

    def moments(shape: tuple[int, ...]) -> Moments:
        passed = min(block(shape), shape[-2]) * groups
        return _share(gain, passed / math.prod(shape))

    return fill, moments, lambda shape: of_values([0.0, gain])
