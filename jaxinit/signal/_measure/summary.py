"""Sums up what flowed through a model in statistics: in NumPy, or in a program."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxinit.signal._measure._groups import (
    Group,
    list_shifted,
    list_stacked,
    map_blocks,
)
from jaxinit.signal._measure.chance import compare_to_chance
from jaxinit.signal._measure.flow import Flow
from jaxinit.signal._measure.program import Program
from jaxinit.signal._measure.statistics import (
    Activated,
    Array,
    Both,
    compute_fields,
    measure_inputs,
    measure_layers,
)
from jaxinit.signal._trace.site import Values


class OfModel(NamedTuple):
    """The statistics of a model; over many seeds, they have a leading axis for these.

    Attributes:
      loss: the number whose gradients were measured.
      groups: for each group, the statistics of its sites. # [sites * steps, ...]
      apart: by site, fields of `Forward` that not all sites of a group have.
      ends: by site, root mean squares by position at the ends of chains.
      gains: by leaf, the largest entry of a gain and of its gradient.
    """

    loss: Array
    groups: list[Both]
    apart: dict[int, dict[str, Array]]
    ends: dict[int, dict[str, Array]]
    gains: dict[int, Array]


def sum_up(program: Program, flow: Flow, xp: Any = jnp) -> OfModel:
    """Computes the statistics of one seed.

    Args:
      program: the model.
      flow: what flowed through it.
      xp: `jax.numpy`, or `numpy` for arrays of NumPy: then nothing is compiled.
    """
    apart = _measure_inputs(program, flow, xp)
    for attention, layers in program.attended:
        for layer in layers:
            _widen(apart.setdefault(layer, {}), flow.values[attention.number], xp)
    if program.readout:
        against = compare_to_chance(flow.logits, xp)
        apart.setdefault(program.readout.site, {}).update(against)
    return OfModel(
        loss=flow.loss,
        groups=[
            _measure_group(group, flow, activated, xp)
            for group, activated in zip(program.groups, flow.activated, strict=True)
        ],
        apart=apart,
        ends=compute_fields(program.sites, flow.values, flow.gradients, xp),
        gains=flow.gains,
    )


def _measure_group(
    group: Group, flow: Flow, activated: Activated | None, xp: Any
) -> Both:
    """Computes the statistics of a group, with an axis for its members."""
    first = group.first
    values = group.take_rows(flow.values, list_stacked(first))
    gradients = group.take_rows(flow.gradients, list_shifted(first))
    rows = list(zip(values, gradients, strict=True))

    def measure(rows: tuple[Values, Values]) -> Both:
        values, gradients = rows
        return measure_layers(first, values, gradients, xp)

    both: Both = map_blocks(measure, rows, xp)
    if activated is None:
        return both
    dtype = both.forward.sample.dtype
    forward = both.forward._replace(
        activation_zeros=activated.zeros.astype(dtype),
        dead=activated.dead.astype(dtype),
        saturated=activated.saturated.astype(dtype),
    )
    return both._replace(forward=forward)


def _measure_inputs(
    program: Program, flow: Flow, xp: Any
) -> dict[int, dict[str, Array]]:
    """Computes the statistics of the inputs of layers that follow no other layer."""
    return {
        site.number: map_blocks(
            lambda x: measure_inputs(x, xp),
            [flow.values[site.number]["input"].reshape(-1, *var.aval.shape)],
            xp,
        )
        for site, _ in program.sites
        if (var := site.parts.get("input")) and "input" in flow.values[site.number]
    }


def _widen(kept: Values, more: Values, xp: Any) -> None:
    """Merges statistics; if several attentions read a layer, the larger ones stay."""
    for name, value in more.items():
        if name in kept and kept[name].shape != value.shape:
            kept[name], value = kept[name].max(), value.max()
        kept[name] = xp.maximum(kept[name], value) if name in kept else value
