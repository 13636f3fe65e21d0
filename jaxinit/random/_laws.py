"""Laws of independent entries: uniform, normal, truncated normal, real and complex.

A complex law is circular: its density depends on the modulus alone.

Values are those of `jax.random`. On CPU, draws from a Threefry key have a faster
backend (`jaxinit.random.backends`); every other key, platform and setting takes JAX's,
unless ``impl`` says otherwise.
"""

import contextlib
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
from jaxinit.random import backends, threefry
from jaxinit.random.backends import Impl

Shape = Sequence[int]
_Number = jax.Array | np.ndarray  # a scalar
# XLA counts the bytes of a program in 63 bits and aborts past them; all buffers of a
# draw together take less than 2^7 bytes an entry.
_MOST = 2**56
_KINDS: dict[type[Any], str] = {
    np.unsignedinteger: "an unsigned integer",
    np.floating: "a float",
    np.inexact: "a float or complex",
}


def _fixed(law: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Compiles a law for a shape, dtype and backend."""
    compiled: Callable[..., jax.Array] = jax.jit(
        law, static_argnames=("shape", "dtype", "impl"), inline=True
    )
    return compiled


def _checked(
    law: str,
    key: jax.Array,
    shape: Shape,
    dtype: DTypeLike,
    kind: type[Any],
    impl: Impl | None,
) -> tuple[jax.Array, tuple[int, ...], np.dtype]:
    """Checks the arguments that every law takes."""
    try:
        sizes, found = check.shape(shape), _value.as_dtype(dtype)
        if math.prod(sizes) > _MOST:
            raise check.Unfit("has more than 2^56 entries.", shape=sizes)
        if not jnp.issubdtype(found, kind):
            raise check.Unfit(f"dtype must be {_KINDS[kind]} type.", dtype=found.name)
        one = check.key(key)
        backends.check_impl(impl, one, found)
    except check.Unfit as error:
        raise error.at(f"random.{law}", "key", "shape", "dtype", "impl") from None
    return one, sizes, found


def _bound(call: str, *order: str, **bound: Any) -> Any:
    """Returns a bound: a number, or an array without axes, which may be traced."""
    ((name, value),) = bound.items()
    if isinstance(value, (np.generic, np.ndarray, jax.Array)):
        real = (np.integer, np.floating)
        if not np.ndim(value) and any(jnp.issubdtype(value.dtype, k) for k in real):
            return value
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            return float(value)
    rule = f"{name} must be a real number or a scalar array."
    raise check.Unfit(rule, TypeError, **bound).at(call, *order)


def bits(
    key: jax.Array,
    shape: Shape = (),
    dtype: DTypeLike | None = None,
    *,
    impl: Impl | None = None,
) -> jax.Array:
    """Draws random bits, as `jax.random.bits`.

    Args:
      key: one PRNG key, typed or legacy, of any implementation.
      shape: sizes of the array.
      dtype: an unsigned integer type; by default uint64 under x64, else uint32.
      impl: which program draws, as in `uniform`.

    Returns:
      An array of the shape and dtype.

    Raises:
      ValueError: if the dtype is not unsigned, the shape is too large, or the impl does
        not support the key or dtype.
      TypeError: if key is not a PRNG key, shape not a shape, or dtype not a dtype.

    Example:
      >>> key = jax.random.key(0)
      >>> drawn = jaxinit.random.bits(key, (3,))
      >>> bool((drawn == jax.random.bits(key, (3,))).all())
      True
    """
    if dtype is None:
        dtype = jax.dtypes.canonicalize_dtype(np.uint64)
    key, sizes, found = _checked("bits", key, shape, dtype, np.unsignedinteger, impl)
    return _bits(key, shape=sizes, dtype=found, impl=impl)


@_fixed
def _bits(
    key: jax.Array, shape: tuple[int, ...], dtype: np.dtype, impl: Impl | None
) -> jax.Array:
    def own(key: jax.Array) -> jax.Array:
        return jax.random.bits(key, shape, dtype)

    return backends.draw(key, shape, dtype, impl, own, lambda drawn: drawn)


def uniform(
    key: jax.Array,
    shape: Shape = (),
    dtype: DTypeLike = float,
    minval: jax.Array | float = 0.0,
    maxval: jax.Array | float = 1.0,
    *,
    impl: Impl | None = None,
) -> jax.Array:
    """Draws real numbers uniform on [minval, maxval), as `jax.random.uniform`.

    Args:
      key: one PRNG key, typed or legacy, of any implementation.
      shape: sizes of the array.
      dtype: a real float type.
      minval: the lower end, a number or scalar array.
      maxval: the upper end, likewise.
      impl: which program draws. None is the fastest one known to give the values of
        `jax.random`. Three others give the same values: "jax" is JAX's own; "fused"
        computes bits and law in one pass of XLA; "pallas" does so in one kernel on a
        GPU or TPU, which writes each entry once and is not divided over a mesh.
        Elsewhere that kernel is interpreted, which is slow and meant for tests.
        "paired" gives **other values** of the same law, by such a kernel or, elsewhere,
        a program of XLA: each block of Threefry makes two entries, so that half as many
        are enciphered. All but None and "jax" need a threefry2x32 key; "pallas" and
        "paired" draw 32 bits an entry.

    Returns:
      An array of the shape and dtype.

    Raises:
      ValueError: if the dtype is not a float type, the shape is too large, or the impl
        does not support the key or dtype.
      TypeError: if key is not a PRNG key, shape not a shape, dtype not a dtype, or a
        bound not a real scalar.

    Example:
      >>> key = jax.random.key(0)
      >>> drawn = jaxinit.random.uniform(key, (3,), minval=-1.0)
      >>> bool((drawn == jax.random.uniform(key, (3,), minval=-1.0)).all())
      True
    """
    key, sizes, found = _checked("uniform", key, shape, dtype, np.floating, impl)
    place = ("random.uniform", "key", "shape", "dtype", "minval", "maxval")
    minval, maxval = _bound(*place, minval=minval), _bound(*place, maxval=maxval)
    return _uniform(key, minval, maxval, shape=sizes, dtype=found, impl=impl)


@_fixed
def _uniform(
    key: jax.Array,
    minval: jax.Array,
    maxval: jax.Array,
    shape: tuple[int, ...],
    dtype: np.dtype,
    impl: Impl | None,
) -> jax.Array:
    def own(key: jax.Array) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, minval, maxval)

    ends = (lax.convert_element_type(x, dtype) for x in (minval, maxval))
    return backends.draw(key, shape, dtype, impl, own, _between, *ends)


def _between(drawn: jax.Array, low: _Number, high: _Number) -> jax.Array:
    """Turns bits into numbers uniform on [low, high), rounded as JAX rounds them."""
    share = threefry.unit(drawn)
    return lax.max(low, lax.add(lax.mul(share, high - low), low))


def normal(
    key: jax.Array,
    shape: Shape = (),
    dtype: DTypeLike = float,
    *,
    impl: Impl | None = None,
) -> jax.Array:
    """Draws standard normal numbers, as `jax.random.normal`.

    Complex ones have E[z conj(z)] = 1.

    Args:
      key: one PRNG key, typed or legacy, of any implementation.
      shape: sizes of the array.
      dtype: a float or complex type.
      impl: which program draws, as in `uniform`.

    Returns:
      An array of the shape and dtype.

    Raises:
      ValueError: if the dtype is neither float nor complex, the shape is too large, or
        the impl does not support the key or dtype.
      TypeError: if key is not a PRNG key, shape not a shape, or dtype not a dtype.

    Example:
      >>> key = jax.random.key(0)
      >>> drawn = jaxinit.random.normal(key, (3,))
      >>> bool((drawn == jax.jit(jax.random.normal, static_argnums=1)(key, (3,))).all())
      True
    """
    key, sizes, found = _checked("normal", key, shape, dtype, np.inexact, impl)
    if jnp.issubdtype(found, np.complexfloating):
        real, imaginary = jax.random.split(key)
        # Rounded as JAX rounds them.
        parts = (
            normal(part, sizes, _real(found), impl=impl).astype(found)
            for part in (real, imaginary)
        )
        drawn: jax.Array = _complex(*parts)
        return drawn
    return _normal(key, shape=sizes, dtype=found, impl=impl)


@functools.partial(jax.jit, inline=True)
def _complex(real: jax.Array, imaginary: jax.Array) -> jax.Array:
    return jnp.divide(real + 1j * imaginary, np.sqrt(2).astype(real.dtype))


@_fixed
def _normal(
    key: jax.Array, shape: tuple[int, ...], dtype: np.dtype, impl: Impl | None
) -> jax.Array:
    def own(key: jax.Array) -> jax.Array:
        return jax.random.normal(key, shape, dtype)

    one = np.ones((), dtype)
    ends = np.nextafter(-one, 0 * one), one
    return backends.draw(
        key, shape, dtype, impl, own, lambda drawn: _bell(drawn, *ends)
    )


def _bell(drawn: jax.Array, low: _Number, high: _Number) -> jax.Array:
    """Turns bits into standard normal numbers.

    They lie between the quantiles of (1 + low) / 2 and (1 + high) / 2.
    """
    inside = _between(drawn, low, high)
    return lax.mul(np.sqrt(2).astype(inside.dtype), lax.erf_inv(inside))


def truncated_normal(
    key: jax.Array,
    lower: jax.Array | float,
    upper: jax.Array | float,
    shape: Shape = (),
    dtype: DTypeLike = float,
    *,
    impl: Impl | None = None,
) -> jax.Array:
    """Draws standard normal numbers given that they lie between lower and upper.

    Real ones are those of `jax.random.truncated_normal`. A complex number has
    E[z conj(z)] = 1 before truncation, and its modulus is at most upper, by inversion:
    P(s <= t) = (1 - exp(-t)) / (1 - exp(-upper^2)) for s = z conj(z).

    Args:
      key: one PRNG key, typed or legacy, of any implementation.
      lower: the lower bound, a number or scalar array; not used by complex numbers.
      upper: the upper bound, above lower.
      shape: sizes of the array.
      dtype: a float or complex type.
      impl: which program draws, as in `uniform`.

    Returns:
      An array of the shape and dtype.

    Raises:
      ValueError: if the dtype is neither float nor complex, the shape is too large, or
        the impl does not support the key or dtype.
      TypeError: if key is not a PRNG key, shape not a shape, dtype not a dtype, or a
        bound not a real scalar.

    Example:
      >>> w = jaxinit.random.truncated_normal(jax.random.key(0), -1, 2, (256,))
      >>> bool((w > -1).all() and (w < 2).all())
      True
    """
    law = "truncated_normal"
    key, sizes, found = _checked(law, key, shape, dtype, np.inexact, impl)
    place = (f"random.{law}", "key", "lower", "upper")
    lower, upper = _bound(*place, lower=lower), _bound(*place, upper=upper)
    if not jnp.issubdtype(found, np.complexfloating):
        drawn: jax.Array = _truncated(
            key, lower, upper, shape=sizes, dtype=found, impl=impl
        )
        return drawn
    radius, angle = jax.random.split(key)
    inside: Any  # P(|z| <= upper) before truncation
    if isinstance(upper, jax.core.Tracer):
        inside = -jnp.expm1(-(upper.astype(_real(found)) ** 2))
    else:
        inside = -math.expm1(-(upper**2))
    share = uniform(radius, sizes, _real(found), impl=impl)
    return _polar(jnp.sqrt(-jnp.log1p(-inside * share)), angle, found, impl)


# Not inlined: with the bounds in sight, XLA would compute their erf by another formula
# than inside jax.random.truncated_normal, which is a function of its own.
@functools.partial(jax.jit, static_argnames=("shape", "dtype", "impl"))
def _truncated(
    key: jax.Array,
    lower: jax.Array,
    upper: jax.Array,
    shape: tuple[int, ...],
    dtype: np.dtype,
    impl: Impl | None,
) -> jax.Array:
    def own(key: jax.Array) -> jax.Array:
        return jax.random.truncated_normal(key, lower, upper, shape, dtype)

    root, infinity = np.sqrt(2).astype(dtype), np.asarray(np.inf, dtype)
    low, high = (lax.convert_element_type(x, dtype) for x in (lower, upper))
    mass = lax.erf(low / root), lax.erf(high / root)
    edges = lax.nextafter(low, infinity), lax.nextafter(high, -infinity)
    return backends.draw(key, shape, dtype, impl, own, _cut, *mass, *edges)


def _cut(
    drawn: jax.Array, low: jax.Array, high: jax.Array, least: jax.Array, most: jax.Array
) -> jax.Array:
    """Turns bits into truncated normal numbers; rounding must not reach the bounds."""
    return jnp.clip(_bell(drawn, low, high), least, most)


def disk(key: jax.Array, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
    """Draws complex numbers uniform on the disk of radius sqrt(2), where E|z|^2 = 1."""
    radius, angle = jax.random.split(key)
    squared = 2 * uniform(radius, shape, _real(dtype))
    return _polar(jnp.sqrt(squared), angle, dtype)


def _polar(
    modulus: jax.Array, key: jax.Array, dtype: np.dtype, impl: Impl | None = None
) -> jax.Array:
    """Gives each modulus a uniform angle."""
    angle = uniform(key, modulus.shape, modulus.dtype, 0, 2 * math.pi, impl=impl)
    return jax.lax.complex(modulus * jnp.cos(angle), modulus * jnp.sin(angle)).astype(
        dtype
    )


def _real(dtype: np.dtype) -> np.dtype:
    return np.zeros(0, dtype).real.dtype
