"""Draws laws outside of traces, on a CPU, where `jax.jit` compiles for every shape.

What an initializer draws is traced for a shape, which takes milliseconds, and its law
is found. The program of the law, compiled once in a process, draws arrays of every
shape.
"""

import collections
import functools
import math
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend import core
from jax.sharding import SingleDeviceSharding

from jaxinit._caches import cleared_by
from jaxinit._jaxpr.primitives import WRAP
from jaxinit._jaxpr.spelling import Speller
from jaxinit._law import chunks
from jaxinit._law.laws import Law, find_law
from jaxinit._law.slices import cut, find_key_nodes, flatten

_THREEFRY = "threefry2x32"
_MOST = 128  # programs that are kept; a model has a few
# Arrays that were drawn into, by dtype: to make one takes longer than a small draw.
_ROOMS: dict[np.dtype, chunks.Rooms] = collections.defaultdict(
    lambda: collections.deque(maxlen=2)
)


class Entries(NamedTuple):
    """How the entries of an array are drawn.

    Attributes:
      place: where the program runs.
      program: draws blocks of them, as `chunks.lower` says.
      law: their law.
    """

    place: SingleDeviceSharding
    program: Any
    law: Law

    def rescale(self, last: Any) -> "Entries | None":
        """Returns them with another last factor; None if they may have another law."""
        law = self.law.rescale(last)
        return None if law is None else self._replace(law=law)

    def draw(self, key: jax.Array, shape: tuple[int, ...]) -> np.ndarray:
        """Draws an array from a Threefry key, typed or legacy."""
        if key.ndim:
            key = jax.random.wrap_key_data(key, impl=_THREEFRY)
        if key.committed and key.sharding != self.place:
            key = jax.device_put(key, self.place)
        dtype, scale = self.law.dtype, self.law.scale
        rooms = _ROOMS[dtype]
        if math.prod(shape) <= chunks.FEW:
            return chunks.draw_few(self.program, dtype, key, scale, shape, rooms)
        jobs = [(key, scale, shape)]
        return chunks.filled(self.program, chunks.CHUNK, dtype, jobs, rooms)[0]


class _Spelled:
    """A law that compares by what its program does."""

    def __init__(self, law: Law, settings: tuple[Any, ...]):
        self.law = law
        self.text = law.spell(Speller()), settings

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Spelled) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)


def find_entries(closed: core.ClosedJaxpr) -> Entries | None:
    """Returns how to draw what a program returns for a key, if its entries have a law.

    Args:
      closed: a program that takes one key and returns one array.
    """
    graph = flatten(closed)
    keys = find_key_nodes(graph)
    if any(node.eqn.primitive.name != WRAP for node in keys):
        return None
    known = {*graph.arguments, *graph.constants}
    known.update(value for node in keys for value in node.outvars)
    parts = cut(graph, known)
    law = find_law(graph, parts[0]) if len(parts) == 1 else None
    if law is None:
        return None
    # The arrays of the first CPU go anywhere.
    place = SingleDeviceSharding(jax.local_devices(backend="cpu")[0])
    program = _compile(_Spelled(law, chunks.read_settings()), place)
    return Entries(place, program, law)


@functools.lru_cache(maxsize=_MOST)
def _compile(spelled: _Spelled, place: SingleDeviceSharding) -> Any:
    """Compiles the program of a law for a device."""
    key = jax.eval_shape(functools.partial(jax.random.key, impl=_THREEFRY), 0)
    lowered = chunks.lower(spelled.law, chunks.CHUNK, place, key)
    return chunks.compiled(spelled.law, lowered)


cleared_by(_compile.cache_clear)
