"""Assertions about dtypes: all give one weight, with all values that they can hold."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxinit import _check as check
from jaxinit import _value
from jaxinit._initializer import Shape
from jaxinit.testing._case import LEVEL, Init, difference, import_needed, open_case

NARROW = (jnp.bfloat16, jnp.float16, jnp.float8_e4m3fn, jnp.float8_e5m2)
_DRAWS = 8
_ERRORS = 5  # standard errors
# How many values a law takes, equally often, at least: JAX draws a uniform of 23 bits
# for float32 and of 52 for float64, and the law's rounding may join two neighbors.
_VALUES = {4: 2**22, 8: 2**51}  # by bytes


def assert_distinct(
    init: Init,
    shape: Shape,
    dtype: DTypeLike | None = None,
    *,
    key: jax.Array | None = None,
) -> None:
    """Asserts that a continuous law fills its dtype: no value stands out.

    Zeros where there should be none, a row that was left out, and draws of a few bits
    keep mean and variance. They show by values that come too often.

    Law: N entries that fall on M values with equal probability hold one of them m times
    with probability at most M (N / M)^m / m!. With M = 2^22 in float32 and 2^51 in
    float64, no value may come so often that this is below 1e-4. In a narrower dtype the
    number of distinct values must be that of the float32 weights of other keys,
    rounded: within 5 standard errors of eight weights.

    Args:
      init: an initializer of a continuous law, without an exact share of zeros.
      shape: sizes of the weight. Fewer than a few hundred entries show little.
      dtype: dtype of the weight; by default the initializer's own. float64 needs x64.
      key: the key that is split; by default ``jax.random.key(0)``.

    Raises:
      AssertionError: if a value comes too often, or there are too few.
      ValueError: if an argument is out of range, or the dtype is an integer type.
      TypeError: if an argument is of the wrong type.

    Example:
      >>> jaxinit.testing.assert_distinct(jaxinit.he_normal(), (24, 40), "bfloat16")
      >>> few = jax.nn.initializers.normal()  # draws of 7 bits in bfloat16
      >>> jaxinit.testing.assert_distinct(
      ...     few, (24, 40), "bfloat16"
      ... )  # doctest: +ELLIPSIS
      Traceback (most recent call last):
      AssertionError: assert_distinct(...): ...
    """
    with open_case("assert_distinct", init, shape, key) as case:
        kind = None if dtype is None else _value.as_dtype(dtype)
        keys = jax.random.split(case.key, 2 * _DRAWS)
        drawn = [case.draw(key, kind) for key in keys[:_DRAWS]]
        kind = np.dtype(drawn[0].dtype)
        if not jnp.issubdtype(kind, np.inexact):
            raise check.Unfit("the weight must be of floats.", dtype=kind.name)
        wide = jnp.issubdtype(kind, np.complexfloating) or jnp.finfo(kind).bits >= 32
        if wide:
            size = jnp.finfo(kind).bits // 8
            most = _most_often(drawn[0].size, _VALUES[size])
            for weight in drawn:
                values, counts = np.unique(case.entries(weight), return_counts=True)
                if counts.max() > most:
                    value = values[counts.argmax()]
                    rule = f"no value must come more than {most} times among "
                    rule += f"{weight.size} entries of {kind}."
                    raise case.failure(rule, f"{value} comes {counts.max()} times.")
            return
        rounded = [case.draw(key, np.dtype(np.float32)) for key in keys[_DRAWS:]]
        own = np.array([_distinct(weight) for weight in drawn])
        other = np.array([_distinct(weight.astype(kind)) for weight in rounded])
        error = math.hypot(own.std(ddof=1), other.std(ddof=1)) / math.sqrt(_DRAWS)
        least = other.mean() - _ERRORS * error - 1
        if own.mean() < least:
            rule = f"the {kind} weights must have {least:.0f} distinct values or more, "
            rule += "as float32 ones have when rounded."
            raise case.failure(rule, f"They have {own.mean():.0f}.")


def _most_often(entries: int, values: int) -> int:
    """Returns how often a value comes at most, except with probability LEVEL."""
    rate = entries / values
    count = 1
    chance = values * rate * rate / 2  # that some value comes twice
    while chance > LEVEL / _DRAWS:
        count += 1
        chance *= rate / (count + 1)
    return count


def _distinct(weight: jax.Array) -> int:
    return len(np.unique(np.asarray(weight).astype(np.float32)))


def assert_float64(init: Init, shape: Shape, *, key: jax.Array | None = None) -> None:
    """Asserts that float64 weights follow the law of the float32 ones, in more bits.

    Law: the largest distance between the distribution functions of eight float64 and
    eight float32 weights exceeds its bound with probability 1e-4 if they follow one law
    (Kolmogorov and Smirnov, two samples); and if the float32 weights have more than one
    value, most float64 entries are not float32 numbers. x64 is enabled inside.

    Args:
      init: an initializer of real entries.
      shape: sizes of the weight. More entries show smaller faults.
      key: the key that is split; by default ``jax.random.key(0)``.

    Raises:
      AssertionError: if the laws differ, or the weights are float32 ones made wider.
      ValueError: if an argument is out of range.
      TypeError: if an argument is of the wrong type.

    Example:
      >>> jaxinit.testing.assert_float64(jaxinit.he_normal(), (24, 40))
    """
    with open_case("assert_float64", init, shape, key) as case, jax.enable_x64(True):
        compare = import_needed("assert_float64", "scipy.stats").ks_2samp
        keys = jax.random.split(case.key, 2 * _DRAWS)
        kinds: list[np.dtype] = [np.dtype(np.float64), np.dtype(np.float32)]
        wide, single = (
            np.concatenate([case.entries(case.draw(key, kind)) for key in some])
            for kind, some in zip(kinds, (keys[:_DRAWS], keys[_DRAWS:]), strict=True)
        )
        if len(np.unique(single)) == 1:  # a constant, which float32 may have rounded
            if not np.array_equal(wide.astype(np.float32), single):
                came = f"It is {wide[0]}, not {single[0]}."
                raise case.failure(
                    "the float64 constant must be that of float32.", came
                )
            return
        found = compare(wide, single)
        if not found.pvalue > LEVEL:
            rule = "float64 weights must follow the law of float32 ones."
            came = f"The distance between {wide.size} entries of each is "
            came += f"{found.statistic:.3g}, which has probability {found.pvalue:.2g}. "
            came += (
                f"Their standard deviations are {wide.std():.6g}, {single.std():.6g}."
            )
            raise case.failure(rule, came)
        values = np.unique(wide)
        if np.mean(values == values.astype(np.float32)) > 0.5:
            rule = "float64 weights must have bits that float32 ones lack."
            raise case.failure(rule, "Most entries are float32 numbers.")


def assert_same_in_every_dtype(
    init: Init,
    shape: Shape,
    dtypes: Sequence[DTypeLike] = NARROW,
    *,
    key: jax.Array | None = None,
) -> None:
    """Asserts that a weight of a narrow dtype is the float32 one, rounded.

    Law: init(key, shape, dtype) = init(key, shape, float32).astype(dtype), bit for bit.

    Args:
      init: the initializer.
      shape: sizes of the weight.
      dtypes: floats of fewer than 32 bits; by default bfloat16, float16, float8_e4m3fn
        and float8_e5m2.
      key: the key; by default ``jax.random.key(0)``.

    Raises:
      AssertionError: if a weight differs from the rounded float32 one.
      ValueError: if a dtype is not a float of fewer than 32 bits.
      TypeError: if an argument is of the wrong type.

    Example:
      >>> jaxinit.testing.assert_same_in_every_dtype(jaxinit.normal(), (4, 5))
    """
    with open_case("assert_same_in_every_dtype", init, shape, key) as case:
        kinds = [_value.as_dtype(dtype) for dtype in dtypes]
        for kind in kinds:
            if not jnp.issubdtype(kind, np.floating) or jnp.finfo(kind).bits >= 32:
                rule = "dtypes must be floats of fewer than 32 bits."
                raise check.Unfit(rule, dtypes=kind.name)
        wide = jnp.asarray(case.draw(case.key, np.dtype(np.float32)))
        for kind in kinds:
            if came := difference(case.draw(case.key, kind), wide.astype(kind)):
                rule = f"the {kind} weight must be the float32 one, rounded."
                raise case.failure(rule, came)
