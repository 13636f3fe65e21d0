"""Groups sites that one loop can measure."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._structure.activation import Var, name_activation, spell_activation
from jaxinit.signal._trace.site import Placed, Product, Site, Values

_BLOCK = 2**21  # bytes of rows that NumPy takes at once


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

    def take_rows(
        self, source: Mapping[int, Values], parts: Iterable[str]
    ) -> list[Values]:
        """Takes parts of each member, with one axis for the steps of its loops."""
        shapes = {part: self.first.parts[part].aval.shape for part in parts}
        return [
            {p: source[s.number][p].reshape(-1, *shape) for p, shape in shapes.items()}
            for s, _ in self.members
        ]


def group_sites(sites: list[Placed]) -> list[Group]:
    """Groups the sites whose statistics one loop can compute."""
    groups: dict[Any, list[Placed]] = {}
    for site, steps in sites:
        form = [(name, str(var.aval)) for name, var in list_stacked(site).items()]
        more: list[Any] = []
        if isinstance(site, Product):
            more.append(site.weight_unit_axes)
            if site.activated is not None:
                chain = site.chain, site.output, site.activated
                more.append(spell_activation(*chain))
        kind = (tuple(form), site.unit_axes, *more)
        groups.setdefault(kind, []).append((site, steps))
    return [Group(members) for members in groups.values()]


def list_stacked(site: Site) -> dict[str, Var]:
    """Returns the variables of a site that are stacked with those of others."""
    return {name: var for name, var in site.parts.items() if name != "input"}


def list_shifted(site: Site) -> dict[str, Var]:
    """Returns the variables of a site whose gradients are measured."""
    return {n: var for n, var in site.parts.items() if n in ("output", "weight")}


def map_rows(function: Callable[[Any], Any], rows: Sequence[Any]) -> Any:
    """Applies a function, in a program, to each row of some trees of arrays.

    This is one loop, so that the program grows with the kinds of layers, not with their
    number.
    """
    joined = jax.tree.map(lambda *parts: jnp.concatenate(parts), *rows)
    return jax.lax.map(function, joined)


def map_blocks(function: Callable[[Any], Any], rows: Sequence[Any], xp: Any) -> Any:
    """Applies a function of arrays with an axis of rows to those of some trees.

    A program takes them one by one. NumPy takes many: a call takes longer than the work
    on a small array.
    """
    if xp is jnp:

        def apply(row: Any) -> Any:
            result = function(jax.tree.map(lambda a: a[None], row))
            return jax.tree.map(lambda a: a[0], result)

        return map_rows(apply, rows)
    tree = jax.tree.structure(rows[0])
    columns = [
        [a[i : i + 1] for a in arrays for i in range(len(a))]
        for arrays in zip(*map(jax.tree.leaves, rows), strict=True)
    ]
    step = max(1, _BLOCK // max(sum(column[0].nbytes for column in columns), 1))
    results = [
        function(
            jax.tree.unflatten(tree, [_join(c[start : start + step]) for c in columns])
        )
        for start in range(0, len(columns[0]), step)
    ]
    return jax.tree.map(lambda *parts: _join(parts), *results)


def _join(parts: Sequence[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
