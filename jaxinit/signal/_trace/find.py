"""Finds a model's layers in its jaxpr, and keeps their values while it runs.

A layer is a matrix product or convolution of data with a weight. Its output is the
product, or the sum with a bias that follows; its activation is the chain of elementwise
operations behind that. Modules are found by tags (`jax.ad_checkpoint.checkpoint_name`)
that an adapter puts on their outputs. Layers in the bodies of `scan` and of
rematerialized functions are found too; the bodies of `while`, `cond` and functions with
custom derivatives are not searched.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxinit._adapt.functions import TAG
from jaxinit._jaxpr.equation import (
    bind,
    count_operands,
    find_variables,
    holds,
    is_constant,
    is_key,
    list_uses,
    open_body,
)
from jaxinit._jaxpr.evaluation import begin, evaluate, read, walk
from jaxinit._jaxpr.primitives import CALLS, DOT, NAME, PRODUCTS, REMAT, SCAN
from jaxinit._structure.activation import Var, find_activation
from jaxinit.signal._trace.attention import Attention, find_attentions
from jaxinit.signal._trace.gates import Gate, find_gates
from jaxinit.signal._trace.links import link
from jaxinit.signal._trace.site import Placed, Product, Site, Values

# Where a variable comes from: the parameters alone, by the numbers of their leaves, or
# None, for data.
Origin = frozenset[int] | None
_NOTHING: Origin = frozenset()  # the origin of constants
_Fact = TypeVar("_Fact")


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """A jaxpr with calls of layers inlined, its sites, and the plans of its loops."""

    closed: core.ClosedJaxpr
    sites: tuple[Site, ...]
    inner: Mapping[core.JaxprEqn, "Plan"]
    attentions: tuple[Attention | Gate, ...] = ()
    tables: frozenset[int] = frozenset()  # numbers of rows of embedding tables

    def all_sites(self, steps: tuple[int, ...] = ()) -> Iterator[Placed]:
        """Yields sites in order of execution, each with the lengths of its loops."""
        places = {site.output: site for site in self.sites if site.kind != "module"}
        tags = [site for site in self.sites if site.kind == "module"]
        for eqn in self.closed.jaxpr.eqns:
            if plan := self.inner.get(eqn):
                length = eqn.params.get("length")
                more = (length,) if length is not None else ()
                yield from plan.all_sites((*steps, *more))
            for var in eqn.outvars:
                if site := places.get(var):
                    yield site, steps
            yield from ((site, steps) for site in tags if site.output in eqn.outvars)

    def all_tables(self) -> frozenset[int]:
        """Returns the numbers of rows of all embedding tables, in loops too."""
        inner = (plan.all_tables() for plan in self.inner.values())
        return self.tables.union(*inner)


def plan(closed: core.ClosedJaxpr, origins: Sequence[Origin]) -> Plan:
    """Finds the sites of a traced model.

    Args:
      closed: the jaxpr of the model.
      origins: for each argument, a set with the number of the parameter's leaf, or None
        for data.
    """
    known = [None] * len(origins)
    return _plan(closed, list(origins), known, itertools.count(1), 0)


def _plan(
    closed: core.ClosedJaxpr,
    origins: list[Origin],
    known: Sequence[core.Literal | None],
    numbers: Iterator[int],
    loop: int,
) -> Plan:
    """Finds the sites of a program, of whose arguments some are known numbers."""
    flat = _flatten(closed)
    jaxpr = flat.jaxpr
    fixed = begin(jaxpr, map(_fix_number, jaxpr.constvars, flat.consts), known)
    fixed = {variable: number for variable, number in fixed.items() if number}
    inner: dict[core.JaxprEqn, Plan] = {}

    def join(eqn: core.JaxprEqn, origins: list[Origin]) -> list[Origin]:
        if body := _open(eqn):
            entering = _enter(eqn, origins)
            taken = [None if is_constant(a) else fixed.get(a) for a in eqn.invars]
            within = next(numbers) if eqn.primitive.name == SCAN else loop
            child = _plan(body, entering, _enter(eqn, taken), numbers, within)
            if child.sites or child.inner or child.attentions:
                inner[eqn] = child
        leaves = [origin for origin in origins if origin is not None]
        is_data = len(leaves) < len(origins)
        return [None if is_data else frozenset().union(*leaves)] * len(eqn.outvars)

    consts = [_NOTHING] * len(jaxpr.constvars)
    origin: dict[Var, Origin] = begin(jaxpr, consts, origins)
    walk(jaxpr.eqns, origin, join, constant=lambda _: _NOTHING)
    uses = list_uses(jaxpr)
    sites = [
        site
        for eqn in jaxpr.eqns
        if (site := _make_site(jaxpr, eqn, origin, uses, fixed, next(numbers), loop))
    ]
    data = {var for var, known in origin.items() if known is None}
    return Plan(
        flat,
        tuple(link(jaxpr, sites, uses)),
        inner,
        (*find_gates(jaxpr, data, numbers), *find_attentions(jaxpr, data, numbers)),
        frozenset(_find_tables(jaxpr, origin)),
    )


def _find_tables(jaxpr: core.Jaxpr, origin: Mapping[Var, Origin]) -> Iterator[int]:
    """Yields the numbers of rows of weights that integer data index: embeddings."""
    for eqn in jaxpr.eqns:
        atoms = find_variables(eqn.invars)
        data = [atom.aval for atom in atoms if origin[atom] is None]
        chosen = any(jnp.issubdtype(aval.dtype, np.integer) for aval in data)
        if chosen and holds(eqn, lambda inside: inside.primitive.name == "gather"):
            of_weights = [atom.aval.shape for atom in atoms if origin[atom]]
            yield from (shape[0] for shape in of_weights if len(shape) == 2)


def _flatten(closed: core.ClosedJaxpr) -> core.ClosedJaxpr:
    """Inlines calls that hold layers; elementwise functions stay calls with a name."""
    if not any(_holds_layers(eqn) and _is_call(eqn) for eqn in closed.jaxpr.eqns):
        return closed

    def inline(eqn: core.JaxprEqn, values: list[Any]) -> list[Any]:
        if _is_call(eqn) and _holds_layers(eqn) and (body := open_body(eqn)):
            return evaluate(body.jaxpr, body.consts, values, inline)
        return bind(eqn, values)

    def run(*args: Any) -> list[Any]:
        return evaluate(closed.jaxpr, closed.consts, args, inline)

    flat: core.ClosedJaxpr = jax.make_jaxpr(run)(*closed.in_avals)
    return flat


def _is_call(eqn: core.JaxprEqn) -> bool:
    return eqn.primitive.name in CALLS


def _holds_layers(eqn: core.JaxprEqn) -> bool:
    """Returns whether an equation is or holds a product or a tag."""
    return holds(
        eqn, lambda inside: inside.primitive.name in PRODUCTS or _read_tag(inside)
    )


def _read_tag(eqn: core.JaxprEqn) -> str | None:
    if eqn.primitive.name != NAME:
        return None
    name = str(eqn.params["name"])
    return name if name.startswith(TAG) else None


def _open(eqn: core.JaxprEqn) -> core.ClosedJaxpr | None:
    """Returns the body of a scan or rematerialized function that holds layers."""
    is_entered = eqn.primitive.name in REMAT | {SCAN} and _holds_layers(eqn)
    return open_body(eqn) if is_entered else None


def _enter(eqn: core.JaxprEqn, facts: list[_Fact | None]) -> list[_Fact | None]:
    """Finds what is known of a body's arguments: nothing of the carry of a loop."""
    if eqn.primitive.name != SCAN:
        return facts
    consts, carried = count_operands(eqn)
    return [*facts[:consts], *[None] * carried, *facts[consts + carried :]]


