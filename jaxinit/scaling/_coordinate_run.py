"""Trains models of several sizes for a few steps, and measures their layers.

One program for each size takes a step; they compile side by side. A seed's weights are
drawn by `jit_init`, and seeds and sizes run on a thread for each core.
"""

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit import _paths
from jaxinit._adapt.adapt import adapt
from jaxinit._adapt.functions import OfArrays, of_arrays
from jaxinit._structure.result import TracedParameter
from jaxinit._threads import call_plainly, open_pool
from jaxinit.model import jit_init, reinit
from jaxinit.scaling._coordinate_match import Name, match
from jaxinit.scaling._slopes import Along, Measured
from jaxinit.signal.optimizing import move, pick_trained, put_trained
from jaxinit.signal.watching import Watch

# Parameters whose entries are numbers of the size that a coordinate has; those of a
# product are measured by it.
_ENTRIES = {"embedding", "bias", "gain", "offset", "table", "state"}


_CHANGES = {"change", "drift", "moved", "passed"}  # since the start
_MADE = {"output", "change", "moved", "passed"}  # by the weight
_LEAST = 1e-6  # a decay below is rounding
_SOME = 64  # entries of a parameter that show how it decays
# Where they come in order, behind the layers that they are named after.
_BEHIND = {"attention": 0.5, "stream": 0.5}


class _State(NamedTuple):
    params: Any
    kept: Any  # by the optimizer


class _First(NamedTuple):
    """What later values are compared with."""

    places: Mapping[int, Mapping[str, Any]]
    entries: Mapping[str, Any]  # parameters in no product, by path


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Sized:
    """A model of one size.

    Attributes:
      size: its width or depth.
      of: its functions.
      stored: the types of its parameters, and of what else it stores.
      draw: draws both from a key.
      draw_targets: draws what multiplies the outputs, without a loss: the same at all
        sizes whose outputs are alike.
      watch: its traced program.
      first: the types of what later values are compared with.
      optimizer: the optimizer of this size.
      rules: of the initial weights, if it does not draw them itself.
      loss: a function of the output, if one is given.
      absorbed: by path, factors of the forward pass that weights have.
    """

    size: int
    of: OfArrays
    stored: tuple[Any, Any]
    draw: Callable[[jax.Array], tuple[Any, Any]]
    draw_targets: Callable[[jax.Array], list[jax.Array]]
    watch: Watch
    first: _First
    optimizer: Any
    rules: Any
    loss: Callable[[Any], Any] | None
    absorbed: Mapping[str, float]

    @property
    def rows(self) -> Mapping[str, TracedParameter]:
        """What each parameter does, as far as it can be read."""
        return self.watch.structure or {}

    @property
    def unseen(self) -> list[str]:
        """The paths of kernels that are neither in a place nor measured by entries."""
        seen = {leaf for place in self.watch.places for leaf in place.leaves}
        seen.update(self.first.entries)
        return [
            r.path for r in self.rows.values() if r.is_kernel and r.path not in seen
        ]

    def list_names(self) -> Iterator[tuple[Name, Any, float]]:
        """Yields the name, the source, and the order of what is measured."""
        order = 0.0
        for place in self.watch.places:
            roles = [self.rows[leaf].role for leaf in place.leaves if leaf in self.rows]
            places = [self.rows[x].order for x in place.leaves if x in self.rows]
            known = [number for number in places if number is not None]
            if known:
                order = max(known) + _BEHIND.get(place.kind, 0.0)
            role = "" if place.kind in _BEHIND else "+".join(dict.fromkeys(roles))
            yield Name(place.path, place.kind, role), place.number, order
        for path in self.first.entries:
            row = self.rows[path]
            if any("key" in self.rows[of].roles for of in row.of if of in self.rows):
                continue  # softmax leaves it no gradient but rounding
            yield Name(path, "parameter", row.role), path, row.order or 0.0


def prepare(
    size: int,
    model: Any,
    inputs: tuple[Any, ...],
    optimizer: Any,
    rules: Any,
    arguments: Mapping[str, Any],
    streams: tuple[str, ...],
    loss: Callable[[Any], Any] | None,
    absorbed: Mapping[str, float],
) -> Sized:
    """Traces a model."""
    adapted = adapt(model, inputs, arguments, streams)
    of = of_arrays(lambda _: adapted, inputs)
    key = jax.eval_shape(lambda: jax.random.key(0))
    stored = jax.eval_shape(of.init, key, *of.arrays)
    watch = Watch(of.apply, *stored, key, *of.arrays)
    before = jax.eval_shape(watch.make_before)
    _, values = jax.eval_shape(watch.run, before, *stored, key, of.arrays)
    return Sized(
        size=size,
        of=of,
        stored=stored,
        draw=jit_init(lambda key: of.init(key, *of.arrays)),
        draw_targets=jit_init(
            lambda key: [] if loss else _draw_targets(watch.outputs, key)
        ),
        watch=watch,
        first=_pick_first(watch, values, stored[0]),
        optimizer=optimizer,
        rules=rules,
        loss=loss,
        absorbed=absorbed,
    )


