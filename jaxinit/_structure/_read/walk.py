"""Walks over a traced program, calls and loops included, and collects facts."""

from collections.abc import Callable, Sequence
from typing import Any

from jax.extend import core

from jaxinit._jaxpr.equation import count_operands, is_constant, list_uses, open_body
from jaxinit._jaxpr.evaluation import evaluate
from jaxinit._jaxpr.primitives import DOT, PRODUCTS, RAGGED, SAME, SCAN, WRAPPERS
from jaxinit._structure._read.axes import Axes, Piece, forget_axes, shape_of
from jaxinit._structure._read.elementwise import (
    change,
    combine,
    list_slices,
)
from jaxinit._structure._read.facts import CONSTANT, Fact, Use, drop_marks, join, merge
from jaxinit._structure._read.meeting import Scaling, look_up, meet, sum_up
from jaxinit._structure._read.notebook import Notebook
from jaxinit._structure._read.products import (
    multiply_data,
    multiply_parameter,
    multiply_parameters,
)
from jaxinit._structure.activation import list_scalars, read_activation
from jaxinit._structure.tokens import (
    find_token,
    find_token_of_heads,
    is_applied_to_constants,
    is_of_constants,
)

# Behind these a layer's result is still the same numbers.
_STAYS = SAME | {"transpose"}
_CONSTANTS = "is multiplied with constants before it meets data"
_MOST = 4  # rounds after which what is known of a loop's carry no longer changes


def walk(book: Notebook, jaxpr: core.Jaxpr, facts: Sequence[Fact]) -> list[Fact]:
    """Returns what is known of a program's results; uses are noted in the book."""
    consts = [CONSTANT] * len(jaxpr.constvars)
    readers = list_uses(jaxpr)
    scaled: dict[Any, list[Scaling]] = {}
    ends: dict[frozenset[int], Any] = {}  # the last variables that are layers' results
    outer, count = book.way, iter(range(len(jaxpr.eqns)))

    def rule(eqn: core.JaxprEqn, facts: list[Fact]) -> Sequence[Fact]:
        book.way = (*outer, next(count))
        if not any(fact.data or fact.leaves for fact in facts):
            return combine(eqn, facts)
        stack = str(eqn.source_info.name_stack)
        backwards = book.backwards or "transpose(" in stack
        if (enter := _find_entry(eqn)) is not None:
            with book.enter(backwards):
                return enter(book, eqn, facts)
        tangent = "jvp(" in stack and any(map(is_of_constants, facts))
        if (backwards or tangent) and (recalled := book.recall(facts, backwards)):
            return [join(recalled, forget_axes(len(shape_of(v)))) for v in eqn.outvars]
        if not any(fact.data for fact in facts):
            return _of_parameters(book, eqn, facts)
        if any(fact.odd for fact in facts):
            odd = next(fact.odd for fact in facts if fact.odd)
            reason = odd if odd == _CONSTANTS else f"goes through the operation {odd}"
            return _give_up(book, eqn, facts, reason)
        if eqn.primitive.name == DOT and is_applied_to_constants(
            eqn, facts, eqn.params["dimension_numbers"][1][0]
        ):
            return _give_up(book, eqn, facts, _CONSTANTS)
        name, source = eqn.primitive.name, eqn.invars[0]
        if name == "reduce_sum" and scaled.get(source) and len(readers[source]) == 1:
            return [sum_up(book, eqn, facts[0], scaled[source])]
        results, scalings = _of_data(book, eqn, facts)
        scaled[eqn.outvars[0]] = scalings
        if results[0].fresh and (name in _STAYS or any(fact.leaves for fact in facts)):
            ends[results[0].fresh] = eqn.outvars[0]
        return results

    results = evaluate(jaxpr, consts, facts, rule, constant=lambda _: CONSTANT)
    book.way = outer
    scalars = list_scalars(jaxpr, {}) if ends else {}
    for numbers, var in ends.items():
        name = read_activation(jaxpr, var, readers, scalars)
        for number in numbers:
            use = book.notes.uses[number]
            use.activation = use.activation or name
    return results


Entry = Callable[[Notebook, core.JaxprEqn, list[Fact]], list[Fact]]


