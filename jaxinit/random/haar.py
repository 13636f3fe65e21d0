"""Orthonormal matrices, uniform by the Haar measure, without a QR factorization.

In the QR factorization of a normal matrix by Householder reflectors, the column met at
step k is itself a fresh normal vector, since the earlier reflectors are independent of
it and the normal law does not change under rotation (Stewart 1980). So the reflectors
H_k = I - tau_k v_k v_k^H are drawn directly, and their product is accumulated:

    Q = H_1 ... H_m D,   D = the signs (phases) that make R's diagonal positive.

Reflectors are taken in blocks, H_i ... H_j = I - V T V^H with T upper triangular, so
that nearly all work is matrix products. With T_1, T_2 of two adjacent halves,

    T = [[T_1, -T_1 (V_1^H V_2) T_2], [0, T_2]],

which builds T by doubling from T = [tau] (Joffrain, Low, Quintana-Orti,
van de Geijn 2006). All blocks double at once, and the first doublings share one loop
body, so that compilation does not grow with the matrix.

Matrices are padded with zeros to a few sizes, and the draw is that of the padded one:
its program then serves all shapes that are padded alike, with the same bits inside of
other programs and apart, since a product sums in an order that depends on its sizes. A
column of zeros has no reflector, and leaves the others as they are. (A loop over tiles
of 128 or 256, with their numbers as operands, serves every size by one program; on two
cores it takes 1.3 times as long from 1024 on, and is compiled twice as long below 128.)

This is also safe where LAPACK's QR is not: on a machine of two cores, two batched
factorizations in one program block each other forever (jaxlib 0.10.2: each waits in
the thread pool for threads that the other holds).
"""

import functools
import math
from collections.abc import Callable
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxinit import _check as check
from jaxinit.random._laws import normal

Method = Literal["householder", "qr"]

_SMALL, _BLOCK = 128, 256  # reflectors in a block, for up to 256 columns and for more
_TILE = 64  # size of T from which doubling leaves the loop; both are powers of two
_TINY = 16
_STEPS = {32: 128, 64: 1024, 128: math.inf}  # in which sizes grow, up to a size
matmul = functools.partial(jnp.matmul, precision=lax.Precision.HIGHEST)


def orthonormal(
    key: jax.Array,
    rows: int,
    columns: int,
    dtype: np.dtype,
    method: Method = "householder",
) -> jax.Array:
    """Draws a matrix with orthonormal columns, or rows where those are fewer.

    ``method="qr"`` gives the values of `jax.random.orthogonal`.

    Example:
      >>> q = jaxinit.random.orthonormal(jax.random.key(0), 4, 2, np.dtype("float32"))
      >>> bool(jnp.allclose(q.T @ q, jnp.eye(2), atol=1e-6))
      True
    """
    try:
        check.choice(get_args(Method), method=method)
    except check.Unfit as error:
        raise error.at("random.orthonormal", "key") from None
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
    if not columns:
        return jnp.zeros((rows, columns), dtype)
    if is_asked.value:
        asked: jax.Array = _ask_orthonormal(
            key, rows=rows, columns=columns, dtype=dtype
        )
        return asked
    x = _pad(normal(key, (rows, columns), dtype))
    q = orthonormalize(lax.optimization_barrier(x))
    return lax.slice(lax.optimization_barrier(q), (0, 0), (rows, columns))


def _pad(x: jax.Array) -> jax.Array:
    """Pads a matrix of rows >= columns, outside of the loop that draws it.

    XLA would draw in the loop that pads, one entry at a time. It leaves alone what
    enters a loop that runs twice, which here does the same again.
    """
    if x.shape == (padded := pad(*x.shape)):
        return x

    def put(_: jax.Array, wide: jax.Array) -> jax.Array:
        return lax.dynamic_update_slice(wide, x, (0, 0))

    # In shard_map a carry keeps its type: like x, zeros vary over the mesh.
    wide: jax.Array = lax.fori_loop(0, 2, put, jnp.zeros_like(x, shape=padded))
    return wide


# True while a draw outside of traces asks what to draw: see `_ask_orthonormal`.
is_asked = jax.make_user_context(default_value=False)


@functools.partial(jax.jit, static_argnames=("rows", "columns", "dtype"))
def _ask_orthonormal(
    key: jax.Array, rows: int, columns: int, dtype: np.dtype
) -> jax.Array:
    """Stands for a draw, rows >= columns, which the reader of the program makes.

    The reader finds the equation of this call by its name, `ASKED`.
    """
    del key
    return jnp.zeros((rows, columns), dtype)


ASKED = "_ask_orthonormal"


def pad(rows: int, columns: int) -> tuple[int, int]:
    """Returns the sizes that a matrix of rows >= columns is padded to.

    Compiling takes a thousand times as long as drawing a small matrix, which are
    therefore padded the most.
    """
    if rows <= _TINY:
        return _TINY, _TINY
    return _step(rows), _step(columns)


