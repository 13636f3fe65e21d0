"""Laws: moments, Kolmogorov-Smirnov distance, ranges, Haar measure, exact counts."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import MAIN, RANDOM, ROWS
from marks import slow_but
from scipy import stats

import jaxinit as ji
from jaxinit import random
from jaxinit.testing import (
    LEVEL,
    assert_law,
    assert_moments,
    assert_orthonormal,
)

KEY = jax.random.key(11)
rows = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
random_rows = pytest.mark.parametrize("row", RANDOM, ids=lambda row: row.name)
lawful = pytest.mark.parametrize(
    "row", [row for row in RANDOM if row.law is not None], ids=lambda row: row.name
)


def entries(row, dtype=jnp.float32):
    return np.asarray(row.init(KEY, row.shape, dtype)).astype(np.float64).ravel()


@lawful
def test_law(row):
    assert_law(row.init, row.shape, row.law, key=KEY)


@rows
def test_mean_and_variance(row):
    assert_moments(row.init, row.shape, row.mean, row.variance, key=KEY)


def assert_range(row, dtype):
    w = entries(row, dtype)
    assert np.isfinite(w).all()
    # Rounding to a narrow dtype may reach the nearest number at or beyond a bound.
    low, high = (float(jnp.asarray(x).astype(dtype)) for x in (row.low, row.high))
    assert low <= w.min() and w.max() <= high


@random_rows
def test_range(row):
    assert_range(row, jnp.float32)


@pytest.mark.parametrize("row", slow_but(MAIN, RANDOM), ids=lambda row: row.name)
def test_range_of_a_narrow_dtype(row):
    assert_range(row, jnp.bfloat16)


SHAPES = SQUARE, TALL, WIDE = [(48, 48), (96, 40), (40, 96)]
METHODS = {  # of each dtype the default run has one shape
    ("householder", "float32"): WIDE,
    ("householder", "float64"): TALL,
    ("householder", "complex64"): SQUARE,
    ("householder", "complex128"): WIDE,
    ("qr", "float32"): TALL,
}


@pytest.mark.parametrize(
    ("method", "dtype", "shape"),
    slow_but(
        [(*method, shape) for method, shape in METHODS.items()],
        [(*method, shape) for method in METHODS for shape in SHAPES],
        rows=True,
    ),
)
@pytest.mark.usefixtures("x64")
def test_rows_or_columns_are_orthonormal(shape, method, dtype):
    assert_orthonormal(ji.orthogonal(method=method)(KEY, shape, dtype))


@pytest.mark.parametrize("columns", slow_but([1, 256, 257], [1, 2, 255, 256, 257, 300]))
def test_orthonormal_around_block_borders(columns):
    assert_orthonormal(ji.orthogonal()(KEY, (300, columns)))


def haar(shape, dtype, count=4000):
    keys = jax.random.split(KEY, count)
    draw = jax.jit(jax.vmap(lambda key: random.orthonormal(key, *shape, dtype)))
    return np.asarray(draw(keys)).astype(complex if "complex" in dtype else float)


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
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


def test_haar_eigenvalues_of_unitary_matrices_are_uniform_in_phase():
    q = haar((3, 3), "complex64", 3000)
    phase = np.angle(np.linalg.eigvals(q))[:, 0]
    assert stats.kstest(phase, stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > LEVEL


def test_batched_haar_draws_are_single_ones():
    keys = jax.random.split(KEY, 5)
    for method in ("householder", "qr"):
        init = ji.orthogonal(method=method)
        single = jnp.stack([init(key, (20, 30)) for key in keys])
        batched = jax.jit(jax.vmap(lambda key, init=init: init(key, (20, 30))))(keys)
        np.testing.assert_array_equal(single, batched)


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


def test_conv_orthogonal_fills_all_taps_and_keeps_complex_norms():
    w = np.asarray(ji.conv_orthogonal()(KEY, (3, 3, 8, 12), jnp.complex64))
    assert (np.abs(w).max((2, 3)) > 1e-3).all()
    assert (np.abs(w) ** 2).sum() == pytest.approx(8, rel=1e-5)


@pytest.mark.parametrize(("rows", "columns"), [(20, 80), (80, 20)])
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


def test_bounds_on_the_weights_hold_however_they_round():
    for stddev in (1e-8, 1e-3, 1.0, 1e4):
        low, high = -1.1 * stddev, 0.7 * stddev
        init = ji.truncated_normal(stddev, low=low, high=high)
        w = np.asarray(init(KEY, (100_000,)))
        assert np.float32(low) <= w.min() and w.max() <= np.float32(high)
        assert len(np.unique(w)) > 50_000
    one = ji.truncated_normal(1.0, low=0.5)
    assert_law(one, (100_000,), stats.truncnorm(0.5, np.inf), key=KEY)


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.333, 0.5, 1.0])
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


def test_identity_passes_the_signal_on():
    x = np.random.default_rng(0).normal(size=(7, 12)).astype(np.float32)
    np.testing.assert_array_equal(x @ np.asarray(ji.identity()(None, (12, 12))), x)
    wide = np.asarray(ji.identity(2.0)(None, (12, 5)))
    np.testing.assert_array_equal(x @ wide, 2 * x[:, :5])


def test_identity_of_a_convolution_and_of_a_batch():
    kernel = np.asarray(ji.identity()(None, (3, 5, 4, 4)))
    assert (kernel[1, 2] == np.eye(4)).all() and kernel.sum() == 4
    stacked = np.asarray(ji.identity(batch_axis=0)(None, (6, 4, 4)))
    assert (stacked == np.eye(4)).all()


def test_integer_and_bool_constants():
    assert ji.constant(3)(None, (2,), jnp.int8).tolist() == [3, 3]
    assert ji.zeros()(None, (2,), bool).tolist() == [False, False]
    assert ji.identity()(None, (2, 2), jnp.int32).tolist() == [[1, 0], [0, 1]]
    assert ji.ones()(None, (1,), jnp.complex64).tolist() == [1 + 0j]


def test_truncated_constants_follow_from_the_law():
    from jaxinit.initializers._variance_scaling import TRUNCATED_STDDEV

    exact = stats.truncnorm(-2, 2).std()
    assert pytest.approx(exact, rel=1e-12) == TRUNCATED_STDDEV
    for lower, upper in [(-2, 2), (-1, 3), (2, 3), (-4, -3.5), (-0.1, 0.2)]:
        mean, variance = random.truncated_moments(lower, upper)
        law = stats.truncnorm(lower, upper)
        assert mean == pytest.approx(law.mean(), rel=1e-9)
        assert variance == pytest.approx(law.var(), rel=1e-6)
        mass = stats.norm.cdf(upper) - stats.norm.cdf(lower)
        assert random.normal_mass(lower, upper) == pytest.approx(mass, rel=1e-8)
