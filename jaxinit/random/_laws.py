"""Laws of independent entries: uniform, normal, truncated normal, real and complex.

A complex law is circular: its density depends on the modulus alone.

Values are those of `jax.random`. On CPU, a Threefry key takes a path of its own to them
(`jaxinit.random._threefry`); every other key, platform and setting takes JAX's.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike

from jaxinit import _check as check
from jaxinit import _value
from jaxinit.random import _threefry

Shape = Sequence[int]
_Draw = Callable[[jax.Array], jax.Array]
_KINDS: dict[type[Any], str] = {
    np.unsignedinteger: "an unsigned integer",
    np.floating: "a float",
    np.inexact: "a float or complex",
}


def _fixed(law: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Compiles a law for a shape and dtype."""
    compiled: Callable[..., jax.Array] = jax.jit(
        law, static_argnames=("shape", "dtype"), inline=True
    )
    return compiled


def _checked(
    law: str, key: jax.Array, shape: Shape, dtype: DTypeLike, kind: type[Any]
) -> tuple[jax.Array, tuple[int, ...], np.dtype]:
    """Checks what every law takes."""
    try:
        sizes, found = check.shape(shape), _value.as_dtype(dtype)
        if math.prod(sizes) > 2**64:
            raise check.Unfit("has more than 2^64 entries.", shape=sizes)
        if not jnp.issubdtype(found, kind):
            raise check.Unfit(f"dtype must be {_KINDS[kind]} type.", dtype=found.name)
        return check.key(key), sizes, found
    except check.Unfit as error:
        raise error.at(f"random.{law}", "key", "shape", "dtype") from None


# Sizes at which XLA spreads the fused loop over threads, which costs 20 us, and not yet
# the smaller loops of JAX (two cores, JAX 0.10).
_SPREAD_TOO_SOON = range(7, 21)


def _drawn(
    key: jax.Array, shape: tuple[int, ...], dtype: np.dtype, fused: _Draw, own: _Draw
) -> jax.Array:
    """Draws by the fused path where it has the type, JAX's values, and is no slower."""
    small = math.prod(shape) in _SPREAD_TOO_SOON
    if dtype.itemsize < 4 or small or not _threefry.fits(key):
        return own(key)
    drawn: jax.Array = lax.platform_dependent(key, cpu=fused, default=own)
    return drawn


def bits(key: jax.Array, shape: Shape = (), dtype: DTypeLike = np.uint32) -> jax.Array:
    """Draws random bits, as `jax.random.bits`.

    Args:
      key: one PRNG key, typed or legacy, of any implementation.
      shape: sizes of the array.
      dtype: an unsigned integer type.

    Returns:
      An array of the shape and dtype.

    Raises:
      ValueError: if the dtype is not unsigned, or the shape too large.
      TypeError: if the key, shape or dtype is none.

    Example:
      >>> key = jax.random.key(0)
      >>> drawn = jaxinit.random.bits(key, (3,))
      >>> bool((drawn == jax.random.bits(key, (3,), "uint32")).all())
      True
    """
    key, sizes, found = _checked("bits", key, shape, dtype, np.unsignedinteger)
    return _bits(key, shape=sizes, dtype=found)


