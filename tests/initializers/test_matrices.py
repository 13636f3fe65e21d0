"""Laws of matrices: orthonormal columns, Haar measure, kept norms, exact counts."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import slow_but
from scipy import stats

import jaxinit as ji
from jaxinit import random
from jaxinit.testing import LEVEL, assert_orthonormal

pytestmark = pytest.mark.usefixtures("quick_compiler")
KEY = jax.random.key(11)

SHAPES = SQUARE, TALL, WIDE = [(48, 48), (96, 40), (40, 96)]
FIRST = [("householder", "float32"), ("householder", "complex64"), ("qr", "float32")]
METHODS = {  # of these dtypes the default run has one shape
    ("householder", "float32"): WIDE,
    ("householder", "float64"): TALL,
    ("householder", "complex64"): SQUARE,
    ("householder", "complex128"): WIDE,
    ("qr", "float32"): TALL,
}


@pytest.mark.parametrize(
    ("method", "dtype", "shape"),
    slow_but(
        [(*method, METHODS[method]) for method in FIRST],
        [(*method, shape) for method in METHODS for shape in SHAPES],
        rows=True,
    ),
)
@pytest.mark.usefixtures("x64")
def test_rows_or_columns_are_orthonormal(shape, method, dtype):
    assert_orthonormal(ji.orthogonal(method=method)(KEY, shape, dtype))


@pytest.mark.parametrize("columns", slow_but([1, 257], [1, 2, 255, 256, 257, 300]))
def test_orthonormal_around_block_borders(columns):
    assert_orthonormal(ji.orthogonal()(KEY, (300, columns)))


def haar(shape, dtype, count=4000):
    keys = jax.random.split(KEY, count)
    draw = jax.jit(jax.vmap(lambda key: random.orthonormal(key, *shape, dtype)))
    return np.asarray(draw(keys)).astype(complex if "complex" in dtype else float)


@pytest.mark.parametrize("dtype", slow_but(["float32"], ["float32", "complex64"]))
def test_haar_entries_follow_their_law(dtype):
    """In n dimensions |q_ij|^2 follows Beta(1/2, (n - 1) / 2); complex: twice that."""
    q = haar((5, 3), dtype)
    a = 1.0 if dtype == "complex64" else 0.5
    for i, j in [(0, 0), (4, 0), (2, 1), (4, 2)]:
        squared = np.abs(q[:, i, j]) ** 2
        assert stats.kstest(squared, stats.beta(a, 4 * a).cdf).pvalue > LEVEL


def test_haar_determinant_has_either_sign():
    positive = (np.linalg.det(haar((4, 4), "float32")) > 0).sum()
    assert stats.binomtest(int(positive), 4000).pvalue > LEVEL


def test_haar_is_invariant_under_rotation():
    """A fixed rotation changes the law of no statistic; here of one that sees signs."""
    q = haar((4, 4), "float32")
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
    statistic = lambda q: q[:, 0, 0] + 2 * q[:, 1, 1] * q[:, 2, 0]  # noqa: E731
    left = statistic(rotation @ q[:2000])
    right = statistic(q[2000:] @ rotation)
    assert stats.ks_2samp(left, statistic(q[2000:])).pvalue > LEVEL
    assert stats.ks_2samp(right, statistic(q[:2000])).pvalue > LEVEL


@pytest.mark.slow
def test_haar_eigenvalues_of_unitary_matrices_are_uniform_in_phase():
    q = haar((3, 3), "complex64", 3000)
    phase = np.angle(np.linalg.eigvals(q))[:, 0]
    assert stats.kstest(phase, stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > LEVEL


@pytest.mark.slow
@pytest.mark.parametrize("window", [1, 2, 3])
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("build", [ji.conv_orthogonal, ji.delta_orthogonal])
def test_convolutions_keep_the_norm_under_circular_padding(build, rank, window):
    w = np.asarray(build(2.0)(KEY, (window,) * rank + (6, 9)))
    signal = np.random.default_rng(0).normal(size=(5,) * rank + (6,))
    out = 0
    for tap in np.ndindex(w.shape[:-2]):
        out = out + np.roll(signal, tap, tuple(range(rank))) @ w[tap]
    assert np.linalg.norm(out) == pytest.approx(2 * np.linalg.norm(signal), rel=1e-5)


@pytest.mark.slow
def test_conv_orthogonal_fills_all_taps_and_keeps_complex_norms():
    w = np.asarray(ji.conv_orthogonal()(KEY, (3, 3, 8, 12), jnp.complex64))
    assert (np.abs(w).max((2, 3)) > 1e-3).all()
    assert (np.abs(w) ** 2).sum() == pytest.approx(8, rel=1e-5)


@pytest.mark.parametrize(
    ("rows", "columns"), slow_but([(80, 20)], [(20, 80), (80, 20)], rows=True)
)
def test_scaled_uniform_orthogonal_keeps_the_mean_square(rows, columns):
    """Exactly when the layer widens; when it narrows, on average over draws."""
    x = np.random.default_rng(0).normal(size=rows)
    keys = jax.random.split(KEY, 300)
    init = ji.scaled_uniform_orthogonal(1.5)
    w = np.asarray(jax.jit(jax.vmap(lambda k: init(k, (rows, columns))))(keys))
    ratio = ((x @ w) ** 2).mean(1) / (x**2).mean()
    if columns >= rows:
        np.testing.assert_allclose(ratio, 1.5**2, rtol=1e-5)
    else:  # five standard errors; the square of a share of norm is Beta distributed
        share = stats.beta(columns / 2, (rows - columns) / 2)
        error = 5 * share.std() / share.mean() / math.sqrt(len(keys))
        assert ratio.mean() == pytest.approx(1.5**2, rel=error)


def test_scaled_uniform_orthogonal_of_kernels():
    delta = np.asarray(ji.scaled_uniform_orthogonal()(KEY, (3, 3, 8, 16)))
    assert_orthonormal(delta[1, 1], math.sqrt(2))
    assert (delta.sum((2, 3)) != 0).sum() == 1
    full = ji.scaled_uniform_orthogonal(delta=False)(KEY, (2, 3, 8, 16))
    assert_orthonormal(full)
    axis = ji.scaled_uniform_orthogonal(column_axis=0, delta=False)
    assert_orthonormal(axis(KEY, (60, 4, 5)), math.sqrt(3), column_axis=0)


@pytest.mark.parametrize("sparsity", slow_but([0.333], [0.0, 0.1, 0.333, 0.5, 1.0]))
def test_sparse_counts_are_exact(sparsity):
    w = np.asarray(ji.sparse(sparsity, 1.0)(KEY, (3, 37, 11)))
    zeros = (w == 0).sum((0, 1))
    assert (zeros == math.ceil(sparsity * 3 * 37)).all()


def test_sparse_places_are_uniform_and_values_normal():
    w = np.asarray(ji.sparse(0.5, 2.0)(KEY, (40, 20_000)))
    by_row = (w == 0).sum(1)
    assert stats.chisquare(by_row).pvalue > LEVEL
    # Without replacement: two rows are zero together with probability 20/40 19/39.
    together = ((w[0] == 0) & (w[1] == 0)).sum()
    assert stats.binomtest(int(together), 20_000, 0.5 * 19 / 39).pvalue > LEVEL
    values = w[w != 0][:50_000]
    assert stats.kstest(values, stats.norm(0, 2).cdf).pvalue > LEVEL
