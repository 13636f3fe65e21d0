"""Operations other than products on data, on parameters, and where both meet."""

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxinit._jaxpr.primitives import ELEMENTWISE
from jaxinit._structure._read.axes import (
    REDUCES,
    Axes,
    forget_axes,
    list_sources,
    move,
    shape_of,
)
from jaxinit._structure._read.cuts import cut, cut_parameter, rejoin, shape_of_part
from jaxinit._structure._read.facts import (
    NONE,
    Fact,
    add_meetings,
    drop_marks,
    join,
    join_units,
    mix,
)
from jaxinit._structure._read.notebook import Notebook

_ROOTS = frozenset({"rsqrt", "sqrt", "pow"})
_POWERS = frozenset({"exp", "exp2", "logistic"})
# The result is the operand, moved, cut, scaled or shifted, if all others are constants.
_KEEPS = frozenset(
    """add add_any broadcast_in_dim concatenate convert_element_type copy copy_p div
    dynamic_slice dynamic_update_slice mul name neg optimization_barrier pad pvary
    reduce_precision reshape rev select_n sharding_constraint slice split squeeze stack
    stop_gradient sub transpose unstack""".split()
)
_FIRST = frozenset({"div", "dynamic_slice"})  # the others may not be the first operand
_SUMS = frozenset({"cumsum", "reduce_max", "reduce_sum", "reduce_window_sum"})
BENT = frozenset(
    """abs acos acosh asin asinh atan atanh clamp cos cosh erf erf_inv erfc exp exp2
    expm1 log log1p logistic max min pow select_n sin sinh tan tanh""".split()
)
_ROWS = {"gather": 0, "scatter-add": 2}  # where they stand among the operands
# Behind these a parameter's axes are still known.
_KNOWN = ELEMENTWISE | REDUCES | _KEEPS | _SUMS | {"gather", "tile"}
_SLICES = frozenset({"slice", "dynamic_slice", "gather", "unstack"})
NORMALIZED = frozenset({-1})  # in the place of a gain's number


def combine(eqn: core.JaxprEqn, facts: Sequence[Fact]) -> list[Fact]:
    """Returns what is known of results that are made of parameters and constants."""
    name = eqn.primitive.name
    averaged = max((fact.averaged for fact in facts), default=0)
    if averaged and name in _ROOTS:
        averaged = 2
    results = []
    for place in range(len(eqn.outvars)):
        moved = [
            fact._replace(leaves=_move_all(eqn, fact, side, place))
            for side, fact in enumerate(facts)
        ]
        mixed = mix(moved)
        powers = frozenset(mixed.leaves) if name in _POWERS else mixed.powers
        odd = mixed.odd or (name if mixed.leaves and name not in _KNOWN else "")
        parts = cut_parameter(eqn, facts, place) | mixed.parts
        curved = mixed.curved or bool(mixed.leaves) and _is_curved(name, facts)
        mixed = mixed._replace(averaged=averaged, powers=powers, odd=odd, curved=curved)
        results.append(mixed._replace(parts=parts))
    return results


def _is_curved(name: str, facts: Sequence[Fact]) -> bool:
    """Returns whether a function of parameters is not in proportion to them."""
    shifts = name in ("add", "add_any", "sub") and not all(x.leaves for x in facts)
    divides = name in ("mul", "div") and bool(
        facts[0].leaves.keys() & facts[1].leaves.keys()
    )
    return shifts or divides or name in BENT | _ROOTS | {"integer_pow", "square"}


def _move_all(
    eqn: core.JaxprEqn, fact: Fact, side: int, place: int = 0
) -> dict[int, Axes]:
    """Moves the axes of all parameters that an operand is made of."""
    rank = len(shape_of(eqn.invars[side]))
    after = len(shape_of(eqn.outvars[place]))
    return {
        leaf: move(eqn, axes, side, place) if len(axes) == rank else forget_axes(after)
        for leaf, axes in fact.leaves.items()
    }


def list_slices(eqn: core.JaxprEqn, fact: Fact) -> dict[int, frozenset[int]]:
    """Lists axes of parameters of which one entry is taken: they stack layers."""
    if eqn.primitive.name not in _SLICES:
        return {}
    before, after = shape_of(eqn.invars[0]), shape_of_part(eqn, 0)
    sizes = eqn.params.get("slice_sizes", after)
    if math.prod(sizes) != math.prod(after):  # several entries are taken
        return {}
    taken = [i for i, n in enumerate(before) if n > 1 and sizes[i] == 1]
    return {
        leaf: list_sources(axes, taken)
        for leaf, axes in fact.leaves.items()
        if taken and len(axes) == len(before)
    }


