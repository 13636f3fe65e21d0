"""Finds a model's layers in its jaxpr, and measures at them while it runs.

A layer is a matrix product or convolution of data with a weight. Its output is the
product, or the sum with a bias that follows; its activation is the chain of elementwise
operations behind that. Modules are seen by tags (`jax.ad_checkpoint.checkpoint_name`)
that an adapter puts on their outputs. Bodies of `scan` and of rematerialised functions
are entered; those of `while`, `cond` and of functions with derivatives of their own are
taken as they are.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxinit.model import bind
from jaxinit.signal._trace.activation import CALLS, Var, activation
from jaxinit.signal._trace.attention import Attention, attentions
from jaxinit.signal._trace.links import linked
from jaxinit.signal._trace.site import Placed, Site, Values

Origin = frozenset[int] | None  # the leaves of the parameters alone, or None: data

TAG = "jaxinit:"
_REMAT = {"checkpoint", "remat", "remat2"}
_PRODUCTS = {"dot_general", "conv_general_dilated"}


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """A jaxpr without inner calls, its sites, and the plans of its loops."""

    closed: core.ClosedJaxpr
    sites: tuple[Site, ...]
    inner: Mapping[int, "Plan"]  # by the equation's index
    attentions: tuple[Attention, ...] = ()
    tables: frozenset[int] = frozenset()  # rows of weights that integers choose from

    def all_sites(self, steps: tuple[int, ...] = ()) -> Iterator[Placed]:
        """Yields sites as they are executed, each with the lengths of its loops."""
        places = {site.output: site for site in self.sites if site.kind != "module"}
        tags = [site for site in self.sites if site.kind == "module"]
        for index, eqn in enumerate(self.closed.jaxpr.eqns):
            if plan := self.inner.get(index):
                length = eqn.params.get("length")
                more = (length,) if length is not None else ()
                yield from plan.all_sites((*steps, *more))
            for var in eqn.outvars:
                if site := places.get(var):
                    yield site, steps
            yield from ((site, steps) for site in tags if site.output in eqn.outvars)

    def all_tables(self) -> frozenset[int]:
        """Returns the sizes of the tables, those of loops too."""
        inner = (plan.all_tables() for plan in self.inner.values())
        return self.tables.union(*inner)


def plan(closed: core.ClosedJaxpr, origins: Sequence[Origin]) -> Plan:
    """Finds the sites of a traced model.

    Args:
      closed: the jaxpr of the model.
      origins: for each of its arguments, the number of the parameter's leaf as a set of
        one, or None for data.
    """
    return _plan(closed, list(origins), itertools.count(1), 0)


def _plan(
    closed: core.ClosedJaxpr, origins: list[Origin], numbers: Iterator[int], loop: int
) -> Plan:
    flat = _flattened(closed)
    jaxpr = flat.jaxpr
    origin: dict[Var, Origin] = dict(zip(jaxpr.invars, origins, strict=True))
    origin |= {var: frozenset() for var in jaxpr.constvars}
    inner: dict[int, Plan] = {}
    for index, eqn in enumerate(jaxpr.eqns):
        found = [_origin(origin, atom) for atom in eqn.invars]
        if body := _body(eqn):
            entering = _entering(eqn, found)
            within = next(numbers) if eqn.primitive.name == "scan" else loop
            child = _plan(body, entering, numbers, within)
            if child.sites or child.inner or child.attentions:
                inner[index] = child
        known = None if None in found else frozenset().union(*found)  # type: ignore[arg-type]
        origin |= {var: known for var in eqn.outvars}
    uses = _uses(jaxpr)
    sites = [
        site
        for eqn in jaxpr.eqns
        if (site := _site(jaxpr, eqn, origin, uses, (next(numbers), loop)))
    ]
    data = {var for var, known in origin.items() if known is None}
    return Plan(
        flat,
        tuple(linked(jaxpr, sites, uses)),
        inner,
        attentions(jaxpr, data, numbers),
        frozenset(_tables(jaxpr, origin)),
    )


def _tables(jaxpr: core.Jaxpr, origin: Mapping[Var, Origin]) -> Iterator[int]:
    """Yields how many rows the tables have that integers of the data choose from."""
    for eqn in jaxpr.eqns:
        atoms: list[Any] = [a for a in eqn.invars if not isinstance(a, core.Literal)]
        data = [atom.aval for atom in atoms if origin[atom] is None]
        chosen = any(jnp.issubdtype(aval.dtype, np.integer) for aval in data)
        if chosen and _holds(eqn, lambda inside: inside.primitive.name == "gather"):
            of_weights = [atom.aval.shape for atom in atoms if origin[atom]]
            yield from (shape[0] for shape in of_weights if len(shape) == 2)


def _flattened(closed: core.ClosedJaxpr) -> core.ClosedJaxpr:
    """Inlines calls that hold layers; elementwise functions keep their name."""
    if not any(_holds_layers(eqn) and _is_call(eqn) for eqn in closed.jaxpr.eqns):
        return closed

    def inlined(closed: core.ClosedJaxpr, *args: Any) -> list[Any]:
        env = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
        env |= dict(zip(closed.jaxpr.invars, args, strict=True))
        for eqn in closed.jaxpr.eqns:
            values = [_read(env, atom) for atom in eqn.invars]
            if _is_call(eqn) and _holds_layers(eqn):
                body = eqn.params.get("jaxpr") or eqn.params["call_jaxpr"]
                results = inlined(body, *values)
            else:
                results = bind(eqn, values)
            env |= dict(zip(eqn.outvars, results, strict=True))
        return [_read(env, atom) for atom in closed.jaxpr.outvars]

    flat: core.ClosedJaxpr = jax.make_jaxpr(functools.partial(inlined, closed))(
        *closed.in_avals
    )
    return flat


def _is_call(eqn: core.JaxprEqn) -> bool:
    return eqn.primitive.name in CALLS


def _holds_layers(eqn: core.JaxprEqn) -> bool:
    """Returns whether there are products or tags in the calls of an equation."""
    return _holds(
        eqn, lambda inside: inside.primitive.name in _PRODUCTS or _tag(inside)
    )


def _holds(eqn: core.JaxprEqn, wanted: Callable[[core.JaxprEqn], Any]) -> bool:
    """Returns whether an equation, or one in its calls, is wanted."""
    bodies = core.jaxprs_in_params(eqn.params)
    return bool(wanted(eqn)) or any(
        _holds(inside, wanted) for body in bodies for inside in body.eqns
    )


def _tag(eqn: core.JaxprEqn) -> str | None:
    if eqn.primitive.name != "name":
        return None
    name = str(eqn.params["name"])
    return name if name.startswith(TAG) else None


def _body(eqn: core.JaxprEqn) -> core.ClosedJaxpr | None:
    """Takes the body of a scan or of a rematerialised function that holds layers."""
    if not _holds_layers(eqn):
        return None
    if eqn.primitive.name == "scan":
        body: core.ClosedJaxpr = eqn.params["jaxpr"]
        return body
    if eqn.primitive.name in _REMAT:
        return core.ClosedJaxpr(eqn.params["jaxpr"], ())
    return None


def _entering(eqn: core.JaxprEqn, found: list[Origin]) -> list[Origin]:
    """Finds the origins of a body's arguments; what a loop carries is data."""
    if eqn.primitive.name != "scan":
        return found
    consts, carried = eqn.params["num_consts"], eqn.params["num_carry"]
    return [*found[:consts], *[None] * carried, *found[consts + carried :]]


