"""The layout of cells: chunks of equal size, each spread over the devices of a mesh."""

import dataclasses
import operator
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

_SPEC = PartitionSpec("cells")


@dataclasses.dataclass(frozen=True)
class Layout:
    """How cells are cut into chunks.

    Equal chunks are one program; values depend on the layout by rounding only.

    Attributes:
      cells: how many there are.
      together: cells of a chunk on one device, which one vmap covers.
      mesh: the devices, on one axis, "cells".
    """

    cells: int
    together: int
    mesh: Mesh

    @property
    def placed(self) -> NamedSharding:
        """Where the arrays of a chunk lie: cells are their first axis."""
        return NamedSharding(self.mesh, _SPEC)

    @property
    def size(self) -> int:
        """Cells of a chunk, on all devices."""
        return self.together * self.mesh.size

    def filled_up(self) -> np.ndarray:
        """Numbers the cells, and some again until all chunks are full."""
        rows = self.size
        return np.resize(np.arange(self.cells), -(-self.cells // rows) * rows)

    def split(self, cells: Any) -> list[Any]:
        """Cuts a tree of all cells, filled up, into chunks on the devices."""
        starts = range(0, len(self.filled_up()), self.size)
        return [
            jax.device_put(
                jax.tree.map(operator.itemgetter(slice(i, i + self.size)), cells),
                self.placed,
            )
            for i in starts
        ]

    def spread(self, share: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Returns a function of a chunk that each device applies to its own cells."""
        return jax.shard_map(
            share, mesh=self.mesh, in_specs=_SPEC, out_specs=_SPEC, check_vma=False
        )

    def on_cells(self, cell: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Returns a function of a chunk that applies one of a cell to each."""
        together = self.together if self.together > 1 else None
        return self.spread(lambda cells: jax.lax.map(cell, cells, batch_size=together))
