"""Measures signal and gradient at a model's layers, over many seeds, in one program."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit import _check as check
from jaxinit.model import merged
from jaxinit.signal._activation import Var, form_of, name_of
from jaxinit.signal._jacobian import singular_values
from jaxinit.signal._model import Model
from jaxinit.signal._site import Placed, Site, Values
from jaxinit.signal._statistics import fields_of, is_float, of_layer, rms, wide
from jaxinit.signal._trace import Plan, evaluate, plan

_WORKERS = 2  # on a CPU: most of a seed runs on one core; each needs a seed's memory

Statistics = dict[str, np.ndarray]  # each [seeds], or [seeds, entries]


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """What was measured at one layer, one step of a loop apart from the next.

    Attributes:
      site: where.
      path: of the module, or of the weight.
      step: the indices of the loops that the site is in.
      shape: of the output, for one seed.
      activation: the name of what is applied to it; None for nothing.
      forward: statistics as in `Layer`.
      backward: statistics of gradients as in `Layer`.
      fields: of convolutions, root mean squares: of the ``weight`` by tap, and by
        position of the ``input`` of the first in a chain and the ``gradient`` of the
        last.
    """

    site: Site
    path: str
    step: tuple[int, ...]
    shape: tuple[int, ...]
    activation: str | None
    forward: Statistics
    backward: Statistics
    fields: Statistics


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """All layers in the order of execution, and the Jacobian of output by input.

    Attributes:
      layers: the layers.
      jacobian: ``mean_square`` and ``largest`` singular value; empty where the input
        has no derivative.
      loss: by seed.
    """

    layers: tuple[Measured, ...]
    jacobian: Statistics
    loss: np.ndarray


def measure(
    model: Model,
    inputs: tuple[Any, ...],
    key: jax.Array,
    seeds: int,
    loss: Callable[[Any], jax.Array] | None,
    chunk: int | None,
    jacobian: int,
) -> Run:
    """Runs a model from many seeds.

    Args:
      model: the model.
      inputs: what it is called with.
      key: the key of all seeds.
      seeds: how many.
      loss: computes a number from the output; by default the product with a random
        normal array.
      chunk: seeds at a time, on a CPU for each of two threads; by default one there,
        and eight elsewhere.
      jacobian: seeds of which the singular values are computed.
    """
    program = prepare(model, inputs, key, loss)
    on_cpu = jax.default_backend() == "cpu"
    if chunk is None:
        chunk = 1 if on_cpu else min(seeds, 8)
    workers = min(_WORKERS if on_cpu else 1, seeds)

    @jax.jit
    def some_seeds(key: jax.Array, places: jax.Array, inputs: tuple[Any, ...]) -> Any:
        batch = None if chunk == 1 else chunk
        one = functools.partial(program.one, inputs=inputs)
        keys = jax.random.split(key, seeds)[places]
        return jax.lax.map(one, keys, batch_size=batch)

    # Each worker has equally many, the last perhaps some again: one program serves all.
    each = -(-seeds // workers)
    places = np.arange(workers * each, dtype=np.int32).reshape(workers, each) % seeds
    compiled = some_seeds.lower(key, places[0], inputs).compile()
    with ThreadPoolExecutor(workers) as pool:
        # Fetched there: what one thread calls JAX runs one after another.
        found = pool.map(lambda p: jax.device_get(compiled(key, p, inputs)), places)
    number, statistics = jax.tree.map(
        lambda *parts: np.concatenate(parts)[:seeds], *found
    )
    singular = {}
    if jacobian and (products := singular_values(model, inputs, key)):
        keys = jax.random.split(key, seeds)[:jacobian]
        singular = jax.device_get(products(keys, inputs))
    return Run(layers_of(program, statistics), singular, np.asarray(number))


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


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """What measures one seed.

    Attributes:
      one: takes a key and the inputs; returns the loss and, for each group, statistics.
      sites: in the order of execution.
      groups: sites of equal form.
    """

    one: Callable[..., tuple[jax.Array, list[dict[str, jax.Array]]]]
    sites: list[Placed]
    groups: list[Group]


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
    found = plan(traced, [*origins, *[None] * others])
    sites = _named(found, [_path(path) for path, _ in leaves])
    if not any(site.kind != "module" for site, _ in sites):
        raise check.Unfit(
            "has no layer: no matrix product or convolution of its input with a weight "
            "(those inside while loops, cond and functions with derivatives of their "
            "own are not seen).",
            model="a model",
        )
    structure = jax.tree.structure(output_shape)
    groups = _grouped(sites)
    init = merged(drawn, stored)

    def one(key: jax.Array, inputs: tuple[Any, ...]) -> Any:
        first, noise, cotangent = jax.random.split(key, 3)
        params, rest = init(first)

        def run(shifts: Mapping[int, Values]) -> tuple[jax.Array, dict[int, Values]]:
            args = jax.tree.leaves((params, rest, noise, inputs))
            results, values = evaluate(found, args, shifts)
            output = jax.tree.unflatten(structure, results)
            if loss is None:
                return _against(output, cotangent), values
            return _scalar(loss(output)), values

        shifts = _shifts(sites)
        (number, values), gradients = jax.value_and_grad(run, has_aux=True)(shifts)
        fields = fields_of(sites, values, gradients)
        return number, _statistics(groups, values, gradients, fields)

    return Program(one, sites, groups)


def _path(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _named(found: Plan, paths: list[str]) -> list[Placed]:
    """Gives layers the paths of their weights, and drops tags that repeat a layer.

    A weight used twice gives two layers, the second named "path #2".
    """
    parents = {path: path.rpartition("/")[0] for path in paths}
    weights = [s.leaf for s, _ in found.all_sites() if s.leaf is not None]
    alone = [paths[leaf] for leaf in set(weights)]
    named: list[Placed] = []
    seen: dict[str, int] = {}
    for site, steps in found.all_sites():
        if site.leaf is None:
            continue
        path = paths[site.leaf]
        siblings = [other for other in alone if parents[other] == parents[path]]
        name = parents[path] if len(siblings) == 1 and parents[path] else path
        seen[name] = seen.get(name, 0) + 1
        named.append((_renamed(site, name, seen[name]), steps))
    layers = {site.number: (site, steps) for site, steps in named}
    taken = {site.path for site, _ in named}
    every: list[Placed] = []
    for site, steps in found.all_sites():
        if site.leaf is not None:
            every.append(layers[site.number])
        elif site.path not in taken and is_float(site.output.aval.dtype):
            seen[site.path] = seen.get(site.path, 0) + 1
            every.append((_renamed(site, site.path, seen[site.path]), steps))
    return every


def _renamed(site: Site, name: str, count: int) -> Site:
    path = (name or "(output)") + (f" #{count}" if count > 1 else "")
    return dataclasses.replace(site, path=path)


def _shifts(sites: list[Placed]) -> dict[int, Values]:
    """Makes the zeros in whose place derivatives stand."""
    return {
        site.number: {
            part: jnp.zeros((*steps, *var.aval.shape), var.aval.dtype)
            for part, var in _shifted(site).items()
        }
        for site, steps in sites
    }


def _against(output: Any, key: jax.Array) -> jax.Array:
    """Multiplies an output with random normal numbers: a cotangent of unit variance."""
    leaves = [leaf for leaf in jax.tree.leaves(output) if is_float(leaf.dtype)]
    keys = jax.random.split(key, max(1, len(leaves)))
    parts = [
        (leaf.astype(wide(leaf)) * jax.random.normal(key, leaf.shape)).real.sum()
        for key, leaf in zip(keys, leaves, strict=True)
    ]
    total: jax.Array = sum(parts, jnp.zeros(()))
    return total


def _scalar(number: Any) -> jax.Array:
    number = jnp.asarray(number)
    if number.shape or not is_float(number.dtype):
        raise check.Unfit(
            "loss must return one real number, such as jnp.mean(...).", loss=number
        )
    scalar: jax.Array = number
    return scalar


def _grouped(sites: list[Placed]) -> list[Group]:
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


def _statistics(
    groups: list[Group],
    values: Mapping[int, Values],
    gradients: Mapping[int, Values],
    fields: Mapping[int, Values],
) -> list[dict[str, jax.Array]]:
    """Computes statistics, those of a group in one loop.

    What is compiled should grow with the kinds of layers and not with their number; so
    numbers leave the loop as one array, "numbers" # [sites * steps, names].
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
            f"input_rms {site.number}": jax.lax.map(
                rms, values[site.number]["input"].reshape(-1, *var.aval.shape)
            )
            for site, _ in group.members
            if (var := site.parts.get("input")) and is_float(var.aval.dtype)
        }
        apart = {
            f"{name} {site.number}": field
            for site, _ in group.members
            for name, field in fields.get(site.number, {}).items()
        }
        found.append({**jax.lax.map(packed, columns), **inputs, **apart})
    return found


