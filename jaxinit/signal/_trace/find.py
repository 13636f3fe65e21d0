"""Finds a model's layers in its jaxpr.

Modules are found by tags (`jax.ad_checkpoint.checkpoint_name`) that an adapter puts on
their outputs. Layers in the bodies of `scan`, of rematerialized functions and of
functions with own derivatives are found too, and those in the branch of a `cond` whose
choice is a constant. How often a `while` runs, and which branch data choose, no trace
tells: the layers there are not measured, but named.
"""

import dataclasses
import itertools
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
from jaxinit._jaxpr.evaluation import begin, evaluate, walk
from jaxinit._jaxpr.primitives import (
    CALLS,
    CUSTOM,
    NAME,
    PRODUCTS,
    RAGGED,
    REMAT,
    SCAN,
)
from jaxinit._structure.activation import Var
from jaxinit.signal._trace._product import NOTHING, Origin, read_origin, read_product
from jaxinit.signal._trace.attention import Attention, find_attentions
from jaxinit.signal._trace.gates import Gate, find_gates
from jaxinit.signal._trace.links import link
from jaxinit.signal._trace.site import Hidden, Placed, Product, Site

_INSIDE = {"while": "a while loop", "cond": "a branch that data choose"}
_INSIDE |= dict.fromkeys(CUSTOM, "a function that only its own rule differentiates")
_TRACER = jax.core.Tracer
_Fact = TypeVar("_Fact")


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """A jaxpr with calls of layers inlined, its sites, and the plans of its loops."""

    closed: core.ClosedJaxpr
    sites: tuple[Site, ...]
    inner: Mapping[core.JaxprEqn, "Plan"]
    attentions: tuple[Attention | Gate, ...] = ()
    tables: frozenset[int] = frozenset()  # numbers of rows of embedding tables
    hidden: tuple[Hidden, ...] = ()  # layers that are not sites, in loops too

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

    def all_numbers(self) -> frozenset[int]:
        """Returns the numbers of all sites and attentions, in loops too."""
        own = frozenset(each.number for each in (*self.sites, *self.attentions))
        return own.union(*(plan.all_numbers() for plan in self.inner.values()))

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
    hidden: list[Hidden] = []

    def join(eqn: core.JaxprEqn, origins: list[Origin]) -> list[Origin]:
        if body := _open(eqn):
            entering = _count(eqn, body, origins, _enter(eqn, origins))
            taken = [None if is_constant(a) else fixed.get(a) for a in eqn.invars]
            within = next(numbers) if eqn.primitive.name == SCAN else loop
            child = _plan(body, entering, _enter(eqn, taken), numbers, within)
            if child.sites or child.inner or child.attentions:
                inner[eqn] = child
            hidden.extend(child.hidden)
        elif None in origins and _multiplies(eqn):
            hidden.extend(_find_hidden(eqn, origins))
        leaves = [origin for origin in origins if origin is not None]
        is_data = len(leaves) < len(origins)
        return [None if is_data else frozenset().union(*leaves)] * len(eqn.outvars)

    consts = [NOTHING] * len(jaxpr.constvars)
    origin: dict[Var, Origin] = begin(jaxpr, consts, origins)
    walk(jaxpr.eqns, origin, join, constant=lambda _: NOTHING)
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
        tuple(dict.fromkeys(hidden)),
    )


def _find_hidden(eqn: core.JaxprEqn, origins: list[Origin]) -> Iterator[Hidden]:
    """Yields the weights that meet data in an equation that is not entered."""
    params, name = eqn.params, eqn.primitive.name
    inside = _INSIDE.get(name, f"the operation {name}")
    bodies: list[tuple[core.ClosedJaxpr, list[Origin]]] = []
    if name == "while":
        skipped, count = params["cond_nconsts"], params["body_nconsts"]
        entering = origins[skipped : skipped + count]
        carried = len(origins) - skipped - count
        bodies = [(params["body_jaxpr"], [*entering, *[None] * carried])]
    elif name == "cond":
        bodies = [(branch, origins[1:]) for branch in params["branches"]]
    elif name in CUSTOM and (body := open_body(eqn)):
        bodies = [(body, origins)]
    elif name not in PRODUCTS:
        for atom, leaves in zip(eqn.invars, origins, strict=True):
            sizes = getattr(atom.aval, "shape", ())
            if leaves and len(sizes) > 1:
                yield Hidden(leaves, inside)
    for body, entering in bodies:
        within = plan(body, entering)
        for site, _ in within.all_sites():
            if isinstance(site, Product):
                yield Hidden(site.leaves, inside)
        yield from (Hidden(leaves, inside) for leaves, _ in within.hidden)


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
    """Inlines calls that hold layers; elementwise functions stay calls with a name.

    So is the branch of a `cond` whose index is a constant.
    """
    if not any(_holds_layers(eqn) and _is_call(eqn) for eqn in closed.jaxpr.eqns):
        return closed

    def inline(eqn: core.JaxprEqn, values: list[Any]) -> list[Any]:
        name, known = eqn.primitive.name, [not isinstance(v, _TRACER) for v in values]
        if name == "clamp" and all(known):  # the index of `jax.lax.switch`
            low, number, high = map(np.asarray, values)
            return [np.clip(number, low, high)]
        if name == "cond" and known[0] and _holds_layers(eqn):
            chosen = eqn.params["branches"][int(values[0])]
            return evaluate(chosen.jaxpr, chosen.consts, values[1:], inline)
        if name in CALLS and _holds_layers(eqn) and (body := open_body(eqn)):
            return evaluate(body.jaxpr, body.consts, values, inline)
        return bind(eqn, values)

    def run(*args: Any) -> list[Any]:
        return evaluate(closed.jaxpr, closed.consts, args, inline)

    flat: core.ClosedJaxpr = jax.make_jaxpr(run)(*closed.in_avals)
    return flat


