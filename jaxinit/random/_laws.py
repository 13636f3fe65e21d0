"""Laws of independent entries: uniform, normal, truncated normal, real and complex.

A complex law is circular: its density depends on the modulus alone.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np


def uniform(
    key: jax.Array,
    shape: tuple[int, ...],
    dtype: np.dtype,
    minval: float = 0.0,
    maxval: float = 1.0,
) -> jax.Array:
    """Draws real numbers uniform on [minval, maxval)."""
    return jax.random.uniform(key, shape, dtype, minval, maxval)


def normal(key: jax.Array, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
    """Draws standard normal numbers; complex ones have E|z|^2 = 1."""
    return jax.random.normal(key, shape, dtype)


def truncated_normal(
    key: jax.Array,
    lower: float,
    upper: float,
    shape: tuple[int, ...],
    dtype: np.dtype,
) -> jax.Array:
    """Draws standard normal numbers given that they lie between lower and upper.

    A complex number has E|z|^2 = 1 before truncation, and its modulus is at most upper,
    by inversion: P(|z|^2 <= s) = (1 - exp(-s)) / (1 - exp(-upper^2)).
    """
    if not jnp.issubdtype(dtype, np.complexfloating):
        return jax.random.truncated_normal(key, lower, upper, shape, dtype)
    radius, angle = jax.random.split(key)
    inside = -math.expm1(-(upper**2))  # P(|z| <= upper) before truncation
    squared = -jnp.log1p(-inside * jax.random.uniform(radius, shape, _real(dtype)))
    return _polar(jnp.sqrt(squared), angle, dtype)


def disk(key: jax.Array, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
    """Draws complex numbers uniform on the disk of radius sqrt(2), where E|z|^2 = 1."""
    radius, angle = jax.random.split(key)
    squared = 2 * jax.random.uniform(radius, shape, _real(dtype))
    return _polar(jnp.sqrt(squared), angle, dtype)


def _polar(modulus: jax.Array, key: jax.Array, dtype: np.dtype) -> jax.Array:
    """Gives each modulus a uniform angle."""
    angle = jax.random.uniform(key, modulus.shape, modulus.dtype, 0, 2 * math.pi)
    return jax.lax.complex(modulus * jnp.cos(angle), modulus * jnp.sin(angle)).astype(
        dtype
    )


def _real(dtype: np.dtype) -> np.dtype:
    return np.zeros(0, dtype).real.dtype


def normal_mass(lower: float, upper: float) -> float:
    """Computes the mass of the standard normal law between two bounds."""
    if (
        lower + upper > 0
    ):  # mirrored, since erfc keeps its digits in the lower tail only
        lower, upper = -upper, -lower
    return (math.erfc(-upper / math.sqrt(2)) - math.erfc(-lower / math.sqrt(2))) / 2


def truncated_moments(lower: float, upper: float) -> tuple[float, float]:
    """Computes mean and variance of the real `truncated_normal`.

    With density f and mass Z between the bounds a and b,
    mean = (f(a) - f(b)) / Z and variance = 1 + (a f(a) - b f(b)) / Z - mean^2.
    """

    def density(x: float) -> float:
        return math.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)

    mass = normal_mass(lower, upper)
    mean = (density(lower) - density(upper)) / mass
    edge = (lower * density(lower) - upper * density(upper)) / mass
    return mean, 1 + edge - mean**2


def complex_truncated_variance(upper: float) -> float:
    """Computes E|z|^2 of the complex `truncated_normal`.

    With c = upper^2: E|z|^2 = 1 - c exp(-c) / (1 - exp(-c)).
    """
    c = upper**2
    return 1 - c * math.exp(-c) / -math.expm1(-c)
