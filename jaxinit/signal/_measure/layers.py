"""Takes statistics over many seeds apart: the measurements of each layer and step."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxinit.signal._measure.program import Program
from jaxinit.signal._measure.statistics import Backward, Both, Forward
from jaxinit.signal._measure.summary import OfModel
from jaxinit.signal._trace.site import Product, Site

Statistics = dict[str, np.ndarray]  # each [seeds], or [seeds, entries]


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """The measurements of one layer, or of one step of a layer in a loop.

    Attributes:
      site: the place in the program.
      path: the path of the module, or of the weight.
      step: the indices of the step in the loops around the site.
      shape: the shape of the output, for one seed.
      activation: the name of the activation behind the output, or None.
      forward: statistics as in `Layer`.
      backward: statistics of gradients as in `Layer`.
      fields: root mean squares at convolutions: of the ``weight`` by tap and, by
        position, of the ``input`` of the first one in a chain and of the ``gradient``
        of the last one.
      classes: the number of classes, if the outputs are known to be logits.
      query_size: the number of entries of a query, if an attention follows.
      weight: the path of the weight; "" for a module.
      bias: the path of the bias, if it has one that is a parameter, or "".
    """

    site: Site
    path: str
    step: tuple[int, ...]
    shape: tuple[int, ...]
    activation: str | None
    forward: Statistics
    backward: Statistics
    fields: Statistics
    classes: int | None = None
    query_size: int | None = None
    weight: str = ""
    bias: str = ""

    @property
    def name(self) -> str:
        """The path, with the step of a loop, as in "blocks/dense[3]"."""
        return self.path + (f"[{', '.join(map(str, self.step))}]" if self.step else "")


def layers_of(program: Program, statistics: OfModel) -> tuple[Measured, ...]:
    """Makes the measurements of each site and step, in the order of execution."""
    by_site: dict[int, list[Measured]] = {}
    read = program.readout
    classes = {read.site: read.classes} if read and read.known else {}
    paths = program.paths
    leaves: dict[str, list[Any]] = {}
    stored = jax.tree.leaves(program.stored[0])
    for path, leaf in zip(paths, stored, strict=True):
        leaves.setdefault(_find_parent(path), []).append((path, leaf.shape))
    for group, stacked in zip(program.groups, statistics.groups, strict=True):
        rows = itertools.count()
        for site, steps in group.members:
            apart = statistics.apart.get(site.number, {})
            ends = statistics.ends.get(site.number, {})
            weight = paths[site.leaf] if isinstance(site, Product) else ""
            by_site[site.number] = []
            for number, step in enumerate(np.ndindex(*steps)):
                row = next(rows)
                of: Both = jax.tree.map(lambda a, row=row: a[:, row], stacked)
                more = {name: _take_step(a, number) for name, a in apart.items()}
                layer = Measured(
                    site=site,
                    path=site.path,
                    step=step,
                    shape=site.output.aval.shape,
                    activation=group.activation,
                    forward=_drop_absent(of.forward._replace(**more)),
                    backward=_drop_absent(of.backward),
                    fields=ends if of.taps is None else ends | {"weight": of.taps},
                    classes=classes.get(site.number),
                    query_size=program.query_sizes.get(site.number),
                    weight=weight,
                    bias=_find_bias(site, weight, leaves),
                )
                by_site[site.number].append(layer)
    layers: list[Measured] = []
    for _, each in itertools.groupby(program.sites, lambda placed: placed[0].loop):
        inside = [layer for site, _ in each for layer in by_site[site.number]]
        layers += sorted(inside, key=lambda layer: layer.step)  # stable
    return tuple(layers)


def _find_bias(site: Site, path: str, leaves: Mapping[str, Sequence[Any]]) -> str:
    """Finds the path of a layer's bias: the one beside its weight that has its size."""
    if not isinstance(site, Product) or site.bias is None:
        return ""
    shape = site.output.aval.shape
    units = tuple(shape[axis] for axis in site.unit_axes)
    beside = [
        other
        for other, size in leaves[_find_parent(path)]
        if other != path and size[len(size) - len(units) :] == units
    ]
    return beside[0] if len(beside) == 1 else ""


def _find_parent(path: str) -> str:
    return path.rpartition("/")[0]


def _drop_absent(statistics: Forward | Backward) -> Statistics:
    """Returns the statistics that a layer has, by name."""
    return {k: v for k, v in statistics._asdict().items() if v is not None}


def _take_step(column: np.ndarray, number: int) -> np.ndarray:
    """Takes a step of a loop; a statistic without steps counts for all of them."""
    by_step = column.reshape(len(column), -1)  # [seeds, steps]
    return by_step[:, number if number < by_step.shape[1] else -1]