def measure(
    models: Sequence[Sized],
    inputs: tuple[Any, ...],
    key: jax.Array,
    seeds: int,
    steps: int,
    along: Along,
) -> list[Measured]:
    """Trains each model from each seed."""
    named = match([(m.size, list(m.list_names())) for m in models], along)
    keys = _split(key, len(models), seeds)
    runs: list[list[Future[Any]]] = []
    with open_pool() as pool:
        programs = []
        for model in models:
            types = _list_types(model, keys.noise[0])
            begin = jax.jit(_make_begin(model)).lower(*types.begin)
            take = jax.jit(_make_step(model), donate_argnums=0).lower(*types.step)
            programs.append([pool.submit(x.compile) for x in (begin, take)])
        waiting: collections.deque[Future[Any]] = collections.deque()
        for place, (model, program) in enumerate(zip(models, programs, strict=True)):
            runs.append([])
            for seed in range(seeds):
                params, rest = _draw(model, keys.weights[place][seed])
                more = rest, keys.noise[seed], model.draw_targets(keys.targets[seed])
                zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), model.first)
                given = steps, params, zeros, *more, model.of.arrays
                job = pool.submit(call_plainly, _run, program, *given)
                runs[-1].append(job)
                waiting.append(job)
                if len(waiting) > 2:  # weights take memory
                    waiting.popleft().result()
        each = [[job.result() for job in jobs] for jobs in runs]
    return [
        _gather(name, [sized[name] for sized in named], each, models)
        for name in named[0]
    ]


class _Keys(NamedTuple):
    weights: list[list[Any]]  # by size and seed
    targets: list[Any]  # by seed: equal for all sizes, as is the noise
    noise: list[Any]


@functools.partial(jax.jit, static_argnums=(1, 2))
def _split(key: jax.Array, sizes: int, seeds: int) -> _Keys:
    keys = jax.random.split(key, (sizes + 2, seeds))
    rows = [[keys[i, j] for j in range(seeds)] for i in range(sizes + 2)]
    return _Keys(rows[2:], rows[0], rows[1])


def _draw(model: Sized, key: jax.Array) -> tuple[Any, Any]:
    params, rest = model.draw(key)
    if model.rules is not None:
        structure = model.watch.structure
        params = reinit(key, params, model.rules, structure=structure)
    return params, rest


class _Types(NamedTuple):
    begin: tuple[Any, ...]
    step: tuple[Any, ...]


def _list_types(model: Sized, key: jax.Array) -> _Types:
    """Lists the types of the arguments of both programs."""
    params, rest = model.stored
    state, _ = jax.eval_shape(_make_begin(model), params)
    key = jax.eval_shape(lambda: key)
    more = rest, key, jax.eval_shape(model.draw_targets, key), model.of.arrays
    return _Types((params,), (state, model.first, *more))


def _make_begin(model: Sized) -> Callable[[Any], tuple[_State, dict[str, Any]]]:
    """Makes the function that begins to train, and shows how weights decay.

    It returns some entries of each, before and behind a step without any gradient.
    """

    def begin(params: Any) -> tuple[_State, dict[str, Any]]:
        trained = pick_trained(params)
        kept = model.optimizer.init(trained)
        zeros, loss = jax.tree.map(jnp.zeros_like, trained), jnp.zeros(())
        moved, _ = move(model.optimizer, zeros, kept, trained, loss, lambda _: loss)
        pairs = zip(_paths.named(trained), _paths.named(moved), strict=True)
        some = {p: (_take_some(a), _take_some(b)) for (p, a), (_, b) in pairs}
        return _State(params, kept), some

    return begin


def _take_some(x: jax.Array) -> jax.Array:
    return x.ravel()[:_SOME]


def _draw_targets(outputs: Sequence[Any], key: jax.Array) -> list[jax.Array]:
    keys = jax.random.split(key, len(outputs))
    pairs = zip(keys, outputs, strict=True)
    return [jax.random.normal(key, y.shape) for key, y in pairs]


def _pick_first(watch: Watch, values: Any, params: Any) -> _First:
    """Picks what later values are compared with."""
    parts = {
        number: {name: v for name, v in place.items() if name != "moved"}
        for number, place in values.items()
    }
    rows: Mapping[str, TracedParameter] = watch.structure or {}
    leaves = dict(_paths.named(params))
    measured = [path for path in rows if _ENTRIES.intersection(rows[path].roles)]
    return _First(parts, {path: leaves[path] for path in measured})


