"""Watches the layers of a model within a program of the caller's, such as a step."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from jaxinit import _paths
from jaxinit._jaxpr.equation import is_constant
from jaxinit._structure.result import Structure, TracedParameter
from jaxinit._structure.structure import read_structure
from jaxinit.signal._measure.program import find_layers
from jaxinit.signal._trace.attention import find_layers_before
from jaxinit.signal._trace.evaluate import evaluate_plan
from jaxinit.signal._trace.find import Plan
from jaxinit.signal._trace.site import Product, Site

Values = Mapping[int, Mapping[str, jax.Array]]  # by the number of a place
# From the product of a residual branch to the stream that it is added to.
_ON_THE_WAY = {"mul", "div", "neg", "convert_element_type", "reshape", "transpose"}
_ON_THE_WAY |= {"copy", "select_n", "name", "sharding_constraint"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """What is watched.

    Attributes:
      number: by which its values are found.
      path: of the layer. Of the logits of attention, what the paths of its queries and
        keys have in common.
      kind: "dense" or "conv" for a layer, "stream" for the sum that a residual branch
        is added to, or "attention" for the logits of one.
      leaves: paths of the parameters that its weight is made of; of a stream, those of
        the last layer in the branch; of an attention, those of its queries and keys.
    """

    number: int
    path: str
    kind: str
    leaves: tuple[str, ...]


class Watch:
    """A traced model, whose places can be watched while it runs.

    Attributes:
      places: the layers in the order of execution, then the attentions and the residual
        streams.
      structure: what each parameter does; None where it cannot be read.
      outputs: the types of the arrays that the model returns.
    """

    places: tuple[Place, ...]
    structure: Structure | None
    outputs: list[jax.ShapeDtypeStruct]

    def __init__(self, model: Callable[..., Any], params: Any, *rest: Any):
        """Traces ``output = model(params, stored, key, *inputs)``, given types."""
        traced, shapes = jax.make_jaxpr(model, return_shape=True)(params, *rest)
        self._tree = jax.tree.structure(shapes)
        self.outputs = jax.tree.leaves(shapes)
        try:
            self.structure = read_structure(params, rest[0], traced)
        except Exception:  # what cannot be read is watched without its role
            self.structure = None
        paths = [path for path, _ in _paths.named(params)]
        rows: Mapping[str, TracedParameter] = self.structure or {}
        tables = [i for i, x in enumerate(rows.values()) if x.roles == ("table",)]
        plan, sites = find_layers(traced, params, tables)
        layers = [(x, steps) for x, steps in sites if isinstance(x, Product)]
        self._layers = layers
        ends = {
            site.number: site
            for site, _ in layers
            if any("residual" in rows[paths[i]].roles for i in site.leaves if rows)
        }
        numbers = itertools.count(max(plan.all_numbers(), default=0) + 1)
        self._plan = _add_streams(plan, ends, numbers)
        self.places = (
            *(_make_place(site, paths) for site, _ in layers),
            *_list_attended(plan, len(traced.in_avals), layers, paths),
            *_list_streams(self._plan, paths),
        )

    def make_before(self) -> dict[int, jax.Array]:
        """Makes zeros for the weights, where none were seen before."""
        return {
            site.number: jnp.zeros((*steps, *w.shape), w.dtype)
            for site, steps in self._layers
            if (w := site.weight.aval)
        }

    def run(self, before: Mapping[int, jax.Array], *args: Any) -> tuple[Any, Values]:
        """Runs the model.

        Args:
          before: weights of the layers at another moment, those that `run` returned.
          *args: the arguments of the model.

        Returns:
          The output; and of each place the ``output``. A layer also has its ``input``
          and ``weight``, their ``product``, and ``moved``: the product of the input
          with what the weight has changed since. Values have a leading axis for each
          loop around the place.
        """
        shifts: dict[int, dict[str, jax.Array]] = {x.number: {} for x in self.places}
        shifts |= {number: {"before": weight} for number, weight in before.items()}
        results, kept = evaluate_plan(self._plan, jax.tree.leaves(args), shifts)
        values = {
            place.number: {n: v for n, v in kept[place.number].items() if n != "bias"}
            for place in self.places
        }
        return jax.tree.unflatten(self._tree, results), values


def _make_place(site: "Product | _Stream", paths: Sequence[str]) -> Place:
    leaves = tuple(paths[i] for i in sorted(site.leaves))
    return Place(number=site.number, path=site.path, kind=site.kind, leaves=leaves)


def _list_attended(
    plan: Plan,
    arguments: int,
    placed: Sequence[tuple[Product, tuple[int, ...]]],
    paths: Sequence[str],
) -> list[Place]:
    """Lists the attentions, each named after the layers of its queries and keys."""
    layers = {site.number: site for site, _ in placed}
    attended = []
    for each, numbers in find_layers_before(plan, [frozenset()] * arguments):
        if not each.size:  # a gate
            continue
        near = [layers[number] for number in sorted(numbers) if number in layers]
        shared = _find_shared([site.path for site in near])
        leaves = {i for site in near for i in site.leaves}
        attended.append(
            Place(
                number=each.number,
                path=f"{shared}/q·k" if shared else "q·k",
                kind="attention",
                leaves=tuple(paths[i] for i in sorted(leaves)),
            )
        )
    return attended


def _find_shared(paths: Sequence[str]) -> str:
    """Finds the parts with which all paths begin."""
    shared = []
    for parts in zip(*(path.split("/") for path in paths), strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return "/".join(shared)


def _add_streams(plan: Plan, ends: Mapping[int, Product], numbers: Any) -> Plan:
    """Adds a site for each sum of a stream with a residual branch.

    Args:
      plan: the plan.
      ends: the last layers of branches, with their names, by number.
      numbers: yields the numbers of new sites.
    """
    streams = []
    mine = [ends[site.number] for site in plan.sites if site.number in ends]
    for end in mine:
        if (stream := _find_stream(plan.closed.jaxpr, end.output)) is not None:
            streams.append(
                _Stream(
                    number=next(numbers),
                    loop=end.loop,
                    path=f"{end.path} + stream",
                    output=stream,
                    kind="stream",
                    leaves=end.leaves,
                )
            )
    inner = {eqn: _add_streams(each, ends, numbers) for eqn, each in plan.inner.items()}
    return dataclasses.replace(plan, sites=(*plan.sites, *streams), inner=inner)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class _Stream(Site):
    leaves: frozenset[int]


def _find_stream(jaxpr: core.Jaxpr, output: Any) -> Any:
    """Follows the output of a branch to the sum of two arrays of its size, or None."""
    behind, size = {output}, _count(output)
    for eqn in jaxpr.eqns:
        inside = [v for v in eqn.invars if not is_constant(v) and v in behind]
        if not inside:
            continue
        others = [v for v in eqn.invars if _count(v) == size]
        if eqn.primitive.name in ("add", "add_any") and len(others) == 2:
            return eqn.outvars[0]
        if eqn.primitive.name in _ON_THE_WAY:
            behind.update(v for v in eqn.outvars if _count(v) == size)
    return None


def _count(var: Any) -> int:
    return math.prod(getattr(var.aval, "shape", ()))


def _list_streams(plan: Plan, paths: Sequence[str]) -> Iterator[Place]:
    """Yields the streams, in loops too."""
    for site, _ in plan.all_sites():
        if isinstance(site, _Stream):
            yield _make_place(site, paths)