def layers_of(
    program: Program, statistics: list[dict[str, np.ndarray]]
) -> tuple[Measured, ...]:
    """Makes a layer of each site and step, in the order of execution."""
    made: dict[int, list[Measured]] = {}
    for group, columns in zip(program.groups, statistics, strict=True):
        steps = [
            (site, number, step)
            for site, steps in group.members
            for number, step in enumerate(np.ndindex(*steps))
        ]
        for row, (site, number, step) in enumerate(steps):
            numbers = columns["numbers"][:, row].T
            mine = dict(zip(group.names, numbers, strict=True))
            mine["sample"] = columns["sample"][:, row]
            if (sizes := columns.get(f"input_rms {site.number}")) is not None:
                mine["input_rms"] = sizes[:, number]
            backward = {
                name.replace("gradient_", ""): mine.pop(name)
                for name in list(mine)
                if "gradient_" in name
            }
            fields = {
                name: columns[key]
                for name in ("input", "gradient")
                if (key := f"{name} {site.number}") in columns
            }
            if "weight" in columns:
                fields["weight"] = columns["weight"][:, row]
            given = site, site.path, step, site.output.aval.shape, group.activation
            measured = Measured(*given, mine, backward, fields)
            made.setdefault(site.number, []).append(measured)
    layers: list[Measured] = []
    for _, each in itertools.groupby(program.sites, lambda placed: placed[0].loop):
        inside = [layer for site, _ in each for layer in made[site.number]]
        layers += sorted(inside, key=lambda layer: layer.step)  # stable
    return tuple(layers)
