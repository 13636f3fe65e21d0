"""Outputs of a layer that are used apart: queries beside keys, gates beside gates."""

import math
from collections.abc import Sequence
from typing import Any

from jax.extend import core

from jaxinit._jaxpr.equation import is_constant
from jaxinit._structure._read.axes import Piece, shape_of
from jaxinit._structure._read.facts import Fact, Part, Parts, Unit, Use, list_units
from jaxinit._structure._read.notebook import Notebook
from jaxinit._structure.result import Joint

Cut = tuple[int, int, int]  # of how many, from where, how many


def cut(book: Notebook, eqn: core.JaxprEqn, fact: Fact, result: int) -> Fact:
    """Tells in the facts before a slice which outputs of a layer are left, if any."""
    starts = _list_starts(eqn, result)
    before, after = shape_of(eqn.invars[0]), shape_of_part(eqn, result)
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
            step = axes[place][0].step
            axes[place] = (Piece(source._replace(cut=part), n, step),)
            fact = fact._replace(
                behind=fact.behind | book.mark(taken=True, result=result),
                parts=_narrow(fact.parts, source, step, part),
            )
    return fact._replace(axes=tuple(axes))


def cut_parameter(eqn: core.JaxprEqn, facts: Sequence[Fact], result: int) -> Parts:
    """Returns the parts of a parameter that are left behind an operation."""
    if not facts or len(facts[0].leaves) != 1:
        return frozenset()
    ((leaf, axes),), parts = facts[0].leaves.items(), facts[0].parts
    before, after = shape_of(eqn.invars[0]), shape_of_part(eqn, result)
    for place, start in enumerate(_list_starts(eqn, result)):
        n, left = before[place], after[place]
        if left < n and len(axes) == len(before) and len(axes[place]) == 1:
            axis, size, step = axes[place][0]
            if size == n and not any(part.axis == axis for part in parts):
                parts |= {Part(leaf, axis, step, n, start, left)}
    return parts


def shape_of_part(eqn: core.JaxprEqn, result: int) -> tuple[int, ...]:
    """Returns the sizes of a result that is a part, with an axis that is lost."""
    sizes = shape_of(eqn.outvars[result])
    if eqn.primitive.name != "unstack":
        return sizes
    axis: int = eqn.params["axis"]
    return (*sizes[:axis], 1, *sizes[axis:])


def _narrow(parts: Parts, unit: Unit, step: int, cut: Cut) -> Parts:
    """Returns the parts of layers that a value is made of, behind a slice."""
    inner = 1
    for piece in reversed(unit.of):  # the outputs of a product, the fastest last
        if step * cut[0] <= inner * piece.size:
            scale = max(inner, step)  # the cut may run along faster pieces as a whole
            if scale % inner or any(step * place % scale for place in cut):
                break
            whole, first, size = (step * place // scale for place in cut)
            step = scale // inner * piece.step
            new = Part(unit.order, piece.source, step, whole, first, size)
            kept = (old for old in parts if old[:4] != new[:4])
            return frozenset((*kept, new))
        inner *= piece.size
    return parts


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
    if eqn.primitive.name == "unstack":
        starts[params["axis"]] = result
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


def find_joint(uses: Sequence[Use], shape: Sequence[int]) -> Joint | None:
    """Finds where the parts of a joint kernel lie, if they tile one of its axes."""
    met = {role for use in uses for role in use.parts}
    known = {
        (role, part)
        for use in uses
        for role, parts in use.parts.items()
        for part in (each._replace(order=0) for each in parts)
    }
    # A cut of what another cut has left is told relative to that.
    widest: dict[int, tuple[int, int]] = {}
    for _, part in known:
        level = part.step, part.whole
        before = widest.setdefault(part.axis, level)
        widest[part.axis] = max(before, level, key=math.prod)
    tiles = {
        axis: sorted(
            (part.first, part.size, role)
            for role, part in known
            if (part.axis, part.step, part.whole) == (axis, *level)
        )
        for axis, level in widest.items()
    }
    cuts = {
        axis: each
        for axis, each in tiles.items()
        for role in met
        if not _covers([t for t in each if t[-1] == role], widest[axis][1])
    }
    if len(cuts) != 1 or len(met) < 2:
        return None
    ((axis, each),) = cuts.items()
    step, whole = widest[axis]
    firsts, sizes, roles = zip(*each, strict=True)
    ends = [0, *(first + size for first, size, _ in each)]
    if [*firsts, whole] != ends or {*roles} != met or shape[axis] % (step * whole):
        return None
    if not all(axis in use.outputs for use in uses if use.kind == "product"):
        return None
    return Joint(
        roles=roles,
        axis=axis,
        sizes=tuple(step * size for size in sizes),
        repeats=shape[axis] // (step * whole),
    )


def _covers(tiles: Sequence[tuple[int, int, str]], whole: int) -> bool:
    """Returns whether these are all outputs; so they are if none is told."""
    end = 0
    for first, size, _ in tiles:
        end = max(end, first + size) if first <= end else end
    return not tiles or end == whole


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
