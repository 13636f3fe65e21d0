"""Assertions about laws, keys and dtypes."""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from jaxinit import _check as check
from jaxinit import _value
from jaxinit._axes import positions
from jaxinit._initializer import Initializer, Shape
from jaxinit.testing._case import (
    LEVEL,
    Init,
    difference,
    import_needed,
    name_call,
    open_case,
    precision,
    widen,
)

_ERRORS = 5  # standard errors: one false alarm in 50 000 for 32 draws (Student's t)
_ROUNDINGS = 8  # that the constants and operations of a law may add up to


def assert_moments(
    init: Init,
    shape: Shape,
    mean: complex | None = None,
    variance: float | None = None,
    *,
    draws: int = 32,
    within: float | None = None,
    dtype: DTypeLike | None = None,
    key: jax.Array | None = None,
) -> None:
    r"""Asserts that weights have a stated mean and variance.

    Law: over K keys, mean and \|w - mean\|^2 are averaged within each weight; s is the
    standard deviation of such an average from key to key, and the average of all must
    lie within 5 s / sqrt(K), and rounding, of the stated value. So for N normal entries
    a variance passes that is off by up to about 5 sqrt(2 / (K N)): ``within`` asks for
    more.

    Only keys are taken to be independent, not the entries of a weight, so that the
    tolerance holds for orthogonal and sparse weights too. For independent entries, N of
    them in a weight, s of the variance comes to variance sqrt((kurtosis - 1) / N).

    Args:
      init: the initializer.
      shape: sizes of the weight. For a few dozen entries take more draws: the tolerance
        relies on averages over a weight being nearly normal.
      mean: mean of an entry; by default that of ``init.moments(shape)``.
      variance: E\|w - mean\|^2, 0 or above; by default that of ``init.moments(shape)``.
      draws: K, the number of weights, 16 or above.
      within: the relative error of the variance that must be detected, above 0: enough
        more weights are drawn to bring 5 s / sqrt(K) below half of it. A fan that is
        off by one is detected with ``within=1 / fan``.
      dtype: dtype of the weights; by default the initializer's own. float64 needs x64.
      key: the key that is split for them; by default ``jax.random.key(0)``.

    Raises:
      AssertionError: if the mean or variance differs, or a weight is not finite.
      ValueError: if a moment is neither given nor stated by the initializer, or an
        argument is out of range.
      TypeError: if an argument is of the wrong type.

    Example:
      >>> init = jax.nn.initializers.he_normal()
      >>> jaxinit.testing.assert_moments(init, (64, 48), mean=0.0, variance=2 / 64)
    """
    with open_case("assert_moments", init, shape, key) as case:
        check.at_least(16, draws=draws)
        kind = None if dtype is None else _value.as_dtype(dtype)
        if mean is None or variance is None:
            stated = getattr(init, "moments", lambda shape: None)(case.shape)
            if stated is None:
                rule = "init states no moments. Give mean and variance."
                raise check.Unfit(rule, init=init)
            mean = stated.mean if mean is None else mean
            variance = stated.variance if variance is None else variance
        center = mean if isinstance(mean, complex) else check.real(mean=mean)
        width = check.not_negative(variance=variance)
        drawn = [case.draw(key, kind) for key in jax.random.split(case.key, draws)]
        eps, narrow, least = precision(drawn[0].dtype)
        weights = list(map(case.entries, drawn))
        if within is not None:
            if not 0 < check.real(within=within):
                raise check.Unfit("within must be above 0.", within=within)
            spread = np.std([square(weight, center) for weight in weights], ddof=1)
            enough = (2 * _ERRORS * spread / (within * width)) ** 2 if width else 0
            more = max(0, math.ceil(enough) - draws)
            keys = jax.random.split(jax.random.fold_in(case.key, 1), more)
            weights += [case.entries(case.draw(key, kind)) for key in keys]
            draws = len(weights)
        # Bounds the root mean square of an entry's rounding error.
        step = (_ROUNDINGS * eps + narrow / 2) * math.hypot(abs(center), width**0.5)
        step += least / 2
        squares = [square(weight, center) for weight in weights]
        for name, belongs, averages, rounding in (
            ("mean", center, [weight.mean() for weight in weights], step),
            ("variance", width, squares, 2 * step * width**0.5 + step**2),
        ):
            found = np.mean(averages)
            error = _ERRORS * np.std(averages, ddof=1) / math.sqrt(draws) + rounding
            if not abs(found - belongs) <= error:
                rule = f"the {name} over {draws} keys must be {belongs:.8g} within "
                rule += f"{error:.2g}, which is {_ERRORS} standard errors and rounding."
                raise case.failure(rule, f"It is {found:.8g}.")