def _step(size: int) -> int:
    """Rounds a size up: to 64, 96, 128, 192, 256 and so on."""
    if size <= _TILE:
        return _TILE
    step = next(step for step, most in _STEPS.items() if size <= most)
    return -(-size // step) * step


@jax.jit
def orthonormalize(x: jax.Array) -> jax.Array:
    """Turns a normal matrix into one of orthonormal columns, for those not zero.

    # [rows, columns] with rows >= columns
    """
    rows, columns = x.shape
    v, tau, phase = lax.optimization_barrier(_reflectors(x))
    size = _SMALL if columns <= _BLOCK else _BLOCK
    blocks = [
        lax.slice(v, (i, i), (rows, min(i + size, columns)))
        for i in range(0, columns, size)
    ]
    triangles = _triangles([matmul(b.T.conj(), b) for b in blocks], tau)
    zero, one = jnp.zeros((), x.dtype), jnp.ones((), x.dtype)
    q: jax.Array = jnp.zeros(
        (rows - columns, 0), x.dtype
    )  # [rows - i, columns - i], from the end
    for block, triangle in zip(reversed(blocks), reversed(triangles), strict=True):
        width = block.shape[1]
        q = lax.pad(q, zero, ((width, 0, 0), (width, 0, 0)))
        row, column = (lax.broadcasted_iota("int32", q.shape, i) for i in (0, 1))
        q = jnp.where((row == column) & (row < width), one, q)
        last = q.shape[1] == width  # q is still the identity
        met = block[:width].T.conj() if last else matmul(block.T.conj(), q)
        q = q - matmul(block, matmul(triangle, met))
    found: jax.Array = q * phase[None]
    return found


def _reflectors(x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Turns normal columns into Householder vectors, their factors and D's diagonal.

    # [rows, columns], [columns], [columns]
    """
    dtype, columns = x.dtype, x.shape[1]
    row, column = (lax.broadcasted_iota("uint32", x.shape, i) for i in (0, 1))
    x = jnp.where(row >= column, x, jnp.zeros((), dtype))
    # Not of x itself, whose rows may be too many for indices of 32 bits.
    lead = jnp.diagonal(lax.slice(x, (0, 0), (columns, columns)))
    size = jnp.abs(lead)
    norm = jnp.sqrt((x * x.conj()).real.sum(0))
    if jnp.issubdtype(dtype, np.complexfloating):
        phase = jnp.where(
            size > 0, lead / jnp.where(size > 0, size, 1).astype(dtype), 1
        )
    else:
        phase = jnp.where(lead < 0, -jnp.ones((), dtype), jnp.ones((), dtype))
    v = jnp.where(row == column, (phase * (size + norm).astype(dtype))[None], x)
    half = norm * (size + norm)  # of |v|^2
    tau = jnp.where(half > 0, 1 / jnp.where(half > 0, half, 1), 0)
    return v, tau.astype(dtype), -phase


def _triangles(grams: list[jax.Array], tau: jax.Array) -> list[jax.Array]:
    """Builds T of every block of reflectors from V^H V and tau. # [width, width]."""
    widths = [gram.shape[0] for gram in grams]
    size = 1 << (widths[0] - 1).bit_length()
    gram = jnp.stack([jnp.pad(gram, (0, size - len(gram))) for gram in grams])
    tau = jnp.pad(tau, (0, len(grams) * size - tau.size))
    tile = min(_TILE, size)
    # Diagonal tiles are taken by a masked sum: slices of them compile slowly.
    shape = (len(grams), size // tile, tile, size // tile, tile)
    first, second = (lax.broadcasted_iota("int32", shape, axis) for axis in (1, 3))
    zero = jnp.zeros((), gram.dtype)
    tiles = jnp.where(first == second, gram.reshape(shape), zero).sum(3)
    t = _doubled(
        tiles,
        0,
        tau.reshape(shape[:3])[..., None, :]
        * jnp.eye(tile, dtype=tau.dtype)[None, None],
    )
    t = jnp.where(first == second, t[:, :, :, None, :], zero).reshape(gram.shape)
    t = _doubled(gram, (tile - 1).bit_length(), t)
    return [t[i, :width, :width] for i, width in enumerate(widths)]


def _doubled(gram: jax.Array, start: int, t: jax.Array) -> jax.Array:
    """Builds T by doubling from diagonal tiles of 2^start: products with masks."""
    size = t.shape[-1]
    alike = (*[1] * (t.ndim - 2), size, size)
    row, column = (
        lax.broadcasted_iota("int32", alike, axis) for axis in (t.ndim - 2, t.ndim - 1)
    )

    def double(step: jax.Array, t: jax.Array) -> jax.Array:
        same = (row >> (step + 1)) == (column >> (step + 1))
        above = same & (((row >> step) & 1) < ((column >> step) & 1))
        cross = jnp.where(above, gram, jnp.zeros((), gram.dtype))
        return t - matmul(matmul(t, cross), t)

    found: jax.Array = lax.fori_loop(start, (size - 1).bit_length(), double, t)
    return found
