r"""Assertions of independence: entries, rows, columns, keys, and layers of a model.

Correlations are taken between ranks. Entries become scores
u = sqrt(12) (rank - 1/2) / n - sqrt(3), which have mean 0 and variance 1 whatever the
law; a mean of n products of scores of independent entries is nearly N(0, 1 / n), since
products are bounded. The scores of \|w - median\| go the same way: they show entries
that share a magnitude and not a sign. The largest of all correlations must lie within
the bound that one of as many draws of N(0, 1 / n) exceeds with probability 1e-4.
"""

import itertools
import math
from collections.abc import Iterator
from statistics import NormalDist
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit import _check as check
from jaxinit._initializer import Shape
from jaxinit.testing._case import LEVEL, Case, Init, name_call, open_case

_MOST = 256  # slices along an axis whose pairs are compared
_LEAST = 16  # entries of a layer's weight that a correlation needs


class Correlation(NamedTuple):
    """The largest of `among` correlations, each over `pairs` pairs of entries."""

    value: float
    pairs: int
    among: int
    where: str

    @property
    def bound(self) -> float:
        """The value that independent entries exceed with probability LEVEL."""
        tail = LEVEL / (2 * max(self.among, 1))
        return -NormalDist().inv_cdf(tail) / math.sqrt(self.pairs)


def assert_independent(
    init: Init, shape: Shape, *, draws: int = 32, key: jax.Array | None = None
) -> None:
    r"""Asserts that entries, rows, columns and keys are independent of each other.

    Law: over K keys, the rank correlation of every two slices of the weight along each
    axis, of every entry with the one that is shifted by any step along any axes, and of
    every two of the weights is 0, within the bound that independent entries exceed with
    probability 1e-4; the same for \|w - median\|. No two of K split keys, and of the
    keys that differ from the first in any one bit, give the same weight.

    Args:
      init: an initializer whose entries are meant to be independent and to follow one
        law.
      shape: sizes of the weight.
      draws: K, the number of weights, 16 or above.
      key: the key that is split and changed bit by bit; by default
        ``jax.random.key(0)``.

    Raises:
      AssertionError: if a correlation is too large, or two keys give one weight.
      ValueError: if an argument is out of range.
      TypeError: if an argument is of the wrong type.

    Example:
      >>> jaxinit.testing.assert_independent(jaxinit.he_normal(), (24, 40))
      >>> def mirrored(key, shape, dtype=float):
      ...     half = jax.random.normal(key, (shape[0], shape[1] // 2), dtype)
      ...     return jax.numpy.concatenate([half, -half], axis=1)
      >>> jaxinit.testing.assert_independent(
      ...     mirrored, (24, 40)
      ... )  # doctest: +ELLIPSIS
      Traceback (most recent call last):
      AssertionError: assert_independent(...): ...
    """
    with open_case("assert_independent", init, shape, key) as case:
        check.at_least(16, draws=draws)
        weights = np.stack([_real(case, k) for k in jax.random.split(case.key, draws)])
        flipped = np.stack([_real(case, k) for k in _flipped(case.key)])
        every = np.concatenate([weights, flipped])
        _assert_keys_differ(case, every.reshape(len(every), -1), draws)
        for what, scores in _scores(every):
            own = scores[:draws]
            for found in (*_by_slices(own), _by_shifts(own), _by_keys(scores, draws)):
                _judge(case, found, what)


def _real(case: Case, key: jax.Array) -> np.ndarray:
    """Draws a weight; one more axis for the parts of complex numbers."""
    weight = case.draw(key)
    entries = case.entries(weight).reshape(weight.shape)
    parts = [entries.real, entries.imag]
    return np.stack(parts, -1) if np.iscomplexobj(entries) else entries


def _flipped(key: jax.Array) -> Iterator[jax.Array]:
    """Yields the keys that differ from a key in one bit."""
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    data = np.asarray(jax.random.key_data(key) if typed else key)
    for word, bit in itertools.product(range(data.size), range(32)):
        other = data.copy()
        other[word] ^= np.uint32(1 << bit)
        if typed:
            yield jax.random.wrap_key_data(
                jnp.asarray(other), impl=jax.random.key_impl(key)
            )
        else:
            yield jnp.asarray(other)


def _assert_keys_differ(case: Case, weights: np.ndarray, draws: int) -> None:
    """Raises if two keys give the same weight."""
    first: dict[bytes, int] = {}
    for index, weight in enumerate(weights):
        other = first.setdefault(weight.tobytes(), index)
        if other != index:
            came = f"{_key_name(other, draws)} and {_key_name(index, draws)} give one."
            raise case.failure("every key must give another weight.", came)


def _key_name(index: int, draws: int) -> str:
    """Names a key: one of those that were split, or the first with a bit changed."""
    word, bit = divmod(index - draws, 32)
    split = f"split key {index}"
    return split if index < draws else f"the key with bit {bit} of word {word} changed"


