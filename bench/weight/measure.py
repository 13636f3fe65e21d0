"""The measurement of a draw: verified, then raced; its memory."""

import re

import jax
import jax.numpy as jnp
import numpy as np

from bench.meters import memory
from bench.meters.race import Contender
from bench.meters.row import (
    KEY,
    LIMIT,
    Row,
    Unverified,
    add_times,
    first_line,
    start_row,
    verify_row,
)
from bench.meters.settings import Settings
from bench.weight.draw import Draw
from bench.weight.limit import limit_draw

_LARGE = 2**24  # bytes: below, an allocator's own habits hide the memory of a draw


def measure_draw(suite: str, draw: Draw, settings: Settings) -> Row:
    """Measures the time that each contender takes for a draw.

    Args:
      suite: the draw's suite, where `bench.apart.child` finds it.
      draw: the draw.
      settings: how to measure.

    Returns:
      The row, with the memory of a large draw.
    """
    with draw.enable_types():
        row = start_row(draw)
        limit = limit_draw(draw)
        contenders = {"ours": Contender(draw.jitted, jitted=True)}
        if draw.eager:
            contenders["ours eager"] = Contender(draw.ours)
        contenders[LIMIT] = limit.contender
        contenders |= _build_peers(draw, settings, row)
        if not verify_row(row, lambda: _verify(draw, contenders["ours"], row)):
            return row
        timings = settings.race(contenders)
        add_times(row, timings)
        row["limit"] = limit.rate(timings)
        if limit.kind == "fill":
            row["gb_per_s"] = draw.bytes / timings["ours"].median / 1e9
        if draw.bytes >= _LARGE:
            row["memory"] = memory.measure_in_child(suite, draw.name)
        return row


def measure_draw_memory(draw: Draw) -> dict[str, int] | None:
    """Measures the memory of the first draw in this process, compiled already."""
    with draw.enable_types():
        program = jax.jit(draw.ours).lower(jax.random.key(0)).compile()
        key = jax.block_until_ready(jax.random.key(1))
        square = jnp.ones((256, 256))
        jax.block_until_ready(square @ square)  # threads have their stacks from here on
        return memory.measure(lambda: program(key), draw.bytes)


def _build_peers(draw: Draw, settings: Settings, row: Row) -> dict[str, Contender]:
    """Returns the peers that make such an array, and notes why others do not."""
    contenders = {}
    for name, build in draw.peers.items():
        if name.partition(" ")[0] not in settings.peers:
            continue
        try:
            contender = build(draw)
            if (seconds := contender.compile()) is not None:
                row["compile_s"][name] = seconds
            array = contender.once()
            if tuple(array.shape) != draw.shape:
                raise ValueError(f"gives the shape {list(array.shape)}")
            if not re.search(rf"\b{draw.dtype}\b", str(array.dtype)):
                raise ValueError(f"gives the dtype {array.dtype}")
        except Exception as error:  # whatever a library raises: the others still race
            row["left_out"][name] = first_line(error)
        else:
            contenders[name] = contender
    return contenders


def _verify(draw: Draw, ours: Contender, row: Row) -> str:
    """Compiles, draws and verifies; returns what the verification found."""
    row["compile_s"]["ours"] = ours.compile()
    key = jax.random.key(KEY)
    weight = ours.run(key)
    if (weight.shape, weight.dtype) != (draw.shape, jnp.dtype(draw.dtype)):
        raise Unverified(f"the weight is {weight.dtype}{list(weight.shape)}.")
    if draw.eager and not np.array_equal(draw.ours(key), weight):
        raise Unverified("the eager call gives other values than jax.jit.")
    return draw.verify(draw, weight)
