"""Weights that follow from the draw of another initializer."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from jaxinit import _check as check
from jaxinit import random
from jaxinit._axes import Axes, positions
from jaxinit._extent import Extent, symmetric
from jaxinit._initializer import Drawn, Moments, initializer
from jaxinit.initializers._inner import (
    Init,
    check_init,
    dilute,
    draw_part,
    extent_of,
    moments_of,
    thin,
)


@initializer
def normalized(
    init: Init,
    axis: Axes | None = None,
    norm: float = 1.0,
    dtype: DTypeLike | None = None,
) -> Drawn:
    """Builds an initializer of vectors of equal length, such as one for each output.

    Law: v norm / |v|, v the entries of init along the axes; Var[w] = norm^2 / n for a
    mean of 0, n entries to a vector.

    With normal weights the directions are uniform on the sphere.

    Args:
      init: draws the weight: an initializer, or any function of (key, shape, dtype).
        Its own default dtype is ignored.
      axis: the axis, or axes, along which a vector runs; by default all but the last,
        the inputs of one output.
      norm: the Euclidean length of each vector.
      dtype: default dtype of the weights, float or complex.

    Returns:
      An `Initializer`. A vector of zeros stays one.

    Raises:
      TypeError: if init is not a function, or an axis not an integer.
      ValueError: at the call, if the shape lacks the axis or does not fit init.

    Example:
      >>> w = normalized(normal(), norm=0.01)(jax.random.key(0), (64, 4))
      >>> bool(jnp.allclose(jnp.linalg.norm(w, axis=0), 0.01))
      True

    References:
      Duan, Chen, Houthooft, Schulman, Abbeel. Benchmarking Deep Reinforcement Learning
      for Continuous Control. 2016. https://arxiv.org/abs/1604.06778
    """
    check_init(init=init)
    check.squared(norm=norm)
    if axis is not None:
        check.axes(axis=axis)

    def along(shape: tuple[int, ...]) -> tuple[int, ...]:
        if axis is not None:
            return positions(shape, axis=axis)
        if len(shape) < 2:
            raise check.Unfit("needs two axes, or name the axis.", shape=shape)
        return tuple(range(len(shape) - 1))

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
        def normalize(key: jax.Array) -> jax.Array:
            w = draw_part(init, key, shape, dtype, shape)
            # Divided first by the largest, whose square would be 0 or infinite.
            most = jnp.max(jnp.abs(w), axis=along(shape), keepdims=True)
            w = w / jnp.where(most > 0, most, 1).astype(dtype)
            squares = jnp.sum(jnp.abs(w) ** 2, axis=along(shape), keepdims=True)
            length = jnp.where(most > 0, jnp.sqrt(squares), 1)
            return w * (np.asarray(norm, length.dtype) / length).astype(dtype)

        return random.whole(normalize)(key)

    def moments(shape: tuple[int, ...]) -> Moments | None:
        stated = moments_of(init, shape)
        if stated is None or stated.mean or not stated.variance:
            return None
        return Moments(0.0, norm**2 / math.prod(shape[axis] for axis in along(shape)))

    def extent(shape: tuple[int, ...]) -> Extent:
        count = math.prod(shape[axis] for axis in along(shape))
        return symmetric(norm, norm / math.sqrt(count))

    return draw, moments, extent


@initializer
def centered(
    init: Init, axis: Axes | None = None, dtype: DTypeLike | None = None
) -> Drawn:
    """Builds an initializer of kernels that are zero but for the middle tap.

    Law: that of init in the middle of the axes, 0 elsewhere; Var[w] = Var[init] / taps
    for a mean of 0.

    A convolution so begun is the layer of its middle tap: ``centered(orthogonal())`` is
    delta-orthogonal, ``centered(init, axis=0)`` inflates kernels of images to videos.

    Args:
      init: draws the middle: an initializer, or any function of (key, shape, dtype),
        which is given the shape without the axes. Its own default dtype is ignored.
      axis: the window axes; by default all but the last two, as Flax has them. The
        middle of an even size n is n / 2 - 1.
      dtype: default dtype of the weights, float or complex.

    Returns:
      An `Initializer`.

    Raises:
      TypeError: if init is not a function, or an axis not an integer.
      ValueError: at the call, if the shape lacks the axis, has no window axis, or does
        not fit init.

    Example:
      >>> w = centered(he_normal())(jax.random.key(0), (3, 3, 16, 32))
      >>> bool(jnp.allclose(w[1, 1], he_normal()(jax.random.key(0), (16, 32))))
      True

    References:
      Xiao, Bahri, Sohl-Dickstein, Schoenholz, Pennington. Dynamical Isometry and a Mean
      Field Theory of CNNs. 2018. https://arxiv.org/abs/1806.05393
    """
    check_init(init=init)
    if axis is not None:
        check.axes(axis=axis)

    def window(shape: tuple[int, ...]) -> tuple[int, ...]:
        found = tuple(range(len(shape) - 2)) if axis is None else axis
        places = positions(shape, axis=found)
        if not places:
            raise check.Unfit("has no window axis: name the axis.", shape=shape)
        return places

    def middle(shape: tuple[int, ...]) -> tuple[int, ...]:
        places = window(shape)
        return tuple(size for i, size in enumerate(shape) if i not in places)

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
        places = window(shape)
        tap: tuple[Any, ...] = tuple(
            (size - 1) // 2 if i in places else slice(None)
            for i, size in enumerate(shape)
        )
        made = draw_part(init, key, middle(shape), dtype, shape)
        return jnp.zeros(shape, dtype).at[tap].set(made)

    def moments(shape: tuple[int, ...]) -> Moments | None:
        share = math.prod(middle(shape)) / math.prod(shape)
        return dilute(moments_of(init, middle(shape)), share)

    def extent(shape: tuple[int, ...]) -> Extent | None:
        return thin(extent_of(init, middle(shape)))

    return draw, moments, extent


@initializer
def repeated(
    init: Init,
    times: int | None = None,
    axis: int = -1,
    dtype: DTypeLike | None = None,
    *,
    tiled: bool = False,
) -> Drawn:
    """Builds an initializer that repeats what it draws along an axis.

    Law: that of init for the shape of one copy; Var[w] is that of a copy.

    Kernels before a pixel shuffle of r x r that begin without a checkerboard (ICNR):
    ``repeated(init, r * r)``. Kernels of images inflated to videos, as a mean over
    time: ``repeated(init, axis=0) / frames``.

    Args:
      init: draws one copy: an initializer, or any function of (key, shape, dtype).
        Its own default dtype is ignored.
      times: how many copies there are, which divides the axis; by default its size.
      axis: the axis along which copies are made.
      dtype: default dtype of the weights, float or complex.
      tiled: whether the copies follow each other as a whole (a b a b) and not entry by
        entry (a a b b). Entry by entry is what torch's pixel shuffle needs; where the
        channels of a pixel lie together, as in TensorFlow's depth-to-space, tiled.

    Returns:
      An `Initializer`.

    Raises:
      TypeError: if init is not a function, or times or axis not an integer.
      ValueError: if times is below 1; at the call, if it does not divide the axis, or
        the shape of a copy does not fit init.

    Example:
      >>> w = repeated(he_normal(), 4)(jax.random.key(0), (3, 3, 16, 32))
      >>> bool((w[..., 0] == w[..., 3]).all())
      True

    References:
      Aitken, Ledig, Theis, Caballero, Wang, Shi. Checkerboard artifact free sub-pixel
      convolution. 2017. https://arxiv.org/abs/1707.02937
    """
    check_init(init=init)
    if times is not None:
        check.at_least(1, times=times)
    check.axis(axis=axis)
    check.boolean(tiled=tiled)

    def copy(shape: tuple[int, ...]) -> tuple[int, ...]:
        (place,) = positions(shape, axis=axis)
        count = times or max(shape[place], 1)
        if shape[place] % count:
            rule = f"times={count} must divide axis {axis}, not of size 0."
            raise check.Unfit(rule, shape=shape)
        return (*shape[:place], shape[place] // count, *shape[place + 1 :])

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
        (place,) = positions(shape, axis=axis)
        made = draw_part(init, key, copy(shape), dtype, shape)
        count = shape[place] // made.shape[place]
        where = place if tiled else place + 1
        copies = jnp.broadcast_to(
            jnp.expand_dims(made, where),
            (*made.shape[:where], count, *made.shape[where:]),
        )
        return copies.reshape(shape)

    def moments(shape: tuple[int, ...]) -> Moments | None:
        return moments_of(init, copy(shape))

    def extent(shape: tuple[int, ...]) -> Extent | None:
        return extent_of(init, copy(shape))

    return draw, moments, extent


@initializer
def transposed(
    init: Init, axes: Sequence[int] | None = None, dtype: DTypeLike | None = None
) -> Drawn:
    """Builds an initializer of weights whose axes are stored in another order.

    Law: that of init for the shape before; Var[w] is that of init.

    ``transposed(init)`` draws a matrix stored as (outputs, inputs), as torch and
    Equinox have it, with fans and values of the one stored as (inputs, outputs).

    Args:
      init: draws the weight before it is transposed: an initializer, or any function of
        (key, shape, dtype). Its own default dtype is ignored.
      axes: the order of the axes, as in `jax.numpy.transpose`; by default the last two
        change places.
      dtype: default dtype of the weights, float or complex.

    Returns:
      An `Initializer`.

    Raises:
      TypeError: if init is not a function, or axes are not integers.
      ValueError: at the call, if axes are no order of the axes of the shape, or init
        does not take the shape before.

    Example:
      >>> key = jax.random.key(0)
      >>> w = transposed(he_normal())(key, (32, 16))
      >>> bool(jnp.allclose(w.T, he_normal()(key, (16, 32))))
      True

    References:
      Paszke et al. PyTorch: An Imperative Style, High-Performance Deep Learning
      Library. 2019. https://arxiv.org/abs/1912.01703
    """
    check_init(init=init)
    asked = None if axes is None else check.axes(axes=axes)

    def order(shape: tuple[int, ...]) -> tuple[int, ...]:
        rank = len(shape)
        if asked is None:
            if rank < 2:
                raise check.Unfit("needs two axes.", shape=shape)
            return (*range(rank - 2), rank - 1, rank - 2)
        found = positions(shape, axes=asked)
        if len(found) < rank:
            raise check.Unfit(f"axes={asked} must name every axis.", shape=shape)
        return found

    def before(shape: tuple[int, ...]) -> tuple[int, ...]:
        sizes = dict(zip(order(shape), shape, strict=True))
        return tuple(sizes[axis] for axis in range(len(shape)))

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
        made = draw_part(init, key, before(shape), dtype, shape)
        return jnp.transpose(made, order(shape))

    def moments(shape: tuple[int, ...]) -> Moments | None:
        return moments_of(init, before(shape))

    def extent(shape: tuple[int, ...]) -> Extent | None:
        return extent_of(init, before(shape))

    return draw, moments, extent


@initializer
def masked(init: Init, mask: ArrayLike, dtype: DTypeLike | None = None) -> Drawn:
    """Builds an initializer whose weights are zero where a mask is.

    Law: that of init where the mask is true, 0 elsewhere; Var[w] = p Var[init] for a
    mean of 0, p the share of true entries.

    For autoregressive and other layers that lack connections, with fans that count all:
    divide by sqrt(p) to make up for those that are missing.

    Args:
      init: draws the weight: an initializer, or any function of (key, shape, dtype).
        Its own default dtype is ignored.
      mask: booleans, or 0 and 1, whose shape broadcasts to that of the weight.
      dtype: default dtype of the weights, float or complex.

    Returns:
      An `Initializer`.

    Raises:
      TypeError: if init is not a function, or mask holds other values.
      ValueError: at the call, if mask does not broadcast to the shape, or init does not
        take the shape.

    Example:
      >>> w = masked(he_normal(), np.tri(3, dtype=bool))(jax.random.key(0), (3, 3))
      >>> (w != 0).astype(int).tolist()
      [[1, 0, 0], [1, 1, 0], [1, 1, 1]]

    References:
      Germain, Gregor, Murray, Larochelle. MADE: Masked Autoencoder for Distribution
      Estimation. 2015. https://arxiv.org/abs/1502.03509
    """
    check_init(init=init)
    try:
        kept = np.asarray(mask)
        is_mask = kept.dtype == np.bool_ or bool(np.isin(kept, (0, 1)).all())
    except ValueError:  # rows of different lengths
        is_mask = False
    if not is_mask:
        raise check.Unfit("mask must hold True and False.", TypeError, mask=mask)
    if not kept.size:  # a shape of no entries is checked as one of ones
        kept = np.ones([max(size, 1) for size in kept.shape])
    kept = kept.astype(bool)

    def fit(shape: tuple[int, ...]) -> np.ndarray:
        try:
            return np.broadcast_to(kept, shape)
        except ValueError:
            rule = f"mask has shape {kept.shape}, which does not broadcast to this one."
            raise check.Unfit(rule, shape=shape) from None

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
        fit(shape)
        made = draw_part(init, key, shape, dtype, shape)
        return jnp.where(kept, made, np.asarray(0, dtype))

    def moments(shape: tuple[int, ...]) -> Moments | None:
        fit(shape)
        return dilute(moments_of(init, shape), float(kept.mean()))

    def extent(shape: tuple[int, ...]) -> Extent | None:
        return thin(extent_of(init, shape))

    return draw, moments, extent