@_fixed
def _bits(key: jax.Array, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
    def fused(key: jax.Array) -> jax.Array:
        return _threefry.bits(key, shape, dtype)

    return _drawn(
        key, shape, dtype, fused, lambda key: jax.random.bits(key, shape, dtype)
    )


def uniform(
    key: jax.Array,
    shape: Shape = (),
    dtype: DTypeLike = float,
    minval: float = 0.0,
    maxval: float = 1.0,
) -> jax.Array:
    """Draws real numbers uniform on [minval, maxval), as `jax.random.uniform`.

    Args:
      key: one PRNG key, typed or legacy, of any implementation.
      shape: sizes of the array.
      dtype: a real float type.
      minval: the lower end.
      maxval: the upper end.

    Returns:
      An array of the shape and dtype.

    Raises:
      ValueError: if the dtype is not a float type, or the shape too large.
      TypeError: if the key, shape or dtype is none.

    Example:
      >>> key = jax.random.key(0)
      >>> drawn = jaxinit.random.uniform(key, (3,), minval=-1.0)
      >>> bool((drawn == jax.random.uniform(key, (3,), minval=-1.0)).all())
      True
    """
    key, sizes, found = _checked("uniform", key, shape, dtype, np.floating)
    return _uniform(key, minval, maxval, shape=sizes, dtype=found)


@_fixed
def _uniform(
    key: jax.Array,
    minval: jax.Array,
    maxval: jax.Array,
    shape: tuple[int, ...],
    dtype: np.dtype,
) -> jax.Array:
    return _drawn(
        key,
        shape,
        dtype,
        lambda key: _between(key, minval, maxval, shape, dtype),
        lambda key: jax.random.uniform(key, shape, dtype, minval, maxval),
    )


def _between(
    key: jax.Array,
    minval: jax.typing.ArrayLike,
    maxval: jax.typing.ArrayLike,
    shape: tuple[int, ...],
    dtype: np.dtype,
) -> jax.Array:
    """Draws uniform numbers by the fused path, rounded as JAX rounds them."""
    low, high = (lax.convert_element_type(x, dtype) for x in (minval, maxval))
    spread = _threefry.floats(key, shape, dtype) * (high - low) + low
    return jnp.maximum(low, spread)


def normal(key: jax.Array, shape: Shape = (), dtype: DTypeLike = float) -> jax.Array:
    """Draws standard normal numbers, as `jax.random.normal`.

    Complex ones have E[z conj(z)] = 1.

    Args:
      key: one PRNG key, typed or legacy, of any implementation.
      shape: sizes of the array.
      dtype: a float or complex type.

    Returns:
      An array of the shape and dtype.

    Raises:
      ValueError: if the dtype is neither float nor complex, or the shape too large.
      TypeError: if the key, shape or dtype is none.

    Example:
      >>> key = jax.random.key(0)
      >>> drawn = jaxinit.random.normal(key, (3,))
      >>> bool((drawn == jax.jit(jax.random.normal, static_argnums=1)(key, (3,))).all())
      True
    """
    key, sizes, found = _checked("normal", key, shape, dtype, np.inexact)
    if jnp.issubdtype(found, np.complexfloating):
        real, imaginary = jax.random.split(key)
        # Rounded as JAX does.
        parts = (
            normal(part, sizes, _real(found)).astype(found)
            for part in (real, imaginary)
        )
        drawn: jax.Array = _complex(*parts)
        return drawn
    return _normal(key, shape=sizes, dtype=found)


@functools.partial(jax.jit, inline=True)
def _complex(real: jax.Array, imaginary: jax.Array) -> jax.Array:
    return jnp.divide(real + 1j * imaginary, np.sqrt(2).astype(real.dtype))


@_fixed
def _normal(key: jax.Array, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
    def fused(key: jax.Array) -> jax.Array:
        one = np.ones((), dtype)
        inside = _between(key, np.nextafter(-one, 0 * one), one, shape, dtype)
        return jnp.multiply(np.sqrt(2).astype(dtype), lax.erf_inv(inside))

    return _drawn(
        key, shape, dtype, fused, lambda key: jax.random.normal(key, shape, dtype)
    )


def truncated_normal(
    key: jax.Array,
    lower: float,
    upper: float,
    shape: Shape = (),
    dtype: DTypeLike = float,
) -> jax.Array:
    """Draws standard normal numbers given that they lie between lower and upper.

    Real ones are those of `jax.random.truncated_normal`. A complex number has
    E[z conj(z)] = 1 before truncation, and its modulus is at most upper, by inversion:
    P(s <= t) = (1 - exp(-t)) / (1 - exp(-upper^2)) for s = z conj(z).

    Args:
      key: one PRNG key, typed or legacy, of any implementation.
      lower: the lower bound; not used by complex numbers.
      upper: the upper bound, above lower.
      shape: sizes of the array.
      dtype: a float or complex type.

    Returns:
      An array of the shape and dtype.

    Raises:
      ValueError: if the dtype is neither float nor complex, or the shape too large.
      TypeError: if the key, shape or dtype is none.

    Example:
      >>> w = jaxinit.random.truncated_normal(jax.random.key(0), -1, 2, (256,))
      >>> bool((w > -1).all() and (w < 2).all())
      True
    """
    key, sizes, found = _checked("truncated_normal", key, shape, dtype, np.inexact)
    if not jnp.issubdtype(found, np.complexfloating):
        drawn: jax.Array = _truncated(key, lower, upper, shape=sizes, dtype=found)
        return drawn
    radius, angle = jax.random.split(key)
    inside = -math.expm1(-(upper**2))  # P(|z| <= upper) before truncation
    squared = -jnp.log1p(-inside * uniform(radius, sizes, _real(found)))
    return _polar(jnp.sqrt(squared), angle, found)


# Not inlined: with the bounds in sight, XLA would compute their erf by another formula
# than inside jax.random.truncated_normal, which is a function of its own.
@functools.partial(jax.jit, static_argnames=("shape", "dtype"))
def _truncated(
    key: jax.Array,
    lower: jax.Array,
    upper: jax.Array,
    shape: tuple[int, ...],
    dtype: np.dtype,
) -> jax.Array:
    def fused(key: jax.Array) -> jax.Array:
        root = np.sqrt(2).astype(dtype)
        low, high = (lax.convert_element_type(x, dtype) for x in (lower, upper))
        mass = lax.erf(low / root), lax.erf(high / root)
        drawn = lax.mul(root, lax.erf_inv(_between(key, *mass, shape, dtype)))
        # Rounding must not reach the bounds.
        inner = np.asarray(np.inf, dtype)
        return jnp.clip(drawn, lax.nextafter(low, inner), lax.nextafter(high, -inner))

    def own(key: jax.Array) -> jax.Array:
        return jax.random.truncated_normal(key, lower, upper, shape, dtype)

    return _drawn(key, shape, dtype, fused, own)


def disk(key: jax.Array, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
    """Draws complex numbers uniform on the disk of radius sqrt(2), where E|z|^2 = 1."""
    radius, angle = jax.random.split(key)
    squared = 2 * uniform(radius, shape, _real(dtype))
    return _polar(jnp.sqrt(squared), angle, dtype)


def _polar(modulus: jax.Array, key: jax.Array, dtype: np.dtype) -> jax.Array:
    """Gives each modulus a uniform angle."""
    angle = uniform(key, modulus.shape, modulus.dtype, 0, 2 * math.pi)
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
