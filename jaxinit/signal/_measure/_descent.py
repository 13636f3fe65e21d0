"""Takes steps of an optimizer, and measures how far each layer's weight moves.

What multiplies the data at a layer is compared with what did one step before: a weight
that is made from several parameters counts as the layer sees it, and one that several
layers share counts for each.
"""

import collections
import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxinit import _check as check
from jaxinit._jaxpr.spelling import spell_program
from jaxinit.signal._measure._draw import Seed
from jaxinit.signal._measure._kept import call, compile_once
from jaxinit.signal._measure.chance import find_logits
from jaxinit.signal._measure.layers import Measured
from jaxinit.signal._measure.program import Program
from jaxinit.signal._measure.statistics import rms, wide
from jaxinit.signal._trace.evaluate import evaluate_plan
from jaxinit.signal._trace.site import Product
from jaxinit.signal.optimizing import move, pick_trained, put_trained

SEEDS = 4  # at most as many take steps: they differ little, and each step is a pass
_Weights = dict[int, jax.Array]  # by site # [repetitions, ...]


class Training(NamedTuple):
    """An optimizer, and how many of its steps are taken."""

    optimizer: Any  # a pair (init, update), as optax has them
    steps: int


class Descent(NamedTuple):
    """What the steps of an optimizer did.

    Attributes:
      loss: before each step, and behind the last. # [seeds, steps + 1]
      chance: the loss at the start if all logits were equal; None where the loss is not
        known to be a cross-entropy. # [seeds]
      updates: by site, the root mean square of the change of its weight over that of
        the weight before. # [seeds, steps, repetitions]
    """

    loss: np.ndarray
    chance: np.ndarray | None
    updates: dict[int, np.ndarray]

    @property
    def losses(self) -> dict[str, np.ndarray]:
        """The ``loss``, and that of ``chance`` if it is known."""
        losses = {"loss": self.loss}
        return losses if self.chance is None else losses | {"chance": self.chance}

    def list_updates(self, layers: Sequence[Measured]) -> Iterator[np.ndarray | None]:
        """Yields for each layer its updates, None for a module: [seeds, steps]."""
        places: dict[int, Iterator[int]] = collections.defaultdict(itertools.count)
        for layer in layers:
            updates = self.updates.get(layer.site.number)
            place = next(places[layer.site.number])
            yield None if updates is None else updates[..., place]


class _State(NamedTuple):
    params: Any
    optimizer: Any  # what it keeps
    weights: _Weights  # one step ago
    taken: jax.Array  # how many steps


class _Seen(NamedTuple):
    loss: jax.Array
    chance: jax.Array | None
    updates: _Weights  # of the step before # [repetitions]


def read_training(steps: Any, optimizer: Any, loss: Any) -> Training | None:
    """Checks the arguments of `check` that ask for steps; None if none are taken."""
    check.at_least(0, steps=steps)
    if not steps:
        if optimizer is None:
            return None
        rule = "steps must be 1 or above for an optimizer to take, such as steps=5."
        raise check.Unfit(rule, steps=steps)
    parts = (getattr(optimizer, name, None) for name in ("init", "update"))
    if not all(map(callable, parts)):
        rule = "optimizer must be one of optax for steps, such as optax.adam(1e-3)."
        raise check.Unfit(rule, TypeError, optimizer=optimizer)
    if loss is None:
        rule = "loss must be a function of the output for steps to lower."
        raise check.Unfit(rule, TypeError, loss=loss)
    return Training(optimizer, steps)


