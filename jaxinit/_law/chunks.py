"""Programs that draw laws, and how they fill arrays, on a CPU.

One program draws any number of blocks of a law's entries, from any index on. Every core
draws chunks of its own, into an array that stays in its cache, and copies them to the
parameter's memory, in large pages that NumPy asks the system for. This is faster than
one program for each shape, and there is far less to compile. Values are those of the
whole: XLA evaluates each entry by the same operations.
"""

import collections
import contextlib
import math
import operator
import os
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Sharding

from jaxinit._caches import cleared_by
from jaxinit._jaxpr.equation import bind
from jaxinit._jaxpr.evaluation import walk
from jaxinit._jaxpr.primitives import BITS
from jaxinit._jaxpr.spelling import Speller
from jaxinit._law import _erf_inv
from jaxinit._law.laws import WIDTHS, Law
from jaxinit._law.slices import Node
from jaxinit._threads import call_plainly, open_pool
from jaxinit.random import threefry

# Entries, powers of two. A call draws one chunk, large enough to make the cost of the
# call negligible, block after block: such a loop runs on the calling thread alone.
CHUNK, _BLOCK = 2**19, 2**10
_SHARE = 2**17  # the fewest that are worth a thread
FEW = 2**14  # copied twice in no time
# XLA's options for programs of laws, of which the first that it knows are taken:
# emitters that compile a third faster, which JAX 0.11 no longer has, and vectors as
# wide as the processor has them, where 256 bits are the default.
_WIDE = {"xla_cpu_prefer_vector_width": 512}
_SOON = {**_WIDE, "xla_cpu_use_fusion_emitters": False}
# For other types the two emitters may make different instructions.
_PLAIN_DTYPES = {"bool", "float32", "int32", "uint32"}
# Settings of JAX that change what is traced.
_read_traced = attrgetter(
    *("jax_enable_x64", "jax_numpy_dtype_promotion", "jax_numpy_rank_promotion")
)
_CORES = os.cpu_count() or 1  # the system takes longer to tell than a small draw
_BEGIN = np.zeros(2, np.uint32)
_WORDS = jax.ShapeDtypeStruct((2,), np.uint32)
Rooms = collections.deque[jax.Array]
_ALIGNED = 64  # bytes: so aligned, JAX takes an array of NumPy over without a copy


def chunk_of(sizes: Sequence[int]) -> int:
    """Returns how many entries a call draws at most, for arrays of these sizes."""
    return min(CHUNK, 1 << (max(sizes) - 1).bit_length())