def _fix_number(variable: Var, value: Any) -> core.Literal | None:
    """Returns a constant of a program, if it is a single number."""
    if variable.aval.shape or is_key(variable.aval):
        return None
    return core.Literal(np.asarray(value), variable.aval)


def _read_origin(origin: Mapping[Var, Origin], atom: Any) -> Origin:
    return _NOTHING if is_constant(atom) else origin[atom]


def _make_site(
    jaxpr: core.Jaxpr,
    eqn: core.JaxprEqn,
    origin: Mapping[Var, Origin],
    uses: Mapping[Any, list[int]],
    fixed: Mapping[Var, core.Literal],
    number: int,
    loop: int,
) -> Site | None:
    """Makes the site of an equation that tags data or computes a layer, else None."""
    if tag := _read_tag(eqn):
        if _read_origin(origin, eqn.invars[0]) is not None:
            return None
        path = tag.removeprefix(TAG)
        return Site(number=number, loop=loop, path=path, output=eqn.outvars[0])
    name = eqn.primitive.name
    if name not in PRODUCTS:
        return None
    known = [_read_origin(origin, atom) for atom in eqn.invars]
    if (known[0] is None) == (known[1] is None):
        return None
    side = 0 if known[0] is not None else 1
    leaves = known[side]
    if not leaves:  # a constant, not a parameter
        return None
    weight: Var = eqn.invars[side]
    data: Var = eqn.invars[1 - side]
    output: Var = eqn.outvars[0]
    rank = len(output.aval.shape)
    if name == DOT:
        (left, right), (left_batch, right_batch) = eqn.params["dimension_numbers"]
        contracted, batched = (left, left_batch) if side == 0 else (right, right_batch)
        shape = weight.aval.shape
        free = [i for i in range(len(shape)) if i not in (*contracted, *batched)]
        start = len(batched) if side == 0 else rank - len(free)
        unit_axes = tuple(range(start, start + len(free)))
        weight_units, kind = tuple(free), "dense"
        fan_in = math.prod(shape[i] for i in contracted)
    else:
        numbers_of = eqn.params["dimension_numbers"]
        unit_axes, weight_units = (numbers_of.out_spec[1],), (numbers_of.rhs_spec[0],)
        kind = "conv"
        fan_in = math.prod(weight.aval.shape) // weight.aval.shape[weight_units[0]]
    output, unit_axes = _follow_turn(jaxpr, output, unit_axes, uses)
    output, bias = _follow_bias(jaxpr, output, origin, uses)
    chain, activated = find_activation(jaxpr, output, uses, fixed)
    return Product(
        number=number,
        loop=loop,
        path="",
        output=output,
        leaf=min(leaves),
        kind=kind,
        fan_in=fan_in,
        unit_axes=unit_axes,
        weight_unit_axes=weight_units,
        eqn=eqn,
        weight=weight,
        bias=bias,
        input=data,
        chain=chain,
        activated=activated,
    )


