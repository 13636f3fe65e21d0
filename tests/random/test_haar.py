"""Subsets and Haar matrices: exact counts, equal chances, orthonormal columns."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import slow_but
from scipy import stats

from jaxinit import random
from jaxinit.random import haar
from jaxinit.testing import LEVEL

pytestmark = pytest.mark.usefixtures("quick_compiler")
KEY = jax.random.key(7)


# Subsets


@pytest.mark.parametrize("rows", slow_but([7, 1000], [1, 2, 7, 64, 1000]))
def test_subsets_have_exactly_the_count(rows):
    for count in sorted({0, 1, rows // 2, rows - 1, rows}):
        mask = np.asarray(random.subset(KEY, count, (rows, 37)))
        assert (mask.dtype, mask.shape) == (np.bool_, (rows, 37))
        assert (mask.sum(0) == count).all()


@pytest.mark.parametrize("shape", slow_but([(4, 0)], [(0, 3), (4, 0), (0, 0)]))
def test_empty_subsets(shape):
    assert random.subset(KEY, 0, shape).shape == shape


@pytest.mark.parametrize(
    "impl", slow_but(["threefry2x32"], ["threefry2x32", "rbg", "unsafe_rbg"])
)
def test_every_subset_is_equally_likely_and_columns_are_independent(impl):
    columns = 20_000
    mask = np.asarray(random.subset(jax.random.key(2, impl=impl), 2, (5, columns)))
    number = (1 << np.arange(5)) @ mask  # names the subset
    chosen, counts = np.unique(number, return_counts=True)
    assert len(chosen) == math.comb(5, 2)
    assert stats.chisquare(counts).pvalue > LEVEL
    left, right = number[0::2], number[1::2]
    table = [[((left == a) & (right == b)).sum() for b in chosen] for a in chosen]
    assert stats.chi2_contingency(np.array(table)).pvalue > LEVEL


# Haar matrices


SQUARES = [(1, 1, "float32"), (5, 5, "complex128")]
WIDE = [(1, 4, "complex64"), (64, 66, "float32"), (127, 300, "float32")]
TALL = [(3, 2, "float64"), (130, 127, "complex128"), (258, 257, "float32")]
LARGE = [(300, 500, "complex64"), (514, 511, "float32"), (512, 513, "float64")]


@pytest.mark.parametrize(
    ("rows", "columns", "dtype"),
    slow_but(
        [SQUARES[0], TALL[1]],
        SQUARES + WIDE + TALL + LARGE,
        rows=True,
    ),
)
@pytest.mark.usefixtures("x64")
def test_orthonormal_of_any_shape(rows, columns, dtype):
    draw = jax.jit(lambda key: random.orthonormal(key, rows, columns, np.dtype(dtype)))
    q = np.asarray(draw(KEY))
    assert (q.dtype, q.shape) == (dtype, (rows, columns))
    q = q.astype(complex)
    product = q.T.conj() @ q if rows >= columns else q @ q.T.conj()
    limit = 1e-13 if dtype in ("float64", "complex128") else 2e-6
    assert np.abs(product - np.eye(min(rows, columns))).max() <= limit


@pytest.mark.parametrize("method", ["householder", "qr"])
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_orthonormal_of_no_entries(shape, method):
    q = random.orthonormal(KEY, *shape, np.dtype("float32"), method)
    assert (q.shape, q.dtype) == (shape, jnp.float32)


def reflected(matrix, v, tau):
    """Multiplies a matrix by I - tau v v^H."""
    return matrix - tau * np.outer(matrix @ v, v.conj())


WIDTHS = [(1,), (5,), (64,), (65,), (130,), (256, 256, 40)]


@pytest.mark.parametrize("widths", slow_but([(5,), (65,)], WIDTHS))
@pytest.mark.usefixtures("x64")
def test_triangles_multiply_reflectors(widths):
    rng = np.random.default_rng(sum(widths))
    rows = max(widths) + 7
    blocks = [
        rng.normal(size=(rows, w)) + 1j * rng.normal(size=(rows, w)) for w in widths
    ]
    tau = [2 / (np.abs(v) ** 2).sum(0) for v in blocks]
    grams = [jnp.asarray(v.T.conj() @ v) for v in blocks]
    found = jax.jit(haar._triangles)(grams, jnp.asarray(np.concatenate(tau), complex))
    assert [t.shape for t in found] == [(w, w) for w in widths]
    for v, factors, t in zip(blocks, tau, map(np.asarray, found), strict=True):
        product = np.eye(rows)
        for column, factor in zip(v.T, factors, strict=True):
            product = reflected(product, column, factor)
        assert (np.tril(t, -1) == 0).all()
        np.testing.assert_allclose(
            np.eye(rows) - v @ t @ v.T.conj(), product, atol=1e-11
        )


@pytest.mark.parametrize("dtype", slow_but(["float64"], ["float64", "complex128"]))
@pytest.mark.usefixtures("x64")
def test_orthonormal_is_the_product_of_its_reflectors(dtype):
    rest = 20, 13, np.dtype(dtype)
    normal = random.normal(KEY, (20, 13), dtype)
    v, tau, phase = map(np.asarray, jax.jit(haar._reflectors)(normal))
    product = np.eye(20)
    for k in range(13):
        product = reflected(product, v[:, k], tau[k])
    q = np.asarray(jax.jit(lambda key: random.orthonormal(key, *rest))(KEY))
    np.testing.assert_allclose(q, product[:, :13] * phase, atol=1e-14)
    # R's diagonal is positive: the first column is that of the normal matrix.
    x = np.asarray(normal)[:, 0]
    np.testing.assert_allclose(q[:, 0], x / np.linalg.norm(x), atol=1e-14)