def descend(
    pool: Executor,
    program: Program,
    inputs: tuple[Any, ...],
    seeds: Sequence[Seed],
    training: Training,
) -> Descent:
    """Takes steps from each seed's weights, all on the same inputs.

    What else the model stores, such as averages of a BatchNorm, stays as it is.

    Args:
      pool: where programs are compiled.
      program: the model, with a loss.
      inputs: the inputs of its call.
      seeds: what was drawn for each seed.
      training: the optimizer.
    """
    optimizer, steps = training
    sites = [(site, size) for site, size in program.sites if isinstance(site, Product)]

    def begin_steps(params: Any) -> _State:
        weights = {
            site.number: jnp.zeros((*size, *weight.shape), weight.dtype)
            for site, size in sites
            if (weight := site.weight.aval)
        }
        kept = optimizer.init(pick_trained(params))
        return _State(params, kept, weights, jnp.zeros((), jnp.int32))

    first, *_ = seeds
    state, begin = _compile(pool, begin_steps, first.stored[0])
    more = first.stored[1], first.noise, inputs
    _, take = _compile(pool, _make_step(program, sites, optimizer), state, *more)
    seen: list[list[_Seen]] = []
    for seed in seeds:
        state, rows = begin(seed.stored[0]), []
        for _ in range(steps + 1):
            state, row = take(state, seed.stored[1], seed.noise, inputs)
            rows.append(jax.device_get(row))
        seen.append(rows)
    chance = [float(row.chance) for row, *_ in seen if row.chance is not None]
    return Descent(
        np.array([[float(row.loss) for row in rows] for rows in seen]),
        np.array(chance) if chance else None,
        {
            site.number: np.array(
                [[row.updates[site.number] for row in rows[1:]] for rows in seen]
            )
            for site, _ in sites
        },
    )


def _make_step(
    program: Program, sites: Sequence[tuple[Product, tuple[int, ...]]], optimizer: Any
) -> Callable[..., tuple[_State, _Seen]]:
    """Makes a step, which also tells how far the step before it went."""
    assert program.loss
    of_results = program.loss
    traced = jax.make_jaxpr(of_results)(program.outputs)
    logits = find_logits(traced.jaxpr, program.outputs)
    shifts = {
        site.number: {"output": jnp.zeros((*size, *y.shape), y.dtype)}
        for site, size in sites
        if (y := site.output.aval)
    }

    def take_step(
        state: _State, rest: Any, noise: jax.Array, inputs: tuple[Any, ...]
    ) -> tuple[_State, _Seen]:
        trained = pick_trained(state.params)

        def run(trained: Any) -> tuple[jax.Array, Any]:
            params = put_trained(state.params, trained)
            others = rest, jax.random.fold_in(noise, state.taken), inputs
            leaves = jax.tree.leaves((params, *others))
            results, values = evaluate_plan(program.plan, leaves, shifts)
            weights = {site.number: values[site.number]["weight"] for site, _ in sites}
            return of_results(results), (results, weights)

        of_trained = jax.value_and_grad(run, has_aux=True)
        (loss, (results, weights)), slopes = of_trained(trained)
        chance = None
        if logits:
            equal = {i: jnp.zeros_like(results[i]) for i in logits}
            chance = of_results([equal.get(i, x) for i, x in enumerate(results)])
        value_fn = lambda trained: run(trained)[0]  # noqa: E731
        trained, kept = move(
            optimizer, slopes, state.optimizer, trained, loss, value_fn
        )
        params = put_trained(state.params, trained)
        moved = {
            site.number: _compare(
                weights[site.number], state.weights[site.number], len(size)
            )
            for site, size in sites
        }
        seen = _Seen(loss, chance, moved)
        return _State(params, kept, weights, state.taken + 1), seen

    return take_step


def _compare(now: jax.Array, before: jax.Array, rank: int) -> jax.Array:
    """Divides the size of a change by that of a weight, by repetition."""
    rows = [w.astype(wide(w)).reshape(-1, *w.shape[rank:]) for w in (now, before)]
    axes = tuple(range(rows[0].ndim - 1))
    change: jax.Array = rms(rows[0] - rows[1], jnp, axes)
    size: jax.Array = rms(rows[1], jnp, axes)
    return change / size


def _compile(
    pool: Executor, function: Callable[..., Any], *args: Any
) -> tuple[Any, Callable[..., Any]]:
    """Compiles a function, unless an equal one was compiled before.

    Returns:
      The types of its results, and the compiled function.
    """
    closed, types = jax.make_jaxpr(function, return_shape=True)(*args)
    tree = jax.tree.structure(types)

    def run(*args: Any) -> Any:
        results = core.jaxpr_as_fun(closed)(*jax.tree.leaves(args))
        return jax.tree.unflatten(tree, results)

    about = function.__name__, spell_program(closed), tree
    job = compile_once(pool, run, about, *args)
    return types, lambda *args: call(job, *args)
