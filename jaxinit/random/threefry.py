"""Threefry bits that XLA fuses with the law that consumes them.

On CPU `jax.random` lowers Threefry to a loop over its rounds, which XLA cannot fuse:
every round is a pass over memory. Here the rounds are written out, so that bits, law
and scale become one pass that writes each entry once; the bits are the same. Entry i of
an array, counted in row-major order, is Threefry of the counter i: the counter is
computed from the index where it is needed, so that no array of counters is stored, and
each device of a mesh computes its own shard.
"""

import functools
import math
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

_U32, _U64 = np.uint32, np.uint64
_PARITY = 0x1BD11BDA  # of the key schedule (Salmon and others 2011, section 3.2)
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_NUMPY = (np.add, np.bitwise_xor, np.bitwise_or, np.left_shift, np.right_shift)
_PLAIN: Any = (  # of Python's integers
    *(lambda x, y: (x + y) & 0xFFFFFFFF, operator.xor, operator.or_),
    *(lambda x, y: (x << y) & 0xFFFFFFFF, operator.rshift),
)
_LAX = (  # jax.numpy has the same functions, which take three times as long to trace
    *(lax.add, lax.bitwise_xor, lax.bitwise_or),
    *(lax.shift_left, lax.shift_right_logical),
)
LINE = 1024  # entries that share half as many blocks, when paired: part of the stream
Words = tuple[jax.Array, jax.Array]  # high and low 32 bits


def fits(key: jax.Array) -> bool:
    """Returns whether the bits computed here for a key are those of `jax.random`."""
    threefry = str(jax.random.key_impl(key)) == "threefry2x32"
    return threefry and jax.config.jax_threefry_partitionable  # type: ignore[attr-defined]


