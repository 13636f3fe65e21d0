"""Orthonormal matrices, uniform by the Haar measure, without a QR factorisation.

In the QR factorisation of a normal matrix by Householder reflectors, the column met at
step k is itself a fresh normal vector, since the earlier reflectors are independent of
it and the normal law does not change under rotation (Stewart 1980). So the reflectors
H_k = I - tau_k v_k v_k^H are drawn directly, and their product is accumulated:

    Q = H_1 ... H_m D,   D = the signs (phases) that make R's diagonal positive.

Reflectors are taken in blocks, H_i ... H_j = I - V T V^H with T upper triangular, so
that nearly all work is matrix products. With T_1, T_2 of two adjacent halves,

    T = [[T_1, -T_1 (V_1^H V_2) T_2], [0, T_2]],

which builds T by doubling from T = [tau] (Joffrain, Low, Quintana-Orti,
van de Geijn 2006).

This is also safe where LAPACK's QR is not: on a machine of two cores, two batched
factorisations in one program block each other for ever (jaxlib 0.10.2: each waits in
the thread pool for threads that the other holds).
"""

import functools
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxinit.random._laws import normal

Method = Literal["householder", "qr"]

_BLOCK = 256  # reflectors accumulated at once, a power of two
_matmul = functools.partial(jnp.matmul, precision=lax.Precision.HIGHEST)


def orthonormal(
    key: jax.Array,
    rows: int,
    columns: int,
    dtype: np.dtype,
    method: Method = "householder",
) -> jax.Array:
    """Draws a matrix with orthonormal columns, or rows where those are fewer.

    ``method="qr"`` gives the values of `jax.random.orthogonal`.
    """
    if method == "qr":
        draw = functools.partial(_by_qr, rows=rows, columns=columns, dtype=dtype)
    else:
        draw = functools.partial(
            _by_reflectors, rows=rows, columns=columns, dtype=dtype
        )
    return whole(draw)(key)


def whole(draw: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
    """Makes a draw of matrix products give the same bits in a batch and on a mesh.

    A batch is drawn one by one, and every device draws the whole: products of batches
    or of parts sum in another order, and so differ in the last bits.
    """

    def drawn(key: jax.Array) -> jax.Array:
        found: jax.Array = jax.custom_batching.sequential_vmap(draw)(key)
        if jax.sharding.get_abstract_mesh().auto_axes:
            found = lax.with_sharding_constraint(found, jax.sharding.PartitionSpec())
        return found

    return drawn


def _by_qr(key: jax.Array, rows: int, columns: int, dtype: np.dtype) -> jax.Array:
    return jax.random.orthogonal(key, rows, (), dtype, columns)


def _by_reflectors(
    key: jax.Array, rows: int, columns: int, dtype: np.dtype
) -> jax.Array:
    if rows < columns:
        return _by_reflectors(key, columns, rows, dtype).T.conj()
    v, tau, phase = _reflectors(key, rows, columns, dtype)
    # [rows - i, columns - i], grows from the end
    q = jnp.zeros((rows - columns, 0), dtype)
    for i in reversed(range(0, columns, _BLOCK)):
        block = v[i:, i : i + _BLOCK]
        width = block.shape[1]
        top, rest = block[:width], block[width:]
        product = jnp.concatenate([top.T.conj(), _matmul(rest.T.conj(), q)], 1)
        gram = _matmul(block.T.conj(), block)
        update = _matmul(block, _matmul(_triangle(gram, tau[i : i + width]), product))
        below, right = q.shape
        zero = jnp.zeros((), dtype)
        start = lax.pad(
            jnp.eye(width, dtype=dtype), zero, ((0, below, 0), (0, right, 0))
        )
        q = start + lax.pad(q, zero, ((width, 0, 0), (width, 0, 0))) - update
    return q * phase


def _reflectors(
    key: jax.Array, rows: int, columns: int, dtype: np.dtype
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Draws Householder vectors with leading entry 1, their factors and D's diagonal.

    # [rows, columns], [columns], [columns]
    """
    x = normal(key, (rows, columns), dtype)
    x = jnp.concatenate([jnp.tril(x[:columns]), x[columns:]])
    lead = jnp.diagonal(x[:columns])
    size = jnp.abs(lead)
    norm = jnp.sqrt((x * x.conj()).real.sum(0))
    phase = jnp.where(size > 0, lead / jnp.where(size > 0, size, 1).astype(dtype), 1)
    v = x / (phase * (size + norm).astype(dtype))
    one = jnp.eye(columns, dtype=bool)
    v = jnp.concatenate([jnp.where(one, 1, v[:columns]), v[columns:]])
    return v, ((size + norm) / norm).astype(dtype), -phase


def _triangle(gram: jax.Array, tau: jax.Array) -> jax.Array:  # [width, width]
    """Builds T of a block of reflectors from V^H V and tau."""
    width = tau.size
    size = 1 << (width - 1).bit_length()
    gram = jnp.pad(gram, (0, size - width))
    t = jnp.pad(tau, (0, size - width)).reshape(size, 1, 1)  # diagonal blocks of T
    while (half := t.shape[1]) < size:
        pairs = jnp.arange(size // (2 * half))
        tiles = gram.reshape(pairs.size, 2, half, pairs.size, 2, half)
        first, second = t[0::2], t[1::2]
        cross = -_matmul(_matmul(first, tiles[pairs, 0, :, pairs, 1, :]), second)
        above = jnp.concatenate([first, cross], 2)
        below = jnp.concatenate([jnp.zeros_like(cross), second], 2)
        t = jnp.concatenate([above, below], 1)
    return t[0, :width, :width]
