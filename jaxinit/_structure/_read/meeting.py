"""Where parameters meet data without a product: biases, gains, tables, lookups."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from jax.extend import core

from jaxinit._structure._read.axes import (
    Axes,
    Piece,
    list_sources,
    move,
    shape_of,
)
from jaxinit._structure._read.elementwise import change, combine_axes, normalize
from jaxinit._structure._read.facts import NONE, Fact, Kind, Unit, Use, join, list_units
from jaxinit._structure._read.notebook import Notebook

_JOINS = frozenset(
    """concatenate dynamic_update_slice pad scatter scatter-add select_n
    select_and_scatter_add stack""".split()
)


class Scaling(NamedTuple):
    """A gain, which turns out to be a product if its result is summed and nothing else.

    Attributes:
      number: the use.
      weight: the parameter's axes in the result.
      data: the data's.
    """

    number: int
    weight: Axes
    data: Axes


def meet(
    book: Notebook, eqn: core.JaxprEqn, facts: Sequence[Fact]
) -> tuple[Fact, list[Scaling]]:
    """Notes parameters that meet data in an operation that is no product."""
    name = eqn.primitive.name
    data = [(side, fact) for side, fact in enumerate(facts) if fact.data]
    weights = [(side, fact) for side, fact in enumerate(facts) if fact.leaves]
    axes = combine_axes(eqn, facts, [side for side, _ in data])
    if len(data) == 1 and len(weights) == 1:
        (weight_side, weight), (_, fact) = weights[0], data[0]
        if name == "mul" or (name == "div" and weight_side == 1):
            return _scale(book, eqn, weight_side, weight, fact._replace(axes=axes))
        if name in ("add", "add_any", "sub"):
            if all(map(all, weight.leaves.values())) and _updates(book, weight, fact):
                return weight, []
            shifted = _shift(book, eqn, weight_side, weight, fact._replace(axes=axes))
            return shifted, []
    kind: Kind = "table" if name in _JOINS else "other"
    reason = "" if kind == "table" else f"meets data in the operation {name}"
    for _, weight in weights:
        for leaf in weight.leaves:
            book.note(Use(kind=kind, leaf=leaf, order=book.order, reason=reason))
    both = join(facts, axes)
    return both._replace(behind=both.behind | book.mark()), []


def _updates(book: Notebook, weight: Fact, data: Fact) -> bool:
    """Returns whether data changes a parameter that it was made with, by a gradient."""
    uses = [use for use in book.notes.uses if use.leaf in weight.leaves]
    return bool(data.behind & book.notes.derived) and any(
        data.behind >> use.order & 1 for use in uses
    )


def _scale(
    book: Notebook, eqn: core.JaxprEqn, side: int, weight: Fact, data: Fact
) -> tuple[Fact, list[Scaling]]:
    scalings = []
    of = _list_leaves(book, data.fresh)
    for leaf, known in weight.leaves.items():
        if _spreads(moved := move(eqn, known, side), data.axes):
            reason = "is scaled by data entry by entry"
            book.note(Use(kind="other", leaf=leaf, order=book.order, reason=reason))
            continue
        # A rate, unless it scales logits, as a temperature does.
        state = leaf in weight.powers and book.shapes[leaf] and not data.meeting
        kind: Kind = "state" if state else "gain"
        also = of | (frozenset(weight.leaves) - {leaf})
        use = Use(kind=kind, leaf=leaf, order=book.order, of=also, curved=weight.curved)
        of_norm = data.normed or data.averaged == 2 or weight.averaged == 2
        use.normed = of_norm, False
        number = book.note(use)
        scalings.append(Scaling(number, moved, data.axes))
    bit = book.mark(scaled=True)
    scaled = data._replace(behind=data.behind | bit, chosen=False, stream=None)
    if weight.averaged == 2 and not data.averaged:
        scaled = normalize(book, data, scaled)
    numbers = frozenset(scaling.number for scaling in scalings)
    return scaled._replace(gains=numbers), scalings


def _spreads(weight: Axes, data: Axes) -> bool:
    """Returns whether data are few factors of a weight: it is no gain of theirs."""
    mine = [any(piece.size > 1 for piece in axis) for axis in weight]
    new = [run and not axis for run, axis in zip(mine, data, strict=True)]
    return sum(new) > 1 and sum(mine) > 2


def _shift(
    book: Notebook, eqn: core.JaxprEqn, side: int, weight: Fact, data: Fact
) -> Fact:
    kinds: set[Kind] = set()
    for leaf, known in weight.leaves.items():
        kind: Kind = "offset"
        of = NONE
        spread = math.prod(book.shapes[leaf]) > 1
        if (
            data.meeting
            and spread
            or _runs_along_positions(move(eqn, known, side), data)
        ):
            kind = "table"
        elif data.fresh:
            kind, of = "bias", _list_leaves(book, data.fresh)
        else:
            of = _list_leaves(book, data.gains)
        kinds.add(kind)
        book.note(Use(kind=kind, leaf=leaf, order=book.order, of=of))
    shifted = data._replace(behind=data.behind | book.mark(), chosen=False)
    return shifted._replace(fresh=NONE) if kinds == {"table"} else shifted


def _runs_along_positions(weight: Axes, data: Fact) -> bool:
    """Returns whether a parameter differs between positions, and not only units.

    Nothing tells which axis of the model's inputs are units; one of them is.
    """
    others = 0
    for axis, theirs in zip(weight, data.axes, strict=True):
        mine = [piece for piece in axis if piece.size > 1]
        sources = {piece.source for piece in theirs} - {None}
        if mine and sources and not list_units((theirs,)) and not data.raw:
            return True
        others += bool(mine and (data.raw or not sources))
    return others > 1


def _list_leaves(book: Notebook, numbers: frozenset[int]) -> frozenset[int]:
    return frozenset(book.notes.uses[number].leaf for number in numbers if number >= 0)


def look_up(book: Notebook, eqn: core.JaxprEqn, facts: Sequence[Fact]) -> Fact:
    """Notes parameters of which data choose the entries: embeddings."""
    table, shape = facts[0], shape_of(eqn.invars[0])
    sizes = eqn.params["slice_sizes"]
    whole = [place for place, size in enumerate(shape) if sizes[place] == size]
    chosen = [place for place in range(len(shape)) if place not in whole]
    for leaf, axes in table.leaves.items():
        every = set(range(len(book.shapes[leaf])))
        batch = list_sources(axes, chosen) if len(axes) == len(shape) else every
        batch |= book.notes.stacked.get(leaf, set())
        use = Use(
            kind="lookup",
            leaf=leaf,
            order=book.order,
            outputs=tuple(sorted(every - batch)),
            batch=tuple(sorted(batch)),
        )
        book.note(use)
    by = [fact for fact in facts[1:] if fact.data]
    after = shape_of(eqn.outvars[0])
    both = join(by, _lay_out_rows(eqn, facts[1], after))
    bit = book.mark(product=True)
    return Fact(data=True, axes=both.axes, behind=both.behind | bit, raw=False)


def _lay_out_rows(eqn: core.JaxprEqn, index: Fact, after: tuple[int, ...]) -> Axes:
    """Returns the axes of looked-up rows: those of the indices, and the units."""
    numbers: Any = eqn.params.get("dimension_numbers")
    if numbers is None:
        return tuple((Piece(Unit(), size),) for size in after)
    rest = iter(index.axes[:-1])
    return tuple(
        (Piece(Unit(), size),) if place in numbers.offset_dims else next(rest, ())
        for place, size in enumerate(after)
    )


def sum_up(
    book: Notebook, eqn: core.JaxprEqn, fact: Fact, scalings: Sequence[Scaling]
) -> Fact:
    """Turns gains whose result is only summed over their axes into a product."""
    reduced = set(eqn.params["axes"])
    kept = [place for place in range(len(fact.axes)) if place not in reduced]
    numbers = set()
    for number, weight, data in scalings:
        inputs = list_sources(weight, reduced)
        if not inputs:
            continue
        use = book.notes.uses[number]
        use.kind, use.inputs = "product", tuple(sorted(inputs))
        new = [place for place in kept if not data[place]]
        both = [place for place in kept if data[place]]
        use.outputs = tuple(sorted(list_sources(weight, new) - inputs))
        use.batch = tuple(sorted(list_sources(weight, both) - inputs))
        use.depth, use.of, use.behind = fact.depth + 1, NONE, fact.behind
        use.roles |= {"input"} if fact.raw else set()
        numbers.add(number)
    if not numbers:
        (summed,) = change(book, eqn, [fact])
        return summed
    mine = frozenset(numbers)
    its = sum({1 << book.notes.uses[number].order for number in mine})
    book.notes.followed |= fact.behind & ~its
    book.notes.scaled &= ~its
    return Fact(
        data=True,
        axes=move(eqn, fact.axes),
        last=mine,
        straight=mine,
        fresh=mine,
        linear=mine,
        behind=fact.behind | book.mark(product=True),
        depth=fact.depth + 1,
        raw=False,
    )
