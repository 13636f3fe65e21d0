"""State spaces: formulas in float64, spectra, and the laws that wrong copies have."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxinit import ssm

KEY, MANY = jax.random.key(0), (20_000,)


def steps_of(bias):
    """Returns the uniform numbers that steps between .001 and .1 would come from."""
    steps = np.logaddexp(np.asarray(bias, float), 0)
    return np.log(steps / 0.001) / math.log(100)


def reject(shares):
    return stats.kstest(shares, "uniform").pvalue < 1e-6


def test_steps_and_the_wrong_laws_of_copies():
    drawn = ssm.mamba_dt_bias()(KEY, MANY)
    assert not reject(steps_of(drawn))
    draws = np.random.default_rng(0)
    normal = np.clip(draws.normal(size=MANY), 0, 1)  # of a normal law, then cut
    assert reject(steps_of(np.log(np.expm1(0.001 * 100**normal))))
    short = 0.001 * 10 ** draws.uniform(size=MANY)  # up to .01 in place of .1
    assert reject(steps_of(np.log(np.expm1(short))))
    floored = ssm.mamba_dt_bias(1e-5, 0.1)(KEY, MANY)
    assert np.logaddexp(np.asarray(floored), 0).min() == pytest.approx(1e-4, rel=1e-3)


def test_rates_and_the_wrong_laws_of_copies():
    rates = np.exp(np.asarray(ssm.mamba2_a_log()(KEY, MANY), float))
    assert not reject((rates - 1) / 15)
    assert reject((np.exp(np.random.default_rng(0).normal(size=MANY)) - 1) / 15)
    expected = np.log(np.arange(1.0, 17)).astype(np.float32)
    np.testing.assert_array_equal(ssm.mamba_a_log()(KEY, (3, 16))[2], expected)


@pytest.mark.parametrize(
    "kind, imaginary",
    [
        ("lin", lambda n: np.pi * n),
        ("inv", lambda n: 64 / np.pi * (64 / (2 * n + 1) - 1)),
        ("inv2", lambda n: 64 / np.pi * (64 / (n + 1) - 1)),
        ("quad", lambda n: (1 + 2 * n) ** 2 / np.pi),
    ],
)
def test_diagonals(kind, imaginary):
    drawn = ssm.s4d(kind)(KEY, (2, 32), jnp.complex64)
    expected = (-0.5 + 1j * imaginary(np.arange(32))).astype(np.complex64)
    np.testing.assert_array_equal(drawn[1], expected)
    with pytest.raises(ValueError, match="complex"):
        ssm.s4d(kind)(KEY, (2, 32))


def test_hippo_and_its_forms():
    legs = ssm.hippo(32)
    n = np.arange(32)
    for i, k in ((5, 2), (2, 5), (7, 7)):
        below = -math.sqrt((2 * i + 1) * (2 * k + 1))
        assert legs.a[i, k] == pytest.approx(below if i > k else -(i + 1.0) * (i == k))
    np.testing.assert_allclose(legs.b**2, 2 * n + 1)
    normal = legs.a + np.outer(legs.p, legs.p)
    np.testing.assert_allclose(normal @ normal.T, normal.T @ normal, atol=1e-9)
    whole = np.concatenate([legs.vectors, legs.vectors.conj()], 1)
    np.testing.assert_allclose(whole.conj().T @ whole, np.eye(32), atol=1e-9)
    values = np.concatenate([legs.diagonal, legs.diagonal.conj()])
    np.testing.assert_allclose((whole * values) @ whole.conj().T, normal, atol=1e-9)
    assert (legs.diagonal.real == -0.5).all() and (
        np.diff(legs.diagonal.imag) > 0
    ).all()
    np.testing.assert_array_equal(
        ssm.hippo_legs()(KEY, (32, 32)), legs.a.astype(np.float32)
    )


def test_rings():
    nu, theta = jax.random.split(KEY)
    rates = ssm.lru_nu_log(0.5, 0.99)(nu, MANY)
    radii = np.exp(-np.exp(np.asarray(rates, float)))
    assert not reject((radii**2 - 0.25) / (0.99**2 - 0.25))  # uniform in area
    assert reject((radii - 0.5) / 0.49)
    phases = np.exp(np.asarray(ssm.lru_theta_log()(theta, MANY), float))
    assert not reject(phases / (2 * math.pi))
    gamma = np.exp(np.asarray(ssm.lru_gamma_log(rates), float))
    np.testing.assert_allclose(gamma**2 + radii**2, 1, rtol=1e-5)
    stored = np.asarray(ssm.rg_lru_a()(KEY, MANY), float)
    radii = np.exp(-np.logaddexp(stored, 0))
    assert not reject((radii**2 - 0.81) / (0.999**2 - 0.81))


@pytest.mark.parametrize(
    "wrong, error, said",
    [
        (lambda: ssm.mamba_dt_bias(0.0), ValueError, "low must be above 0"),
        (lambda: ssm.mamba_dt_bias(0.1, 0.1), ValueError, "high must be above 0.1"),
        (lambda: ssm.mamba_dt_bias(floor=1.0), ValueError, "floor must be below high"),
        (lambda: ssm.mamba_dt_bias(1e-40), ValueError, "low must lie between 1e-30"),
        (lambda: ssm.mamba2_a_log(1, 1e39), ValueError, "high must lie between 1e-30"),
        (lambda: ssm.rg_lru_a(1 - 1e-9, 1), ValueError, "min_radius must lie in"),
        (lambda: ssm.lru_gamma_log("x"), TypeError, "real numbers of a float"),
        (lambda: ssm.lru_nu_log(1.0), ValueError, "min_radius must lie in"),
        (lambda: ssm.rg_lru_a(0.9, 1.1), ValueError, "max_radius must be above 0.9"),
        (lambda: ssm.lru_theta_log(0.0), ValueError, "max_phase must lie in"),
        (
            lambda: ssm.hippo(3),
            ValueError,
            r"ssm.hippo\(states=3\): states must be even",
        ),
        (lambda: ssm.lru_gamma_log([1, 2]), TypeError, "real numbers of a float"),
        (lambda: ssm.s4d("cos"), ValueError, "spectrum must be one of"),
        (lambda: ssm.mamba_a_log()(KEY, ()), ValueError, "needs an axis of states"),
    ],
)
def test_wrong_arguments(wrong, error, said):
    with pytest.raises(error, match=said):
        wrong()
