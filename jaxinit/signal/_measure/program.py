"""Prepares a model: its layers, and the program that runs it forwards and backwards."""

import dataclasses
import functools
from collections.abc import Callable, Container, Hashable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxinit import _check as check
from jaxinit import _paths
from jaxinit._adapt.functions import Model
from jaxinit._jaxpr.spelling import spell_program
from jaxinit._placement import platform_of
from jaxinit._structure.result import Structure
from jaxinit._structure.structure import read_structure
from jaxinit.random.backends import of_bits
from jaxinit.signal._measure._groups import Group, group_sites
from jaxinit.signal._measure._kept import keep, read_settings
from jaxinit.signal._measure._names import name_layers
from jaxinit.signal._measure.chance import Readout, find_readout
from jaxinit.signal._measure.statistics import is_float
from jaxinit.signal._trace.attention import Attention, find_layers_before
from jaxinit.signal._trace.find import Plan, plan
from jaxinit.signal._trace.site import Placed, Product, Site

_BY_HAND = "a sum of products entry by entry"

Loss = Callable[[list[Any]], jax.Array]  # of the arrays that a model returns


@dataclasses.dataclass(frozen=True, eq=False)
class Layers:
    """The layers of a traced model, which serve all models of equal spelling.

    Attributes:
      plan: the traced model; its arguments are the leaves of parameters, of whatever
        else the model stores, of a key for noise, and of the inputs.
      sites: the sites in the order of execution.
      groups: the sites again, those of equal form together.
      attended: each attention with the layers that its queries and keys come from.
      hidden: what layers that are no sites are inside of, by the paths of weights.
      read_structure: returns what each parameter does, and reads it when first asked;
        None where it cannot be read.
    """

    plan: Plan
    sites: list[Placed]
    groups: list[Group]
    attended: list[tuple[Attention, frozenset[int]]]
    hidden: Mapping[str, str]
    read_structure: Callable[[], Structure | None]

    @property
    def query_sizes(self) -> Mapping[int, int]:
        """The number of entries of a query in the attention behind a layer's site."""
        return {layer: each.size for each, layers in self.attended for layer in layers}

    @property
    def unseen(self) -> Mapping[str, str]:
        """What layers that are no sites are inside of, by the paths of weights.

        The structure knows of products in other spellings than those of sites.
        """
        known = [x.leaves for x, _ in self.sites if isinstance(x, Product)]
        known += [hidden.leaves for hidden in self.plan.hidden]
        leaves = frozenset[int]().union(*known)
        structure = self.read_structure()
        others = {
            row.path: _BY_HAND
            for leaf, row in enumerate(structure.rows if structure else ())
            if row.is_kernel and row.role != "embedding" and leaf not in leaves
        }
        return {**self.hidden, **others}

    def find_role(self, site: Site) -> str:
        """Returns what the weight of a layer does; "" for a module."""
        structure = self.read_structure()
        if not isinstance(site, Product) or structure is None:
            return ""
        return structure.rows[site.leaf].role


@dataclasses.dataclass(frozen=True, eq=False)
class Program(Layers):
    """A traced model, and what is measured in it.

    Attributes:
      key: a key, for its type.
      init: computes the leaves of the parameters and of what else the model stores.
      stored: their shapes.
      outputs: shapes of the results.
      loss: a function of the results; None for their product with random numbers.
      readout: the outputs that may be logits.
      spelling: equal for equal models and losses, whose layers have equal names: what
        is derived from one serves the other.
    """

    key: jax.Array
    init: core.ClosedJaxpr
    stored: tuple[Any, Any]
    outputs: list[jax.ShapeDtypeStruct]
    loss: Loss | None
    readout: Readout | None
    spelling: Hashable

    @property
    def paths(self) -> list[str]:
        """The paths of the parameters, in the order of their leaves."""
        return [path for path, _ in _paths.named(self.stored[0])]


def prepare(
    model: Model,
    inputs: tuple[Any, ...],
    key: jax.Array,
    loss: Callable[[Any], jax.Array] | None = None,
) -> Program:
    """Traces a model and finds its layers."""
    with of_bits(platform_of() == "cpu"):  # as `jit_init` traces
        drawn, stored = jax.make_jaxpr(model.init, return_shape=True)(key)
    params, rest = stored
    traced, output_shape = jax.make_jaxpr(model.apply, return_shape=True)(
        params, rest, key, *inputs
    )
    outputs = jax.tree.leaves(output_shape)
    if loss is None and not any(is_float(x.dtype) for x in outputs):
        rule = "must return an array of real or complex numbers, or give a loss."
        raise check.Unfit(rule, model="a model")
    named = spell_program(traced, derivatives=True), *_list_paths(params)
    layers = keep(
        ("layers", named, read_settings()), lambda: _read_layers(traced, stored)
    )
    structure = jax.tree.structure(output_shape)
    of_arrays = loss and (
        lambda parts: _check_scalar(loss(jax.tree.unflatten(structure, parts)))
    )
    traced_loss = of_arrays and jax.make_jaxpr(of_arrays)(outputs)
    of_loss = traced_loss and spell_program(traced_loss, derivatives=True)
    return Program(
        **vars(layers),
        key=key,
        init=drawn,
        stored=stored,
        outputs=outputs,
        loss=of_arrays,
        readout=find_readout(layers.plan, layers.sites, outputs, traced_loss),
        spelling=(named, of_loss),
    )


def _read_layers(traced: core.ClosedJaxpr, stored: tuple[Any, Any]) -> Layers:
    """Finds the layers of a model, and those of equal form among them."""
    planned, sites = find_layers(traced, stored[0])
    paths = _list_paths(stored[0])
    hidden = {paths[min(leaves)]: inside for leaves, inside in planned.hidden}
    if not any(site.kind != "module" for site, _ in sites):
        rule = "has no layer: no matrix product or convolution of its input with a "
        rule += "weight that can be measured"
        seen = (f"{path} is inside {inside}" for path, inside in hidden.items())
        raise check.Unfit("; ".join([rule, *seen]) + ".", model="a model")

    @functools.cache
    def structure() -> Structure | None:
        try:
            return read_structure(*stored, traced)
        except Exception:  # a check tells nothing of it, and need not fail with it
            return None

    return Layers(
        plan=planned,
        sites=sites,
        groups=group_sites(sites),
        attended=list(
            find_layers_before(planned, [frozenset()] * len(traced.in_avals))
        ),
        hidden=hidden,
        read_structure=structure,
    )


def find_layers(
    traced: core.ClosedJaxpr, params: Any, data: Container[int] = ()
) -> tuple[Plan, list[Placed]]:
    """Finds the layers of a traced model, whose first arguments are its parameters.

    Args:
      traced: the model.
      params: its parameters.
      data: numbers of those that count as data, as learned queries do.
    """
    paths = _list_paths(params)
    others = len(traced.in_avals) - len(paths)
    origins = [None if i in data else frozenset({i}) for i in range(len(paths))]
    planned = plan(traced, [*origins, *[None] * others])
    return planned, name_layers(planned, paths)


def _list_paths(params: Any) -> list[str]:
    return [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree.leaves_with_path(params)
    ]


def _check_scalar(number: Any) -> jax.Array:
    rule = "loss must return one real number, such as jnp.mean(...)."
    try:
        scalar = jnp.asarray(number)
    except (TypeError, ValueError):
        raise check.Unfit(rule, TypeError, loss=number) from None
    if scalar.shape or not jnp.issubdtype(scalar.dtype, np.floating):
        raise check.Unfit(rule, loss=number)
    return scalar
