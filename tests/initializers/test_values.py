"""The values of the streams: those of jitted JAX, wherever JAX has the name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import MAIN, OWN, PRESETS, ROWS
from hypothesis import given, settings
from hypothesis import strategies as st
from marks import slow_but
from together import draw, jointly, same

import jaxinit as ji

KEY = jax.random.key(3)
PEERED = [row for row in ROWS if row.jax is not None]

# Names that JAX has too and whose values differ, with the reason.
EXCEPTIONS = {
    "orthogonal": "same law by another algorithm; method='qr' gives JAX's values",
    "delta_orthogonal": "as orthogonal",
}


def jitted(init, shape, dtype, key=KEY):
    return np.asarray(jax.jit(lambda key: init(key, shape, dtype))(key))


def test_every_shared_name_is_compared_or_excepted():
    shared = {name for name in OWN if hasattr(jax.nn.initializers, name)}
    default = {r.init.name for r in PEERED if "method" not in repr(r.init)}
    assert shared == default | set(EXCEPTIONS)


def of_jax(rows, dtype):
    """Draws the weights of jitted JAX: of all rows, each with a key of its own."""

    def drawn(keys):
        pairs = zip(rows, keys, strict=True)
        return [row.jax(key, row.shape, dtype) for row, key in pairs]

    return jax.jit(drawn)([KEY] * len(rows))


def eager(rows, dtype):
    return [row.init(KEY, row.shape, dtype) for row in rows]


@jointly([*MAIN, PRESETS[5]], PEERED)
@pytest.mark.slow
def test_float32_is_jitted_jax(rows):
    expected = of_jax(rows, jnp.float32)
    same(rows, eager(rows, jnp.float32), expected)
    jitted = jax.jit(lambda keys: draw(rows, keys))
    same(rows, jitted([KEY] * len(rows)), expected)


ALONE = [PEERED[0], PEERED[4], PEERED[-2]]


@pytest.mark.parametrize("row", slow_but(ALONE[:2], ALONE), ids=lambda row: row.name)
def test_float32_is_jitted_jax_alone(row):
    expected = jitted(row.jax, row.shape, jnp.float32)
    np.testing.assert_array_equal(jitted(row.init, row.shape, jnp.float32), expected)


@jointly(MAIN, PEERED)
@pytest.mark.usefixtures("x64")
def test_float64_is_jitted_jax(rows):
    same(rows, eager(rows, jnp.float64), of_jax(rows, jnp.float64))


@pytest.mark.slow
def test_unpartitionable_threefry_is_jitted_jax():
    with jax.threefry_partitionable(False):
        expected = of_jax(PEERED, jnp.float32)
        same(PEERED, eager(PEERED, jnp.float32), expected)


@pytest.mark.parametrize("impl", slow_but(["rbg"], ["rbg", "unsafe_rbg"]))
def test_other_generators_are_jitted_jax(impl):
    key = jax.random.key(5, impl=impl)
    expected = jitted(jax.nn.initializers.he_normal(), (33, 17), jnp.float32, key)
    np.testing.assert_array_equal(ji.he_normal()(key, (33, 17)), expected)


any_variance_scaling = given(
    st.sampled_from(["truncated_normal", "normal", "uniform"]),
    st.sampled_from(["fan_in", "fan_out", "fan_avg", "fan_geo_avg"]),
    st.floats(0.01, 10),
    st.lists(st.integers(1, 9), min_size=2, max_size=4),
)


@settings(max_examples=2)
@any_variance_scaling
def test_variance_scaling_is_jitted_jax(distribution, mode, scale, shape):
    assert_variance_scaling_is_jitted_jax(distribution, mode, scale, shape)


@pytest.mark.slow
@settings(max_examples=24)
@any_variance_scaling
def test_any_variance_scaling_is_jitted_jax(distribution, mode, scale, shape):
    assert_variance_scaling_is_jitted_jax(distribution, mode, scale, shape)


def assert_variance_scaling_is_jitted_jax(distribution, mode, scale, shape):
    arguments = scale, mode, distribution
    expected = jitted(
        jax.nn.initializers.variance_scaling(*arguments), tuple(shape), jnp.float32
    )
    ours = ji.variance_scaling(*arguments)(KEY, shape, jnp.float32)
    np.testing.assert_array_equal(ours, expected)


def test_jax_normal_itself_differs_between_eager_and_jit():
    """The reason why promise 1 speaks of jit: if this fails, JAX has mended it."""
    init = jax.nn.initializers.normal(0.3)
    eager = np.asarray(init(KEY, (1000,), jnp.float32))
    assert (eager != jitted(init, (1000,), jnp.float32)).any()


def test_complex_truncation_constant_of_jax_is_not_copied():
    """JAX divides by 0.95311; the law that it draws has 0.96196: 0.93 % too wide."""
    exact = np.sqrt((1 - 5 * np.exp(-4)) / (1 - np.exp(-4)))
    assert exact == pytest.approx(0.961962, abs=1e-6)
    w = np.asarray(ji.lecun_normal()(KEY, (1000, 1000), jnp.complex64))
    measured = np.sqrt(np.mean(np.abs(w) ** 2) * 1000)
    assert measured == pytest.approx(1, abs=2e-3)
    assert np.abs(w).max() <= 2 / exact / np.sqrt(1000) * (1 + 1e-6)
