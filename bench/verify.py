"""Verification before timing: a draw that is wrong has no time."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from bench.cases import Case

KEY = 3  # the seed of every draw that is verified
_SIGMAS = 6  # standard errors that a sample may be off; the key is fixed
# Largest entry of Q^T Q - I, by dtype.
_ORTHOGONAL = {"float32": 2e-6, "float64": 1e-13}
_NUMBERS = 1e-5  # that float32 may be off after a dozen operations


class Unverified(Exception):
    """A draw is not what it should be; the message says how."""


def same_bits(case: Case, weight: jax.Array) -> str:
    """Holds a weight against JAX's jitted one, bit for bit."""
    if case.reference is None:
        raise Unverified("JAX has no such initializer.")
    _equal(weight, case.reference(jax.random.key(KEY)), "JAX's jitted values")
    return "bits of jax"


def rounded(case: Case, weight: jax.Array) -> str:
    """Holds a narrow weight against JAX's jitted float32 values, rounded once."""
    if (theirs := case.theirs) is None:
        raise Unverified("JAX has no such initializer.")
    wide = jax.jit(lambda key: theirs(key, case.shape, "float32"))
    expected = wide(jax.random.key(KEY)).astype(case.dtype)
    _equal(weight, expected, "JAX's float32 values, rounded")
    return "bits of jax float32, rounded"


def _equal(weight: jax.Array, expected: jax.Array, name: str) -> None:
    found, known = np.asarray(weight), np.asarray(expected)
    if found.dtype != known.dtype or found.shape != known.shape:
        kinds = (f"{x.dtype.name}{list(x.shape)}" for x in (found, known))
        raise Unverified(f"{' is not '.join(kinds)}.")
    unlike = int((_bits(found) != _bits(known)).any(axis=-1).sum())
    if unlike:
        raise Unverified(f"{unlike} of {found.size} entries differ from {name}.")


def _bits(array: np.ndarray) -> np.ndarray:  # [entries, bytes]
    flat = np.ascontiguousarray(array).reshape(-1, 1)
    return flat.view(np.uint8).reshape(flat.size, -1)


def moments(case: Case, weight: jax.Array) -> str:
    """Holds mean and variance of a weight against the law's."""
    law = case.init.moments(case.shape)
    wide = complex if jnp.issubdtype(weight.dtype, np.complexfloating) else float
    w = np.asarray(weight).astype(wide)
    squares = np.abs(w - law.mean) ** 2
    _near("mean", abs(w.mean() - law.mean), math.sqrt(law.variance / w.size))
    error = float(squares.std()) / math.sqrt(w.size)
    _near("variance", abs(squares.mean() - law.variance), error)
    return "moments"


def _near(what: str, off: float, error: float) -> None:
    if not off <= _SIGMAS * error:
        raise Unverified(f"the {what} is off by {off / (error or 1):.1f} errors.")


def numbers(case: Case, found: jax.Array) -> str:
    """Holds the moments of an array against those of NumPy, in double precision."""
    assert case.argument is not None
    x = np.asarray(case.argument(case)).astype(float)
    d = x - x.mean()
    known = [x.mean(), (d**2).mean(), (d**4).mean(), x.min(), x.max(), (x == 0).mean()]
    if not np.allclose(found, known, rtol=_NUMBERS, atol=_NUMBERS):
        raise Unverified(f"the moments are {np.asarray(found)}, not {known}.")
    return "moments of NumPy"


def alike(found: jax.Array, known: jax.Array, bits: bool) -> None:
    """Holds numbers against others: the same up to rounding, or of the same law."""
    x, y = (np.asarray(array, float) for array in (found, known))
    if bits:
        if x.shape != y.shape or not np.allclose(x, y, rtol=_NUMBERS, atol=_NUMBERS):
            raise Unverified("gives other values")
        return
    for what, power in (("mean", 1), ("mean square", 2)):
        a, b = x**power, y**power
        error = math.sqrt((a.var() + b.var()) / a.size)
        _near(what, abs(a.mean() - b.mean()), error)


def orthogonality(case: Case, weight: jax.Array) -> str:
    """Measures max |Q^T Q - I|, in double precision."""
    rows, columns = case.matrix
    w = np.asarray(weight)
    if case.init.name == "delta_orthogonal":
        centre = tuple((size - 1) // 2 for size in case.shape[:-2])
        outside = np.ones(case.shape[:-2], bool)
        outside[centre] = False
        if w[outside].any():
            raise Unverified("a tap beside the middle one is not zero.")
        w = w[centre]
    q = w.reshape(rows, columns).astype(float)
    gram = q.T @ q if rows >= columns else q @ q.T
    error = float(np.abs(gram - np.eye(len(gram))).max())
    if not error <= _ORTHOGONAL[case.dtype]:
        raise Unverified(f"max |QᵀQ-I| is {error:.1e}.")
    return f"max |QᵀQ-I| {error:.1e}"


def exact_zeros(sparsity: float) -> Callable[[Case, jax.Array], str]:
    """Makes a verification of sparse weights: counts by column, places, values."""

    def verify(case: Case, weight: jax.Array) -> str:
        w = np.asarray(weight).reshape(-1, case.shape[-1]).astype(float)
        rows, columns = w.shape
        count = math.ceil(sparsity * rows)
        zeros = w == 0
        wrong = int((zeros.sum(axis=0) != count).sum())
        if wrong:
            raise Unverified(f"{wrong} of {columns} columns have not {count} zeros.")
        share = count / rows  # each row's zeros are binomial over the columns
        off = np.abs(zeros.mean(axis=1) - share).max()
        _near("share of zeros in a row", off, math.sqrt(share * (1 - share) / columns))
        moments(case, weight)
        return f"{count} zeros in each column"

    return verify