def _find_entry(eqn: core.JaxprEqn) -> Entry | None:
    """Returns how to enter the programs of an equation; None if it is not entered."""
    name = eqn.primitive.name
    entries = {SCAN: _scan, "while": _repeat, "cond": _branch}
    if name in entries:
        return entries[name]
    return _call if name in WRAPPERS | {"shard_map", "custom_vmap_call"} else None


def _of_parameters(book: Notebook, eqn: core.JaxprEqn, facts: list[Fact]) -> list[Fact]:
    if eqn.primitive.name in PRODUCTS:
        product = multiply_parameters(eqn, facts)
        if product.factors and eqn.primitive.name != DOT:  # an image is no weight
            book.find_tokens(product.factors[0])
        return [product]
    book.find_tokens(find_token(eqn, facts, book.shapes))
    if is_applied_to_constants(eqn, facts):
        facts = [fact._replace(odd=_CONSTANTS) for fact in facts]
    for leaf, axes in list_slices(eqn, facts[0]).items():
        book.notes.stacked.setdefault(leaf, set()).update(axes)
        if not all(map(is_constant, eqn.invars[1:])):
            book.slice_in_loop(leaf)
    return combine(eqn, facts)


def _of_data(
    book: Notebook, eqn: core.JaxprEqn, facts: list[Fact]
) -> tuple[list[Fact], list[Scaling]]:
    name = eqn.primitive.name
    if name in PRODUCTS | RAGGED:
        if facts[0].data and facts[1].data:
            return [multiply_data(book, eqn, facts)], []
        side = 0 if facts[1].data else 1
        if name == DOT:
            batch = eqn.params["dimension_numbers"][1][side]
            book.find_tokens(find_token_of_heads(facts[side], batch, book.shapes))
        return [multiply_parameter(book, eqn, facts, side)], []
    if not any(fact.leaves for fact in facts):
        return change(book, eqn, facts), []
    if name in ("gather", "dynamic_slice") and facts[0].leaves:
        return [look_up(book, eqn, facts)], []
    fact, scalings = meet(book, eqn, facts)
    return [fact] * len(eqn.outvars), scalings


def _call(book: Notebook, eqn: core.JaxprEqn, facts: list[Fact]) -> list[Fact]:
    body = _find_body(eqn)
    if body is None:
        reason = f"enters the operation {eqn.primitive.name}"
        return _give_up(book, eqn, facts, reason)
    return walk(book, body, facts[len(facts) - len(body.invars) :])


def _find_body(eqn: core.JaxprEqn) -> core.Jaxpr | None:
    params = eqn.params
    closed: Any = open_body(eqn) or params.get("fun_jaxpr") or params.get("jaxpr")
    body = getattr(closed, "jaxpr", closed)
    return body if isinstance(body, core.Jaxpr) else None


def _give_up(
    book: Notebook, eqn: core.JaxprEqn, facts: list[Fact], reason: str
) -> list[Fact]:
    """Notes that parameters enter an operation of which nothing is known."""
    for fact in facts:
        for leaf in fact.leaves:
            book.note(Use(kind="other", leaf=leaf, order=book.order, reason=reason))
    rest = [fact if fact.data else CONSTANT for fact in facts]
    if any(fact.data for fact in rest):
        return change(book, eqn, rest)
    return [CONSTANT] * len(eqn.outvars)


def _scan(book: Notebook, eqn: core.JaxprEqn, facts: list[Fact]) -> list[Fact]:
    params = eqn.params
    (count, carried), length = count_operands(eqn), params["length"]
    sliced = set()
    each = []
    for fact in facts[count + carried :]:
        for leaf, axes in fact.leaves.items():
            sources = {piece.source for piece in axes[0]} - {None} if axes else set()
            book.notes.stacked.setdefault(leaf, set()).update(sources)
            sliced.add(leaf)
        leaves = {leaf: axes[1:] for leaf, axes in fact.leaves.items()}
        each.append(fact._replace(leaves=leaves, axes=fact.axes[1:]))
    body = params["jaxpr"].jaxpr

    def step(carry: list[Fact]) -> list[Fact]:
        return walk(book, body, [*facts[:count], *carry, *each])

    starts = facts[count : count + carried]
    avals = [v.aval for v in body.invars[count : count + carried]]
    kept = _find_kept(body, count, carried)
    # Positions and examples, one after another, are no depth.
    times = length if sliced or not any(fact.data for fact in each) else 1
    with book.loop(times, sliced) as name:
        has_data = any(fact.data for fact in facts)
        results = _settle(book, name, starts, avals, step, has_data, kept)
    axis: Axes = ((Piece(name, length),),)
    stacked = [
        fact._replace(
            axes=axis + fact.axes,
            leaves={leaf: ((), *axes) for leaf, axes in fact.leaves.items()},
        )
        for fact in results[carried:]
    ]
    return [*results[:carried], *stacked]


