"""Memory: how many cells of a grid a device holds and trains at once."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from jaxinit.lab._train import processes

# Share of a device's memory for cells. The rest is for scores and probes, for other
# arrays of the process, and for the gaps that an allocator leaves.
_SHARE = 0.75


class Need(NamedTuple):
    """Bytes that a chunk takes on one device.

    Attributes:
      held: before and after a block, for its state and its losses.
      working: in addition, while a block is computed.
    """

    held: float
    working: float


def measure_room(devices: Sequence[Any]) -> float | None:
    """Returns the bytes that cells may take on each device; None if unknown.

    Args:
      devices: those of this process. All processes get the same answer.
    """
    stats = [device.memory_stats() or {} for device in devices]
    limit = processes.take_least(min(each.get("bytes_limit", 0) for each in stats))
    return _SHARE * limit or None


def measure_need(program: Any) -> Need:
    """Returns the memory that a lowered program reports, or 0 if it reports none.

    It is infinite where even compiling exhausts the memory.
    """
    try:
        analysis = program.compile().memory_analysis()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        held = working = math.inf
    else:
        if analysis is None:
            return Need(0, 0)
        held = analysis.argument_size_in_bytes + analysis.output_size_in_bytes
        working = analysis.temp_size_in_bytes
    # Processes may differ, as each chooses its kernels by measurement.
    return Need(-processes.take_least(-held), -processes.take_least(-working))


def fit_cells(
    need: Callable[[int], float], cells: int, room: float, each: float
) -> int:
    """Returns the largest number of cells that fit, in chunks of about equal size.

    Every trial compiles, so few are made: secant steps downwards from an upper
    estimate, the first along a line through the origin. The number returned is always
    the last one tried.

    Args:
      need: computes the bytes that a number of cells needs, 1 or more.
      cells: the number of all cells.
      room: the bytes available.
      each: the least bytes that a cell needs.

    Returns:
      The number; 1 if not even one fits.
    """
    together = _even_out(cells, room / each)
    last, before = 0, 0.0
    while together > 1:
        needed = need(together)
        if needed <= room:
            return together
        slope = (needed - before) / (together - last)
        estimate = together / 2
        if 0 < slope < math.inf:
            estimate = together - (needed - room) / slope
        last, before = together, needed
        together = min(together - 1, _even_out(cells, estimate))
    need(together)
    return together


def _even_out(cells: int, most: float) -> int:
    """Returns the size of equal chunks, as few as can be, of ``most`` cells or less."""
    most = max(1, min(cells, math.floor(most)))
    return -(-cells // -(-cells // most))
