"""Groups of sites that are measured alike, and their statistics."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxinit.signal._activation import Var, form_of, name_of
from jaxinit.signal._measure.statistics import is_float, of_input, of_layer, rms
from jaxinit.signal._site import Placed, Site, Values


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
    """Sites whose values have equal forms and activations.

    Attributes:
      members: the sites.
      measure: `of_layer` of the first one, which is that of all; traced once.
      names: of the statistics, sorted.
    """

    members: list[Placed]
    measure: Callable[..., tuple[dict[str, jax.Array], jax.Array]]
    names: list[str]

    @functools.cached_property
    def activation(self) -> str | None:
        """The name of the members' activation."""
        site = self.members[0][0]
        return name_of(site.activation, site.output)


def grouped(sites: list[Placed]) -> list[Group]:
    """Puts sites together that one loop can compute the statistics of."""
    groups: dict[Any, list[Placed]] = {}
    for site, steps in sites:
        form = [(name, str(var.aval)) for name, var in _stacked(site).items()]
        function = form_of(site.activation, site.output)
        kind = (tuple(form), function, site.unit_axes, site.weight_unit_axes)
        groups.setdefault(kind, []).append((site, steps))
    found = []
    for members in groups.values():
        site = members[0][0]
        parts = {name: var.aval for name, var in _stacked(site).items()}
        parts |= {f"gradient_{name}": parts[name] for name in _shifted(site)}
        measure = jax.jit(functools.partial(of_layer, site), inline=True)
        names = sorted(jax.eval_shape(measure, parts)[0])
        found.append(Group(members, measure, names))
    return found


def _stacked(site: Site) -> dict[str, Var]:
    """Returns the variables of a site that are stacked with those of others."""
    return {name: var for name, var in site.parts.items() if name != "input"}


def _shifted(site: Site) -> dict[str, Var]:
    """Returns the variables of a site whose gradients are measured."""
    return {n: var for n, var in site.parts.items() if n in ("output", "weight")}


def statistics_of(
    groups: list[Group],
    values: Mapping[int, Values],
    gradients: Mapping[int, Values],
    apart: Mapping[int, Values],
) -> list[dict[str, jax.Array]]:
    """Computes statistics, those of a group in one loop.

    What is compiled should grow with the kinds of layers and not with their number; so
    numbers leave the loop as one array, "numbers" # [sites * steps, names]. What some
    layers alone have stands apart, by the number of the site.
    """
    found = []
    for group in groups:
        first = group.members[0][0]

        def column(
            part: str, source: Mapping[int, Values], group: Group = group
        ) -> jax.Array:
            shape = _stacked(group.members[0][0])[part].aval.shape
            # Merges the axes of loops into one; without loops makes it.
            each = [
                source[s.number][part].reshape(-1, *shape) for s, _ in group.members
            ]
            return jnp.concatenate(each)

        columns = {part: column(part, values) for part in _stacked(first)}
        columns |= {f"gradient_{p}": column(p, gradients) for p in _shifted(first)}

        def packed(parts: dict[str, jax.Array], group: Group = group) -> Any:
            first = group.members[0][0]
            numbers, sample = group.measure(parts)
            row = [numbers[name].astype(sample.dtype) for name in group.names]
            kept = {"numbers": jnp.stack(row), "sample": sample}
            if first.kind == "conv":
                axes = first.eqn.params["dimension_numbers"].rhs_spec[:2]
                kept["weight"] = rms(parts["weight"], axes)
            return kept

        inputs = {
            f"{name} {site.number}": column
            for site, _ in group.members
            if (var := site.parts.get("input")) and is_float(var.aval.dtype)
            for name, column in jax.lax.map(
                of_input, values[site.number]["input"].reshape(-1, *var.aval.shape)
            ).items()
        }
        own = {
            f"{name} {site.number}": value
            for site, _ in group.members
            for name, value in apart.get(site.number, {}).items()
        }
        found.append({**jax.lax.map(packed, columns), **inputs, **own})
    return found


def zeros_at(sites: list[Placed]) -> dict[int, Values]:
    """Makes the zeros in whose place derivatives stand."""
    return {
        site.number: {
            part: jnp.zeros((*steps, *var.aval.shape), var.aval.dtype)
            for part, var in _shifted(site).items()
        }
        for site, steps in sites
    }
