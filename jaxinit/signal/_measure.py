"""Measures signal and gradient at a model's layers, over many seeds, in one program."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit import _check as check
from jaxinit.signal._model import Model
from jaxinit.signal._trace import Plan, Site, Values, evaluate, plan

_SAMPLE = 256  # entries of an output that are kept for histograms
_ALIKE = 1e-5  # of the units' root mean square: projections this close are equal
_FLAT = 0.05  # of the steepest slope: an activation is saturated below it
Statistics = dict[str, np.ndarray]  # each [seeds], or [seeds, entries]


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """What was measured at one layer, one step of a loop apart from the next.

    Attributes:
      site: where.
      path: of the module, or of the weight.
      step: the indices of the loops that the site is in.
      shape: of the output, for one seed.
      forward: ``mean``, ``std``, ``rms``, ``fourth`` (the fourth central moment over the
        squared variance, 3 for a normal law), ``largest``, ``zeros`` (share),
        ``nonfinite`` (share), ``distance`` (one less the cosine of different inputs),
        ``alike`` (share of units equal to another), ``sample``; where an activation
        follows ``activation_zeros``, ``dead``, ``saturated`` (shares); of the weight
        ``weight_std``, ``bias_std``; ``input_rms``.
      backward: of the gradient at the output ``std``, ``rms``, ``norm`` (per example),
        ``nonfinite``; at the weight ``weight_std`` and ``weight_alike``.
    """

    site: Site
    path: str
    step: tuple[int, ...]
    shape: tuple[int, ...]
    forward: Statistics
    backward: Statistics


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
      chunk: seeds at a time; by default one on CPU, whose cores one seed keeps busy,
        and eight elsewhere.
      jacobian: seeds of which the singular values are computed.
    """
    params, rest = jax.eval_shape(model.init, key)
    traced = jax.make_jaxpr(model.apply)(params, rest, key, *inputs)
    leaves, tree = jax.tree.flatten_with_path(params)
    others = len(jax.tree.leaves((rest, key, inputs)))
    origins = [frozenset({i}) for i in range(len(leaves))]
    found = plan(traced, [*origins, *[None] * others])
    paths = [_path(path) for path, _ in leaves]
    sites = _named(found, paths)
    if not any(site.kind != "module" for site, _ in sites):
        raise check.Unfit(
            "has no layer: no matrix product or convolution of its input with a weight "
            "(those inside while loops, cond and functions with derivatives of their "
            "own are not seen).",
            model=_path(()) or "model",
        ).at("check", "model")
    out_tree = jax.eval_shape(model.apply, params, rest, key, *inputs)
    structure = jax.tree.structure(out_tree)

    def one(key: jax.Array, inputs: tuple[Any, ...]) -> Any:
        first, noise, cotangent = jax.random.split(key, 3)
        params, rest = model.init(first)

        def run(shifts: Mapping[int, Values]) -> tuple[jax.Array, dict[int, Values]]:
            args = jax.tree.leaves((params, rest, noise, inputs))
            results, values = evaluate(found, args, shifts)
            output = jax.tree.unflatten(structure, results)
            number = (
                _against(output, cotangent) if loss is None else _scalar(loss(output))
            )
            return number, values

        shifts = _shifts(sites)
        (number, values), gradients = jax.value_and_grad(run, has_aux=True)(shifts)
        return number, _statistics(sites, values, gradients)

    if chunk is None:
        chunk = 1 if jax.default_backend() == "cpu" else min(seeds, 8)

    @jax.jit
    def all_seeds(keys: jax.Array, inputs: tuple[Any, ...]) -> Any:
        batch = None if chunk == 1 else chunk
        return jax.lax.map(lambda key: one(key, inputs), keys, batch_size=batch)

    keys = jax.random.split(key, seeds)
    number, statistics = jax.device_get(all_seeds(keys, inputs))
    layers = tuple(
        layer for site, steps in sites for layer in _layers(site, steps, statistics)
    )
    singular = {}
    if jacobian and (program := _singular(model, inputs, params)):
        singular = jax.device_get(program(keys[:jacobian], inputs))
    return Run(layers, singular, np.asarray(number))


