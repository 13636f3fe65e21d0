"""Prepares a model: its layers, and the program that runs it forwards and backwards."""

import dataclasses
from collections.abc import Callable, Hashable, Mapping
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
from jaxinit.random.backends import of_bits
from jaxinit.signal._measure._groups import Group, group_sites
from jaxinit.signal._measure._names import name_layers
from jaxinit.signal._measure.chance import Readout, find_readout
from jaxinit.signal._measure.statistics import is_float
from jaxinit.signal._trace.attention import Attention, find_layers_before
from jaxinit.signal._trace.find import Plan, plan
from jaxinit.signal._trace.site import Placed

Loss = Callable[[list[Any]], jax.Array]  # of the arrays that a model returns


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """A traced model, and what is measured in it.

    Attributes:
      key: a key, for its type.
      init: computes the leaves of the parameters and of what else the model stores.
      stored: their shapes.
      plan: the traced model; its arguments are the leaves of parameters, of whatever
        else the model stores, of a key for noise, and of the inputs.
      outputs: shapes of its results.
      loss: a function of its results; None for their product with random numbers.
      sites: the sites in the order of execution.
      groups: the sites again, those of equal form together.
      readout: the outputs that may be logits.
      attended: each attention with the layers that its queries and keys come from.
      spelling: equal for equal models and losses, whose layers have equal names: what
        is derived from one serves the other.
    """

    key: jax.Array
    init: core.ClosedJaxpr
    stored: tuple[Any, Any]
    plan: Plan
    outputs: list[jax.ShapeDtypeStruct]
    loss: Loss | None
    sites: list[Placed]
    groups: list[Group]
    readout: Readout | None
    attended: list[tuple[Attention, frozenset[int]]]
    spelling: Hashable

    @property
    def paths(self) -> list[str]:
        """The paths of the parameters, in the order of their leaves."""
        return [path for path, _ in _paths.named(self.stored[0])]

    @property
    def query_sizes(self) -> Mapping[int, int]:
        """The number of entries of a query in the attention behind a layer's site."""
        return {layer: each.size for each, layers in self.attended for layer in layers}


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
    planned, sites = find_layers(traced, params)
    outputs = jax.tree.leaves(output_shape)
    if loss is None and not any(is_float(x.dtype) for x in outputs):
        rule = "must return an array of real or complex numbers, or give a loss."
        raise check.Unfit(rule, model="a model")
    if not any(site.kind != "module" for site, _ in sites):
        raise check.Unfit(
            "has no layer: no matrix product or convolution of its input with a weight "
            "(those inside while loops, cond and functions with derivatives of their "
            "own are not seen).",
            model="a model",
        )
    structure = jax.tree.structure(output_shape)
    of_arrays = loss and (
        lambda parts: _check_scalar(loss(jax.tree.unflatten(structure, parts)))
    )
    traced_loss = of_arrays and jax.make_jaxpr(of_arrays)(outputs)
    programs = [traced, traced_loss] if traced_loss else [traced]
    spelled = (spell_program(each, derivatives=True) for each in programs)
    return Program(
        key=key,
        init=drawn,
        stored=stored,
        plan=planned,
        outputs=outputs,
        loss=of_arrays,
        sites=sites,
        groups=group_sites(sites),
        readout=find_readout(planned, sites, outputs, traced_loss),
        attended=list(
            find_layers_before(planned, [frozenset()] * len(traced.in_avals))
        ),
        spelling=(*spelled, *_list_paths(params)),
    )


def find_layers(traced: core.ClosedJaxpr, params: Any) -> tuple[Plan, list[Placed]]:
    """Finds the layers of a traced model, whose first arguments are its parameters."""
    paths = _list_paths(params)
    others = len(traced.in_avals) - len(paths)
    origins = [frozenset({i}) for i in range(len(paths))]
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
