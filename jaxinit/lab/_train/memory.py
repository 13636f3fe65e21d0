"""Memory: how many cells of a grid a device holds and trains at once."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from jaxinit.lab._train import processes

# Of a device's memory. The rest is for its scores and probes, for what others of the
# process hold, and for the gaps that an allocator leaves.
_SHARE = 0.75


class Need(NamedTuple):
    """Bytes of one device that a chunk takes.

    Attributes:
      held: before and after a block: its state, and its losses.
      working: beside them while a block is computed.
    """

    held: float
    working: float


def room(devices: Sequence[Any]) -> float | None:
    """Returns the bytes that cells may take on each device; None if no one knows.

    Args:
      devices: those of this process. All processes are told the same.
    """
    stats = [device.memory_stats() or {} for device in devices]
    limit = processes.least(min(found.get("bytes_limit", 0) for found in stats))
    return _SHARE * limit or None


def needed(program: Any) -> Need:
    """Returns what a lowered program says that it takes, and nothing if it does not.

    It is infinite where even its compilation takes more than there is.
    """
    try:
        found = program.compile().memory_analysis()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        held = working = math.inf
    else:
        if found is None:
            return Need(0, 0)
        held = found.argument_size_in_bytes + found.output_size_in_bytes
        working = found.temp_size_in_bytes
    # Processes may differ, as each chooses its kernels by measurement.
    return Need(-processes.least(-held), -processes.least(-working))


def cells_that_fit(
    need: Callable[[int], float], cells: int, room: float, each: float
) -> int:
    """Returns the largest number of cells that fit, in chunks of about equal size.

    Looking compiles, so few numbers are looked at: from above, along the line through
    the last two, at first through the origin. The number returned was the last.

    Args:
      need: bytes that a number of cells needs, 1 or more.
      cells: all that there are.
      room: bytes that there are.
      each: bytes that a cell needs at least.

    Returns:
      The number; 1 if not even one fits.
    """
    together = _equal(cells, room / each)
    last, seen = 0, 0.0
    while together > 1:
        found = need(together)
        if found <= room:
            return together
        slope = (found - seen) / (together - last)
        fitting = together / 2
        if 0 < slope < math.inf:
            fitting = together - (found - room) / slope
        last, seen = together, found
        together = min(together - 1, _equal(cells, fitting))
    need(together)
    return together


def _equal(cells: int, most: float) -> int:
    """Returns the size of the fewest equal chunks of this many cells at most."""
    most = max(1, min(cells, math.floor(most)))
    return -(-cells // -(-cells // most))
