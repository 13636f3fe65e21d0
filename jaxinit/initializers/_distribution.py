"""Weights of one law whatever the shape: uniform, normal, truncated normal."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxinit import _check as check
from jaxinit import _extent as extents
from jaxinit import random
from jaxinit._draws import LEAST_MASS, needs_real
from jaxinit._extent import Extent
from jaxinit._fill import Independent
from jaxinit._initializer import Drawn, Moments, initializer


def _shifted(array: jax.Array, mean: float) -> jax.Array:
    """Adds a mean, unless it is 0."""
    return array + jnp.asarray(mean, array.dtype) if mean else array


_COMPLEX = " Use normal, or variance_scaling."  # instead of a law of real numbers


@initializer
def uniform(
    scale: float = 1e-2,
    dtype: DTypeLike | None = None,
    *,
    low: float | None = None,
    high: float | None = None,
) -> Drawn:
    """Builds an initializer of uniform weights, by default from 0 to scale.

    Law: uniform on [low, high); Var[w] = (high - low)^2 / 12.

    As in JAX the interval starts at 0 unless ``low`` says otherwise. For symmetric
    weights write ``uniform(low=-a, high=a)``.

    Args:
      scale: the upper end when ``high`` is not given.
      dtype: default dtype of the weights, real.
      low: the lower end, inclusive; by default 0.
      high: the upper end, exclusive up to the rounding of narrow dtypes; by default
        scale. No weight is below ``low`` or above ``high``, where one is given, in any
        dtype.

    Returns:
      An `Initializer`.

    Raises:
      ValueError: if the interval is empty, or both scale and high are given.

    Example:
      >>> w = uniform(low=-0.1, high=0.1)(jax.random.key(0), (256, 512))
      >>> bool((w >= -0.1).all() and (w < 0.1).all())
      True

    References:
      LeCun, Bottou, Orr, Müller. Efficient BackProp. 1998.
    """
    scale = check.real(scale=scale)
    plain = low is None and high is None
    if high is not None and scale != 1e-2:
        raise check.Unfit("give scale or high, not both.", high=high)
    start = 0.0 if low is None else check.real(low=low)
    stop = scale if high is None else check.real(high=high)
    if not plain and not start < stop:
        raise check.Unfit(f"low must be below the upper end, {stop:g}.", low=start)

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
        needs_real(dtype, _COMPLEX)
        if abs(stop - start) > float(jnp.finfo(dtype).max):
            rule = "high - low is no number of this type. Use a wider type."
            raise check.Unfit(rule, dtype=dtype.name)
        if plain:  # JAX's formula: a scale may be negative
            return random.uniform(key, shape, dtype) * np.asarray(scale, dtype)
        return random.uniform(key, shape, dtype, start, stop)

    def moments(shape: tuple[int, ...]) -> Moments:
        width = stop - start
        return Moments((start + stop) / 2, width * width / 12)

    bounds = None if plain else (start, stop)
    spread = Extent((start, stop), max(abs(start), abs(stop)), bounds)
    return Independent(draw), moments, lambda shape: spread


@initializer
def normal(
    stddev: float = 1e-2, dtype: DTypeLike | None = None, *, mean: float = 0.0
) -> Drawn:
    """Builds an initializer of normal weights.

    Law: normal, N(mean, stddev^2); Var[w] = stddev^2.

    Complex weights are circular around the mean with E|w - mean|^2 = stddev^2.

    Args:
      stddev: standard deviation, 0 or above.
      dtype: default dtype of the weights, float or complex.
      mean: mean of the weights.

    Returns:
      An `Initializer`.

    Raises:
      ValueError: if stddev is negative.

    Example:
      >>> w = normal(stddev=0.02)(jax.random.key(0), (256, 512))
      >>> abs(float(w.std()) / 0.02 - 1) < 0.01
      True

    References:
      Krizhevsky, Sutskever, Hinton. ImageNet Classification with Deep Convolutional
      Neural Networks. 2012. https://papers.nips.cc/paper/4824
    """
    stddev, mean = check.not_negative(stddev=stddev), check.real(mean=mean)

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
        return _shifted(
            random.normal(key, shape, dtype) * np.asarray(stddev, dtype), mean
        )

    def moments(shape: tuple[int, ...]) -> Moments:
        return Moments(mean, stddev * stddev)

    return Independent(draw), moments, lambda shape: extents.normal(mean, stddev)


_FAR = 10.0  # standard deviations: as good as no bound, in float64 too
_NONE = 40.0  # standard deviations at which the density rounds to 0
_MOST = 3e38  # about the largest number of float32


@initializer
def truncated_normal(
    stddev: float = 1e-2,
    dtype: DTypeLike | None = None,
    lower: float = -2.0,
    upper: float = 2.0,
    *,
    mean: float = 0.0,
    low: float | None = None,
    high: float | None = None,
    corrected: bool = False,
) -> Drawn:
    """Builds an initializer of normal weights without the tails.

    Law: normal, given lower < (w - mean) / stddev < upper; Var[w] = v stddev^2 with
    v = 1 + (a f(a) - b f(b)) / Z - ((f(a) - f(b)) / Z)^2, where a, b are the bounds, f
    the normal density, Z the mass between them (v = 0.774 for -2 and 2).

    As in JAX the bounds count standard deviations, and stddev is that of the normal law
    before truncation. ``low`` and ``high`` bound the weights themselves instead, as in
    torch; ``corrected=True`` makes stddev that of the weights, by v = 1.

    Args:
      stddev: standard deviation before truncation, after it if corrected; 0 or above.
      dtype: default dtype of the weights, real.
      lower: lower bound, in units of stddev.
      upper: upper bound, in units of stddev.
      mean: mean before truncation.
      low: lower bound of the weights, in place of ``lower``; by default none if
        ``high`` is given.
      high: upper bound of the weights, in place of ``upper``; by default none if
        ``low`` is given.
      corrected: whether stddev is meant after truncation. Bounds in units of stddev
        then count the standard deviation before it.

    Returns:
      An `Initializer`.

    Raises:
      ValueError: if stddev is negative, a lower bound is not below the upper, hardly
        any of the normal law lies between them, or both kinds of bounds are given.

    Example:
      >>> w = truncated_normal(stddev=0.02)(jax.random.key(0), (256, 512))
      >>> float(abs(w).max()) <= 0.04
      True

    References:
      Johnson, Kotz, Balakrishnan. Continuous Univariate Distributions, volume 1,
      section 13.10. 1994.
    """
    stddev, mean = check.not_negative(stddev=stddev), check.real(mean=mean)
    lower, upper = check.real(lower=lower), check.real(upper=upper)
    check.boolean(corrected=corrected)
    bounds = None
    if low is not None or high is not None:
        if (lower, upper) != (-2.0, 2.0):
            rule = (
                "give lower and upper, in units of stddev, or low and high, not both."
            )
            raise check.Unfit(rule, low=low)
        if corrected or not stddev:
            rule = "bounds on the weights need a stddev above 0, and no correction."
            raise check.Unfit(rule, low=low)
        least = -math.inf if low is None else check.real(low=low)
        most = math.inf if high is None else check.real(high=high)
        if not least < most:
            raise check.Unfit(f"low must be below high, {most:g}.", low=least)
        lower = -_FAR if low is None else (least - mean) / stddev
        upper = _FAR if high is None else (most - mean) / stddev
        bounds = least, most
    if not lower < upper:
        raise check.Unfit(f"lower must be below upper, {upper:g}.", lower=lower)
    if random.normal_mass(lower, upper) < LEAST_MASS:
        rule = f"less than {LEAST_MASS:g} of a normal law lies between lower and "
        raise check.Unfit(rule + f"upper, {upper:g}. Use wider bounds.", lower=lower)
    shift, variance = random.truncated_moments(max(lower, -_NONE), min(upper, _NONE))
    if corrected:
        stddev /= math.sqrt(variance)
    lower, upper = max(lower, -_MOST), min(upper, _MOST)
    spread = extents.truncated(mean, stddev, lower, upper)._replace(bounds=bounds)

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
        needs_real(dtype, _COMPLEX)
        unit = random.truncated_normal(key, lower, upper, shape, dtype)
        weight = _shifted(unit * np.asarray(stddev, dtype), mean)
        if bounds is not None:  # rounding of the sum could pass one
            ends = (np.asarray(x, dtype) for x in extents.within(bounds, dtype))
            weight = jnp.clip(weight, *ends)
        return weight

    def moments(shape: tuple[int, ...]) -> Moments:
        return Moments(mean + stddev * shift, stddev * stddev * variance)

    return Independent(draw), moments, lambda shape: spread


@initializer
def log_uniform(low: float, high: float, dtype: DTypeLike | None = None) -> Drawn:
    """Builds an initializer of positive weights whose logarithm is uniform.

    Law: density 1 / (w log(high / low)) on [low, high); Var[w] = (high^2 - low^2) /
    (2 r) - ((high - low) / r)^2, r = log(high / low).

    For time steps, rates and scales that may lie orders of magnitude apart.

    Args:
      low: the lower end, above 0.
      high: the upper end, above low. No weight lies outside, in any dtype.
      dtype: default dtype of the weights, real.

    Returns:
      An `Initializer`.

    Raises:
      ValueError: if low is not above 0, or high not above low.

    Example:
      >>> w = log_uniform(0.001, 0.1)(jax.random.key(0), (4096,))
      >>> abs(float(jnp.median(w)) - 0.01) < 1e-3
      True

    References:
      Gu, Goel, Ré. Efficiently Modeling Long Sequences with Structured State Spaces.
      2021. https://arxiv.org/abs/2111.00396
    """
    start, stop = check.real(low=low), check.real(high=high)
    if start <= 0:
        raise check.Unfit("low must be above 0.", low=low)
    if not start < stop:
        raise check.Unfit(f"high must be above {start:g}.", high=high)
    ratio = math.log(stop) - math.log(start)

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
        needs_real(dtype, _COMPLEX)
        logs = random.uniform(key, shape, dtype, math.log(start), math.log(stop))
        weight = jnp.exp(logs)
        return jnp.clip(weight, *extents.within((start, stop), np.dtype(dtype)))

    def moments(shape: tuple[int, ...]) -> Moments:
        mean = (stop - start) / ratio
        return Moments(mean, (stop + start) * mean / 2 - mean * mean)

    spread = Extent((start, stop), start, (start, stop))
    return draw, moments, lambda shape: spread
