"""Moments of an array: mean, variance, fourth moment, extremes, zeros.

Sums of powers are taken about a pivot close to the mean, so that nothing cancels. With
the sums S_k = sum (x - p)^k of a part with c entries and pivot p, and d = p - mean, the
moments about the common mean are (Chan, Golub, LeVeque 1979; Pebay 2008, for any p)

    sum (x - mean)^2 = S_2 + 2 d S_1 + c d^2
    sum (x - mean)^4 = S_4 + 4 d S_3 + 6 d^2 S_2 + 4 d^3 S_1 + c d^4

added over the parts. XLA reads the array twice: for the pivot, which is its mean, and
for all sums at once, over parts so short that float32 loses nothing by adding in order.
The kernel reads each tile once, and takes the tile's own mean as pivot.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxinit import _check as check

Impl = Literal["jax", "pallas"]
_PART = 1024  # entries that XLA may add one after another
# How two sums are joined, how an array is summed, and the sum of no entries.
_ADD = (lax.add, jnp.sum, 0.0)
_SUMS: Sequence[tuple[Any, Any, float]] = (
    *(_ADD, _ADD, _ADD, _ADD),
    *((lax.min, jnp.min, math.inf), (lax.max, jnp.max, -math.inf), _ADD),
)


class Moments(NamedTuple):
    """The result of `moments`: arrays with the axes that were kept.

    Attributes:
      mean: mean of all entries.
      variance: mean of (x - mean)^2.
      fourth: mean of (x - mean)^4; over the variance squared it is 3 for a normal law.
      minimum: the least entry.
      maximum: the largest entry.
      zeros: the share of entries that are 0.
    """

    mean: jax.Array
    variance: jax.Array
    fourth: jax.Array
    minimum: jax.Array
    maximum: jax.Array
    zeros: jax.Array


def moments(
    x: jax.Array,
    axes: int | Sequence[int] | None = None,
    *,
    impl: Impl | None = None,
) -> Moments:
    """Computes mean, variance, fourth central moment, extremes and the share of zeros.

    Computed in float64 for a float64 array, else in float32: relative errors stay below
    1e-5 for 2^24 entries, even where the mean is thousands of standard deviations. The
    fourth power of a standard deviation below 1e-9 or above 1e9 leaves float32.

    Args:
      x: an array of floats.
      axes: the axes over which moments are taken, by default all.
      impl: None is the program known to be fastest, which is "jax"; "pallas" is a
        kernel that reads the array once, and takes float32 at most. Without a GPU or
        TPU it is interpreted, which is slow and meant for tests.

    Returns:
      The moments. A nan makes all of them nan, an infinity the first three; without
      entries all are nan.

    Raises:
      ValueError: if x is not a float array, an axis is out of range, or `impl` is
        unknown or does not support its dtype.
      TypeError: if x is not an array, or axes are not integers.

    Example:
      >>> from jaxinit._moments import moments
      >>> found = moments(jnp.asarray([[1.0, 3.0], [0.0, 0.0]]), axes=1)
      >>> found.mean.tolist(), found.variance.tolist(), found.zeros.tolist()
      ([2.0, 0.0], [1.0, 0.0], [0.0, 1.0])

    References:
      Chan, Golub, LeVeque. Updating formulae and a pairwise algorithm for computing
      sample variances. 1979.
      Pebay. Formulas for robust, one-pass parallel computation of covariances and
      arbitrary-order statistical moments. 2008.
    """
    try:
        chosen = _checked(x, axes, impl)
    except check.Unfit as error:
        raise error.at("moments", "x", "axes", "impl") from None
    found: Moments = _moments(jnp.asarray(x), chosen, impl)
    return found


def _checked(
    x: jax.Array, axes: int | Sequence[int] | None, impl: Impl | None
) -> tuple[int, ...]:
    """Checks the arguments; returns the axes, counted from the first."""
    if not isinstance(x, (jax.Array, np.ndarray)):
        raise check.Unfit("x must be an array.", TypeError, x=x)
    if not jnp.issubdtype(x.dtype, np.floating):
        rule = "x must be of floats. Convert it, or take real and imaginary part."
        raise check.Unfit(rule, x=x)
    if impl is not None:
        check.choice(get_args(Impl), impl=impl)
    if impl == "pallas" and x.dtype.itemsize > 4:
        rule = f"sums in float32, and x is {x.dtype}. Leave impl out."
        raise check.Unfit(rule, impl=impl)
    if axes is None:
        return tuple(range(x.ndim))
    found = check.axes(axes=axes)
    if any(not -x.ndim <= axis < x.ndim for axis in found):
        raise check.Unfit(f"x of rank {x.ndim} has no such axis.", axes=axes)
    return check.axes(axes=tuple(axis % x.ndim for axis in found))


@functools.partial(jax.jit, static_argnums=(1, 2), inline=True)
def _moments(x: jax.Array, axes: tuple[int, ...], impl: Impl | None) -> Moments:
    shape = tuple(size for axis, size in enumerate(x.shape) if axis not in axes)
    if not x.size:
        nothing = jnp.full(shape, np.nan, _wide(x.dtype))
        return Moments(*[nothing] * len(Moments._fields))
    size = x.size // math.prod(shape)
    rows = jnp.moveaxis(x, axes, range(-len(axes), 0)).reshape(-1, size)
    found = jax.vmap(_by_kernel if impl == "pallas" else _by_xla)(rows)
    return Moments(*(value.reshape(shape) for value in found))


def _by_xla(x: jax.Array) -> Moments:
    """Computes the moments of a flat array by one reduction of all terms."""
    x = x.astype(_wide(x.dtype))
    pivot = jnp.sum(x) / x.size
    starts = [x.dtype.type(start) for *_, start in _SUMS]

    def join(a: Sequence[jax.Array], b: Sequence[jax.Array]) -> list[jax.Array]:
        return [add(*pair) for (add, *_), *pair in zip(_SUMS, a, b, strict=True)]

    full = x.size - x.size % _PART
    found = [
        lax.reduce(_terms(part, pivot), starts, join, (1,))
        for part in (x[:full].reshape(-1, _PART), x[full:].reshape(1, -1))
    ]
    sums = [jnp.concatenate(pair) for pair in zip(*found, strict=True)]
    entries = jnp.append(jnp.full(full // _PART, _PART), x.size - full)
    return _joined([pivot[None], *sums], entries.astype(x.dtype), x.size)


def _by_kernel(x: jax.Array) -> Moments:
    """Computes the moments of a flat array by a kernel that reads each tile once."""
    from jaxinit import _tiles  # Pallas costs time to import

    tiles = _tiles.Tiles(line=4096, lines=32, warps=8)

    def program(device: "_tiles.Device") -> Callable[[jax.Array], Moments]:
        def run(x: jax.Array) -> Moments:
            sums, entries = _tiles.reduced(x, tiles, device, _of_tile)
            return _joined(list(sums.T), entries, x.size)

        return run

    found: Moments = _tiles.on_each(program, x)
    return found


def _of_tile(
    x: jax.Array, entries: jax.Array, inside: jax.Array | None
) -> list[jax.Array]:
    """Computes pivot and sums of a tile's entries; `inside` is None if all count."""

    def total(
        of: Callable[..., jax.Array], value: jax.Array, start: float
    ) -> jax.Array:
        return of(value if inside is None else jnp.where(inside, value, start))

    x = x.astype(np.float32)
    pivot = total(jnp.sum, x, 0.0) / entries
    terms = zip(_terms(x, pivot), _SUMS, strict=True)
    return [pivot, *(total(of, term, start) for term, (_, of, start) in terms)]


