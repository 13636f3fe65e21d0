"""Outputs of a layer that are used apart: queries beside keys, gates beside gates."""

import math
from collections.abc import Sequence
from typing import Any

from jax.extend import core

from jaxinit._jaxpr.equation import is_constant
from jaxinit._structure._read.axes import Piece, shape_of
from jaxinit._structure._read.facts import Fact, Unit, list_units
from jaxinit._structure._read.notebook import Notebook

Cut = tuple[int, int, int]  # of how many, from where, how many


def cut(book: Notebook, eqn: core.JaxprEqn, fact: Fact, result: int) -> Fact:
    """Tells in the facts before a slice which outputs of a layer are left, if any."""
    starts = _list_starts(eqn, result)
    before, after = shape_of(eqn.invars[0]), shape_of(eqn.outvars[result])
    axes = list(fact.axes)
    for place, start in enumerate(starts):
        n, left = before[place], after[place]
        if left == n:
            continue
        if left == 1:  # a position is chosen, say
            bit = book.mark(taken=True, result=result)
            fact = fact._replace(behind=fact.behind | bit)
        if len(axes[place]) != 1:
            continue
        source = axes[place][0].source
        if isinstance(source, Unit):
            whole, first, size = source.cut or (n, 0, n)
            if size != n:  # it was split since
                whole, first = n, 0
            part = whole, first + start, left
            for number in fact.fresh:
                use = book.notes.uses[number]
                sizes = (book.shapes[use.leaf][axis] for axis in use.outputs)
                if math.prod(sizes) % whole == 0:
                    use.cuts = (*use.cuts, part)
            axes[place] = (Piece(source._replace(cut=part), n),)
            fact = fact._replace(
                behind=fact.behind | book.mark(taken=True, result=result)
            )
    return fact._replace(axes=tuple(axes))


def _list_starts(eqn: core.JaxprEqn, result: int) -> list[int]:
    """Returns where a slice starts; nothing if it is no slice, or by data."""
    params: Any = eqn.params
    starts = [0] * len(shape_of(eqn.invars[0]))
    if eqn.primitive.name == "slice" and not any(
        n > 1 for n in params["strides"] or ()
    ):
        return list(params["start_indices"])
    if eqn.primitive.name == "split":
        starts[params["axis"]] = sum(params["sizes"][:result])
        return starts
    where = [atom.val for atom in eqn.invars[1:] if is_constant(atom)]
    if eqn.primitive.name == "dynamic_slice" and len(where) == len(starts):
        return [int(start) for start in where]
    return []


def rejoin(book: Notebook, eqn: core.JaxprEqn, facts: Sequence[Fact]) -> None:
    """Forgets cuts of outputs that are joined again, as those of rotations are."""
    place = eqn.params["dimension"]
    for unit in list_units(tuple(fact.axes[place] for fact in facts if fact.data)):
        cut = unit.cut
        for use in book.notes.uses if cut else ():
            if cut and use.order == unit.order:
                use.cuts = tuple(other for other in use.cuts if other[0] != cut[0])


def count_blocks(cuts: Sequence[Cut]) -> int:
    """Counts the blocks of one size that a layer's outputs are cut into; or 1."""
    if not cuts:
        return 1
    whole = cuts[0][0]
    parts = sorted({(first, size) for n, first, size in cuts if n == whole})
    finest = [
        (first, size)
        for first, size in parts
        if not any(
            first <= start and start + n <= first + size and n < size
            for start, n in parts
        )
    ]
    size = finest[0][1]
    tiles = [(start, size) for start in range(0, whole, size)]
    return len(tiles) if finest == tiles else 1
