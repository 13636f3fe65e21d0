"""Makes the program that measures one seed: signal and gradient at a model's layers."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit import _check as check
from jaxinit._adapt.functions import Model
from jaxinit._jaxpr.merging import merge_draws
from jaxinit.signal._measure.chance import Readout, compare_to_chance, find_readout
from jaxinit.signal._measure.groups import (
    Group,
    compute_statistics,
    group_sites,
    make_zeros,
    measure_inputs,
)
from jaxinit.signal._measure.names import name_layers
from jaxinit.signal._measure.statistics import (
    Array,
    Backward,
    Both,
    Forward,
    compute_fields,
    is_float,
    wide,
)
from jaxinit.signal._trace.attention import find_layers_before
from jaxinit.signal._trace.find import evaluate_plan, plan
from jaxinit.signal._trace.site import Placed, Site, Values

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

    @property
    def name(self) -> str:
        """The path, with the step of a loop, as in "blocks/dense[3]"."""
        return self.path + (f"[{', '.join(map(str, self.step))}]" if self.step else "")


class OfModel(NamedTuple):
    """The statistics of a model; over many seeds, they have a leading axis for these.

    Attributes:
      groups: for each group, the statistics of its sites. # [sites * steps, ...]
      apart: by site, fields of `Forward` that not all sites of a group have.
      ends: by site, root mean squares by position at the ends of chains.
    """

    groups: list[Both]
    apart: dict[int, dict[str, Array]]
    ends: dict[int, dict[str, Array]]


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """Measures one seed.

    Attributes:
      one: takes a key and the inputs; returns the loss and the statistics.
      sites: the sites in the order of execution.
      groups: the sites again, those of equal form together.
      readout: the outputs that may be logits.
      query_sizes: the number of entries of a query in the attention behind a layer, by
        the number of the layer's site.
    """

    one: Callable[..., tuple[jax.Array, OfModel]]
    sites: list[Placed]
    groups: list[Group]
    readout: Readout | None
    query_sizes: Mapping[int, int]


def prepare(
    model: Model,
    inputs: tuple[Any, ...],
    key: jax.Array,
    loss: Callable[[Any], jax.Array] | None = None,
) -> Program:
    """Finds a model's layers and makes the program that measures them."""
    drawn, stored = jax.make_jaxpr(model.init, return_shape=True)(key)
    params, rest = stored
    traced, output_shape = jax.make_jaxpr(model.apply, return_shape=True)(
        params, rest, key, *inputs
    )
    leaves, _ = jax.tree.flatten_with_path(params)
    others = len(jax.tree.leaves((rest, key, inputs)))
    origins = [frozenset({i}) for i in range(len(leaves))]
    planned = plan(traced, [*origins, *[None] * others])
    sites = name_layers(planned, [_spell_path(path) for path, _ in leaves])
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
    groups, init = group_sites(sites), merge_draws(drawn, stored)
    logits = find_readout(planned, sites, outputs, of_arrays)
    attended = list(find_layers_before(planned, [frozenset()] * len(traced.in_avals)))

    def one(key: jax.Array, inputs: tuple[Any, ...]) -> Any:
        first, noise, cotangent = jax.random.split(key, 3)
        params, rest = init(first)

        def run(shifts: Mapping[int, Values]) -> tuple[jax.Array, Any]:
            args = jax.tree.leaves((params, rest, noise, inputs))
            results, values = evaluate_plan(planned, args, shifts)
            number = of_arrays(results) if of_arrays else _project(results, cotangent)
            return number, (values, results)

        shifts = make_zeros(sites)
        of_shifts = jax.value_and_grad(run, has_aux=True)
        (number, (values, results)), gradients = of_shifts(shifts)
        apart = measure_inputs(sites, values)
        for attention, layers in attended:
            for layer in layers:
                _widen(apart.setdefault(layer, {}), values[attention.number])
        if logits:
            against = compare_to_chance(results[logits.leaf])
            apart.setdefault(logits.site, {}).update(against)
        return number, OfModel(
            groups=[compute_statistics(group, values, gradients) for group in groups],
            apart=apart,
            ends=compute_fields(sites, values, gradients),
        )

    sizes = {layer: each.size for each, layers in attended for layer in layers}
    return Program(
        one=one, sites=sites, groups=groups, readout=logits, query_sizes=sizes
    )


def _widen(kept: Values, more: Values) -> None:
    """Merges statistics; if several attentions read a layer, the larger ones stay."""
    for name, value in more.items():
        if name in kept and kept[name].shape != value.shape:
            kept[name], value = kept[name].max(), value.max()
        kept[name] = jnp.maximum(kept[name], value) if name in kept else value


def _spell_path(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _project(leaves: list[Any], key: jax.Array) -> jax.Array:
    """Multiplies outputs by random normal numbers: a cotangent of unit variance."""
    leaves = [leaf for leaf in leaves if is_float(leaf.dtype)]
    keys = jax.random.split(key, max(1, len(leaves)))
    total = jnp.zeros(())
    for key, leaf in zip(keys, leaves, strict=True):
        cotangent = jax.random.normal(key, leaf.shape).astype(wide(leaf))
        part = (leaf.astype(wide(leaf)) * cotangent).real.sum()
        total += part.astype(total.dtype)
    return total


def _check_scalar(number: Any) -> jax.Array:
    rule = "loss must return one real number, such as jnp.mean(...)."
    try:
        scalar = jnp.asarray(number)
    except (TypeError, ValueError):
        raise check.Unfit(rule, TypeError, loss=number) from None
    if scalar.shape or not jnp.issubdtype(scalar.dtype, np.floating):
        raise check.Unfit(rule, loss=number)
    return scalar


def layers_of(program: Program, statistics: OfModel) -> tuple[Measured, ...]:
    """Makes the measurements of each site and step, in the order of execution."""
    by_site: dict[int, list[Measured]] = {}
    read = program.readout
    classes = {read.site: read.classes} if read and read.known else {}
    for group, stacked in zip(program.groups, statistics.groups, strict=True):
        rows = itertools.count()
        for site, steps in group.members:
            apart = statistics.apart.get(site.number, {})
            ends = statistics.ends.get(site.number, {})
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
                )
                by_site[site.number].append(layer)
    layers: list[Measured] = []
    for _, each in itertools.groupby(program.sites, lambda placed: placed[0].loop):
        inside = [layer for site, _ in each for layer in by_site[site.number]]
        layers += sorted(inside, key=lambda layer: layer.step)  # stable
    return tuple(layers)


def _drop_absent(statistics: Forward | Backward) -> Statistics:
    """Returns the statistics that a layer has, by name."""
    return {k: v for k, v in statistics._asdict().items() if v is not None}


def _take_step(column: np.ndarray, number: int) -> np.ndarray:
    """Takes a step of a loop; a statistic without steps counts for all of them."""
    by_step = column.reshape(len(column), -1)  # [seeds, steps]
    return by_step[:, number if number < by_step.shape[1] else -1]
