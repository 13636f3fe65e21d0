"""The layout of cells: chunks of equal size, each spread over the devices of a mesh."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxinit._placement import platform_of
from jaxinit._threads import map_on_threads

_SPEC = PartitionSpec("cells")


@dataclasses.dataclass(frozen=True)
class Layout:
    """How cells are cut into chunks.

    Equal chunks are one program; values depend on the layout by rounding only.

    Attributes:
      cells: how many there are.
      together: cells of a chunk on one device, which one vmap covers.
      mesh: the devices, on one axis, "cells".
      away: whether chunks are in the memory of the host while others are trained.
    """

    cells: int
    together: int
    mesh: Mesh
    away: bool = False

    @property
    def sharding(self) -> NamedSharding:
        """How a chunk's arrays are spread for training: cells are their first axis."""
        return NamedSharding(self.mesh, _SPEC)

    @property
    def size(self) -> int:
        """Cells of a chunk, on all devices."""
        return self.together * self.mesh.size

    def chunks(self) -> list[np.ndarray]:
        """Numbers the cells of each chunk; some cells repeat, so that all are full."""
        count = -(-self.cells // self.size)
        return list(np.resize(np.arange(self.cells), (count, self.size)))

    def take(self, cells: Any, rows: np.ndarray) -> Any:
        """Copies the cells with these numbers from a tree of cells to the devices."""
        return jax.device_put(jax.tree.map(lambda a: a[rows], cells), self.sharding)

    def fetch(self, chunk: Any) -> Any:
        """Returns a chunk on the devices."""
        return jax.device_put(chunk, self.sharding) if self.away else chunk

    def store(self, chunk: Any) -> Any:
        """Moves a chunk to where it waits, and returns once it is there."""
        if not self.away:
            return chunk
        host = self.sharding.with_memory_kind("pinned_host")
        return jax.block_until_ready(jax.device_put(chunk, host))

    def map_chunks(
        self, function: Callable[[Any, Any], Any], chunks: Sequence[Any], own: Any
    ) -> list[Any]:
        """Applies a compiled function to each chunk, with its own rates and seeds."""

        def one(chunk: Any, own: Any) -> Any:
            return jax.block_until_ready(function(self.fetch(chunk), own))

        one_cpu = self.mesh.size == 1 and platform_of(self.mesh) == "cpu"
        workers = None if one_cpu else 1  # a thread for each core
        return map_on_threads(one, chunks, own, workers=workers)

    def spread(self, share: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Returns a function of a chunk that each device applies to its own cells."""
        return jax.shard_map(
            share, mesh=self.mesh, in_specs=_SPEC, out_specs=_SPEC, check_vma=False
        )

    def map_cells(self, cell: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Returns a function of a chunk that applies ``cell`` to each of its cells."""
        together = self.together if self.together > 1 else None
        return self.spread(lambda cells: jax.lax.map(cell, cells, batch_size=together))
