"""Follows the axes of a value through operations that move its entries.

An axis is a row of pieces, the slowest first: a reshape splits and joins them. Where a
piece comes from is whatever the caller wrote into it; None if nothing is known.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from jax.extend import core


class Joined(tuple[Any, ...]):
    """Several sources in one piece, as of a slice of two axes that were one."""


class Piece(NamedTuple):
    """A part of an axis.

    Attributes:
      source: where it comes from: an axis of a parameter, say.
      size: how many entries it has.
      step: how many entries of the source lie between two of its own.
    """

    source: Any
    size: int
    step: int = 1


Axis = tuple[Piece, ...]  # none for an axis that repeats what it holds
Axes = tuple[Axis, ...]

REDUCES = frozenset(
    """argmax argmin reduce_and reduce_max reduce_min reduce_or reduce_prod reduce_sum
    reduce_xor""".split()
)


def shape_of(atom: Any) -> tuple[int, ...]:
    """Returns the sizes of a variable or constant."""
    shape: tuple[int, ...] = tuple(atom.aval.shape)
    return shape


def name_axes(shape: Sequence[int], sources: Iterable[Any]) -> Axes:
    """Returns axes of one piece each."""
    return tuple((Piece(s, n),) for s, n in zip(sources, shape, strict=True))


def forget_axes(rank: int) -> Axes:
    """Returns axes of which nothing is known."""
    return ((),) * rank


def list_sources(axes: Axes, places: Iterable[int]) -> frozenset[Any]:
    """Returns the sources of the pieces of some axes."""
    found = {piece.source for place in places for piece in axes[place]}
    each = (s if isinstance(s, Joined) else (s,) for s in found)
    return frozenset(itertools.chain.from_iterable(each)) - {None}


def move(eqn: core.JaxprEqn, axes: Axes, operand: int = 0, result: int = 0) -> Axes:
    """Returns the axes of a result, from those of one of its operands."""
    name, params = eqn.primitive.name, eqn.params
    before = shape_of(eqn.invars[operand])
    after = shape_of(eqn.outvars[result])
    if name == "transpose":
        return tuple(axes[place] for place in params["permutation"])
    if name == "broadcast_in_dim":
        places = params["broadcast_dimensions"]
        spread = {to: axes[i] for i, to in enumerate(places) if before[i] == after[to]}
        return tuple(spread.get(place, ()) for place in range(len(after)))
    if name in ("reshape", "squeeze"):
        if order := params.get("dimensions") if name == "reshape" else None:
            axes = tuple(axes[place] for place in order)
            before = tuple(before[place] for place in order)
        return _reshape(axes, before, after)
    if name == "stack":
        return (*axes[: params["axis"]], (), *axes[params["axis"] :])
    if name == "unstack":
        return tuple(a for i, a in enumerate(axes) if i != params["axis"])
    if name in REDUCES:
        return tuple(a for i, a in enumerate(axes) if i not in params["axes"])
    if name == "gather" and operand == 0:
        return _gather(eqn, axes, before, after)
    if len(before) != len(after):
        return forget_axes(len(after))
    return tuple(map(_resize, axes, before, after))


def _gather(
    eqn: core.JaxprEqn, axes: Axes, before: Sequence[int], after: Sequence[int]
) -> Axes:
    numbers = eqn.params["dimension_numbers"]
    gone = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    kept = (place for place in range(len(before)) if place not in gone)
    rows = [piece for place in numbers.start_index_map for piece in axes[place][:1]]
    moved: list[Axis] = [
        (Piece(rows[0].source, size),) if rows and size > 1 else () for size in after
    ]
    for to, place in zip(numbers.offset_dims, kept, strict=True):
        moved[to] = _resize(axes[place], before[place], after[to])
    return tuple(moved)


def _resize(axis: Axis, before: int, after: int) -> Axis:
    """Returns the axis of a slice, or of several joined, or of one entry repeated."""
    if before == after or not axis:
        return axis
    if before == 1:
        return ()
    sources = list_sources((axis,), (0,))
    one = len({piece.source for piece in axis}) == 1
    return (Piece(axis[0].source if one else Joined(sources), after, axis[-1].step),)


def _reshape(axes: Axes, before: Sequence[int], after: Sequence[int]) -> Axes:
    left = [
        piece
        for axis, size in zip(axes, before, strict=True)
        for piece in (_fill(axis, size))
        if piece.size != 1
    ]
    moved = []
    for size in after:
        taken: list[Piece] = []
        while (rest := size // math.prod(p.size for p in taken)) > 1:
            if not left:
                return forget_axes(len(after))
            piece = left.pop(0)
            if rest % piece.size == 0:
                taken.append(piece)
            elif piece.size % rest == 0:
                inner = piece.size // rest
                taken.append(Piece(piece.source, rest, piece.step * inner))
                left.insert(0, Piece(piece.source, inner, piece.step))
            else:
                return forget_axes(len(after))
        known = any(piece.source is not None for piece in taken)
        moved.append(tuple(taken) if known else ())
    return tuple(moved)


def _fill(axis: Axis, size: int) -> Axis:
    """Returns the pieces of an axis; one without a source, if they are not all."""
    return axis if math.prod(p.size for p in axis) == size else (Piece(None, size),)