def _is_call(eqn: core.JaxprEqn) -> bool:
    return eqn.primitive.name in CALLS | {"cond"}


def _holds_layers(eqn: core.JaxprEqn) -> bool:
    """Returns whether an equation is or holds a product or a tag."""
    return _multiplies(eqn) or holds(eqn, _read_tag)


def _multiplies(eqn: core.JaxprEqn) -> bool:
    """Returns whether an equation is or holds a product."""
    return holds(eqn, lambda inside: inside.primitive.name in PRODUCTS | RAGGED)


def _read_tag(eqn: core.JaxprEqn) -> str | None:
    if eqn.primitive.name != NAME:
        return None
    name = str(eqn.params["name"])
    return name if name.startswith(TAG) else None


def _open(eqn: core.JaxprEqn) -> core.ClosedJaxpr | None:
    """Returns the body of a loop or function that holds layers and can be entered."""
    name = eqn.primitive.name
    if name not in REMAT | CUSTOM | {SCAN} or not _holds_layers(eqn):
        return None
    body = open_body(eqn)
    if name in CUSTOM and body is not None and not _has_derivative(body):
        return None
    return body


def _has_derivative(body: core.ClosedJaxpr) -> bool:
    """Returns whether JAX can differentiate a program, by its own rules."""

    def differentiate(*args: Any) -> Any:
        def run(*args: Any) -> list[Any]:
            results = core.jaxpr_as_fun(body)(*args)
            return [x for x in results if jnp.issubdtype(x.dtype, np.inexact)]

        results, back = jax.vjp(run, *args)
        return back(results)

    try:
        jax.eval_shape(differentiate, *body.in_avals)
    except Exception:  # of any rule that is missing
        return False
    return True


def _enter(eqn: core.JaxprEqn, facts: list[_Fact | None]) -> list[_Fact | None]:
    """Finds what is known of a body's arguments: nothing of the carry of a loop."""
    if eqn.primitive.name != SCAN:
        return facts
    consts, carried = count_operands(eqn)
    return [*facts[:consts], *[None] * carried, *facts[consts + carried :]]


def _count(
    eqn: core.JaxprEqn,
    body: core.ClosedJaxpr,
    origins: list[Origin],
    entering: list[Origin | None],
) -> list[Origin]:
    """Marks a loop's counter as no data: what it chooses of a weight is a weight."""
    if eqn.primitive.name != SCAN:
        return entering
    jaxpr = body.jaxpr
    consts, carried = count_operands(eqn)
    counts = {
        (step.invars[0], step.outvars[0])
        for step in jaxpr.eqns
        if step.primitive.name == "add"
        and [is_constant(atom) for atom in step.invars] == [False, True]
    }
    for place in range(consts, consts + carried):
        start, end = jaxpr.invars[place], jaxpr.outvars[place - consts]
        known = origins[place] == NOTHING and not is_constant(end)
        if known and (start, end) in counts:
            entering[place] = NOTHING
    return entering


def _fix_number(variable: Var, value: Any) -> core.Literal | None:
    """Returns a constant of a program, if it is a single number."""
    if variable.aval.shape or is_key(variable.aval):
        return None
    return core.Literal(np.asarray(value), variable.aval)


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
        if read_origin(origin, eqn.invars[0]) is not None:
            return None
        path = tag.removeprefix(TAG)
        return Site(number=number, loop=loop, path=path, output=eqn.outvars[0])
    return read_product(jaxpr, eqn, origin, uses, fixed, number, loop)
