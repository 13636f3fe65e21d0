"""Tiles: how a Pallas kernel cuts a flat array, and what compiles it, by device.

A kernel sees a flat array as lines of equal length and takes a tile at a time: one line
on a GPU (Triton), several on a TPU (Mosaic). If the last line is not full, the array
stays one long line on a GPU, and its end is masked; on a TPU it is padded, and the
caller cuts the end off. Other devices interpret the kernel, cut as for a GPU.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu, triton

Device = Literal["gpu", "tpu", "other"]

_WIDE = 2**31  # entries from which Triton's 32 bits miscount the places of a long line
_NUMBERS = 8  # the most that a tile is reduced to: the height of a TPU's register
_LANES = 128  # the width of a TPU's register


@dataclass(frozen=True)
class Tiles:
    """The sizes that can be tuned.

    Attributes:
      line: entries of a line, a power of 2, at least 128.
      lines: lines of a tile on a TPU, a multiple of 8.
      warps: how many warps, of 32 threads each, share a line on a GPU.
    """

    line: int
    lines: int
    warps: int


@dataclass(frozen=True)
class Cut:
    """A flat array of 1 entry or more, cut into tiles for a device."""

    size: int
    tiles: Tiles
    device: Device

    @property
    def long(self) -> bool:
        """Returns whether the array is one long line."""
        masks = self.size < _WIDE and self.device != "tpu"
        return masks and self.size % self.tiles.line > 0

    @property
    def whole(self) -> tuple[int, int]:
        """Returns the shape of the array in lines."""
        line = self.tiles.line
        return (1, self.size) if self.long else (-(-self.size // line), line)

    @property
    def tile(self) -> tuple[int, int]:
        """Returns the shape of a tile."""
        lines = self.tiles.lines if self.device == "tpu" else 1
        return min(lines, self.whole[0]), self.tiles.line

    @property
    def count(self) -> int:
        """Returns the number of tiles."""
        return -(-self.size // math.prod(self.tile))

    @property
    def last(self) -> int:
        """Returns how many entries of the last tile lie in the array."""
        return self.size - (self.count - 1) * math.prod(self.tile)

    def spec(self) -> pl.BlockSpec:
        """Returns where a tile lies in the array."""
        along = (lambda i: (0, i)) if self.long else (lambda i: (i, 0))
        return pl.BlockSpec(self.tile, along)

    def entries(self, tile: jax.Array) -> jax.Array:
        """Returns how many entries of a tile lie in the array."""
        full = np.int32(math.prod(self.tile))
        return jnp.where(tile < self.count - 1, full, np.int32(self.last))

    def inside(
        self, tile: jax.Array, first: int = 0, columns: int | None = None
    ) -> jax.Array | None:
        """Returns which entries of a tile lie in the array; None if all of every tile.

        Args:
          tile: the number of the tile.
          first: the first of the tile's columns to look at.
          columns: how many columns to look at, by default all.
        """
        if self.last == math.prod(self.tile):
            return None
        shape = (self.tile[0], columns or self.tile[1])
        row, column = (lax.broadcasted_iota(np.int32, shape, i) for i in (0, 1))
        place = row * np.int32(self.tile[1]) + column + np.int32(first)
        return place < self.entries(tile)

    def call(
        self, body: Callable[..., None], out: jax.ShapeDtypeStruct, **specs: Any
    ) -> Callable[..., jax.Array]:
        """Turns a kernel into a function that runs it once for each tile."""
        options: dict[str, Any] = {"interpret": True}
        if self.device == "gpu":
            parameters = triton.CompilerParams(num_warps=self.tiles.warps)
            options = {"compiler_params": parameters}
        elif self.device == "tpu":
            options = {"compiler_params": tpu.CompilerParams()}
        made: Callable[..., jax.Array] = pl.pallas_call(
            body, out_shape=out, grid=(self.count,), **specs, **options
        )
        return made


def numbers(count: int, device: Device) -> pl.BlockSpec:
    """Returns the block of numbers that every tile reads. # [1, count]."""
    space = tpu.SMEM if device == "tpu" else None
    return pl.BlockSpec((1, count), lambda i: (0, 0), memory_space=space)


def on_each(
    program: Callable[[Device], Callable[..., Any]],
    *operands: jax.Array,
    other: Callable[..., Any] | None = None,
) -> Any:
    """Runs the program for the device that the computation is lowered for.

    Args:
      program: makes the program for a device.
      *operands: arrays that it takes.
      other: the program for devices that are neither GPU nor TPU; by default that of
        the kernel, interpreted.
    """
    gpu, other = program("gpu"), other or program("other")
    return lax.platform_dependent(
        *operands, cuda=gpu, rocm=gpu, tpu=program("tpu"), default=other
    )


def reduced(
    x: jax.Array, tiles: Tiles, device: Device, to: Callable[..., Sequence[jax.Array]]
) -> tuple[jax.Array, jax.Array]:
    """Reduces each tile of a flat array to numbers, by one read of the array.

    Args:
      x: the array. # [size]
      tiles: how to cut it.
      device: the device that the kernel is for.
      to: a function that returns at most 8 numbers, given a tile, how many of its
        entries lie in the array, and which do, None if all.

    Returns:
      The numbers # [tiles, 8], and the entries # [tiles], as float32.
    """
    cut = Cut(x.size, tiles, device)
    lanes = _LANES if device == "tpu" else 1
    kernel = cut.call(
        functools.partial(_reduce, cut=cut, to=to),
        jax.ShapeDtypeStruct((_NUMBERS * cut.count, lanes), np.float32),
        in_specs=[cut.spec()],
        out_specs=pl.BlockSpec((_NUMBERS, lanes), lambda i: (i, 0)),
    )
    spare = math.prod(cut.whole) - x.size
    found = kernel(jnp.pad(x, (0, spare)).reshape(cut.whole))[:, 0]
    entries = cut.entries(jnp.arange(cut.count)).astype(np.float32)
    return found.reshape(cut.count, _NUMBERS), entries


def _reduce(x: Any, out: Any, cut: Cut, to: Callable[..., Sequence[jax.Array]]) -> None:
    """Reduces one tile."""
    tile = pl.program_id(0)
    inside = cut.inside(tile)
    value = triton.load(x, mask=inside, other=0.0) if cut.long else x[...]
    entries = cut.entries(tile).astype(np.float32)
    row = lax.broadcasted_iota(np.int32, out.shape, 0)
    line = jnp.zeros(out.shape, np.float32)
    for i, number in enumerate(to(value, entries, inside)):
        line = jnp.where(row == i, number, line)
    out[...] = line
