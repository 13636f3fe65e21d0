"""Trains models of several sizes for a few steps, and measures their layers.

One program for each size takes a step; they compile side by side. A seed's weights are
drawn by `jit_init`, and seeds and sizes run on a thread for each core.
"""

import collections
import functools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit import _paths
from jaxinit._threads import call_plainly, open_pool
from jaxinit.scaling._coordinate_match import BEHIND, Name, match
from jaxinit.scaling._coordinate_model import First, Sized, pick_first
from jaxinit.scaling._slopes import Along, Measured
from jaxinit.signal.optimizing import move, pick_trained, put_trained

_CHANGES = {"change", "drift", "moved", "passed"}  # since the start
_MADE = {"output", "change", "moved", "passed"}  # by the weight
_LEAST = 1e-6  # a decay below is rounding
_SOME = 64  # entries of a parameter that show how it decays


class _State(NamedTuple):
    params: Any
    kept: Any  # by the optimizer


def measure(
    models: Sequence[Sized], key: jax.Array, seeds: int, steps: int, along: Along
) -> list[Measured]:
    """Trains each model from each seed."""
    named = match([(m.size, list(m.list_names())) for m in models], along)
    keys = _split(key, len(models), seeds)
    runs: list[list[Future[Any]]] = []
    with open_pool() as pool:
        programs = []
        for model in models:
            lowered = _lower(model, keys.noise[0])
            programs.append([pool.submit(x.compile) for x in lowered])
        waiting: collections.deque[Future[Any]] = collections.deque()
        for place, (model, program) in enumerate(zip(models, programs, strict=True)):
            runs.append([])
            for seed in range(seeds):
                params, rest = model.draw(keys.weights[place][seed])
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


def _lower(model: Sized, key: jax.Array) -> tuple[Any, Any]:
    """Traces and lowers both programs."""
    params, rest = model.stored
    begin = jax.jit(_make_begin(model)).trace(params)
    state, _ = begin.out_info
    targets = jax.eval_shape(model.draw_targets, key)
    more = rest, key, targets, model.of.arrays
    take = jax.jit(_make_step(model), donate_argnums=0)
    return begin.lower(), take.lower(state, model.first, *more)


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


def _make_step(model: Sized) -> Callable[..., tuple[_State, First, Any]]:
    """Makes a step, which measures the model before it."""

    def take_step(
        state: _State, first: First, rest: Any, noise: Any, targets: Any, arrays: Any
    ) -> tuple[_State, First, Any]:
        trained = pick_trained(state.params)
        before = {n: v["weight"] for n, v in first.places.items() if "weight" in v}

        def run(trained: Any) -> tuple[jax.Array, Any]:
            params = put_trained(state.params, trained)
            output, values = model.watch.run(before, params, rest, noise, arrays)
            return _compute_loss(model, output, targets), values

        (loss, values), slopes = jax.value_and_grad(run, has_aux=True)(trained)
        value_fn = lambda trained: run(trained)[0]  # noqa: E731
        moved, kept = move(model.optimizer, slopes, state.kept, trained, loss, value_fn)
        now = pick_first(model.watch, values, state.params)
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
    if name.kind not in BEHIND:
        leaves = [_list_leaves(*pair) for pair in zip(models, sources, strict=True)]
        for place, (model, own) in enumerate(zip(models, leaves, strict=True)):
            rows = [model.scale[x] for x in own if model.scale and x in model.scale]
            theta = min((row.absorbed for row in rows), default=1.0)
            for part in _MADE & values.keys():
                values[part][place] /= theta  # as if the model multiplied behind it
            values["moved"][place] /= min((row.learns for row in rows), default=1.0)
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