def _scores(weights: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the scores of entries and of their distances from the median."""
    sizes = np.abs(weights - np.median(weights))
    for what, x in (("entries", weights), ("magnitudes", sizes)):
        values, places, counts = np.unique(x, return_inverse=True, return_counts=True)
        if len(values) > 2:  # else nothing is left that could depend
            middle = (np.cumsum(counts) - counts / 2) / x.size  # ties share a rank
            score = middle - 0.5
            score /= math.sqrt(np.sum(counts * score**2) / x.size)
            yield what, score[places].reshape(x.shape)


def _by_slices(scores: np.ndarray) -> Iterator[Correlation]:
    """Yields the largest correlation of two slices along each axis of the weight."""
    for axis in range(1, scores.ndim):
        size = min(scores.shape[axis], _MOST)
        if size < 2:
            continue
        rows = np.moveaxis(scores, axis, 0)[:size].reshape(size, -1)
        product = rows @ rows.T / rows.shape[1]
        yield _largest(
            np.triu(product, 1),
            rows.shape[1],
            size * (size - 1) // 2,
            f"slices {{}} and {{}} along axis {axis - 1}",
        )


def _by_keys(scores: np.ndarray, draws: int) -> Correlation:
    """Returns the largest correlation of the weights of two keys."""
    rows = scores.reshape(len(scores), -1)
    product = np.triu(rows @ rows.T / rows.shape[1], 1)
    one, other = np.unravel_index(np.abs(product).argmax(), product.shape)
    where = f"the weights of {_key_name(int(one), draws)} and "
    where += _key_name(int(other), draws)
    among = len(rows) * (len(rows) - 1) // 2
    return Correlation(float(product[one, other]), rows.shape[1], among, where)


def _by_shifts(scores: np.ndarray) -> Correlation:
    """Returns the largest correlation of a weight with itself, shifted and wrapped."""
    axes = tuple(range(1, scores.ndim))
    power = np.abs(np.fft.fftn(scores, axes=axes)) ** 2
    mean = np.fft.ifftn(power.mean(0), axes=range(scores.ndim - 1)).real
    mean /= math.prod(scores.shape[1:])
    mean.flat[0] = 0
    # A shift and its opposite are one, and by half the size each pair comes twice.
    return _largest(mean, scores.size // 2, mean.size, "entries shifted by {}")


def _largest(values: np.ndarray, size: int, count: int, where: str) -> Correlation:
    index = np.unravel_index(np.abs(values).argmax(), values.shape)
    place = [int(i) for i in index]
    text = where.format(*place) if where.count("{}") > 1 else where.format(place)
    return Correlation(float(values[index]), size, count, text)


def _judge(case: Case, found: Correlation, what: str) -> None:
    if not abs(found.value) <= found.bound:
        rule = f"{found.where} must not correlate beyond {found.bound:.2g}."
        came = f"The correlation of their {what} is {found.value:.2g}, over "
        raise case.failure(rule, f"{came}{found.pairs} pairs.")


def assert_layers_independent(
    init: Any, *args: Any, key: jax.Array | None = None
) -> None:
    """Asserts that no two weights of a model come from one key.

    Law: entries of two weights, flattened and cut to the shorter, have rank correlation
    0 within the bound that independent ones exceed with probability 1e-4, and so have
    the slices of each weight along its first axis, where layers are stacked. Weights of
    one value, of integers and of fewer than 16 entries are left out.

    Args:
      init: the function of a key, and of ``args``, that returns the parameters, in any
        pytree: ``model.init``.
      *args: the other arguments of init.
      key: the key; by default ``jax.random.key(0)``.

    Raises:
      AssertionError: if two weights correlate.
      ValueError: if there are not two weights to compare.
      TypeError: if an argument is of the wrong type.

    Example:
      >>> import flax.linen as nn
      >>> model = nn.Sequential([nn.Dense(8), nn.relu, nn.Dense(8)])
      >>> x = jax.numpy.ones((1, 8))
      >>> jaxinit.testing.assert_layers_independent(model.init, x)
    """
    with name_call("assert_layers_independent"):
        if not callable(init):
            rule = "init must be a function of a key that returns parameters."
            raise check.Unfit(rule, TypeError, init=init)
        used = jax.random.key(0) if key is None else check.key(key)
        case = Case("assert_layers_independent", init, (), used)
        rows = list(_layers(init(used, *args)))
        if len(rows) < 2:
            rule = f"needs two random weights of {_LEAST} entries or more to compare."
            raise check.Unfit(rule, init=init)
        pairs = list(itertools.combinations(rows, 2))
        for (one, a), (other, b) in pairs:
            size = min(len(a), len(b))
            value = float(a[:size] @ b[:size] / size)
            where = f"{one} and {other}"
            _judge(case, Correlation(value, size, len(pairs), where), "entries")


def _layers(tree: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the scores of each weight, and of each slice along its first axis."""
    for path, leaf in jax.tree.leaves_with_path(tree):
        if not jnp.issubdtype(getattr(leaf, "dtype", np.int32), np.floating):
            continue
        array = np.asarray(leaf).astype(float)
        if array.size < _LEAST or np.ptp(array) == 0:
            continue
        scores = next((s for what, s in _scores(array) if what == "entries"), None)
        if scores is None:
            continue
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        stack = array.ndim > 2 and scores[0].size >= _LEAST
        for index, part in enumerate(scores[:_MOST] if stack else [scores]):
            yield f"{name}[{index}]" if stack else name, part.ravel()
