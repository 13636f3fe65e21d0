"""The Pallas kernel of draws: bits and law of a tile in registers, written once.

Entry i of an array, counted in row-major order, is Threefry of the counter i, as in
`jaxinit.random.threefry`; when paired, the two words of a block are two entries, in
the two halves of a line. The kernel takes the law as a function of bits.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from jaxinit import _tiles
from jaxinit.random import threefry

TILES = _tiles.Tiles(line=threefry.LINE, lines=64, warps=4)
Law = Callable[..., jax.Array]


def draw(
    key: jax.Array,
    shape: tuple[int, ...],
    dtype: np.dtype,
    law: Law,
    *numbers: jax.Array,
    paired: Callable[[jax.Array], jax.Array] | None,
) -> jax.Array:
    """Draws entries of 4 bytes.

    Args:
      key: a Threefry key.
      shape: sizes of the array.
      dtype: the dtype of the law's values.
      law: turns 32 random bits for each entry, and the numbers, into values.
      *numbers: scalars of the dtype.
      paired: None if each block of 64 bits makes one entry; if it makes two, a function
        that draws the same entries without a GPU or TPU.
    """
    if not math.prod(shape):
        return jnp.zeros(shape, dtype)

    def program(device: _tiles.Device) -> Callable[[jax.Array], jax.Array]:
        return lambda key: on_device(
            key, shape, dtype, law, *numbers, paired=paired is not None, device=device
        )

    found: jax.Array = _tiles.on_each(program, key, other=paired)
    return found


def on_device(
    key: jax.Array,
    shape: tuple[int, ...],
    dtype: np.dtype,
    law: Law,
    *numbers: jax.Array,
    paired: bool,
    device: _tiles.Device,
) -> jax.Array:
    """Draws entries by the kernel as it is cut for a device."""
    size = math.prod(shape)
    cut = _tiles.Cut(size, TILES, device)
    operands = [threefry.data(key)[None]]
    if numbers:
        operands.append(jnp.stack(numbers)[None])
    kernel = cut.call(
        functools.partial(_body, law=law, paired=paired, cut=cut),
        jax.ShapeDtypeStruct(cut.whole, dtype),
        in_specs=[_tiles.numbers(x.shape[1], device) for x in operands],
        out_specs=cut.spec(),
    )
    return kernel(*operands).ravel()[:size].reshape(shape)


def _body(key: Any, *refs: Any, law: Law, paired: bool, cut: _tiles.Cut) -> None:
    """Draws one tile."""
    *inputs, out = refs
    numbers = [ref[0, i] for ref in inputs for i in range(ref.shape[1])]
    rows, columns = cut.tile
    width = columns // 2 if paired else columns
    tile = pl.program_id(0)
    high, low = words(key[0, 0], key[0, 1], tile, (rows, width))
    for i, word in enumerate((high, low) if paired else (high ^ low,)):
        part = out.at[:, pl.ds(i * width, width)]
        mask = cut.inside(tile, i * width, width) if cut.long else None
        triton.store(part, law(word, *numbers), mask=mask)


def words(
    first: jax.Array, second: jax.Array, tile: jax.Array, shape: tuple[int, int]
) -> threefry.Words:
    """Enciphers the counters of a tile; the shape has as many entries as each tile."""
    tile = tile.astype(np.uint32)
    start = threefry.product((jnp.zeros_like(tile), tile), math.prod(shape))
    row, column = (lax.broadcasted_iota(np.uint32, shape, i) for i in (0, 1))
    low = start[1] + row * np.uint32(shape[1]) + column
    high = start[0] + (low < start[1]).astype(np.uint32)
    return threefry.cipher(first, second, high, low)
