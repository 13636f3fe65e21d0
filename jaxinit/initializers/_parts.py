"""Weights of several parts, each drawn on its own or from one another."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxinit import _check as check
from jaxinit._axes import positions
from jaxinit._extent import Extent
from jaxinit._initializer import Drawn, Moments, initializer
from jaxinit.initializers._inner import (
    Init,
    check_init,
    dilute,
    draw_part,
    extent_of,
    join,
    mix,
    moments_of,
    thin,
    turn,
)


@initializer
def concatenated(
    inits: Sequence[Init],
    axis: int = -1,
    sizes: Sequence[int] | None = None,
    dtype: DTypeLike | None = None,
    *,
    repeats: int = 1,
) -> Drawn:
    """Builds an initializer of parts with a law each, one after another along an axis.

    Law: that of inits[i] in part i, for the shape of the part; Var[w] = that of a part
    chosen with the probability of its size.

    For kernels that are stored as one: queries, keys and values, the gates of a
    recurrent layer, gate and up projection. Fans and norms are those of the part: part
    i is ``inits[i](jax.random.fold_in(key, i), shape of the part)``.

    Args:
      inits: an initializer for each part, or any function of (key, shape, dtype). Their
        own default dtypes are ignored.
      axis: the axis along which the parts follow each other.
      sizes: the size of each part along the axis; by default all are equal.
      dtype: default dtype of the weights, float or complex.
      repeats: how often all parts follow each other along the axis, as where each head
        has its query, key and value; what is of one init is then drawn as one part.

    Returns:
      An `Initializer`.

    Raises:
      TypeError: if inits are not functions.
      ValueError: if there are no inits, or not as many sizes; at the call, if the parts
        do not make up the axis, or one does not fit its init.

    Example:
      >>> qkv = concatenated([glorot_normal(), glorot_normal(), zeros()])
      >>> w = qkv(jax.random.key(0), (64, 192))
      >>> [round(float(part.var() * 64), 1) for part in jnp.split(w, 3, axis=1)]
      [1.0, 1.0, 0.0]

    References:
      Vaswani et al. Attention Is All You Need. 2017. https://arxiv.org/abs/1706.03762
    """
    if not isinstance(inits, (tuple, list)) or not inits:
        raise check.Unfit("inits must be a list of initializers.", inits=inits)
    for init in inits:
        check_init(inits=init)
    check.axis(axis=axis)
    check.at_least(1, repeats=repeats)
    if sizes is not None:
        check.sizes(sizes=sizes)
        if not isinstance(sizes, (tuple, list)) or len(sizes) != len(inits):
            rule = f"sizes must be {len(inits)}, one for each of inits."
            raise check.Unfit(rule, sizes=sizes)

    def cut(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
        (place,) = positions(shape, axis=axis)
        whole, count = shape[place], len(inits)
        lengths = sizes or [whole // (count * repeats)] * count
        if repeats * sum(lengths) != whole:
            parts = f"of sizes {tuple(sizes)}" if sizes else f"{count} of equal size"
            more = f", {repeats} times" if repeats > 1 else ""
            rule = f"axis {axis} must be made up of parts, {parts}{more}, none empty."
            raise check.Unfit(rule, shape=shape)
        before, after = shape[:place], shape[place + 1 :]
        return [(*before, repeats * size, *after) for size in lengths]

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
        (place,) = positions(shape, axis=axis)
        parts = []
        for i, (init, part) in enumerate(zip(inits, cut(shape), strict=True)):
            made = draw_part(init, jax.random.fold_in(key, i), part, dtype, shape)
            dealt = repeats, part[place] // repeats
            parts.append(made.reshape(*part[:place], *dealt, *part[place + 1 :]))
        return jnp.concatenate(parts, place + 1).reshape(shape)

    def moments(shape: tuple[int, ...]) -> Moments | None:
        parts = list(zip(inits, cut(shape), strict=True))
        whole = math.prod(shape)
        return mix([(math.prod(p) / whole, moments_of(i, p)) for i, p in parts])

    def extent(shape: tuple[int, ...]) -> Extent | None:
        return join(list(map(extent_of, inits, cut(shape))))

    return draw, moments, extent


@initializer
def blocks(init: Init, count: int, dtype: DTypeLike | None = None) -> Drawn:
    """Builds an initializer of block-diagonal matrices.

    Law: that of init for the shape of a block, 0 elsewhere; Var[w] = Var[block] / count
    for a mean of 0.

    A layer of several heads or groups, stored as one matrix: block i, which is
    ``init(jax.random.fold_in(key, i), shape of a block)``, joins the inputs of group i
    with its outputs.

    Args:
      init: draws one block: an initializer, or any function of (key, shape, dtype).
        Its own default dtype is ignored.
      count: how many blocks there are, which divides the last two axes.
      dtype: default dtype of the weights, float or complex.

    Returns:
      An `Initializer`.

    Raises:
      TypeError: if init is not a function, or count not an integer.
      ValueError: if count is below 1; at the call, if it does not divide the last two
        axes, or a block does not fit init.

    Example:
      >>> blocks(ones(), 2)(jax.random.key(0), (4, 4)).tolist()[1]
      [1.0, 1.0, 0.0, 0.0]

    References:
      Xie, Girshick, Dollár, Tu, He. Aggregated Residual Transformations for Deep Neural
      Networks. 2017. https://arxiv.org/abs/1611.05431
    """
    check_init(init=init)
    check.at_least(1, count=count)

    def block(shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(shape) < 2 or shape[-2] % count or shape[-1] % count:
            rule = f"count={count} must divide the last two axes, neither of size 0."
            raise check.Unfit(rule, shape=shape)
        return (*shape[:-2], shape[-2] // count, shape[-1] // count)

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
        part = block(shape)

        def one(number: jax.Array) -> jax.Array:
            return draw_part(init, jax.random.fold_in(key, number), part, dtype, shape)

        drawn = jax.vmap(one, out_axes=-3)(jnp.arange(count, dtype=np.uint32))
        on = jnp.eye(count, dtype=bool)[:, None, :, None]
        return jnp.where(on, drawn[..., None, :], np.asarray(0, dtype)).reshape(shape)

    def moments(shape: tuple[int, ...]) -> Moments | None:
        return dilute(moments_of(init, block(shape)), 1 / count)

    def extent(shape: tuple[int, ...]) -> Extent | None:
        return thin(extent_of(init, block(shape)))

    return draw, moments, extent


@initializer
def looks_linear(init: Init, dtype: DTypeLike | None = None) -> Drawn:
    """Builds an initializer of pairs of units that look linear through relu.

    Law: ((W, -W), (-W, W)), W that of init for half the sizes; Var[w] = Var[W] for a
    mean of 0.

    Between concatenated rectifiers, or relu layers whose units come in such pairs, the
    network is linear at the start, and a deep one passes on what a linear one does:
    relu(Wx) - relu(-Wx) = Wx. The first layer is (W, -W), the last (W, -W) transposed:
    `concatenated`.

    Args:
      init: draws W, such as orthogonal(): an initializer, or any function of (key,
        shape, dtype). Its own default dtype is ignored.
      dtype: default dtype of the weights, float or complex.

    Returns:
      An `Initializer`.

    Raises:
      TypeError: if init is not a function.
      ValueError: at the call, if one of the last two axes is odd, or init does not take
        half of them.

    Example:
      >>> w = looks_linear(orthogonal())(jax.random.key(0), (8, 8))
      >>> x = jnp.arange(4.0)
      >>> y = jax.nn.relu(jnp.concatenate([x, -x])) @ w
      >>> bool(jnp.allclose(jnp.linalg.norm(y[:4]), jnp.linalg.norm(x)))
      True

    References:
      Balduzzi, Frean, Leary, Lewis, Ma, McWilliams. The Shattered Gradients Problem: If
      resnets are the answer, then what is the question? 2017.
      https://arxiv.org/abs/1702.08591
    """
    check_init(init=init)

    def half(shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(shape) < 2 or shape[-2] % 2 or shape[-1] % 2:
            rule = (
                "needs two even axes at the end, of pairs of units, neither of size 0."
            )
            raise check.Unfit(rule, shape=shape)
        return (*shape[:-2], shape[-2] // 2, shape[-1] // 2)

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
        w = draw_part(init, key, half(shape), dtype, shape)
        rows = jnp.concatenate([w, -w], -1)
        return jnp.concatenate([rows, -rows], -2)

    def moments(shape: tuple[int, ...]) -> Moments | None:
        stated = moments_of(init, half(shape))
        return stated and mix(
            [(0.5, stated), (0.5, stated._replace(mean=-stated.mean))]
        )

    def extent(shape: tuple[int, ...]) -> Extent | None:
        held = extent_of(init, half(shape))
        return held and join([held, turn(held)])

    return draw, moments, extent