def filled(
    draw: Any,
    chunk: int,
    dtype: np.dtype,
    jobs: Sequence[tuple[Any, Any, tuple[int, ...]]],
    rooms: Rooms | None = None,
) -> list[np.ndarray]:
    """Fills arrays chunk by chunk, on every core.

    Args:
      draw: draws blocks of a chunk, as `lower` says.
      chunk: its number of entries.
      dtype: dtype of the entries.
      jobs: key, scale and shape of each array.
      rooms: arrays of a chunk and this dtype to draw into, if there are spare ones;
        those that were drawn into are put there.
    """
    block = min(chunk, _BLOCK)
    arrays = [_empty(math.prod(shape), dtype) for _, _, shape in jobs]
    pieces: collections.deque[tuple[Any, ...]] = collections.deque()
    steps = [_divide(array.size, chunk, block) for array in arrays]
    scales = [() if scale is None else (scale,) for _, scale, _ in jobs]
    if len(jobs) > 1 or any(map(operator.gt, map(len, arrays), steps)):
        scales = jax.device_put(scales)  # before a thread, which may lack x64
    for (key, _, _), array, step, of_job in zip(
        jobs, arrays, steps, scales, strict=True
    ):
        for start in range(0, array.size, step):
            pieces.append((key, start, array[start : start + step], of_job))
    spare = Rooms() if rooms is None else rooms

    def work(room: jax.Array) -> None:
        while pieces:
            try:
                key, start, place, scale = pieces.popleft()
            except IndexError:  # another worker took the last one
                break
            first = np.array((start >> 32, start % 2**32), np.uint32)
            blocks = np.int32(-(-place.size // block))
            room = draw(key, first, blocks, room, *scale)
            place[:] = np.asarray(room)[: place.size]
        spare.append(room)

    worthwhile = sum(map(len, arrays)) // _SHARE
    workers = max(min(_CORES, len(pieces), worthwhile), 1)
    room, *others = _take_rooms(spare, chunk, dtype, workers)
    if others:  # a thread takes longer to start than a small draw
        with open_pool(len(others)) as pool:
            helpers = [pool.submit(call_plainly, work, other) for other in others]
            work(room)
            for helper in helpers:
                helper.result()
    else:
        work(room)
    return [a.reshape(shape) for a, (_, _, shape) in zip(arrays, jobs, strict=True)]


def draw_few(
    draw: Any,
    dtype: np.dtype,
    key: Any,
    scale: Any,
    shape: tuple[int, ...],
    rooms: Rooms,
) -> np.ndarray:
    """Draws at most `FEW` entries as `filled` does, with less ado."""
    size = math.prod(shape)
    blocks = np.int32(-(-size // _BLOCK))
    try:
        room = rooms.pop()
    except IndexError:
        (room,) = _take_rooms(rooms, CHUNK, dtype, 1)
    if scale is None:
        room = draw(key, _BEGIN, blocks, room)
    else:
        room = draw(key, _BEGIN, blocks, room, scale)
    array: np.ndarray = np.asarray(room)[:size].reshape(shape).copy()
    rooms.append(room)
    return array


def _take_rooms(
    spare: Rooms, chunk: int, dtype: np.dtype, count: int
) -> list[jax.Array]:
    """Takes arrays to draw into, and makes those that are not there."""
    rooms: list[jax.Array] = []
    with contextlib.suppress(IndexError):
        while len(rooms) < count:
            rooms.append(spare.pop())
    if len(rooms) < count:
        missing = [np.empty(chunk, dtype) for _ in range(count - len(rooms))]
        rooms += jax.device_put(missing)  # at once: each call takes long
    return rooms


def _divide(size: int, chunk: int, block: int) -> int:
    """Returns how many entries of an array are drawn by one call.

    At most a chunk; where that is worthwhile, every core gets as many.
    """
    if size <= 2 * _SHARE and size <= chunk:
        return chunk
    least = -(-size // chunk)
    even = min(-(-least // _CORES) * _CORES, size // _SHARE)
    step = -(-size // max(least, even, 1))
    return -(-step // block) * block


def _empty(size: int, dtype: np.dtype) -> np.ndarray:
    """Returns an array that JAX can take over."""
    room = np.empty(size * dtype.itemsize + _ALIGNED, np.uint8)
    begin = -room.ctypes.data % _ALIGNED
    array: np.ndarray = room[begin : begin + size * dtype.itemsize].view(dtype)
    return array


def lower(law: Law, chunk: int, place: Sharding | None, key_type: Any = _WORDS) -> Any:
    """Lowers the program that draws blocks of a law; `place` is the key's sharding.

    It takes a key, as words or of another type, the index of the first entry as two
    words, the number of blocks, an array of a chunk to write them into, and a scale if
    there is one.
    """
    block = min(chunk, _BLOCK)
    written_out = _erf_inv.written_out(law.steps)

    def entries(key: jax.Array, first: threefry.Words, zero: jax.Array) -> jax.Array:
        def make(step: Node, values: list[Any]) -> list[Any]:
            if step.eqn.primitive.name == BITS:
                dtype = WIDTHS[step.eqn.params["bit_width"]]
                return [threefry.bits_from(values[0], first, block, dtype)]
            if step.output in law.full:
                atoms: list[Any] = step.eqn.invars
                values = [
                    jnp.broadcast_to(jnp.asarray(value, atom.aval.dtype), block)
                    for value, atom in zip(values, atoms, strict=True)
                ]
            if step.output in written_out:
                return [written_out[step.output](values[0], zero)]
            return bind(step.eqn, values)

        known: dict[Any, Any] = {law.key: key}
        walk(law.steps, known, make)
        drawn: jax.Array = known[law.result]
        return drawn

    def run(
        key: jax.Array,
        first: jax.Array,
        blocks: jax.Array,
        room: jax.Array,
        *scale: jax.Array,
    ) -> jax.Array:
        def draw(number: jax.Array, room: jax.Array) -> jax.Array:
            place = number * block
            zero = number.astype(np.uint32) >> np.uint32(31)
            drawn = entries(key, (first[0], first[1] + place.astype(np.uint32)), zero)
            if scale:
                drawn = (drawn * scale[0]).astype(law.dtype)
            return lax.dynamic_update_slice_in_dim(room, drawn, place, 0)

        made: jax.Array = lax.fori_loop(np.int32(0), blocks, draw, room)
        return made

    types = [
        key_type.update(sharding=place),
        jax.ShapeDtypeStruct((2,), np.uint32),
        jax.ShapeDtypeStruct((), np.int32),
        jax.ShapeDtypeStruct((chunk,), law.dtype),
    ]
    if law.scale is not None:
        types.append(jax.ShapeDtypeStruct((), law.scale.dtype))
    return jax.jit(run, donate_argnums=3).lower(*types)


def compiled(law: Law, lowered: Any) -> Any:
    """Compiles what `lower` returns for a law."""
    for options in (_SOON, _WIDE) if _is_plain(law) else (_WIDE,):
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # it has no such option
            return lowered.compile(compiler_options=options)
    return lowered.compile()


class Kept:
    """Programs of laws by what they do, so that equal laws compile once in a process.

    Attributes:
      most: how many programs are kept; a model has a few.
    """

    def __init__(self, most: int = 128):
        """Begins without a program."""
        self.most = most
        self._programs: dict[Any, Any] = {}

    def find(self, token: Any) -> Any:
        """Returns the program of a token, or None; it is the last to be dropped."""
        program = self._programs.pop(token, None)
        if program is not None:
            self._programs[token] = program
        return program

    def add(self, token: Any, program: Any) -> None:
        """Keeps a program, in place of the one that was not asked for the longest."""
        self._programs[token] = program
        if len(self._programs) > self.most:
            self._programs.pop(next(iter(self._programs)), None)

    def forget(self) -> None:
        """Forgets all programs, as benchmarks of a cold start must."""
        self._programs.clear()


KEPT = Kept()  # of whole models; those of single weights take keys of another type


@cleared_by
def _forget() -> None:
    KEPT.forget()  # whichever there is: tests have their own


def name_program(law: Law, chunk: int, place: Sharding | None) -> Any:
    """Returns what is the same for all laws, places and settings of one program."""
    device = jax.config.jax_default_device  # type: ignore[attr-defined]
    return law.spell(Speller()), chunk, place, device, *read_settings()


def read_settings() -> tuple[Any, ...]:
    """Returns the settings of JAX that programs of laws depend on."""
    compiled = jax.config.read("jax_disable_most_optimizations")
    return *_read_traced(jax.config), compiled


def _is_plain(law: Law) -> bool:
    """Returns whether every emitter of XLA gives a law the same bits."""
    steps = [step for step in law.steps if step.output in law.full]
    outs: list[Any] = [step.eqn.outvars[0] for step in steps]
    return {law.dtype.name, *(out.aval.dtype.name for out in outs)} <= _PLAIN_DTYPES
