"""The layout of cells: chunks of equal size, each spread over the devices of a mesh."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

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
    def placed(self) -> NamedSharding:
        """Where the arrays of a chunk are trained: cells are their first axis."""
        return NamedSharding(self.mesh, _SPEC)

    @property
    def size(self) -> int:
        """Cells of a chunk, on all devices."""
        return self.together * self.mesh.size

    def chunks(self) -> list[np.ndarray]:
        """Numbers the cells of each chunk, and some again until all are full."""
        count = -(-self.cells // self.size)
        return list(np.resize(np.arange(self.cells), (count, self.size)))

    def take(self, cells: Any, rows: np.ndarray) -> Any:
        """Takes those of these numbers from a tree of cells, to the devices."""
        return jax.device_put(jax.tree.map(lambda a: a[rows], cells), self.placed)

    def fetched(self, chunk: Any) -> Any:
        """Returns a chunk on the devices."""
        return jax.device_put(chunk, self.placed) if self.away else chunk

    def stored(self, chunk: Any) -> Any:
        """Returns a chunk where it waits; away from the devices when it returns."""
        if not self.away:
            return chunk
        host = self.placed.with_memory_kind("pinned_host")
        return jax.block_until_ready(jax.device_put(chunk, host))

    def each(
        self, function: Callable[[Any, Any], Any], chunks: Sequence[Any], own: Any
    ) -> list[Any]:
        """Applies a compiled function to chunks on the devices, each with its own."""

        def one(chunk: Any, own: Any) -> Any:
            return jax.block_until_ready(function(self.fetched(chunk), own))

        one_cpu = self.mesh.size == 1 and self.mesh.devices[0].platform == "cpu"
        workers = None if one_cpu else 1  # a thread for each core
        return map_on_threads(one, chunks, own, workers=workers)

    def spread(self, share: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Returns a function of a chunk that each device applies to its own cells."""
        return jax.shard_map(
            share, mesh=self.mesh, in_specs=_SPEC, out_specs=_SPEC, check_vma=False
        )

    def on_cells(self, cell: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Returns a function of a chunk that applies one of a cell to each."""
        together = self.together if self.together > 1 else None
        return self.spread(lambda cells: jax.lax.map(cell, cells, batch_size=together))
