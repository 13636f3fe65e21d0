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
from jaxinit._jaxpr.merging import merge_draws
from jaxinit.signal._attention import layers_before
from jaxinit.signal._chance import Readout, against_chance, readout
from jaxinit.signal._flags import undisturbed
from jaxinit.signal._groups import Group, grouped, statistics_of, zeros_at
from jaxinit.signal._jacobian import singular_values
from jaxinit.signal._model import Model
from jaxinit.signal._names import named
from jaxinit.signal._site import Placed, Site, Values
from jaxinit.signal._statistics import fields_of, is_float, wide
from jaxinit.signal._trace import evaluate_plan, plan

_APART = (
    *("input_rms", "input_mean", "input_nonfinite", "attention_saturated"),
    *("attention_std", "expected_loss", "chance_loss"),
)
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
      classes: how many its outputs are logits of; None where that is not known.
      query_size: the products that an attention behind it sums over; None for none.
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
    say: Callable[[str], None] = lambda what: None,
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
      say: is told what goes on.
    """
    say("tracing the model")
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
    say("compiling")
    compiled = some_seeds.lower(key, places[0], inputs).compile()

    def fetched(places: np.ndarray) -> Any:
        with undisturbed():  # flags of a thread are its own
            return jax.device_get(compiled(key, places, inputs))

    say(f"running {seeds} seeds")
    with ThreadPoolExecutor(workers) as pool:
        # Fetched there: what one thread calls JAX runs one after another.
        found = list(pool.map(fetched, places))
    number, statistics = jax.tree.map(
        lambda *parts: np.concatenate(parts)[:seeds], *found
    )
    singular = {}
    if jacobian and (products := singular_values(model, inputs, key)):
        say("computing singular values")
        keys = jax.random.split(key, seeds)[:jacobian]
        singular = jax.device_get(products(keys, inputs))
    return Run(layers_of(program, statistics), singular, np.asarray(number))


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """What measures one seed.

    Attributes:
      one: takes a key and the inputs; returns the loss and, for each group, statistics.
      sites: in the order of execution.
      groups: sites of equal form.
      readout: the outputs that may be logits.
      query_sizes: of the attention behind a layer, by the number of its site.
    """

    one: Callable[..., tuple[jax.Array, list[dict[str, jax.Array]]]]
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
    found = plan(traced, [*origins, *[None] * others])
    sites = named(found, [_path(path) for path, _ in leaves])
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
        lambda parts: _scalar(loss(jax.tree.unflatten(structure, parts)))
    )
    groups, init = grouped(sites), merge_draws(drawn, stored)
    logits = readout(found, sites, outputs, of_arrays)
    attended = list(layers_before(found, [frozenset()] * len(traced.in_avals)))

    def one(key: jax.Array, inputs: tuple[Any, ...]) -> Any:
        first, noise, cotangent = jax.random.split(key, 3)
        params, rest = init(first)

        def run(shifts: Mapping[int, Values]) -> tuple[jax.Array, Any]:
            args = jax.tree.leaves((params, rest, noise, inputs))
            results, values = evaluate_plan(found, args, shifts)
            number = of_arrays(results) if of_arrays else _against(results, cotangent)
            return number, (values, results)

        shifts = zeros_at(sites)
        of_shifts = jax.value_and_grad(run, has_aux=True)
        (number, (values, results)), gradients = of_shifts(shifts)
        apart = fields_of(sites, values, gradients)
        for attention, layers in attended:
            for layer in layers:
                _widen(apart.setdefault(layer, {}), values[attention.number])
        if logits:
            against = against_chance(results[logits.leaf])
            apart[logits.site] = apart.get(logits.site, {}) | against
        return number, statistics_of(groups, values, gradients, apart)

    sizes = {layer: each.size for each, layers in attended for layer in layers}
    return Program(one, sites, groups, logits, sizes)


def _widen(kept: Values, more: Values) -> None:
    """Keeps the larger statistics, where several attentions read a layer."""
    for name, value in more.items():
        if name in kept and kept[name].shape != value.shape:
            kept[name], value = kept[name].max(), value.max()
        kept[name] = jnp.maximum(kept[name], value) if name in kept else value


def _path(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _against(leaves: list[Any], key: jax.Array) -> jax.Array:
    """Multiplies an output with random normal numbers: a cotangent of unit variance."""
    leaves = [leaf for leaf in leaves if is_float(leaf.dtype)]
    keys = jax.random.split(key, max(1, len(leaves)))
    total = jnp.zeros(())
    for key, leaf in zip(keys, leaves, strict=True):
        cotangent = jax.random.normal(key, leaf.shape).astype(wide(leaf))
        part = (leaf.astype(wide(leaf)) * cotangent).real.sum()
        total += part.astype(total.dtype)
    return total


def _scalar(number: Any) -> jax.Array:
    rule = "loss must return one real number, such as jnp.mean(...)."
    try:
        scalar = jnp.asarray(number)
    except (TypeError, ValueError):
        raise check.Unfit(rule, TypeError, loss=number) from None
    if scalar.shape or not jnp.issubdtype(scalar.dtype, np.floating):
        raise check.Unfit(rule, loss=number)
    return scalar


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
            mine |= {
                name: _of_step(columns[key], number)
                for name in _APART
                if (key := f"{name} {site.number}") in columns
            }
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
            read = program.readout
            known = read is not None and read.known and read.site == site.number
            classes = read.classes if read is not None and known else None
            size = program.query_sizes.get(site.number)
            measured = Measured(*given, mine, backward, fields, classes, size)
            made.setdefault(site.number, []).append(measured)
    layers: list[Measured] = []
    for _, each in itertools.groupby(program.sites, lambda placed: placed[0].loop):
        inside = [layer for site, _ in each for layer in made[site.number]]
        layers += sorted(inside, key=lambda layer: layer.step)  # stable
    return tuple(layers)


def _of_step(column: np.ndarray, number: int) -> np.ndarray:
    """Takes a step of a loop; all have what does not differ by step."""
    by_step = column.reshape(len(column), -1)  # [seeds, steps]
    return by_step[:, number if number < by_step.shape[1] else -1]
