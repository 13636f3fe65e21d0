"""Threefry bits that XLA fuses with the law that consumes them.

On CPU `jax.random` lowers Threefry to a loop over its rounds, which XLA cannot fuse:
every round is a pass over memory. Here the rounds are written out, so that bits, law
and scale become one pass that writes each entry once; the bits are the same. Entry i of
an array, counted in row-major order, is Threefry of the counter i: the counter is
computed from the index where it is needed, so that no array of counters is stored, and
each device of a mesh computes its own shard.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

_U32, _U64 = np.uint32, np.uint64
_PARITY = 0x1BD11BDA  # of the key schedule (Salmon and others 2011, section 3.2)
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
Words = tuple[jax.Array, jax.Array]  # high and low 32 bits


def fits(key: jax.Array) -> bool:
    """Returns whether the bits are those of `jax.random` for the key."""
    threefry = str(jax.random.key_impl(key)) == "threefry2x32"
    return threefry and jax.config.jax_threefry_partitionable  # type: ignore[attr-defined]


def bits(key: jax.Array, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
    """Computes random bits of an unsigned type."""
    high, low = _words(key, shape)
    if dtype == np.uint64:
        return lax.shift_left(high.astype(dtype), _U64(32)) | low.astype(dtype)
    return (high ^ low).astype(dtype)


def floats(key: jax.Array, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
    """Computes float32 or float64 numbers uniform on [0, 1), of all mantissa bits.

    The mantissa is random and the exponent that of 1, less 1.
    """
    unsigned = np.dtype(_U32 if dtype == np.float32 else _U64)
    spare = unsigned.type(8 * unsigned.itemsize - jnp.finfo(dtype).nmant)
    one = np.ones((), dtype).view(unsigned)
    mantissa = lax.shift_right_logical(bits(key, shape, unsigned), spare)
    return lax.bitcast_convert_type(mantissa | one, dtype) - np.ones((), dtype)


def _words(key: jax.Array, shape: tuple[int, ...]) -> Words:
    """Computes 64 random bits for each entry of a shape."""
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    first, second = _unknown(jax.random.key_data(key) if typed else key)
    return _threefry(first, second, *_counter(shape))


def _unknown(key: jax.Array) -> jax.Array:
    """Hides a constant key from the compiler, by a loop that leaves it as it is.

    Entries that LLVM folds are rounded without fused multiply-add, unlike all others.
    """
    hidden: jax.Array = lax.fori_loop(0, 2, lambda _, key: ~key, key)
    return hidden


def _threefry(
    first: jax.Array, second: jax.Array, high: jax.Array, low: jax.Array
) -> Words:
    """Enciphers two words by a key of two words, in 20 rounds."""
    schedule = (first, second, first ^ second ^ _U32(_PARITY))
    high, low = high + schedule[0], low + schedule[1]
    for group in range(5):
        for distance in _ROTATIONS[group % 2]:
            high = high + low
            left = lax.shift_left(low, _U32(distance))
            right = lax.shift_right_logical(low, _U32(32 - distance))
            low = high ^ (left | right)
        high = high + schedule[(group + 1) % 3]
        low = low + schedule[(group + 2) % 3] + _U32(group + 1)
    return high, low


def _counter(shape: tuple[int, ...]) -> Words:
    """Computes the row-major index of each entry, in 64 bits."""
    high = low = jnp.zeros(shape, _U32)
    wide = math.prod(shape) > 2**32
    for axis in range(len(shape)):
        stride = math.prod(shape[axis + 1 :])
        if wide:
            more_high, more_low = _product(_index(shape, axis), stride)
            low = low + more_low
            high = high + more_high + (low < more_low).astype(_U32)
        else:
            index = lax.broadcasted_iota(_U32, shape, axis)
            low = low + index * _U32(stride % 2**32)
    return high, low


def _index(shape: tuple[int, ...], axis: int) -> Words:
    """Computes the index along an axis, in 64 bits."""
    size = shape[axis]
    if size <= 2**32:
        return jnp.zeros(shape, _U32), lax.broadcasted_iota(_U32, shape, axis)
    # A word counts to 2^32: the axis is laid out as two, of which the last is full.
    before, after = shape[:axis], shape[axis + 1 :]
    lines = -(-size // 2**32)

    def word(place: int) -> jax.Array:
        laid = lax.broadcasted_iota(_U32, (*before, lines, 2**32, *after), axis + place)
        whole = laid.reshape(*before, lines * 2**32, *after)
        return lax.slice_in_dim(whole, 0, size, axis=axis)

    return word(0), word(1)


def _product(index: Words, stride: int) -> Words:
    """Multiplies an index by a stride, modulo 2^64."""
    high, low = index
    low_stride = jnp.asarray(_U32(stride % 2**32))
    above = low * _U32(stride >> 32) + high * low_stride
    return times(low, low_stride) + above, low * low_stride


def times(a: jax.Array, b: jax.Array) -> jax.Array:
    """Computes the high word of a product of words, from those of 16-bit halves."""
    half, shift = _U32(0xFFFF), _U32(16)
    first, second = (a >> shift) * (b & half), (a & half) * (b >> shift)
    middle = ((a & half) * (b & half) >> shift) + (first & half) + (second & half)
    return (
        (a >> shift) * (b >> shift)
        + (first >> shift)
        + (second >> shift)
        + (middle >> shift)
    )