def _origin(origin: Mapping[Var, Origin], atom: Any) -> Origin:
    return frozenset() if isinstance(atom, core.Literal) else origin[atom]


def _uses(jaxpr: core.Jaxpr) -> dict[Any, list[int]]:
    """Lists the equations that read each variable; -1 stands for the results."""
    uses: dict[Any, list[int]] = {}
    for index, eqn in enumerate(jaxpr.eqns):
        for atom in eqn.invars:
            if not isinstance(atom, core.Literal):
                uses.setdefault(atom, []).append(index)
    for atom in jaxpr.outvars:
        if not isinstance(atom, core.Literal):
            uses.setdefault(atom, []).append(-1)
    return uses


def _site(
    jaxpr: core.Jaxpr,
    eqn: core.JaxprEqn,
    origin: Mapping[Var, Origin],
    uses: Mapping[Any, list[int]],
    place: tuple[int, int],
) -> Site | None:
    """Makes the site of an equation, if it is a tag of data or a layer."""
    if tag := _tag(eqn):
        if _origin(origin, eqn.invars[0]) is not None:
            return None
        return Site(*place, tag.removeprefix(TAG), eqn.outvars[0])
    name = eqn.primitive.name
    if name not in _PRODUCTS:
        return None
    known = [_origin(origin, atom) for atom in eqn.invars]
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
    if name == "dot_general":
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
    output, bias = _with_bias(jaxpr, output, origin, uses)
    chain, activated = activation(jaxpr, output, uses)
    return Site(
        *place,
        "",
        output,
        min(leaves),
        kind,
        fan_in,
        unit_axes,
        weight_units,
        eqn,
        weight,
        bias,
        data,
        chain,
        activated,
    )