def bits(key: jax.Array, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
    """Computes random bits of an unsigned type."""
    return _joined(_words(key, shape), dtype)


@functools.partial(jax.jit, static_argnames=("shape", "dtype"))
def deferred(key: jax.Array, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
    """Asks for random bits, which the reader of the program is to compute.

    The reader finds the equation of this call by its name, `DEFERRED`.
    """
    return jax.random.bits(key, shape, dtype)


DEFERRED = "deferred"


def bits_from(key: jax.Array, start: Words, size: int, dtype: np.dtype) -> jax.Array:
    """Computes the bits of the entries that begin at an index, high and low word.

    The index is a multiple of the size, a power of two: the low word never overflows.
    """
    first, second = data(key)
    high, low = jnp.full(size, start[0]), lax.broadcasted_iota(_U32, (size,), 0)
    return _joined(cipher(first, second, high, low + start[1]), dtype)


def _joined(words: Words, dtype: np.dtype) -> jax.Array:
    """Joins two words into one number of an unsigned type."""
    high, low = words
    if dtype == np.uint64:
        return lax.shift_left(high.astype(dtype), _U64(32)) | low.astype(dtype)
    return lax.convert_element_type(lax.bitwise_xor(high, low), dtype)


def paired(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Computes 32 random bits an entry, two entries from each block of 64.

    In row-major order each line of 1024 entries takes 512 blocks: their high words are
    its first half, their low words the second.
    """
    size = math.prod(shape)
    lines = jnp.concatenate(_words(key, (-(-size // LINE), LINE // 2)), 1)
    return lines.ravel()[:size].reshape(shape)


def unit(drawn: jax.Array) -> jax.Array:
    """Turns 32 or 64 bits into a float, uniform on [0, 1).

    All bits of the mantissa are random and the exponent is that of 1; 1 is subtracted.
    """
    unsigned = drawn.dtype
    one = np.float32(1) if unsigned == _U32 else np.float64(1)
    spare = unsigned.type(8 * unsigned.itemsize - jnp.finfo(one.dtype).nmant)
    mantissa = lax.shift_right_logical(drawn, spare)
    words = lax.bitwise_or(mantissa, one.view(unsigned))
    return lax.sub(lax.bitcast_convert_type(words, one.dtype), one)


def data(key: jax.Array) -> jax.Array:
    """Returns the two words of a key, typed or legacy."""
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(key) if typed else key


def _words(key: jax.Array, shape: tuple[int, ...]) -> Words:
    """Computes 64 random bits for each entry of a shape."""
    first, second = _unknown(data(key))
    return cipher(first, second, *_counter(shape))


def _unknown(key: jax.Array) -> jax.Array:
    """Hides a constant key from the compiler, by a loop that leaves it as it is.

    Entries that LLVM folds are rounded without fused multiply-add, unlike all others.
    """
    hidden: jax.Array = lax.fori_loop(0, 2, lambda _, key: ~key, key)
    return hidden


def fold_in(keys: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Computes `jax.random.fold_in` of words of keys, [..., 2], on the host."""
    return _blocks(keys, np.zeros(numbers.shape, _U32), numbers.astype(_U32))


def split(keys: np.ndarray, shape: tuple[int, ...], by_index: bool) -> np.ndarray:
    """Computes `jax.random.split` of words of keys, on the host.

    Args:
      keys: words of keys, [..., 2].
      shape: the shape of the keys that each key is split into; fewer than 2^32.
      by_index: whether ``jax_threefry_partitionable`` is set.

    Returns:
      Words of keys, [..., *shape, 2].
    """
    size = math.prod(shape)
    if by_index:
        high, low = np.zeros(size, _U32), np.arange(size, dtype=_U32)
    else:
        high, low = np.arange(2 * size, dtype=_U32).reshape(2, size)
    made = _blocks(keys[..., None, :], high, low)
    if not by_index:  # all high words, then all low ones, are taken in pairs
        made = np.moveaxis(made, -1, -2)
    return made.reshape(*keys.shape[:-1], *shape, 2)


def _blocks(keys: np.ndarray, high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """Enciphers counters by keys, [..., 2], that broadcast; gives words, [..., 2]."""
    if keys.size == 2 and low.size == 1:  # for one number NumPy is slower than Python
        first, second = keys.ravel().tolist()
        one = cipher(first, second, high.item(), low.item())
        return np.array(one, _U32).reshape(*np.broadcast(keys[..., 0], low).shape, 2)
    with np.errstate(over="ignore"):  # scalars would warn; arrays wrap silently
        return np.stack(cipher(keys[..., 0], keys[..., 1], high, low), -1)


def cipher(first: Any, second: Any, high: Any, low: Any) -> tuple[Any, Any]:
    """Enciphers two words by a key of two words, in 20 rounds.

    They are arrays of JAX or NumPy, or integers of Python.
    """
    on_host = isinstance(low, (np.ndarray, np.generic))
    plain = isinstance(low, int)
    add, xor, either, left, right = _PLAIN if plain else _NUMPY if on_host else _LAX
    word: Any = int if plain else _U32
    schedule = (first, second, xor(xor(first, second), word(_PARITY)))
    high, low = add(high, schedule[0]), add(low, schedule[1])
    for group in range(5):
        for distance in _ROTATIONS[group % 2]:
            high = add(high, low)
            turned = either(left(low, word(distance)), right(low, word(32 - distance)))
            low = xor(high, turned)
        high = add(high, schedule[(group + 1) % 3])
        low = add(add(low, schedule[(group + 2) % 3]), word(group + 1))
    return high, low


def _counter(shape: tuple[int, ...]) -> Words:
    """Computes the row-major index of each entry, in 64 bits."""
    high = low = jnp.zeros(shape, _U32)
    wide = math.prod(shape) > 2**32
    for axis in range(len(shape)):
        stride = math.prod(shape[axis + 1 :])
        if wide:
            more_high, more_low = product(_index(shape, axis), stride)
            low = low + more_low
            high = high + more_high + (low < more_low).astype(_U32)
        else:
            index = lax.broadcasted_iota(_U32, shape, axis)
            low = lax.add(low, lax.mul(index, _U32(stride % 2**32)))
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


def product(index: Words, stride: int) -> Words:
    """Multiplies an index by a stride, modulo 2^64."""
    high, low = index
    low_stride = _U32(stride % 2**32)
    above = low * _U32(stride >> 32) + high * low_stride
    return times(low, low_stride) + above, low * low_stride


def times(a: jax.Array, b: jax.Array | np.uint32) -> jax.Array:
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