def square(weight: np.ndarray, center: complex) -> float:
    """Returns the mean square of the distances of a weight's entries from a number."""
    return float(np.mean(np.abs(weight - center) ** 2))


def assert_law(
    init: Init,
    shape: Shape,
    law: Any,
    *,
    level: float = LEVEL,
    dtype: DTypeLike | None = None,
    key: jax.Array | None = None,
) -> None:
    """Asserts that the entries of a weight follow a law, by Kolmogorov and Smirnov.

    Law: the largest distance between the distribution function of the entries and that
    of the law exceeds its bound with probability ``level`` if the law is right.

    Args:
      init: an initializer of real, independent entries.
      shape: sizes of the weight. More entries show smaller faults: a million show a
        standard deviation that is off by one percent.
      law: a frozen law of `scipy.stats`, or its distribution function.
      level: the probability of a false alarm, above 0 and below 1.
      dtype: dtype of the weight; by default the initializer's own. float64 needs x64.
      key: the key; by default ``jax.random.key(0)``.

    Raises:
      AssertionError: if the entries do not follow the law.
      ValueError: if the level is out of range, or the weight complex.
      TypeError: if law is neither a law nor a function.

    Example:
      >>> from scipy import stats
      >>> init = jaxinit.normal(stddev=0.5)
      >>> jaxinit.testing.assert_law(init, (64, 48), stats.norm(0, 0.5))
    """
    with open_case("assert_law", init, shape, key) as case:
        if not 0 < check.real(level=level) < 1:
            raise check.Unfit("level must lie above 0 and below 1.", level=level)
        function = getattr(law, "cdf", law)
        if not callable(function):
            rule = "law must be a frozen law of scipy.stats, or a function."
            raise check.Unfit(rule, TypeError, law=law)
        kstest = import_needed("assert_law", "scipy.stats").kstest
        kind = None if dtype is None else _value.as_dtype(dtype)
        entries = case.entries(case.draw(case.key, kind))
        if np.iscomplexobj(entries):
            rule = "the law must be one of real entries. Test abs or angle of them."
            raise check.Unfit(rule, init=init)
        found = kstest(entries, function)
        if not found.pvalue > level:
            rule = f"the entries must follow the law, at level {level:g}."
            came = f"Over {entries.size} of them the distance from it is "
            came += f"{found.statistic:.3g} near w = {found.statistic_location:.6g}, "
            raise case.failure(
                rule, came + f"which has probability {found.pvalue:.2g}."
            )


def assert_orthonormal(
    weight: ArrayLike,
    scale: float = 1.0,
    column_axis: int = -1,
    tolerance: float | None = None,
) -> None:
    """Asserts that the columns of a weight are orthonormal, or its rows if fewer.

    Law: Q^H Q = I for Q = weight / scale, of rows >= columns, else Q Q^H = I.

    Args:
      weight: an array of two axes or more, real or complex, of any float dtype.
      scale: the length of the columns, or rows; not 0.
      column_axis: the axis of the columns; all others together are rows.
      tolerance: the largest error of an entry of Q^H Q; by default (8 + sqrt(n) / 2)
        eps for n columns, whose errors add up as a random walk does. Dtypes below 32
        bits take eps of float32, and add their own: what one rounding can do.

    Raises:
      AssertionError: if they are not.
      ValueError: if weight has fewer than two axes or no entries, or scale is 0.
      TypeError: if an argument is of the wrong type.

    Example:
      >>> w = jaxinit.orthogonal(scale=2.0)(jax.random.key(0), (64, 32))
      >>> jaxinit.testing.assert_orthonormal(w, scale=2.0)
      >>> jaxinit.testing.assert_orthonormal(w.astype("bfloat16"), scale=2.0)
    """
    with name_call("assert_orthonormal"):
        array = np.asarray(weight)
        if array.ndim < 2 or not array.size:
            raise check.Unfit("needs two axes or more, and entries.", weight=array)
        if not check.real(scale=scale):
            raise check.Unfit("scale must not be 0.", scale=scale)
        column = positions(
            array.shape, column_axis=check.axis(column_axis=column_axis)
        )[0]
        if tolerance is not None:
            check.not_negative(tolerance=tolerance)
        eps, narrow, least = precision(array.dtype)
    matrix = np.moveaxis(array, column, -1).reshape(-1, array.shape[column])
    matrix = widen(matrix) / scale
    if len(matrix) < matrix.shape[1]:
        matrix = matrix.T
    rows, columns = matrix.shape
    if tolerance is None:
        tolerance = (_ROUNDINGS + math.sqrt(columns) / 2) * eps + narrow
        tolerance += least / abs(scale) * math.sqrt(rows)  # where entries underflow
    error = np.abs(matrix.conj().T @ matrix - np.eye(columns))
    worst = np.unravel_index(error.argmax(), error.shape)
    if not error[worst] <= tolerance:
        call = f"assert_orthonormal(weight={check.show(array)}, scale={scale:g})"
        which = "columns" if columns == array.shape[column] else "rows"
        i, j = map(int, worst)
        came = f"The product of {i} and {j} is off by {error[worst]:.2g}."
        raise AssertionError(
            f"{call}: the {which} must be orthonormal times scale, within "
            f"{tolerance:.2g}. {came}"
        )