def _follow_turn(
    jaxpr: core.Jaxpr,
    output: Var,
    unit_axes: tuple[int, ...],
    uses: Mapping[Any, list[int]],
) -> tuple[Var, tuple[int, ...]]:
    """Follows a product whose axes are turned at once, if nothing else reads it.

    `jax.vmap` of ``weight @ x``, as in Equinox, makes units first and turns them last.
    """
    readers = uses.get(output, [])
    eqn = jaxpr.eqns[readers[0]] if len(readers) == 1 and readers[0] >= 0 else None
    if eqn is None or eqn.primitive.name != "transpose":
        return output, unit_axes
    rank, order = len(output.aval.shape), list(eqn.params["permutation"])
    return eqn.outvars[0], tuple(order.index(axis % rank) for axis in unit_axes)


def _follow_bias(
    jaxpr: core.Jaxpr,
    output: Var,
    origin: Mapping[Var, Origin],
    uses: Mapping[Any, list[int]],
) -> tuple[Var, Any]:
    """Follows a product to the sum with its bias, if nothing else reads the product.

    Returns:
      The output of the layer, and the bias or None.
    """
    at = output
    while len(readers := uses.get(at, [])) == 1 and readers[0] >= 0:
        eqn = jaxpr.eqns[readers[0]]
        result: Var = eqn.outvars[0]
        if eqn.primitive.name == "add":
            other = next((a for a in eqn.invars if a is not at), at)
            if not _read_origin(origin, other):
                break
            if result.aval.shape != output.aval.shape:
                break
            return result, other
        same = result.aval.shape == output.aval.shape
        if eqn.primitive.name not in {"convert_element_type", "copy"} or not same:
            break
        at = result
    return output, None


