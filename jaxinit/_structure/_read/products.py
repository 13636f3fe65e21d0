"""Products: parameters with data, data with data, parameters with parameters."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jax.extend import core

from jaxinit._jaxpr.primitives import CONVOLUTION, DOT
from jaxinit._structure._read.axes import (
    Axes,
    Axis,
    Piece,
    forget_axes,
    list_sources,
    shape_of,
)
from jaxinit._structure._read.facts import (
    NONE,
    Fact,
    Kind,
    Meeting,
    Unit,
    Use,
    join,
    list_units,
    mix,
)
from jaxinit._structure._read.notebook import Notebook

_BETWEEN = "is a factor of which neither inputs nor outputs are left"


class Contraction(NamedTuple):
    """How a product reads one of its two operands.

    Attributes:
      summed: axes that it sums over.
      batch: axes that it runs along together with the other operand.
      free: all other axes.
      window: those that a convolution slides over; it sums over them too.
      groups: blocks of the free axes, each with summed entries of its own.
    """

    summed: tuple[int, ...]
    batch: tuple[int, ...]
    free: tuple[int, ...]
    window: tuple[int, ...] = ()
    groups: int = 1


def read_contraction(eqn: core.JaxprEqn, side: int) -> Contraction:
    """Reads how a product treats the axes of an operand."""
    rank = len(shape_of(eqn.invars[side]))
    if eqn.primitive.name == CONVOLUTION:
        numbers = eqn.params["dimension_numbers"]
        free, summed, *window = (numbers.lhs_spec, numbers.rhs_spec)[side]
        groups = eqn.params["feature_group_count"]
        return Contraction((summed,), (), (free,), tuple(window), groups)
    if eqn.primitive.name == DOT:
        summed, batch = (each[side] for each in eqn.params["dimension_numbers"])
    else:
        numbers = eqn.params["ragged_dot_dimension_numbers"]
        summed, batch = (each[side] for each in numbers.dot_dimension_numbers)
        batch = (*batch, *(numbers.rhs_group_dimensions if side else ()))
    free = tuple(i for i in range(rank) if i not in (*summed, *batch))
    return Contraction(tuple(summed), tuple(batch), free)


def multiply_parameter(
    book: Notebook, eqn: core.JaxprEqn, facts: Sequence[Fact], side: int
) -> Fact:
    """Notes the product of a parameter, the operand of this side, with data."""
    data, weight = facts[1 - side], facts[side]
    axes = _lay_out(book, eqn, facts, 1 - side)
    if not weight.leaves:  # a constant
        bit = book.mark()
        return join([data], axes)._replace(behind=data.behind | bit)
    ways = read_contraction(eqn, side)
    bit = book.mark(product=True)
    book.notes.followed |= data.behind
    if eqn.primitive.name == DOT:
        _stack(book, data, read_contraction(eqn, 1 - side).batch)
    kind: Kind = "lookup" if data.chosen else "product"
    joined = len(weight.leaves) > 1 or weight.factors is not None
    repeated = _list_repeated(weight.leaves, ways.summed)
    numbers = set()
    for leaf, axes_of_leaf in weight.leaves.items():
        use = _read_use(book, kind, leaf, axes_of_leaf, ways, joined)
        if leaf in repeated:
            use = Use(kind="gain", leaf=leaf, order=book.order)
        if use.kind not in ("product", "lookup"):
            book.note(use)
            continue
        if data.raw:
            use.roles.add("input")
        elif kind == "product" and book.is_recurrent(leaf, data.carries):
            use.roles.add("recurrent")
        use.depth, use.normed = data.depth + 1, (data.normed, False)
        use.behind, use.curved = data.behind, weight.curved
        use.before = data.last
        numbers.add(book.note(use))
    mine = frozenset(numbers) if kind == "product" else NONE
    return Fact(
        data=True,
        axes=axes,
        last=mine,
        straight=mine,
        fresh=mine,
        linear=mine,
        parts=frozenset(part._replace(order=book.order) for part in weight.parts),
        behind=data.behind | bit,
        depth=data.depth + 1,
        raw=False,
    )


def _list_repeated(leaves: Mapping[int, Axes], summed: Sequence[int]) -> set[int]:
    """Lists factors that repeat along the inputs: scales of blocks of a kernel."""

    def repeats(axes: Axes) -> bool:
        known = [{p.source is None for p in axes[i] if p.size > 1} for i in summed]
        return any(len(kinds) == 2 for kinds in known)

    repeated = {leaf for leaf, axes in leaves.items() if repeats(axes)}
    return set() if len(repeated) == len(leaves) else repeated


def _read_use(
    book: Notebook, kind: Kind, leaf: int, axes: Axes, ways: Contraction, joined: bool
) -> Use:
    """Reads which axes of a parameter a product sums over, and which it keeps."""
    inputs, outputs, window = (
        set(list_sources(axes, places))
        for places in (ways.summed, ways.free, ways.window)
    )
    shape = book.shapes[leaf]
    if not (inputs or outputs or window):  # a factor of data or another parameter
        entries = not (ways.summed or ways.free or ways.window)  # one by one
        vector = math.prod(shape) == max(shape, default=1)
        kind = "gain" if entries or vector else "other"
        reason = _BETWEEN if kind == "other" else ""
        return Use(kind=kind, leaf=leaf, order=book.order, reason=reason)
    stacked = book.notes.stacked.get(leaf, set()) | list_sources(axes, ways.batch)
    rest = set(range(len(shape))) - inputs - outputs - window - stacked
    if joined and not (inputs and outputs):
        # Parameters were multiplied along the rest; without it, it is a factor.
        rest = {place for place in rest if shape[place] > 1}
        if not rest:
            return Use(kind="gain", leaf=leaf, order=book.order)
        inputs, outputs = inputs or rest, outputs or rest
    elif joined and ways.window:  # a basis makes the window, say
        window |= rest
    else:
        stacked |= rest
    outputs -= inputs
    if kind == "lookup":
        inputs, stacked = set(), stacked | inputs
    return Use(
        kind=kind,
        leaf=leaf,
        order=book.order,
        inputs=tuple(sorted(inputs)),
        outputs=tuple(sorted(outputs)),
        batch=tuple(sorted(stacked - inputs - outputs)),
        window=tuple(sorted(window)),
        groups=ways.groups,
    )


def _stack(book: Notebook, data: Fact, batch: Sequence[int]) -> None:
    """Notes that products before stack layers: weights run along their outputs."""
    pieces = [piece for place in batch for piece in data.axes[place]]
    units = [
        (unit, p.size) for p in pieces for unit in list_units(((p,),)) if unit.axes
    ]
    sizes = {unit.order: size for unit, size in units}
    axes = {unit.order: unit.axes[0] for unit, _ in units}
    for use in book.notes.uses if units else ():
        axis, size = axes.get(use.order), sizes.get(use.order)
        # A kernel whose only outputs they are stacks nothing: each is one channel.
        if use.kind == "product" and axis in use.outputs and len(use.outputs) > 1:
            if book.shapes[use.leaf][axis] == size:  # all of them, not heads of them
                use.outputs = tuple(each for each in use.outputs if each != axis)
                use.batch = tuple(sorted((*use.batch, axis)))


def _lay_out(
    book: Notebook, eqn: core.JaxprEqn, facts: Sequence[Fact], side: int
) -> Axes:
    """Returns the axes of a product: those of data, and the outputs of the layer."""
    shape, axes, weight = shape_of(eqn.outvars[0]), facts[side].axes, facts[1 - side]

    def unit(place: int, size: int) -> Axis:
        mine = list(weight.leaves.items())
        one = len(mine) == 1 and len(mine[0][1]) > place
        known = mine[0][1][place] if one else ()
        axes = [piece.source for piece in known if piece.size == size]
        sizes = Counter[Any]()
        for piece in known:
            sizes[piece.source] = piece.size * (sizes[piece.source] or 1)
        whole = all(
            isinstance(axis, int) and book.shapes[mine[0][0]][axis] == size
            for axis, size in sizes.items()
        )
        of = known if whole else ()  # else the parameter was cut before
        return (Piece(Unit(book.order, tuple(axes[:1]), of=of), size),)

    if eqn.primitive.name == DOT:
        ways = [read_contraction(eqn, each) for each in (0, 1)]
        batch = tuple(axes[place] for place in ways[side].batch)
        mine = tuple(axes[place] for place in ways[side].free)
        sizes = shape_of(eqn.invars[1 - side])
        new = tuple(unit(place, sizes[place]) for place in ways[1 - side].free)
        return batch + (mine + new if side == 0 else new + mine)
    if "ragged" in eqn.primitive.name:
        return (*axes[: len(shape) - 1], (Piece(Unit(book.order), shape[-1]),))
    numbers = eqn.params["dimension_numbers"]
    laid = list(forget_axes(len(shape)))
    for place, (before, after) in enumerate(
        zip(numbers.lhs_spec, numbers.out_spec, strict=True)
    ):
        source = axes[before][0].source if axes[before] else None
        laid[after] = (Piece(source, shape[after]),)
        if place == 1:
            (outputs,) = unit(numbers.rhs_spec[0], shape[after])
            source = outputs.source._replace(axes=())
            laid[after] = (outputs._replace(source=source),)
    return tuple(laid)


def multiply_parameters(eqn: core.JaxprEqn, facts: Sequence[Fact]) -> Fact:
    """Returns what is known of a product of parameters, or of constants with them."""
    rank = len(shape_of(eqn.outvars[0]))
    sides = []
    for side, fact in enumerate(facts[:2]):
        if eqn.primitive.name != DOT:
            lost = dict.fromkeys(fact.leaves, forget_axes(rank))
            odd = eqn.primitive.name if lost else ""
            sides.append(fact._replace(leaves=lost, odd=odd))
            continue
        mine, other = (read_contraction(eqn, each) for each in (side, 1 - side))
        leaves = {}
        for leaf, axes in fact.leaves.items():
            batch = tuple(axes[place] for place in mine.batch)
            free = tuple(axes[place] for place in mine.free)
            rest = forget_axes(len(other.free))
            leaves[leaf] = batch + (free + rest if side == 0 else rest + free)
        sides.append(fact._replace(leaves=leaves))
    mixed = mix(sides)
    if not any(fact.averaged for fact in facts):
        factors = frozenset(facts[0].leaves), frozenset(facts[1].leaves)
        mixed = mixed._replace(factors=factors)
    return mixed


def multiply_data(book: Notebook, eqn: core.JaxprEqn, facts: Sequence[Fact]) -> Fact:
    """Notes a product of data with data, as those of attention are."""
    bit = book.mark(curved=True)
    rank = len(shape_of(eqn.outvars[0]))
    ways = [read_contraction(eqn, side) for side in (0, 1)]
    for side in (0, 1):
        _note_mixed(book, facts[side], ways[side])
    if eqn.primitive.name != DOT:
        both = join(facts[:2], forget_axes(rank))
        return both._replace(behind=both.behind | bit)
    batch = [_hide(facts[0].axes[place]) for place in ways[0].batch]
    free = [facts[side].axes[place] for side in (0, 1) for place in ways[side].free]
    both = join(facts[:2], (*batch, *free))
    both = both._replace(behind=both.behind | bit, averaged=0, meeting=None)
    before = [fact.meeting for fact in facts[:2]]
    if not ways[0].summed or all(before):
        return both
    for side, meeting in enumerate(before):
        sources = list_sources(facts[side].axes, ways[side].summed)
        if meeting is not None and not _is_of_mixture(book, sources):
            last = _note_third(book, meeting, sources, facts[1 - side])
            return both._replace(last=last or both.last, straight=last)
    sources = frozenset[Any]().union(
        *(list_sources(facts[side].axes, ways[side].summed) for side in (0, 1))
    )
    of_units = not sources or any(isinstance(source, Unit) for source in sources)
    if of_units and free and all(list_units((axis,)) for axis in free):
        return both  # a mixture of outputs, as those of experts are
    meeting = Meeting(
        number=book.order,
        sides=(facts[0].last, facts[1].last),
        of_units=of_units,
        summed=math.prod(shape_of(eqn.invars[0])[place] for place in ways[0].summed),
        parts=(facts[0].parts, facts[1].parts),
    )
    named = [
        (Piece((meeting.number, side), shape_of(eqn.invars[side])[place]),)
        if not of_units or not list_units((facts[side].axes[place],))
        else facts[side].axes[place]
        for side in (0, 1)
        for place in ways[side].free
    ]
    return both._replace(axes=(*batch, *named), meeting=meeting)


def _note_mixed(book: Notebook, data: Fact, way: Contraction) -> None:
    """Notes the kernels of which data, one by one, are a mixture."""

    def list_axes(place: int) -> dict[int, tuple[int, ...]]:
        return {u.order: u.axes for u in list_units((data.axes[place],))}

    summed, free, window = (
        [list_axes(place) for place in places]
        for places in (way.summed, way.free, way.window)
    )
    orders = set(summed[0]).intersection(*summed, *free, *window) if summed else set()
    for use in book.notes.uses if orders and free else ():
        if use.order in orders and use.kind == "product":
            inputs, outputs, slid = (
                {axis for each in axes for axis in each[use.order]}
                for axes in (summed, free, window)
            )
            if inputs | outputs | slid == {*use.outputs} and outputs - inputs:
                use.mixed = tuple(sorted(inputs)), tuple(sorted(outputs - inputs))


def _is_of_mixture(book: Notebook, summed: frozenset[Any]) -> bool:
    """Returns whether a sum runs over the outputs of a mixture of kernels."""
    orders = {unit.order for unit in summed if isinstance(unit, Unit)}
    return len(orders) == len(summed) == 1 and any(
        use.mixed and use.order in orders for use in book.notes.uses
    )


def _hide(axis: Axis) -> Axis:
    """Returns an axis of outputs that no longer tells of which layer."""
    return tuple(
        Piece(Unit(), p.size) if isinstance(p.source, Unit) else p for p in axis
    )


def _note_third(
    book: Notebook, meeting: Meeting, summed: frozenset[Any], third: Fact
) -> frozenset[int]:
    """Notes queries, keys and values; returns the last products of the values."""
    side = 0 if (meeting.number, 0) in summed else 1
    sides = list(zip(meeting.sides, meeting.parts, strict=True))
    keys, others, last = sides[side], sides[1 - side], (third.last, third.parts)
    queries, values = (others, last) if meeting.of_units else (last, others)
    met = {"query": queries, "key": keys, "value": values}
    for role, (numbers, parts) in met.items():
        for number in numbers:
            use = book.notes.uses[number]
            use.roles.add(role)
            mine = frozenset(part for part in parts if part.order == use.order)
            use.parts[role] = use.parts.get(role, frozenset()) | mine
            if meeting.of_units and role != "value":
                use.head = meeting.summed
    return values[0]