def assert_pure(
    init: Init,
    shape: Shape,
    dtype: DTypeLike | None = None,
    *,
    random: bool | None = None,
    key: jax.Array | None = None,
) -> None:
    """Asserts that a weight depends on the key alone, bit for bit.

    The same key gives the same weight and another key another, called eagerly, under
    `jax.jit`, `jax.vmap`, both, and `jax.lax.scan`.

    Eager JAX compiles every operation by itself, and so rounds between them where one
    program of them all does not. A law of several operations that is not
    compiled as a whole, such as ``jax.nn.initializers.normal()(key, shape) * c``, fails
    here for its eager call alone, and the message says so: wrap it in `jax.jit`.

    Args:
      init: the initializer.
      shape: sizes of the weight.
      dtype: dtype of the weight; by default the initializer's own.
      random: whether another key gives another weight; by default True, except for the
        initializers of jaxinit without randomness.
      key: the key that is split for several weights; by default ``jax.random.key(0)``.
        Under `jax.vmap` JAX's rbg keys draw other numbers, so that they fail here.

    Raises:
      AssertionError: if the weight depends on more than the key, or not on the key.
      ValueError: if an argument is out of range.
      TypeError: if an argument is of the wrong type.

    Example:
      >>> jaxinit.testing.assert_pure(jaxinit.he_normal(), (4, 5))
    """
    with open_case("assert_pure", init, shape, key) as case:
        kind = None if dtype is None else _value.as_dtype(dtype)
        if random is None:
            random = init._random if isinstance(init, Initializer) else True
        keys = jax.random.split(case.key, 3)

        def draw(key: jax.Array) -> jax.Array:
            weight: jax.Array = case.draw(key, kind)
            return weight

        eager = np.stack([draw(key) for key in keys])
        if came := difference(draw(keys[0]), eager[0]):
            raise case.failure("the same key must give the same weight.", came)
        if random and not difference(eager[1], eager[0]):
            rule = "another key must give another weight."
            raise case.failure(rule, "It gives the same; random=False allows that.")
        jitted = jax.jit(draw)
        ways: dict[str, Callable[[], ArrayLike]] = {
            "jit": lambda: np.stack([jitted(key) for key in keys]),
            "vmap": lambda: jax.vmap(draw)(keys),
            "jit of vmap": lambda: jax.jit(jax.vmap(draw))(keys),
            "scan": lambda: jax.lax.scan(lambda _, key: (0, draw(key)), 0, keys)[1],
        }
        found = {way: np.asarray(drawn()) for way, drawn in ways.items()}
        compiled = [found[way] for way in ways if way != "vmap"]  # which is eager too
        agree = not any(difference(compiled[0], other) for other in compiled[1:])
        for way, drawn in found.items():
            if came := difference(drawn, eager):
                rule = f"{way} must give the bits of the eager call."
                if agree:
                    came += " All compiled calls agree: eager JAX compiles and rounds "
                    came += "each operation by itself. Test jax.jit of it instead."
                raise case.failure(rule, came)