def evaluate_plan(
    plan: Plan, args: Sequence[Any], shifts: Mapping[int, Values]
) -> tuple[list[Any], dict[int, Values]]:
    """Runs the jaxpr of a plan and keeps the values at its sites.

    Args:
      plan: the plan.
      args: the arguments of the jaxpr.
      shifts: for each site to keep, zeros to be added to its ``output`` and, if given,
        its ``weight``: the gradient with respect to them is that at the site. They have
        a leading axis for each loop around the site.

    Returns:
      The results, and for each site the values ``output``, ``weight``, ``bias`` and
      ``input`` that it has; ``input`` only where it is not known to be just another
      layer's activation. For each attention the result of `Attention.measure`. Values
      have a leading axis for each loop around the site.
    """
    jaxpr = plan.closed.jaxpr
    sites = [site for site in plan.sites if site.number in shifts]
    outputs = {site.output: site for site in sites}
    products = {site.eqn: site for site in sites if isinstance(site, Product)}
    kept: dict[int, Values] = {}

    def shift(eqn: core.JaxprEqn, values: list[Any]) -> list[Any]:
        if body := plan.inner.get(eqn):
            results, inside = _evaluate_inner(eqn, body, values, shifts)
            kept.update(inside)
        else:
            product = products.get(eqn)
            if product and "weight" in shifts[product.number]:
                side = 0 if eqn.invars[0] is product.weight else 1
                values[side] += shifts[product.number]["weight"]
            results = bind(eqn, values)
        return [
            result + shifts[outputs[var].number]["output"] if var in outputs else result
            for var, result in zip(eqn.outvars, results, strict=True)
        ]

    env = begin(jaxpr, plan.closed.consts, args)
    walk(jaxpr.eqns, env, shift)
    for site in sites:
        parts = site.parts
        values = read(env, parts.values())
        kept[site.number] = dict(zip(parts, values, strict=True))
    kept |= {each.number: each.measure(env) for each in plan.attentions}
    return read(env, jaxpr.outvars), kept


def _evaluate_inner(
    eqn: core.JaxprEqn,
    body: Plan,
    values: list[Any],
    shifts: Mapping[int, Values],
) -> tuple[list[Any], dict[int, Values]]:
    """Evaluates a loop or a rematerialized function."""
    inside = {site.number for site, _ in body.all_sites()}
    mine = {number: values for number, values in shifts.items() if number in inside}
    if eqn.primitive.name != SCAN:
        policy, cse = eqn.params["policy"], eqn.params["prevent_cse"]
        run = functools.partial(evaluate_plan, body)
        again = jax.checkpoint(run, policy=policy, prevent_cse=cse)
        results, kept = again(values, mine)
        return results, kept
    count, carried = count_operands(eqn)
    consts, carry = values[:count], values[count : count + carried]

    def step(carry: list[Any], xs: tuple[list[Any], dict[int, Values]]) -> Any:
        each, shifts = xs
        results, kept = evaluate_plan(body, [*consts, *carry, *each], shifts)
        return results[:carried], (results[carried:], kept)

    last, (stacked, kept) = jax.lax.scan(
        step,
        carry,
        (values[count + carried :], mine),
        length=eqn.params["length"],
        reverse=eqn.params["reverse"],
        unroll=eqn.params["unroll"],
    )
    return [*last, *stacked], kept
