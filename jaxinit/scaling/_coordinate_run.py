"""Trains models of several sizes for a few steps, and measures their layers.

One program for each size takes a step; they compile side by side. A seed's weights are
drawn by `jit_init`, and seeds and sizes run on a thread for each core.
"""

import collections
import dataclasses
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
from jaxinit.scaling._matching import Name, match
from jaxinit.scaling._slopes import Along, Measured
from jaxinit.signal.optimizing import move, pick_trained, put_trained
from jaxinit.signal.watching import Watch

# Parameters whose entries are numbers of the size that a coordinate has; those of a
# product are measured by it.
_ENTRIES = {"embedding", "bias", "gain", "offset", "table", "state"}


# Where they come in order, behind the layers that they are named after.
_BEHIND = {"attention": 0.5, "stream": 0.5}


class _State(NamedTuple):
    params: Any
    kept: Any  # by the optimizer
    first: Any  # values at the start: of places, and of parameters in no product
    taken: jax.Array  # how many steps


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Sized:
    """A model of one size.

    Attributes:
      size: its width or depth.
      of: its functions.
      stored: the types of its parameters, and of what else it stores.
      watch: its traced program.
      optimizer: the optimizer of this size.
      rules: of the initial weights, if it does not draw them itself.
      loss: a function of the output, if one is given.
      unseen: kernels whose layers are not measured.
    """

    size: int
    of: OfArrays
    stored: tuple[Any, Any]
    watch: Watch
    optimizer: Any
    rules: Any
    loss: Callable[[Any], Any] | None

    @property
    def rows(self) -> Mapping[str, TracedParameter]:
        """What each parameter does, as far as it can be read."""
        return self.watch.structure or {}

    @property
    def entries(self) -> list[str]:
        """The paths of the parameters that are measured by their entries."""
        every = [row for row in self.rows.values() if _ENTRIES.intersection(row.roles)]
        return [row.path for row in every]

    @property
    def unseen(self) -> list[str]:
        """The paths of kernels that are neither in a place nor measured by entries."""
        seen = {leaf for place in self.watch.places for leaf in place.leaves}
        seen.update(self.entries)
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
        for path in self.entries:
            row = self.rows[path]
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
) -> Sized:
    """Traces a model."""
    adapted = adapt(model, inputs, arguments, streams)
    of = of_arrays(lambda _: adapted, inputs)
    key = jax.eval_shape(lambda: jax.random.key(0))
    stored = jax.eval_shape(of.init, key, *of.arrays)
    return Sized(
        size=size,
        of=of,
        stored=stored,
        watch=Watch(of.apply, *stored, key, *of.arrays),
        optimizer=optimizer,
        rules=rules,
        loss=loss,
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
    keys = jax.random.split(key, (len(models) + 1, seeds))
    runs: list[list[Future[Any]]] = []
    with open_pool() as pool:
        programs = []
        for model in models:
            types = _list_types(model, keys[0, 0])
            begin = jax.jit(_make_begin(model)).lower(*types[:1])
            take = jax.jit(_make_step(model), donate_argnums=0).lower(*types[1:])
            programs.append([pool.submit(x.compile) for x in (begin, take)])
        waiting: collections.deque[Future[Any]] = collections.deque()
        for place, (model, program) in enumerate(zip(models, programs, strict=True)):
            runs.append([])
            for seed in range(seeds):
                params, rest = _draw(model, keys[place, seed])
                targets = _draw_targets(model, keys[-1, seed])
                given = params, rest, keys[-1, seed], targets, model.of.arrays
                job = pool.submit(call_plainly, _run, program, steps, *given)
                runs[-1].append(job)
                waiting.append(job)
                if len(waiting) > 2:  # weights take memory
                    waiting.popleft().result()
        each = [[job.result() for job in jobs] for jobs in runs]
    decays = [_measure_decay(m, _draw(m, keys[i, 0])[0]) for i, m in enumerate(models)]
    return [
        _gather(name, [sized[name] for sized in named], each, decays, models)
        for name in named[0]
    ]


def _draw(model: Sized, key: jax.Array) -> tuple[Any, Any]:
    first, second = jax.random.split(key)
    params, rest = jit_init(lambda key: model.of.init(key, *model.of.arrays))(first)
    if model.rules is not None:
        structure = model.watch.structure
        params = reinit(second, params, model.rules, structure=structure)
    return params, rest


def _draw_targets(model: Sized, key: jax.Array) -> list[jax.Array]:
    """Draws what multiplies the outputs; the same at all sizes of equal outputs."""
    if model.loss is not None:
        return []
    keys = jax.random.split(key, len(model.watch.outputs))
    pairs = zip(keys, model.watch.outputs, strict=True)
    return [jax.random.normal(key, y.shape) for key, y in pairs]


def _list_types(model: Sized, key: jax.Array) -> tuple[Any, ...]:
    """Lists the types of the arguments of both programs: parameters, then the step."""
    params, rest = model.stored
    key = jax.eval_shape(lambda: key)
    state = jax.eval_shape(_make_begin(model), params)
    targets = jax.eval_shape(lambda key: _draw_targets(model, key), key)
    return params, state, rest, key, targets, model.of.arrays


def _make_begin(model: Sized) -> Callable[[Any], _State]:
    """Makes the function that begins to train."""
    watch = model.watch

    def begin(params: Any) -> _State:
        kept = model.optimizer.init(pick_trained(params))
        key, arrays = jax.eval_shape(lambda: jax.random.key(0)), model.of.arrays
        before = watch.make_before()
        stored = params, model.stored[1], key, arrays
        values = jax.eval_shape(lambda *args: watch.run(before, *args)[1], *stored)
        kinds = _pick_first(model, values, params)
        first = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), kinds)
        return _State(params, kept, first, jnp.zeros((), jnp.int32))

    return begin