def _make_step(model: Sized) -> Callable[..., tuple[_State, _First, Any]]:
    """Makes a step, which measures the model before it."""

    def take_step(
        state: _State, first: _First, rest: Any, noise: Any, targets: Any, arrays: Any
    ) -> tuple[_State, _First, Any]:
        trained = pick_trained(state.params)
        before = {n: v["weight"] for n, v in first.places.items() if "weight" in v}

        def run(trained: Any) -> tuple[jax.Array, Any]:
            params = put_trained(state.params, trained)
            output, values = model.watch.run(before, params, rest, noise, arrays)
            return _compute_loss(model, output, targets), values

        (loss, values), slopes = jax.value_and_grad(run, has_aux=True)(trained)
        value_fn = lambda trained: run(trained)[0]  # noqa: E731
        moved, kept = move(model.optimizer, slopes, state.kept, trained, loss, value_fn)
        now = _pick_first(model.watch, values, state.params)
        seen = {n: _measure_place(values[n], first.places[n]) for n in values}
        of_entries = {
            path: {"output": _size(new), "moved": _size(new - first.entries[path])}
            for path, new in now.entries.items()
        }
        params = put_trained(state.params, moved)
        return _State(params, kept), now, (seen, of_entries)

    return take_step


def _compute_loss(model: Sized, output: Any, targets: Any) -> jax.Array:
    if model.loss is not None:
        loss: jax.Array = model.loss(model.of.restore(output))
        return loss
    total = jnp.zeros(())
    for y, target in zip(output, targets, strict=True):
        if jnp.issubdtype(y.dtype, jnp.inexact):
            rows = target.size // target.shape[-1] if target.ndim else 1
            product = y.real.astype(jnp.float32) * target.astype(jnp.float32)
            total += product.sum() / rows
    return total


def _measure_place(now: Mapping[str, Any], first: Mapping[str, Any]) -> dict[str, Any]:
    """Measures a place beside what it was at the start."""
    seen = {"output": _size(now["output"])}
    seen["change"] = _size(now["output"] - first["output"])
    if "moved" in now:
        passed = now["product"] - first["product"] - now["moved"]
        seen |= {"moved": _size(now["moved"]), "passed": _size(passed)}
        seen |= {"input": _size(now["input"])}
        seen |= {"drift": _size(now["input"] - first["input"])}
    return seen


def _size(x: jax.Array) -> jax.Array:
    """Computes the mean absolute value."""
    return jnp.abs(x).astype(jnp.float32).mean()


def _run(
    program: Sequence[Future[Any]], steps: int, params: Any, zeros: Any, *more: Any
) -> tuple[dict[Any, Any], dict[str, float]]:
    """Takes the steps, and measures before each of them and behind the last.

    Returns:
      By place or path, what was measured by step; and by path, what decays.
    """
    begin, take = (job.result() for job in program)
    (state, some), seen, first = begin(params), [], zeros
    for step in range(steps + 1):
        state, now, row = take(state, first, *more)
        first = first if step else now
        seen.append(jax.device_get(row))
    places, entries = jax.tree.map(lambda *each: np.array(each, np.float64), *seen)
    of = {**places, **entries}
    for values in of.values():
        for name in _CHANGES & values.keys():
            values[name][0] = 0.0
    pairs = {path: np.abs(jax.device_get(pair)) for path, pair in some.items()}
    with np.errstate(divide="ignore", invalid="ignore"):
        decays = {p: 1 - float(b.sum() / a.sum()) for p, (a, b) in pairs.items()}
    return of, decays


def _gather(
    name: Name,
    sources: Sequence[Sequence[Any]],
    each: Sequence[Sequence[tuple[Any, Mapping[str, float]]]],
    models: Sequence[Sized],
) -> Measured:
    """Gathers what was measured under a name: means over its sources at each size."""
    first = each[0][0][0][sources[0][0]]
    values = {
        part: np.array(
            [
                [np.mean([seen[x][part] for x in own], axis=0) for seen, _ in seeds]
                for own, seeds in zip(sources, each, strict=True)
            ]
        )
        for part in first
    }
    decay = None
    if name.kind not in _BEHIND:
        leaves = [_list_leaves(*pair) for pair in zip(models, sources, strict=True)]
        for place, (model, own) in enumerate(zip(models, leaves, strict=True)):
            theta = min((model.absorbed.get(leaf, 1.0) for leaf in own), default=1.0)
            for part in _MADE & values.keys():
                values[part][place] /= theta  # as if the model multiplied behind it
        ratios = [
            [[np.mean([of[leaf] for leaf in own if leaf in of])] for _, of in seeds]
            for own, seeds in zip(leaves, each, strict=True)
        ]
        decay = np.array(ratios) if np.array(ratios).min() > _LEAST else None
    return Measured(
        path=name.path, kind=name.kind, role=name.role, values=values, decay=decay
    )


def _list_leaves(model: Sized, sources: Sequence[Any]) -> list[str]:
    """Lists the paths of the parameters behind some sources."""
    places = {place.number: place.leaves for place in model.watch.places}
    return [leaf for x in sources for leaf in (places.get(x) or (x,))]
