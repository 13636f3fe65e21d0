"""Draws orthonormal matrices outside of traces, on a CPU, as `outside` draws laws.

The normal matrix is drawn by the program of the normal law, which serves all shapes; it
is turned into an orthonormal one by a program that serves all shapes which are padded
alike. What an initializer does with that matrix is a few operations on whole arrays.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend import core
from jax.sharding import SingleDeviceSharding

from jaxinit._caches import cleared_by
from jaxinit._jaxpr.equation import bind, open_body
from jaxinit._jaxpr.evaluation import evaluate
from jaxinit._jaxpr.primitives import WRAP, WRAPPERS
from jaxinit._law import chunks, outside
from jaxinit._law.laws import is_ordinary
from jaxinit.random import backends, haar, normal

_BATCHED = "custom_vmap_call"  # a call of a function that defines how it is batched
# What may follow the matrix: the same bits in every program.
_MOVES = frozenset(
    """broadcast_in_dim clamp convert_element_type copy dynamic_update_slice max min mul
    neg pad reshape scatter slice squeeze transpose""".split()
)
_KEY, _OTHER = object(), object()  # values of a program
_NUMBERS = (np.generic, np.ndarray, jax.Array, float)
_Step = Callable[[Any], Any]


class Orthonormal(NamedTuple):
    """How a weight is drawn that is made of one orthonormal matrix.

    Attributes:
      entries: draws a normal matrix.
      sizes: its rows and columns, rows >= columns.
      finish: makes the weight of the orthonormal matrix.
    """

    entries: outside.Entries
    sizes: tuple[int, int]
    finish: _Step

    @property
    def place(self) -> SingleDeviceSharding:
        """Where the programs run."""
        return self.entries.place

    def draw(self, key: jax.Array, shape: tuple[int, ...]) -> np.ndarray:
        """Draws the weight from a Threefry key, typed or legacy."""
        del shape  # is known
        x = self.entries.draw(key, self.sizes)
        padded = haar.pad(*self.sizes)
        part = tuple(map(slice, self.sizes))
        if padded != self.sizes:
            x, drawn = np.zeros(padded, x.dtype), x
            x[part] = drawn
        q = haar.orthonormalize(jax.device_put(x, self.place))
        # A NumPy array goes anywhere, and is placed by the caller.
        return np.asarray(self.finish(np.asarray(q)[part]))


class _Matrix(NamedTuple):
    """A value that depends on the matrix, by the number of operations before it."""

    after: int


class _OtherKind(Exception):
    """A weight that is not made of one orthonormal matrix."""


def find_orthonormal(closed: core.ClosedJaxpr) -> Orthonormal | None:
    """Returns how to draw what a program returns, if it is made of one such matrix.

    Args:
      closed: a program that takes one key and returns one array, traced while
        `haar.is_asked`.
    """
    asked: list[core.JaxprEqn] = []
    steps: list[_Step | None] = []

    def read(eqn: core.JaxprEqn, given: list[Any]) -> list[Any]:
        if _is_asked(eqn) and given[0] is _KEY:
            asked.append(eqn)
            return [_Matrix(0)]
        if (body := _open(eqn)) is not None:
            return evaluate(body.jaxpr, body.consts, given, read)
        if any(value is _KEY for value in given):
            if eqn.primitive.name != WRAP:
                raise _OtherKind
            return given
        matrices = [value for value in given if isinstance(value, _Matrix)]
        if not matrices:
            return [_OTHER] * len(eqn.outvars)
        if eqn.primitive.name not in _MOVES:
            raise _OtherKind
        follows = matrices == [_Matrix(len(steps))]
        steps.append(_find_step(eqn, given) if follows else None)
        return [_Matrix(len(steps))]

    try:
        (result,) = evaluate(closed.jaxpr, closed.consts, [_KEY], read)
    except _OtherKind:
        return None
    if len(asked) != 1:
        return None
    matrix: Any = asked[0].outvars[0].aval
    entries = _find_normal(matrix.dtype, chunks.read_settings())
    if entries is None:
        return None
    chain = [step for step in steps if step is not None]
    is_chain = len(chain) == len(steps) and result == _Matrix(len(chain))
    # XLA joins neighboring factors, NumPy does not: no more than one product.
    is_chain = (
        is_chain and sum(isinstance(step, functools.partial) for step in chain) < 2
    )
    finish = _chain(chain) if is_chain else _compile(closed, entries.place)
    return Orthonormal(entries, matrix.shape, finish)


def _find_step(eqn: core.JaxprEqn, given: list[Any]) -> _Step | None:
    """Returns what NumPy does to the last bit as XLA, for the matrix or what it became.

    None stands for all else.
    """
    match eqn.primitive.name:
        case "reshape" if eqn.params["dimensions"] is None:
            return lambda x: np.reshape(x, eqn.params["new_sizes"])
        case "transpose":
            return lambda x: np.transpose(x, eqn.params["permutation"])
        case "mul":
            others = [value for value in given if isinstance(value, _NUMBERS)]
            aval: Any = eqn.outvars[0].aval
            if len(others) == 1 and np.ndim(others[0]) == 0:
                factor = np.asarray(others[0], aval.dtype)[()]
                if factor == 1:
                    return lambda x: x
                if is_ordinary(factor):
                    return functools.partial(np.multiply, factor)
    return None


def _chain(steps: list[_Step]) -> _Step:
    def finish(q: Any) -> Any:
        return functools.reduce(lambda value, step: step(value), steps, q)

    return finish


def _compile(closed: core.ClosedJaxpr, place: SingleDeviceSharding) -> _Step:
    """Compiles what a program does with its matrix."""

    @jax.jit
    def finish(q: jax.Array) -> Any:
        def make(eqn: core.JaxprEqn, values: list[Any]) -> list[Any]:
            if _is_asked(eqn):
                return [q]
            if (body := _open(eqn)) is not None:
                return evaluate(body.jaxpr, body.consts, values, make)
            return values if eqn.primitive.name == WRAP else bind(eqn, values)

        return evaluate(closed.jaxpr, closed.consts, [None], make)[0]

    return lambda q: finish(jax.device_put(q, place))


def _is_asked(eqn: core.JaxprEqn) -> bool:
    return bool(eqn.params.get("name") == haar.ASKED)


def _open(eqn: core.JaxprEqn) -> core.ClosedJaxpr | None:
    """Returns the program of a call."""
    if eqn.primitive.name == _BATCHED:
        body: core.ClosedJaxpr = eqn.params["call"]
        return body
    return open_body(eqn) if eqn.primitive.name in WRAPPERS else None


@functools.lru_cache(maxsize=128)
def _find_normal(dtype: np.dtype, settings: tuple[Any, ...]) -> outside.Entries | None:
    """Finds how to draw normal entries; the settings are those of the moment."""
    del settings
    with backends.of_bits(True), haar.is_asked(False):
        key = jax.eval_shape(lambda: jax.random.key(0, impl="threefry2x32"))
        # The number of entries does not matter.
        return outside.find_entries(
            jax.make_jaxpr(lambda key: normal(key, (64,), dtype))(key)
        )


cleared_by(_find_normal.cache_clear)
