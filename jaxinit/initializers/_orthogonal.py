"""Weights with orthonormal rows or columns, for dense layers and convolutions."""

import math
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxinit import _check as check
from jaxinit import random
from jaxinit._axes import Axes, positions
from jaxinit._extent import Extent, symmetric
from jaxinit._gain import Gain, squared_gain
from jaxinit._initializer import Drawn, Moments, initializer
from jaxinit.random import Method


def factor_of(scale: float, gain: Gain) -> float:
    """Returns the product of a scale and a gain."""
    return check.real(scale=scale) * math.sqrt(squared_gain(gain))


def spread(factor: float, moments: Moments, zeros: tuple[int, ...] = ()) -> Extent:
    """Returns the extent of rows or columns of length `factor`.

    `zeros` are the sizes of a window of which only one tap is not zero.
    """
    return symmetric(abs(factor), math.sqrt(moments.variance * math.prod(zeros)))


def _roles(
    shape: tuple[int, ...], column_axis: int, batch_axis: Axes = ()
) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Returns the positions of the batch axes, the axes of the rows, and the column."""
    if len(shape) - len(check.axes(batch_axis=batch_axis)) < 2:
        raise check.Unfit(
            "needs two axes or more. For a vector use normal().", shape=shape
        )
    batch = positions(shape, batch_axis=batch_axis)
    (column,) = positions(shape, column_axis=column_axis)
    if column in batch:
        rule = f"column_axis={column_axis} and batch_axis={batch_axis} share an axis."
        raise check.Unfit(rule, shape=shape)
    named = {column, *batch}
    return batch, tuple(i for i in range(len(shape)) if i not in named), column


def _orthogonal(
    key: jax.Array,
    shape: tuple[int, ...],
    dtype: np.dtype,
    column_axis: int,
    method: Method,
    batch_axis: Axes = (),
) -> jax.Array:
    """Draws orthonormal columns or rows, of the column axis against all others."""
    batch, others, column = _roles(shape, column_axis, batch_axis)
    rows, columns = math.prod(shape[axis] for axis in others), shape[column]

    def draw(key: jax.Array) -> jax.Array:
        return random.orthonormal(key, rows, columns, dtype, method)

    order = (*batch, *others, column)
    if batch:
        draw = jax.vmap(draw)
        key = jax.random.split(key, math.prod(shape[axis] for axis in batch))
    stacked = draw(key).reshape([shape[axis] for axis in order])
    return stacked.transpose([order.index(axis) for axis in range(len(shape))])


@initializer
def orthogonal(
    scale: float = 1.0,
    column_axis: int = -1,
    dtype: DTypeLike | None = None,
    *,
    gain: Gain = 1.0,
    method: Method = "householder",
    batch_axis: Axes = (),
    groups: int = 1,
) -> Drawn:
    """Builds an initializer of orthogonal matrices, uniform by the Haar measure.

    Law: Haar, W^T W = (scale gain)^2 I for rows >= columns, else W W^T; Var[w] =
    (scale gain)^2 / max(rows, columns).

    The columns run along ``column_axis``, the rows along all other axes together.
    Complex weights are unitary. A square layer keeps every length and angle of a
    linear signal.

    Args:
      scale: the length of the rows or columns.
      column_axis: the axis of the columns.
      dtype: default dtype of the weights, float or complex.
      gain: a further factor: a number, the name of an activation, (name, parameter) or
        a function, as in `jaxinit.gain`.
      method: "householder" accumulates random reflectors; "qr" factorizes a normal
        matrix and gives the values of `jax.nn.initializers.orthogonal`. The law is
        the same.
      batch_axis: axes that stack independent weights, each orthogonal.
      groups: how many matrices lie beside each other along ``column_axis``, each
        orthogonal on its own, such as 4 for the gates of an LSTM in one kernel.

    Returns:
      An `Initializer`.

    Raises:
      ValueError: at the call, if the shape has fewer than two axes beside the batch,
        or lacks an axis that is named, or groups do not divide the columns.

    Example:
      >>> w = orthogonal()(jax.random.key(0), (64, 32))
      >>> bool(abs(w.T @ w - jnp.eye(32)).max() < 1e-5)
      True

    References:
      Saxe, McClelland, Ganguli. Exact solutions to the nonlinear dynamics of learning
      in deep linear neural networks. 2013. https://arxiv.org/abs/1312.6120
    """
    factor = factor_of(scale, gain)
    check.axis(column_axis=column_axis)
    check.choice(get_args(Method), method=method)
    check.axes(batch_axis=batch_axis)
    check.at_least(1, groups=groups)

    def group(shape: tuple[int, ...]) -> tuple[int, ...]:
        _, _, column = _roles(shape, column_axis, batch_axis)
        if shape[column] % groups:
            rule = f"groups={groups} must divide axis {column_axis}, not of size 0."
            raise check.Unfit(rule, shape=shape)
        return (*shape[:column], shape[column] // groups, *shape[column + 1 :])

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
        part, (column,) = group(shape), positions(shape, column_axis=column_axis)

        def unit(key: jax.Array) -> jax.Array:
            return _orthogonal(key, part, dtype, column_axis, method, batch_axis)

        if groups > 1:
            each = jax.vmap(unit, out_axes=column)(jax.random.split(key, groups))
            drawn = each.reshape(shape)
        else:
            drawn = unit(key)
        return jnp.multiply(np.asarray(factor, dtype), drawn)

    def moments(shape: tuple[int, ...]) -> Moments:
        _, others, column = _roles(shape, column_axis, batch_axis)
        rows = math.prod(shape[axis] for axis in others)
        return Moments(0.0, factor * factor / max(rows, group(shape)[column]))

    return draw, moments, lambda shape: spread(factor, moments(shape))


def _center(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the middle tap of a kernel (3 to 5 axes, inputs and outputs last)."""
    check.kernel(shape)
    if shape[-1] < shape[-2]:
        rule = "needs at least as many outputs as inputs, to keep every direction."
        raise check.Unfit(rule + " Use orthogonal().", shape=shape)
    return tuple((size - 1) // 2 for size in shape[:-2])


@initializer
def delta_orthogonal(
    scale: float = 1.0,
    column_axis: int = -1,
    dtype: DTypeLike | None = None,
    *,
    gain: Gain = 1.0,
    method: Method = "householder",
) -> Drawn:
    """Builds an initializer of convolutions that are orthogonal in the middle tap only.

    Law: Haar in the middle tap, zero elsewhere; Var[w] = (scale gain)^2 /
    (taps fan_out).

    The convolution then keeps the norm of every signal under circular padding. Kernels
    are laid out (*window, inputs, outputs), as in Flax, with outputs >= inputs.

    Args:
      scale: the factor on the norm of the signal.
      column_axis: the axis of the columns of the middle matrix, -1 or -2 of its two.
      dtype: default dtype of the weights, float or complex.
      gain: a further factor, as in `orthogonal`.
      method: as in `orthogonal`.

    Returns:
      An `Initializer`.

    Raises:
      ValueError: at the call, if the shape does not have 3 to 5 axes, or has more
        inputs than outputs.

    Example:
      >>> w = delta_orthogonal()(jax.random.key(0), (3, 3, 16, 32))
      >>> bool(abs(w[1, 1] @ w[1, 1].T - jnp.eye(16)).max() < 1e-5)
      True

    References:
      Xiao, Bahri, Sohl-Dickstein, Schoenholz, Pennington. Dynamical Isometry and a Mean
      Field Theory of CNNs. 2018. https://arxiv.org/abs/1806.05393
    """
    factor = factor_of(scale, gain)
    check.axis(column_axis=column_axis)
    check.choice(get_args(Method), method=method)

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
        center = _center(shape)
        middle = _orthogonal(key, shape[-2:], dtype, column_axis, method)
        return (
            jnp.zeros(shape, dtype).at[center].set(np.asarray(factor, dtype) * middle)
        )

    def moments(shape: tuple[int, ...]) -> Moments:
        _center(shape)
        return Moments(0.0, factor * factor / (math.prod(shape[:-2]) * shape[-1]))

    return draw, moments, lambda shape: spread(factor, moments(shape), shape[:-2])


@initializer
def scaled_uniform_orthogonal(
    scale: float = 1.0,
    column_axis: int = -1,
    dtype: DTypeLike | None = None,
    *,
    delta: bool = True,
    gain: Gain = 1.0,
    method: Method = "householder",
) -> Drawn:
    """Builds an initializer of orthogonal matrices that keep a signal's mean square.

    Law: Haar, times scale gain max(1, sqrt(columns / rows));
    Var[w] = (scale gain)^2 / fan_in, fan_in = rows.

    `orthogonal` keeps the norm of a signal; this keeps its mean square: exactly when
    the layer has more outputs (columns) than inputs (rows), on average when it has
    fewer. A kernel of three axes or more, laid out (*window, inputs, outputs), is zero
    outside the middle tap if ``delta``; else all its other axes are rows.

    Args:
      scale: a factor on the signal.
      column_axis: the axis of the outputs; the last for a delta kernel.
      dtype: default dtype of the weights, float or complex.
      delta: whether only the middle tap of a kernel is filled.
      gain: a further factor, as in `orthogonal`.
      method: as in `orthogonal`.

    Returns:
      An `Initializer`.

    Raises:
      ValueError: at the call, if the shape has fewer than two axes, or a delta kernel
        has no middle tap or does not have its outputs in the last axis.

    Example:
      >>> w = scaled_uniform_orthogonal()(jax.random.key(0), (16, 64))
      >>> bool(abs(w @ w.T - 4 * jnp.eye(16)).max() < 1e-5)
      True

    References:
      Martens, Ballard, Desjardins, Swirszcz, Dalibard, Sohl-Dickstein, Schoenholz.
      Rapid training of deep neural networks without skip connections or normalization
      layers using Deep Kernel Shaping. 2021. https://arxiv.org/abs/2110.01765
    """
    factor = factor_of(scale, gain)
    check.boolean(delta=delta)
    check.axis(column_axis=column_axis)
    check.choice(get_args(Method), method=method)

    def matrix(shape: tuple[int, ...]) -> tuple[int, int, int]:
        """Returns rows, columns and taps."""
        _, _, column = _roles(shape, column_axis)
        columns = shape[column]
        if not delta or len(shape) == 2:
            return math.prod(shape) // columns, columns, 1
        if column != len(shape) - 1:
            rule = (
                f"a delta kernel has its outputs last, not column_axis={column_axis}."
            )
            raise check.Unfit(rule, shape=shape)
        if any(size % 2 == 0 for size in shape[:-2]):
            rule = "a delta kernel needs odd sizes, to have a middle. Use delta=False."
            raise check.Unfit(rule, shape=shape)
        return shape[-2], columns, math.prod(shape[:-2])

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
        rows, columns, taps = matrix(shape)
        size = factor * max(1.0, math.sqrt(columns / rows))
        inner = shape[-2:] if taps > 1 else shape
        unit = _orthogonal(key, inner, dtype, column_axis, method)
        middle = jnp.multiply(np.asarray(size, dtype), unit)
        if taps == 1:
            return middle
        center = tuple(size // 2 for size in shape[:-2])
        return jnp.zeros(shape, dtype).at[center].set(middle)

    def moments(shape: tuple[int, ...]) -> Moments:
        rows, _, taps = matrix(shape)
        return Moments(0.0, factor * factor / (rows * taps))

    def extent(shape: tuple[int, ...]) -> Extent:
        rows, columns, taps = matrix(shape)
        largest = factor * max(1.0, math.sqrt(columns / rows))
        return spread(largest, moments(shape), (taps,))

    return draw, moments, extent
