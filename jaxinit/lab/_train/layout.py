"""The layout of cells: chunks of equal size, each spread over the devices of a mesh."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxinit._placement import platform_of
from jaxinit._threads import map_on_threads
from jaxinit.lab._train.processes import join_chunks

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
      trained_as: for each cell, the number of the first that is equal to it and the
        only one of them to be trained; () if all are trained.
    """

    cells: int
    together: int
    mesh: Mesh
    away: bool = False
    trained_as: tuple[int, ...] = ()

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
        trained = np.unique(self.trained_as or range(self.cells))
        count = -(-len(trained) // self.size)
        return list(np.resize(trained, (count, self.size)))

    def train_once(self, variables: Any) -> "Layout":
        """Returns the layout that trains only the first of cells that begin alike.

        Args:
          variables: of each group of cells that differ in their learning rates alone.
            # [groups, ...] per leaf
        """
        first = np.array(find_first_equal(jax.tree.leaves(variables)))
        rates = self.cells // len(first)
        cells = first[:, None] * rates + np.arange(rates)
        return dataclasses.replace(self, trained_as=tuple(cells.ravel().tolist()))

    def join(self, chunks: Iterable[Any]) -> Any:
        """Joins trees of chunks, leaf by leaf. # [cells, ...] per leaf."""
        trained_as = self.trained_as or range(self.cells)
        _, places = np.unique(trained_as, return_inverse=True)
        return jax.tree.map(lambda *leaves: join_chunks(leaves)[places], *chunks)

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


def find_first_equal(leaves: Sequence[np.ndarray]) -> list[int]:
    """Returns for each cell the number of the first whose bits are the same.

    Args:
      leaves: the arrays of all cells. # each [cells, ...]
    """
    numbers: dict[bytes, int] = {}
    first = []
    for number, entries in enumerate(zip(*map(np.asarray, leaves), strict=True)):
        digest = hashlib.sha256(b"".join(entry.tobytes() for entry in entries))
        first.append(numbers.setdefault(digest.digest(), number))
    return first
