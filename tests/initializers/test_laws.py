"""Laws: moments, Kolmogorov-Smirnov distance and ranges of every row; constants."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import MAIN, RANDOM, ROWS, SOON
from marks import slow_but
from scipy import stats
from together import QUICK, jointly

import jaxinit as ji
from jaxinit import random
from jaxinit.testing import assert_law, assert_moments

KEY = jax.random.key(11)


def each(rows):
    return pytest.mark.parametrize("row", rows, ids=lambda row: row.name)


@each([row for row in RANDOM if row.law is not None])
def test_law(row):
    assert_law(row.init, row.shape, row.law, key=KEY)


@each(slow_but([row for row in MAIN if row.law is None], ROWS))
def test_mean_and_variance(row):
    assert_moments(row.init, row.shape, row.mean, row.variance, key=KEY)


def assert_range(row, w):
    entries = np.asarray(w).astype(np.float64)
    assert np.isfinite(entries).all(), row.name
    # Rounding to a narrow dtype may reach the nearest number at or beyond a bound.
    low, high = (float(np.float32(x).astype(w.dtype)) for x in (row.low, row.high))
    assert low <= entries.min() and entries.max() <= high, row.name


@each(slow_but(SOON, RANDOM))
def test_range(row):
    assert_range(row, row.init(KEY, row.shape, jnp.float32))


@jointly(MAIN, RANDOM)
def test_range_of_a_narrow_dtype(rows):
    def drawn(keys):
        pairs = zip(rows, keys, strict=True)
        return [row.init(key, row.shape, jnp.bfloat16) for row, key in pairs]

    jitted = jax.jit(drawn, compiler_options=QUICK)
    for row, w in zip(rows, jitted([KEY] * len(rows)), strict=True):
        assert_range(row, w)


@pytest.mark.parametrize("method", slow_but(["householder"], ["householder", "qr"]))
def test_batched_haar_draws_are_single_ones(method):
    keys = jax.random.split(KEY, 5)
    init = ji.orthogonal(method=method)
    single = jnp.stack([init(key, (20, 30)) for key in keys])
    batched = jax.jit(jax.vmap(lambda key: init(key, (20, 30))))(keys)
    np.testing.assert_array_equal(single, batched)


def test_bounds_on_the_weights_hold_however_they_round():
    for stddev in (1e-8, 1e-3, 1.0, 1e4):
        low, high = -1.1 * stddev, 0.7 * stddev
        init = ji.truncated_normal(stddev, low=low, high=high)
        w = np.asarray(init(KEY, (100_000,)))
        assert np.float32(low) <= w.min() and w.max() <= np.float32(high)
        assert len(np.unique(w)) > 50_000
    one = ji.truncated_normal(1.0, low=0.5)
    assert_law(one, (100_000,), stats.truncnorm(0.5, np.inf), key=KEY)


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
    from jaxinit._draws import TRUNCATED_STDDEV

    exact = stats.truncnorm(-2, 2).std()
    assert pytest.approx(exact, rel=1e-12) == TRUNCATED_STDDEV
    for lower, upper in [(-2, 2), (-1, 3), (2, 3), (-4, -3.5), (-0.1, 0.2)]:
        mean, variance = random.truncated_moments(lower, upper)
        law = stats.truncnorm(lower, upper)
        assert mean == pytest.approx(law.mean(), rel=1e-9)
        assert variance == pytest.approx(law.var(), rel=1e-6)
        mass = stats.norm.cdf(upper) - stats.norm.cdf(lower)
        assert random.normal_mass(lower, upper) == pytest.approx(mass, rel=1e-8)
