"""Tells how a layer's weight grows with the parameters that it is made of.

A weight w(p) has degree d in parameters p if w(c p) = c^d w(p) for every c > 0: 1 for a
kernel, whatever its layout, and for the scale of a weight normalization; 0 for the
direction v of w = g v / |v|, and for a kernel that is standardized.

Likewise it tells which parameter a layer's bias is, if it is one as it stands.
"""

import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jax.extend import core

from jaxinit._jaxpr.equation import count_operands, open_body
from jaxinit._jaxpr.evaluation import Values, begin, evaluate, walk
from jaxinit._jaxpr.primitives import PRODUCTS, RESHAPES, SAME, SCAN, WRAPPERS
from jaxinit.signal.adjusting import Plan, Product

Degree = float | None  # None for a value that has none

_AS_ARGUMENT = (
    RESHAPES
    | SAME
    | {"abs", "cumsum", "dynamic_slice", "gather", "neg", "pad", "reduce_max"}
    | {"reduce_sum", "rev", "slice", "split", "transpose", "unstack"}
)
_ALIKE = frozenset({"add", "add_any", "concatenate", "max", "min", "stack", "sub"})
_POWERS: dict[str, Callable[[float], float]] = {
    "rsqrt": lambda degree: -degree / 2,
    "sqrt": lambda degree: degree / 2,
    "square": lambda degree: 2 * degree,
}


def find_degrees(plan: Plan, count: int, scaled: frozenset[int]) -> dict[int, Degree]:
    """Finds the degree of each layer's weight in some parameters, taken together.

    Args:
      plan: the model.
      count: the number of its parameters, its first arguments.
      scaled: the numbers of those that are multiplied by one factor.

    Returns:
      The degree by the number of the layer's site.
    """
    known: list[Degree] = [float(leaf in scaled) for leaf in range(count)]
    others = len(plan.closed.in_avals) - count
    facts = _follow(plan, [*known, *[None] * others], _compute, 0.0)
    return {site.number: values[site.weight] for site, values in facts}


def find_biases(plan: Plan, count: int) -> dict[int, int | None]:
    """Finds the parameter that is a layer's bias, perhaps in another shape or type.

    Args:
      plan: the model.
      count: the number of its parameters, its first arguments.

    Returns:
      The parameter's number by that of the layer's site; None where there is no bias,
      or it is computed.
    """
    others = len(plan.closed.in_avals) - count
    facts = _follow(plan, [*range(count), *[None] * others], _trace_back, None)
    return {site.number: values.get(site.bias) for site, values in facts}


def find_loops(plan: Plan, count: int) -> dict[int, tuple[int, ...]]:
    """Finds which loops around a layer take a slice of its weight at each step.

    Args:
      plan: the model.
      count: the number of its parameters, its first arguments.

    Returns:
      The loops, counted from the outermost, by the number of the layer's site.
    """
    none = frozenset[int]()
    known = [none] * len(plan.closed.in_avals)
    facts = _follow(plan, known, _join_loops, none, _add_loop)
    return {
        site.number: tuple(sorted(values[site.weight] or ())) for site, values in facts
    }


def _join_loops(eqn: core.JaxprEqn, known: list[Any]) -> list[frozenset[int]]:
    joined = frozenset[int]().union(*(loops for loops in known if loops))
    return [joined] * len(eqn.outvars)


def _add_loop(known: frozenset[int], depth: int) -> frozenset[int]:
    return known | {depth}


def _keep_slice(known: Any, depth: int) -> Any:
    return known


def _follow(
    plan: Plan,
    known: Sequence[Any],
    compute: Callable[..., Any],
    constant: Any,
    take_slice: Callable[[Any, int], Any] = _keep_slice,
    depth: int = 0,
) -> Iterator[tuple[Product, Values]]:
    """Follows facts through a program, and yields those around each layer."""
    jaxpr = plan.closed.jaxpr
    inside: list[tuple[Product, Values]] = []

    def rule(eqn: core.JaxprEqn, known: list[Any]) -> Sequence[Any]:
        if body := plan.inner.get(eqn):
            if eqn.primitive.name == SCAN:
                consts, carried = count_operands(eqn)
                first = consts + carried
                known[consts:first] = [None] * carried
                known[first:] = [take_slice(fact, depth) for fact in known[first:]]
            deeper = depth + (eqn.params.get("length") is not None)
            more = compute, constant, take_slice, deeper
            inside.extend(_follow(body, known, *more))
            return [None] * len(eqn.outvars)
        results: Sequence[Any] = compute(eqn, known)
        return results

    values = begin(jaxpr, [constant] * len(jaxpr.constvars), known)
    walk(jaxpr.eqns, values, rule, constant=lambda _: constant)
    yield from inside
    yield from ((site, values) for site in plan.sites if isinstance(site, Product))


def _trace_back(eqn: core.JaxprEqn, known: list[int | None]) -> Sequence[int | None]:
    """Finds which parameter an equation's result is as it stands."""
    name, results = eqn.primitive.name, len(eqn.outvars)
    if name in RESHAPES | SAME:
        return [known[0]] * results
    if name in WRAPPERS and (body := open_body(eqn)):
        consts = [None] * len(body.consts)
        return evaluate(body.jaxpr, consts, known, _trace_back, lambda _: None)
    return [None] * results


def _of_constant(_: Any) -> Degree:
    return 0.0


def _compute(eqn: core.JaxprEqn, known: list[Degree]) -> Sequence[Degree]:
    """Finds the degrees of an equation's results from those of its operands."""
    name, results = eqn.primitive.name, len(eqn.outvars)
    if all(degree == 0 for degree in known):
        return [0.0] * results
    if name in _AS_ARGUMENT:
        return [known[0]] * results
    if any(degree is None for degree in known):
        return [None] * results
    degrees = [degree for degree in known if degree is not None]
    if name in WRAPPERS and (body := open_body(eqn)):
        consts = [0.0] * len(body.consts)
        return evaluate(body.jaxpr, consts, degrees, _compute, _of_constant)
    if name == "mul" or name in PRODUCTS:
        return [sum(degrees)]
    if name == "div":
        return [operator.sub(*degrees)]
    if name == "integer_pow":
        return [degrees[0] * eqn.params["y"]]
    if name in _POWERS:
        return [_POWERS[name](degrees[0])]
    alike = name in _ALIKE and len(set(degrees)) == 1
    return [degrees[0] if alike else None] * results