def _wide(dtype: np.dtype) -> np.dtype:
    """Returns the dtype of sums."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def _terms(x: jax.Array, pivot: jax.Array) -> list[jax.Array]:
    """Computes for each entry the terms of the sums and of the extremes."""
    d = x - pivot
    # The last is 1 at a zero, and nan at a nan. XLA adds up comparisons slowly.
    zero = 1 - jnp.square(jnp.sign(x))
    return [d, d * d, d * d * d, (d * d) * (d * d), x, x, zero]


def _joined(sums: Sequence[jax.Array], entries: jax.Array, size: int) -> Moments:
    """Joins the pivots and sums of parts, [parts], with their numbers of entries."""
    pivot, one, two, three, four, least, most, zeros = sums

    def mean(value: jax.Array) -> jax.Array:
        return jnp.sum(value) / float(size)

    shift = mean(one + entries * (pivot - pivot[0]))  # from the first pivot to the mean
    d = pivot - pivot[0] - shift
    variance = mean(two + d * (2 * one + d * entries))
    fourth = mean(four + d * (4 * three + d * (6 * two + d * (4 * one + d * entries))))
    share = mean(zeros)
    # Triton's extremes skip nan; the share of zeros does not.
    return Moments(
        pivot[0] + shift,
        jnp.maximum(variance, 0),
        jnp.maximum(fourth, 0),
        jnp.where(jnp.isnan(share), share, jnp.min(least)),
        jnp.where(jnp.isnan(share), share, jnp.max(most)),
        share,
    )