def _repeat(book: Notebook, eqn: core.JaxprEqn, facts: list[Fact]) -> list[Fact]:
    params = eqn.params
    skipped, count = params["cond_nconsts"], params["body_nconsts"]
    consts, starts = facts[skipped : skipped + count], facts[skipped + count :]
    body = params["body_jaxpr"].jaxpr
    avals = [v.aval for v in body.invars[count:]]
    has_data = any(fact.data for fact in facts)

    def step(carry: list[Fact]) -> list[Fact]:
        return walk(book, body, [*consts, *carry])

    kept = _find_kept(body, count, len(starts))
    with book.loop(1, set()) as name:
        return _settle(book, name, starts, avals, step, has_data, kept)


def _find_kept(body: core.Jaxpr, first: int, carried: int) -> frozenset[int]:
    """Returns which carries of a loop, from its first argument on, never change."""
    return frozenset(
        place
        for place in range(carried)
        if _find_origin(body, body.outvars[place]) is body.invars[first + place]
    )


def _find_origin(body: core.Jaxpr, var: Any) -> Any:
    """Returns the variable that a value is, behind calls that hand it on."""
    makers = {out: eqn for eqn in body.eqns for out in eqn.outvars}
    while not is_constant(var) and (eqn := makers.get(var)) is not None:
        if eqn.primitive.name in SAME and eqn.invars[0].aval == var.aval:
            var = eqn.invars[0]
            continue
        inner = _find_body(eqn) if eqn.primitive.name in WRAPPERS else None
        if inner is None:
            break
        origin = _find_origin(inner, inner.outvars[eqn.outvars.index(var)])
        if origin not in inner.invars:
            break
        skipped = len(eqn.invars) - len(inner.invars)
        var = eqn.invars[skipped + inner.invars.index(origin)]
    return var


def _settle(
    book: Notebook,
    name: tuple[int, ...],
    starts: Sequence[Fact],
    avals: Sequence[Any],
    step: Callable[[list[Fact]], list[Fact]],
    has_data: bool,
    kept: frozenset[int],
) -> list[Fact]:
    """Walks over the body of a loop until what is known of the carry holds."""
    for place, start in enumerate(starts if has_data else ()):
        for leaf in () if place in kept else start.leaves:
            book.note(Use(kind="state", leaf=leaf, order=book.order))
    bits = [book.mark(result=place) for place in range(len(starts))]
    carry, entry = list(starts), book.save()
    results: list[Fact] = []
    for times in range(_MOST):
        if times:
            book.rewind(entry)
            entry = book.save()
        entering = [
            drop_marks(
                fact,
                carries=fact.carries | {name},
                behind=start.behind | bits[place],
                depth=start.depth,
            )
            if fact.data and place not in kept
            else fact
            for place, (fact, start) in enumerate(zip(carry, starts, strict=True))
        ]
        results = step(entering)
        joined = [
            merge(fact, result, len(aval.shape))
            for fact, result, aval in zip(carry, results, avals, strict=False)
        ]
        if joined == carry:
            break
        carry = joined
    return results


def _branch(book: Notebook, eqn: core.JaxprEqn, facts: list[Fact]) -> list[Fact]:
    way = book.way
    results: list[Fact] = []
    for number, branch in enumerate(eqn.params["branches"]):
        book.way = (*way, number)
        found = walk(book, branch.jaxpr, facts[1:])
        results = [
            merge(one, other, len(shape_of(v)))
            for one, other, v in zip(results or found, found, eqn.outvars, strict=True)
        ]
    return results