def change(book: Notebook, eqn: core.JaxprEqn, facts: Sequence[Fact]) -> list[Fact]:
    """Returns what is known of results that are made of data and constants."""
    name = eqn.primitive.name
    places = [place for place, fact in enumerate(facts) if fact.data]
    if len(places) == 1 and name in _KEEPS and _is_first(name, places[0]):
        (side,) = places
        fact = facts[side]
        if name in ("mul", "div") and any(x.averaged == 2 for x in facts):
            fact = normalize(book, fact, fact)
        return [
            part._replace(axes=move(eqn, part.axes, side, i))
            for i in range(len(eqn.outvars))
            for part in [cut(book, eqn, fact, i)]
        ]
    if name == "concatenate":
        rejoin(book, eqn, facts)
    return [
        _change(book, eqn, facts, places, place) for place in range(len(eqn.outvars))
    ]


def _is_first(name: str, place: int) -> bool:
    """Returns whether the data stand where the result has their entries."""
    if name == "select_n":
        return place > 0
    return place == 0 or name not in _FIRST


def _change(
    book: Notebook,
    eqn: core.JaxprEqn,
    facts: Sequence[Fact],
    places: Sequence[int],
    result: int,
) -> Fact:
    name = eqn.primitive.name
    data = [facts[place] for place in places]
    both = drop_marks(join(data, combine_axes(eqn, facts, places, result)))
    bit = book.mark()
    both = both._replace(behind=both.behind | bit)
    if name in ("add", "add_any", "sub") and len(data) == 2:
        return _add(book, eqn, data, both)
    if name in ("mul", "div") and len(data) == 2:
        return _multiply(book, eqn, data, both)
    if name in _SUMS:
        return both._replace(averaged=max(both.averaged, 1))
    if both.averaged and name not in ("concatenate", "gather"):
        return both._replace(averaged=2) if name in _ROOTS else both
    aval: Any = eqn.outvars[result].aval
    if name in BENT:
        book.mark(curved=True)
        both = both._replace(straight=NONE)
    if name in _ROWS:  # rows of one operand are chosen, or added up
        rows = facts[_ROWS[name]]
        both = both._replace(fresh=rows.fresh, linear=rows.linear)
    chosen = name == "eq" and len(data) == 1 and data[0].counted
    whole = not jnp.issubdtype(aval.dtype, np.inexact)
    return both._replace(chosen=chosen, counted=both.counted or whole, averaged=0)


def combine_axes(
    eqn: core.JaxprEqn, facts: Sequence[Fact], places: Sequence[int], result: int = 0
) -> Axes:
    """Returns the axes of a result, from those of its operands that are data."""
    rank = len(shape_of(eqn.outvars[result]))
    axes = forget_axes(rank)
    for place in places:
        moved = move(eqn, facts[place].axes, place, result)
        if eqn.primitive.name == "mul":  # as of experts with gates: both have them
            axes = tuple(map(join_units, axes, moved))
        else:
            axes = tuple(a or b for a, b in zip(axes, moved, strict=True))
    return axes


def _add(book: Notebook, eqn: core.JaxprEqn, data: Sequence[Fact], both: Fact) -> Fact:
    one, other = data
    # What is summed on both sides is a cost, say.
    if eqn.primitive.name != "sub" and not (one.averaged and other.averaged):
        stream = book.add_residual(one, other) or book.add_residual(other, one)
        if stream:  # a norm is that of all that was added
            return both._replace(meeting=None, stream=stream)
    if bool(one.averaged) != bool(other.averaged):  # a mean is subtracted, say
        whole = other if one.averaged else one
        return both._replace(linear=whole.linear, averaged=0)
    meeting = add_meetings(one, other) if eqn.primitive.name != "sub" else None
    both = both._replace(meeting=meeting or both.meeting)
    fresh = one.fresh | other.fresh if one.fresh and other.fresh else NONE
    linear = one.linear | other.linear if one.linear and other.linear else NONE
    return both._replace(fresh=fresh, linear=linear)


def _multiply(
    book: Notebook, eqn: core.JaxprEqn, data: Sequence[Fact], both: Fact
) -> Fact:
    pairs = [(data[0], data[1])]
    if eqn.primitive.name == "mul":
        pairs.append((data[1], data[0]))
    for whole, root in pairs:
        if root.averaged == 2 and not whole.averaged:
            normal = normalize(book, whole, both)
            return normal._replace(
                linear=whole.linear,
                last=whole.last,
                averaged=0,
                gains=normal.gains | root.gains,
            )
    if eqn.invars[0] is not eqn.invars[1] and not both.averaged:
        book.mark(curved=True)
    return both


def normalize(book: Notebook, before: Fact, fact: Fact) -> Fact:
    """Returns a fact of normalized data, and notes that layers before are."""
    for number in before.linear:
        use = book.notes.uses[number]
        use.normed = use.normed[0], True
    return fact._replace(normed=True, gains=NORMALIZED, fresh=NONE, stream=None)