def _path(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _named(found: Plan, paths: list[str]) -> list[tuple[Site, tuple[int, ...]]]:
    """Gives layers the paths of their weights, and drops tags that repeat a layer.

    A weight used twice gives two layers, the second named "path #2".
    """
    parents = {path: path.rpartition("/")[0] for path in paths}
    weights = [s.leaf for s, _ in found.all_sites() if s.leaf is not None]
    alone = [paths[leaf] for leaf in set(weights)]
    named: list[tuple[Site, tuple[int, ...]]] = []
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
    every: list[tuple[Site, tuple[int, ...]]] = []
    for site, steps in found.all_sites():
        if site.leaf is not None:
            every.append(layers[site.number])
        elif site.path not in taken and _is_float(site.output.aval.dtype):
            seen[site.path] = seen.get(site.path, 0) + 1
            every.append((_renamed(site, site.path, seen[site.path]), steps))
    return every


def _renamed(site: Site, name: str, count: int) -> Site:
    path = (name or "(output)") + (f" #{count}" if count > 1 else "")
    return dataclasses.replace(site, path=path)


def _is_float(dtype: Any) -> bool:
    return bool(jnp.issubdtype(dtype, np.inexact))


def _shifts(sites: list[tuple[Site, tuple[int, ...]]]) -> dict[int, Values]:
    """Makes the zeros in whose place derivatives stand."""
    return {
        site.number: {
            part: jnp.zeros((*steps, *var.aval.shape), var.aval.dtype)
            for part, var in (("output", site.output), ("weight", site.weight))
            if var is not None
        }
        for site, steps in sites
    }


def _against(output: Any, key: jax.Array) -> jax.Array:
    """Multiplies an output with random normal numbers: a cotangent of unit variance."""
    leaves = [leaf for leaf in jax.tree.leaves(output) if _is_float(leaf.dtype)]
    keys = jax.random.split(key, max(1, len(leaves)))
    parts = [
        (leaf.astype(_wide(leaf)) * jax.random.normal(key, leaf.shape)).real.sum()
        for key, leaf in zip(keys, leaves, strict=True)
    ]
    return jnp.asarray(sum(parts, jnp.zeros(())))


def _scalar(number: Any) -> jax.Array:
    number = jnp.asarray(number)
    if number.shape or not _is_float(number.dtype):
        raise check.Unfit(
            "loss must return one real number, such as jnp.mean(...).", loss=number
        ).at("check", "model")
    return number


def _wide(x: jax.Array) -> Any:
    return jnp.promote_types(x.dtype, np.float32)


def _statistics(
    sites: list[tuple[Site, tuple[int, ...]]],
    values: Mapping[int, Values],
    gradients: Mapping[int, Values],
) -> dict[int, dict[str, jax.Array]]:
    """Computes statistics of all sites, those of equal form in one loop.

    What is compiled should grow with the kinds of layers and not with their number.
    """
    groups: dict[Any, list[tuple[Site, tuple[int, ...]]]] = {}
    for site, steps in sites:
        form = tuple(
            (part, var.aval.shape, str(var.aval.dtype))
            for part, var in sorted(site.parts.items())
        )
        groups.setdefault((form, _form(site), site.unit_axes), []).append((site, steps))
    found: dict[int, dict[str, jax.Array]] = {}
    for (form, _, _), members in groups.items():
        site = members[0][0]
        columns: dict[str, jax.Array] = {}
        parts = {part: (values, part) for part, *_ in form}
        parts |= {
            f"gradient_{part}": (gradients, part)
            for part, *_ in form
            if part in ("output", "weight")
        }
        for name, (source, part) in parts.items():
            each = [
                _rows(source[site.number][part], len(steps)) for site, steps in members
            ]
            columns[name] = each[0] if len(each) == 1 else jnp.concatenate(each)
        done = jax.lax.map(functools.partial(_of_layer, site), columns)
        start = 0
        for site, steps in members:
            count = math.prod(steps)
            found[site.number] = {
                name: column[start : start + count] for name, column in done.items()
            }
            start += count
    return found


def _rows(x: jax.Array, loops: int) -> jax.Array:
    """Merges the axes of loops into one; without loops makes an axis of one entry."""
    return x.reshape(-1, *x.shape[loops:])


@functools.lru_cache(maxsize=None)
def _form(site: Site) -> str:
    """Spells an activation, equal for equal functions."""
    if site.activation is None:
        return ""
    return str(jax.make_jaxpr(site.activation)(site.output.aval))


def _of_layer(site: Site, parts: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Computes the statistics of one layer. # scalars, but for the sample"""
    y = parts["output"]
    y = jnp.abs(y) if jnp.iscomplexobj(y) else y.astype(_wide(y))
    found = {**_moments(y), "sample": _sampled(y)}
    found["zeros"] = (y == 0).mean()
    found["nonfinite"] = (~jnp.isfinite(y)).mean()
    found["distance"] = _distance(y)
    found["alike"] = _alike(y, site.unit_axes)
    if site.activation is not None:
        found |= _of_activation(site, parts["output"])
    gradient = _moments(parts["gradient_output"])
    found |= {f"gradient_{name}": gradient[name] for name in ("std", "rms")}
    g = parts["gradient_output"]
    found["gradient_nonfinite"] = (~jnp.isfinite(g)).mean()
    examples = y.shape[0] if y.ndim > 1 else 1
    found["gradient_norm"] = gradient["rms"] * math.sqrt(y.size / examples)
    if "weight" in parts:
        found["weight_std"] = _moments(parts["weight"])["std"]
        g = parts["gradient_weight"]
        found["weight_gradient_std"] = _moments(g)["rms"]
        found["weight_gradient_alike"] = _alike(g, site.weight_unit_axes)
    if "bias" in parts:
        found["bias_std"] = _moments(parts["bias"])["std"]
    if "input" in parts and _is_float(parts["input"].dtype):
        found["input_rms"] = _moments(parts["input"])["rms"]
    return found


def _moments(x: jax.Array) -> dict[str, jax.Array]:
    """Computes moments of the entries, scaled so that no square leaves the range."""
    x = jnp.abs(x) if jnp.iscomplexobj(x) else x.astype(_wide(x))
    largest = jnp.abs(x).max(initial=0)
    scale = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)
    u = x / scale
    mean = u.mean()
    variance = ((u - mean) ** 2).mean()
    return {
        "mean": scale * mean,
        "std": scale * jnp.sqrt(variance),
        "rms": scale * jnp.sqrt(variance + mean**2),
        "fourth": ((u - mean) ** 4).mean() / variance**2,
        "largest": largest,
    }


def _sampled(y: jax.Array) -> jax.Array:
    """Takes entries at equal distances."""
    flat = y.reshape(-1)
    return flat[:: max(1, flat.size // _SAMPLE)][:_SAMPLE]


def _distance(y: jax.Array) -> jax.Array:
    """Computes one less the mean cosine of an example's output and the next one's."""
    if y.ndim < 2 or y.shape[0] < 2:
        return jnp.full((), jnp.nan, y.dtype)
    flat = y.reshape(y.shape[0], -1)
    scale = jnp.abs(flat).max(1, keepdims=True)
    flat = flat / jnp.where(scale > 0, scale, 1)
    direction = flat / jnp.sqrt((flat**2).sum(1, keepdims=True))
    return ((direction - jnp.roll(direction, 1, 0)) ** 2).sum(1).mean() / 2


def _alike(x: jax.Array, unit_axes: tuple[int, ...]) -> jax.Array:
    """Computes the share of units that equal another one, by one projection of each."""
    x = jnp.abs(x) if jnp.iscomplexobj(x) else x.astype(_wide(x))
    if x.ndim == 0:
        return jnp.zeros((), x.dtype)
    units = math.prod(x.shape[axis] for axis in unit_axes)
    x = jnp.moveaxis(x, unit_axes, range(-len(unit_axes), 0)).reshape(-1, units)
    if units < 2:
        return jnp.zeros((), x.dtype)
    scale = jnp.abs(x).max()
    x = x / jnp.where(scale > 0, scale, 1)
    weights = jnp.sin(jnp.arange(1, x.shape[0] + 1, dtype=x.dtype) ** 2)
    projected = jnp.sort(weights @ x)
    size = jnp.sqrt((projected**2).mean())
    near = jnp.diff(projected) <= _ALIKE * size
    return near.mean()


def _of_activation(site: Site, y: jax.Array) -> dict[str, jax.Array]:
    """Computes shares of zeros, of dead and of saturated units behind a layer."""
    activation = site.activation
    assert activation is not None
    a, slope = jax.jvp(activation, (y,), (jnp.ones_like(y),))
    with jax.ensure_compile_time_eval():
        grid = jnp.linspace(-8, 8, 321, dtype=y.dtype)
        steep = jax.jvp(activation, (grid,), (jnp.ones_like(grid),))[1]
        steepest = float(jnp.abs(steep).max())
    zero = a == 0
    axes = {axis % y.ndim for axis in site.unit_axes}
    others = tuple(axis for axis in range(y.ndim) if axis not in axes)
    return {
        "activation_zeros": zero.mean(),
        "dead": zero.all(others).mean(),
        "saturated": ((jnp.abs(slope) < _FLAT * steepest) & ~zero).mean(),
    }


def _layers(
    site: Site,
    steps: tuple[int, ...],
    statistics: Mapping[int, Mapping[str, np.ndarray]],
) -> list[Measured]:
    """Makes a layer of each step of the loops that a site is in."""
    layers = []
    for row, step in enumerate(np.ndindex(*steps)):
        mine = {name: x[:, row] for name, x in statistics[site.number].items()}
        backward = {
            name.replace("gradient_", ""): mine.pop(name)
            for name in list(mine)
            if "gradient_" in name
        }
        layers.append(
            Measured(site, site.path, step, site.output.aval.shape, mine, backward)
        )
    return layers


def _singular(model: Model, inputs: tuple[Any, ...], params: Any) -> Any:
    """Makes a program for singular values of the output by the first float input.

    Of one example, by products with the Jacobian: its mean square by random vectors,
    the largest by subspace iteration.
    """
    which = next((i for i, x in enumerate(inputs) if _is_float(x.dtype)), None)
    if which is None or not all(x.ndim for x in inputs):
        return None
    vectors, rounds = 8, 8

    def one(key: jax.Array, inputs: tuple[Any, ...]) -> dict[str, jax.Array]:
        first, noise, start = jax.random.split(key, 3)
        params, rest = model.init(first)
        single = [x[:1] for x in inputs]

        def output(x: jax.Array) -> jax.Array:
            args = [*single[:which], x, *single[which + 1 :]]
            leaves = jax.tree.leaves(model.apply(params, rest, noise, *args))
            parts = [leaf.reshape(-1) for leaf in leaves if _is_float(leaf.dtype)]
            return jnp.concatenate([part.astype(x.dtype) for part in parts])

        x = single[which]
        y, back = jax.vjp(output, x)
        forth = jax.linear_transpose(back, y)
        smallest = min(x.size, y.size)
        u = jax.random.normal(start, (min(vectors, smallest), y.size), y.dtype)
        pulled = jax.vmap(back)(u)[0]
        mean = (pulled**2).sum() / (len(u) * smallest)

        def improve(_: int, u: jax.Array) -> jax.Array:
            u = jnp.linalg.qr(u.T)[0].T
            v = jax.vmap(back)(u)[0]
            return jax.vmap(lambda v: forth((v,))[0])(v)

        u = jax.lax.fori_loop(0, rounds, improve, u)
        values = jnp.linalg.svd(jnp.linalg.qr(u.T)[1], compute_uv=False)
        return {"mean_square": mean, "largest": jnp.sqrt(values.max())}

    return jax.jit(
        lambda keys, inputs: jax.lax.map(lambda key: one(key, inputs), keys)
    )
