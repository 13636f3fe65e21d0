"""The moments of a law, and its range, which a dtype must hold.

Weights are drawn in 32 bits or more and then rounded. If a law leaves the range of the
dtype, weights would become infinities or NaN; if it is too small for the dtype, zeros.
Both are refused, from a few numbers alone, before anything is drawn.
"""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxinit import _check as check

# Standard deviations within which float32 draws every normal number. float64 draws one
# in 26 million outside.
_REACH = 5.5


class Moments(NamedTuple):
    """Mean and variance of an entry of a weight, over keys and entries."""

    mean: float
    variance: float


class Extent(NamedTuple):
    """The range of a law, which a dtype must hold.

    Attributes:
      ends: the least and the largest weight, and any weights that are not finite.
      size: the size of weights that are not 0, such as their standard deviation.
      bounds: limits that no weight passes after rounding; None if none were promised.
    """

    ends: tuple[float, ...]
    size: float
    bounds: tuple[float, float] | None = None


def symmetric(end: float, size: float) -> Extent:
    """Returns the extent of a law on [-end, end]."""
    return Extent((-end, end), size)


def normal(mean: float, stddev: float) -> Extent:
    """Returns the extent of a normal law."""
    far = _REACH * stddev
    return Extent((mean - far, mean + far), max(abs(mean), stddev))


def truncated(mean: float, stddev: float, lower: float, upper: float) -> Extent:
    """Returns the extent of a normal law between bounds, in units of stddev."""
    low, high = max(lower, -_REACH), min(upper, _REACH)
    size = max(abs(mean), stddev)
    return Extent((mean + stddev * low, mean + stddev * high), size)


def of_values(values: Any) -> Extent:
    """Returns the extent of fixed weights."""
    array = np.asarray(values)
    if np.iscomplexobj(array):
        array = np.stack([array.real, array.imag])
    if array.dtype != np.float32:
        array = array.astype(np.float64, copy=False)
    ends = (array.min().item(), array.max().item()) if array.size else ()
    if all(map(math.isfinite, ends)):
        return Extent(ends, max(map(abs, ends), default=0.0))
    finite = array[np.isfinite(array)]
    odd = np.unique(array[~np.isfinite(array)]).tolist()
    ends = (finite.min().item(), finite.max().item()) if finite.size else ()
    return Extent((*ends, *odd), max(map(abs, ends), default=0.0))


def fit(extent: Extent, dtype: np.dtype, drawn: bool) -> None:
    """Raises `Unfit` if a float dtype cannot hold a law.

    Drawn weights are results of arithmetic, in which XLA flushes subnormals to zero.
    """
    if not jnp.issubdtype(dtype, np.inexact):
        return
    limits = jnp.finfo(dtype)
    ends = extent.ends
    if not all(_is_held(x, dtype) and not (drawn and math.isinf(x)) for x in ends):
        reach = " to ".join(f"{end:.3g}" for end in dict.fromkeys(ends))
        rule = f"the weights, {reach}, leave what the type holds, {limits.min:.3g} to "
        rule += f"{limits.max:.3g}. Use a wider type, or a smaller scale."
        raise check.Unfit(rule, dtype=dtype.name)
    wide = np.float64 if limits.dtype == np.float64 else np.float32
    least = float(jnp.finfo(wide).tiny) if drawn else 0.0
    if extent.size and (extent.size < least or not _rounded(extent.size, dtype)):
        rule = f"weights of the size {extent.size:.3g} round to 0. Use a wider type, "
        raise check.Unfit(rule + "or a larger scale.", dtype=dtype.name)
    if extent.bounds is not None and jnp.issubdtype(dtype, np.floating):
        low, high = within(extent.bounds, dtype)
        if low > high:
            rule = "no number of this type lies between the bounds. Use a wider type."
            raise check.Unfit(rule, dtype=dtype.name)


def _is_held(value: float, dtype: np.dtype) -> bool:
    """Returns whether a dtype holds a number, up to rounding."""
    rounded = _rounded(value, dtype)
    if not math.isfinite(value):
        return rounded == value or math.isnan(rounded) and math.isnan(value)
    # Types without infinity round everything above their largest number down to it:
    # up to half a unit in the last place that is rounding, beyond that it is overflow.
    largest, step = float(jnp.finfo(dtype).max), float(jnp.finfo(dtype).eps)
    spare = step * 2.0 ** (math.frexp(largest)[1] - 2)
    return math.isfinite(rounded) and abs(value) - largest < spare


def _rounded(value: float, dtype: np.dtype) -> float:
    """Rounds a number to a real or complex dtype."""
    with np.errstate(all="ignore"):
        return float(np.float64(value).astype(dtype).real)


def within(bounds: tuple[float, float], dtype: np.dtype) -> tuple[float, float]:
    """Rounds bounds to numbers between them; one of the bounds may be infinite."""
    limits = jnp.finfo(dtype)
    low, high = bounds
    if math.isfinite(low):
        low = _inside(low, dtype, limits.max)
    if math.isfinite(high):
        high = _inside(high, dtype, limits.min)
    return low, high


def _inside(value: float, dtype: np.dtype, towards: Any) -> float:
    """Rounds a bound to a dtype, on the side where `towards` lies."""
    limits = jnp.finfo(dtype)
    value = min(max(value, float(limits.min)), float(limits.max))
    rounded = np.float64(value).astype(dtype)
    if (float(rounded) - value) * (float(towards) - value) < 0:
        rounded = np.nextafter(rounded, np.asarray(towards).astype(dtype))
    return float(rounded)


def exactly(values: np.ndarray, dtype: np.dtype, name: str) -> np.ndarray:
    """Returns values in a dtype; an integer dtype must hold them exactly."""
    if np.iscomplexobj(values) and not jnp.issubdtype(dtype, np.complexfloating):
        raise check.Unfit(f"{name} is complex.", dtype=dtype.name)
    if values.size and not jnp.issubdtype(dtype, np.inexact):
        limits = jnp.iinfo(dtype) if dtype != np.bool_ else None
        least, most = (limits.min, limits.max) if limits else (0, 1)
        with np.errstate(invalid="ignore"):  # some may not be finite
            whole = bool(np.all(values % 1 == 0)) if values.dtype != np.bool_ else True
        # Python compares an integer with a float exactly.
        if not (whole and least <= values.min().item() and values.max().item() <= most):
            rule = f"{name} is not an integer that this type holds."
            raise check.Unfit(rule, dtype=dtype.name)
    with np.errstate(all="ignore"):  # values that overflow are refused later
        return values.astype(dtype)
