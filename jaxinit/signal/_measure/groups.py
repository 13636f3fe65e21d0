"""Groups sites that one loop can measure, and computes their statistics."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxinit.signal._measure.statistics import (
    Both,
    is_float,
    measure_input,
    measure_layer,
)
from jaxinit.signal._trace.activation import Var, name_activation, spell_activation
from jaxinit.signal._trace.site import Placed, Product, Site, Values


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
    """Sites whose values have equal shapes, dtypes and activations.

    Attributes:
      members: the sites, with the lengths of the loops around them.
    """

    members: list[Placed]

    @property
    def first(self) -> Site:
        """The site that stands for all."""
        return self.members[0][0]

    @functools.cached_property
    def activation(self) -> str | None:
        """The name of the members' activation."""
        return name_activation(self.first.activation, self.first.output)


def group_sites(sites: list[Placed]) -> list[Group]:
    """Groups the sites whose statistics one loop can compute."""
    groups: dict[Any, list[Placed]] = {}
    for site, steps in sites:
        form = [(name, str(var.aval)) for name, var in _list_stacked(site).items()]
        function = spell_activation(site.activation, site.output)
        weight_axes = site.weight_unit_axes if isinstance(site, Product) else ()
        kind = (tuple(form), function, site.unit_axes, weight_axes)
        groups.setdefault(kind, []).append((site, steps))
    return [Group(members) for members in groups.values()]


def _list_stacked(site: Site) -> dict[str, Var]:
    """Returns the variables of a site that are stacked with those of others."""
    return {name: var for name, var in site.parts.items() if name != "input"}


def _list_shifted(site: Site) -> dict[str, Var]:
    """Returns the variables of a site whose gradients are measured."""
    return {n: var for n, var in site.parts.items() if n in ("output", "weight")}


def compute_statistics(
    group: Group, values: Mapping[int, Values], gradients: Mapping[int, Values]
) -> Both:
    """Computes the statistics of a group in one loop, with an axis for its members.

    So the compiled program grows with the kinds of layers, not with their number.
    """
    first = group.first

    def column(part: str, source: Mapping[int, Values]) -> jax.Array:
        shape = _list_stacked(first)[part].aval.shape
        # Merges the axes of loops into one, or adds that one if there are none.
        each = [source[s.number][part].reshape(-1, *shape) for s, _ in group.members]
        return jnp.concatenate(each)

    forward = {part: column(part, values) for part in _list_stacked(first)}
    backward = {part: column(part, gradients) for part in _list_shifted(first)}
    stacked: Both = jax.lax.map(lambda x: measure_layer(first, *x), (forward, backward))
    return stacked


def measure_inputs(
    sites: list[Placed], values: Mapping[int, Values]
) -> dict[int, dict[str, jax.Array]]:
    """Computes the statistics of the inputs of layers that follow no other layer."""
    return {
        site.number: jax.lax.map(
            measure_input, values[site.number]["input"].reshape(-1, *var.aval.shape)
        )
        for site, _ in sites
        if (var := site.parts.get("input")) and is_float(var.aval.dtype)
    }


def make_zeros(sites: list[Placed]) -> dict[int, Values]:
    """Makes zeros to be added at each site.

    The gradient with respect to them is the gradient at the site.
    """
    return {
        site.number: {
            part: jnp.zeros((*steps, *var.aval.shape), var.aval.dtype)
            for part, var in _list_shifted(site).items()
        }
        for site, steps in sites
    }