def _pick_first(model: Sized, values: Any, params: Any) -> Any:
    """Picks what is compared with later values."""
    parts = {
        number: {name: v for name, v in place.items() if name != "moved"}
        for number, place in values.items()
    }
    leaves = dict(_paths.named(params))
    return parts, {path: leaves[path] for path in model.entries}


def _make_step(model: Sized) -> Callable[..., tuple[_State, Any]]:
    """Makes a step, which measures the model before it."""

    def take_step(
        state: _State, rest: Any, noise: jax.Array, targets: Any, arrays: Any
    ) -> tuple[_State, Any]:
        trained = pick_trained(state.params)
        places, entries = state.first
        before = {n: v["weight"] for n, v in places.items() if "weight" in v}

        def run(trained: Any) -> tuple[jax.Array, Any]:
            params = put_trained(state.params, trained)
            given = params, rest, noise, arrays
            output, values = model.watch.run(before, *given)
            return _compute_loss(model, output, targets), values

        (loss, values), slopes = jax.value_and_grad(run, has_aux=True)(trained)
        value_fn = lambda trained: run(trained)[0]  # noqa: E731
        moved, kept = move(model.optimizer, slopes, state.kept, trained, loss, value_fn)
        now = _pick_first(model, values, state.params)
        first = jax.tree.map(
            lambda new, old: jnp.where(state.taken == 0, new, old), now, state.first
        )
        seen = {
            number: _measure_place(values[number], first[0][number])
            for number in values
        }
        seen |= {
            path: {"output": _size(new), "moved": _size(new - first[1][path])}
            for path, new in now[1].items()
        }
        params = put_trained(state.params, moved)
        return _State(params, kept, first, state.taken + 1), seen

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


def _run(program: Sequence[Future[Any]], steps: int, params: Any, *rest: Any) -> Any:
    """Takes the steps, and measures before each of them and behind the last."""
    begin, take = (job.result() for job in program)
    state, seen = begin(params), []
    for _ in range(steps + 1):
        state, row = take(state, *rest)
        seen.append(jax.device_get(row))
    return jax.tree.map(lambda *each: np.array(each, np.float64), *seen)


def _measure_decay(model: Sized, params: Any) -> dict[str, float]:
    """Measures what a step without any gradient takes off each parameter."""

    @jax.jit
    def decay(params: Any) -> dict[str, jax.Array]:
        trained = pick_trained(params)
        zeros = jax.tree.map(jnp.zeros_like, trained)
        kept, loss = model.optimizer.init(trained), jnp.zeros(())
        moved, _ = move(model.optimizer, zeros, kept, trained, loss, lambda _: loss)
        pairs = zip(_paths.named(trained), _paths.named(moved), strict=True)
        return {path: _size(a - b) / _size(a) for (path, a), (_, b) in pairs}

    return {path: float(ratio) for path, ratio in decay(params).items()}


def _gather(
    name: Name,
    sources: Sequence[Sequence[Any]],
    each: Sequence[Sequence[Any]],
    decays: Sequence[Mapping[str, float]],
    models: Sequence[Sized],
) -> Measured:
    """Gathers what was measured under a name: means over its sources at each size."""
    parts = each[0][0][sources[0][0]]
    values = {
        part: np.array(
            [
                [
                    np.mean([seed[source][part] for source in own], axis=0)
                    for seed in seeds
                ]
                for own, seeds in zip(sources, each, strict=True)
            ]
        )
        for part in parts
    }
    taken = (
        [
            np.mean([decay[leaf] for leaf in _list_leaves(model, own) if leaf in decay])
            for own, decay, model in zip(sources, decays, models, strict=True)
        ]
        if name.kind not in ("module", *_BEHIND)
        else [np.nan]
    )
    decay = np.array(taken)[:, None, None] if np.all(np.array(taken) > 0) else None
    return Measured(
        path=name.path, kind=name.kind, role=name.role, values=values, decay=decay
    )


def _list_leaves(model: Sized, sources: Sequence[Any]) -> list[str]:
    """Lists the paths of the parameters behind some sources."""
    places = {place.number: place.leaves for place in model.watch.places}
    return [leaf for x in sources for leaf in (places.get(x) or (x,))]