def _with_bias(
    jaxpr: core.Jaxpr,
    output: Var,
    origin: Mapping[Var, Origin],
    uses: Mapping[Any, list[int]],
) -> tuple[Var, Any]:
    """Follows a product to the sum with its bias, if it is read by nothing else."""
    at = output
    while len(readers := uses.get(at, [])) == 1 and readers[0] >= 0:
        eqn = jaxpr.eqns[readers[0]]
        result: Var = eqn.outvars[0]
        if eqn.primitive.name == "add":
            other = next((a for a in eqn.invars if a is not at), at)
            if isinstance(other, core.Literal) or not origin[other]:
                break
            if result.aval.shape != output.aval.shape:
                break
            return result, other
        same = result.aval.shape == output.aval.shape
        if eqn.primitive.name not in {"convert_element_type", "copy"} or not same:
            break
        at = result
    return output, None


def _read(env: Mapping[Any, Any], atom: Any) -> Any:
    return atom.val if isinstance(atom, core.Literal) else env[atom]


def evaluate(
    plan: Plan, args: Sequence[Any], shifts: Mapping[int, Values]
) -> tuple[list[Any], dict[int, Values]]:
    """Runs a planned jaxpr and keeps what flows through its sites.

    Args:
      plan: the plan.
      args: the arguments of the jaxpr.
      shifts: for each site to keep, what is added to its ``output`` and ``weight``:
        zeros, in whose place a derivative stands. Within loops they have a leading axis
        for each.

    Returns:
      The results, and for each site ``output``, ``weight``, ``bias`` and ``input``, as
      far as it has them; ``input`` only where it is not known to be just another
      layer's activation. For each attention what `Attention.measure` returns. Within
      loops they have a leading axis for each.
    """
    jaxpr = plan.closed.jaxpr
    env: dict[Any, Any] = dict(zip(jaxpr.constvars, plan.closed.consts, strict=True))
    env |= dict(zip(jaxpr.invars, args, strict=True))
    sites: dict[Any, list[Site]] = {}
    for site in plan.sites:
        if site.number in shifts:
            sites.setdefault(site.output, []).append(site)
    products = {site.eqn: site for site in plan.sites if site.eqn is not None}
    found: dict[int, Values] = {}
    for index, eqn in enumerate(jaxpr.eqns):
        values = [_read(env, atom) for atom in eqn.invars]
        if body := plan.inner.get(index):
            results, inside = _enter(eqn, body, values, shifts)
            found |= inside
        else:
            if product := products.get(eqn):
                side = list(eqn.invars).index(product.weight)
                values[side] += shifts[product.number]["weight"]
            results = bind(eqn, values)
        env |= dict(zip(eqn.outvars, results, strict=True))
        for var in eqn.outvars:
            for site in sites.get(var, []):
                env[var] = env[var] + shifts[site.number]["output"]
                found[site.number] = {
                    name: _read(env, at) for name, at in site.parts.items()
                }
    found |= {each.number: each.measure(env) for each in plan.attentions}
    return [_read(env, atom) for atom in jaxpr.outvars], found


def _enter(
    eqn: core.JaxprEqn,
    body: Plan,
    values: list[Any],
    shifts: Mapping[int, Values],
) -> tuple[list[Any], dict[int, Values]]:
    """Evaluates a loop or a rematerialised function."""
    inside = {site.number for site, _ in body.all_sites()}
    mine = {number: values for number, values in shifts.items() if number in inside}
    if eqn.primitive.name != "scan":
        policy, cse = eqn.params["policy"], eqn.params["prevent_cse"]
        run = functools.partial(evaluate, body)
        again = jax.checkpoint(run, policy=policy, prevent_cse=cse)
        results, found = again(values, mine)
        return results, found
    count, carried = eqn.params["num_consts"], eqn.params["num_carry"]
    consts, carry = values[:count], values[count : count + carried]

    def step(carry: list[Any], xs: tuple[list[Any], dict[int, Values]]) -> Any:
        each, shifts = xs
        results, found = evaluate(body, [*consts, *carry, *each], shifts)
        return results[:carried], (results[carried:], found)

    last, (stacked, found) = jax.lax.scan(
        step,
        carry,
        (values[count + carried :], mine),
        length=eqn.params["length"],
        reverse=eqn.params["reverse"],
        unroll=eqn.params["unroll"],
    )
    return [*last, *stacked], found
