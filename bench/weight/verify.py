"""Verification of draws: against JAX's bits, or against their law."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from bench.meters.row import KEY, Unverified
from bench.weight.draw import Draw

_SIGMAS = 6  # standard errors that a sample may be off; the key is fixed
# Largest entry of Q^T Q - I, by dtype.
_ORTHOGONAL = {"float32": 2e-6, "float64": 1e-13}
_NUMBERS = 1e-5  # relative error of float32 after a dozen operations


def check_bits(draw: Draw, weight: jax.Array) -> str:
    """Holds a weight against JAX's jitted one, bit for bit."""
    if draw.reference is None:
        raise Unverified("JAX has no such initializer.")
    return compare_bits(weight, draw.reference(jax.random.key(KEY)))


def compare_bits(weight: jax.Array, reference: jax.Array) -> str:
    """Holds a weight against JAX's draw, bit for bit."""
    _compare(weight, reference, "JAX's jitted values")
    return "bits of jax"


def check_rounded(draw: Draw, weight: jax.Array) -> str:
    """Holds a narrow weight against JAX's jitted float32 values, rounded once."""
    if (theirs := draw.theirs) is None:
        raise Unverified("JAX has no such initializer.")
    wide = jax.jit(lambda key: theirs(key, draw.shape, "float32"))
    expected = wide(jax.random.key(KEY)).astype(draw.dtype)
    _compare(weight, expected, "JAX's float32 values, rounded")
    return "bits of jax float32, rounded"


def _compare(weight: jax.Array, expected: jax.Array, name: str) -> None:
    ours, theirs = np.asarray(weight), np.asarray(expected)
    if ours.dtype != theirs.dtype or ours.shape != theirs.shape:
        kinds = (f"{x.dtype.name}{list(x.shape)}" for x in (ours, theirs))
        raise Unverified(f"{' is not '.join(kinds)}.")
    unlike = int((_view_bits(ours) != _view_bits(theirs)).any(axis=-1).sum())
    if unlike:
        raise Unverified(f"{unlike} of {ours.size} entries differ from {name}.")


def _view_bits(array: np.ndarray) -> np.ndarray:  # [entries, bytes]
    flat = np.ascontiguousarray(array).reshape(-1, 1)
    return flat.view(np.uint8).reshape(flat.size, -1)


def check_moments(draw: Draw, weight: jax.Array) -> str:
    """Holds mean and variance of a weight against the law's."""
    law = draw.init.moments(draw.shape)
    wide = complex if jnp.issubdtype(weight.dtype, np.complexfloating) else float
    w = np.asarray(weight).astype(wide)
    squares = np.abs(w - law.mean) ** 2
    _check_near("mean", abs(w.mean() - law.mean), math.sqrt(law.variance / w.size))
    error = float(squares.std()) / math.sqrt(w.size)
    _check_near("variance", abs(squares.mean() - law.variance), error)
    return "moments"


def _check_near(what: str, off: float, error: float) -> None:
    if not off <= _SIGMAS * error:
        raise Unverified(f"the {what} is off by {off / (error or 1):.1f} errors.")


def check_numbers(array: jax.Array, moments: jax.Array) -> str:
    """Holds the moments of an array against those of NumPy, in double precision."""
    x = np.asarray(array).astype(float)
    d = x - x.mean()
    known = [x.mean(), (d**2).mean(), (d**4).mean(), x.min(), x.max(), (x == 0).mean()]
    if not np.allclose(moments, known, rtol=_NUMBERS, atol=_NUMBERS):
        raise Unverified(f"the moments are {np.asarray(moments)}, not {known}.")
    return "moments of NumPy"


def check_alike(numbers: jax.Array, known: jax.Array, bits: bool) -> None:
    """Holds numbers against others: equal up to rounding, or draws of one law."""
    x, y = (np.asarray(array, float) for array in (numbers, known))
    if bits:
        if x.shape != y.shape or not np.allclose(x, y, rtol=_NUMBERS, atol=_NUMBERS):
            raise Unverified("gives other values")
        return
    for what, power in (("mean", 1), ("mean square", 2)):
        a, b = x**power, y**power
        error = math.sqrt((a.var() + b.var()) / a.size)
        _check_near(what, abs(a.mean() - b.mean()), error)


def check_orthogonality(draw: Draw, weight: jax.Array) -> str:
    """Measures max |Q^T Q - I|, in double precision."""
    rows, columns = draw.matrix
    w = np.asarray(weight)
    if draw.init.name == "delta_orthogonal":
        center = tuple((size - 1) // 2 for size in draw.shape[:-2])
        outside = np.ones(draw.shape[:-2], bool)
        outside[center] = False
        if w[outside].any():
            raise Unverified("a tap beside the middle one is not zero.")
        w = w[center]
    q = w.reshape(rows, columns).astype(float)
    gram = q.T @ q if rows >= columns else q @ q.T
    error = float(np.abs(gram - np.eye(len(gram))).max())
    if not error <= _ORTHOGONAL[draw.dtype]:
        raise Unverified(f"max |QᵀQ-I| is {error:.1e}.")
    return f"max |QᵀQ-I| {error:.1e}"


def check_zeros(sparsity: float) -> Callable[[Draw, jax.Array], str]:
    """Makes a verification of sparse weights: counts by column, places, values."""

    def verify(draw: Draw, weight: jax.Array) -> str:
        w = np.asarray(weight).reshape(-1, draw.shape[-1]).astype(float)
        rows, columns = w.shape
        count = math.ceil(sparsity * rows)
        zeros = w == 0
        wrong = int((zeros.sum(axis=0) != count).sum())
        if wrong:
            raise Unverified(f"{wrong} of {columns} columns have not {count} zeros.")
        share = count / rows  # each row's zeros are binomial over the columns
        off = np.abs(zeros.mean(axis=1) - share).max()
        _check_near(
            "share of zeros in a row", off, math.sqrt(share * (1 - share) / columns)
        )
        check_moments(draw, weight)
        return f"{count} zeros in each column"

    return verify
