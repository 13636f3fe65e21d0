"""The between-layer step: all layers change at one rate.

References:
  Krähenbühl, Doersch, Donahue, Darrell. Data-dependent Initializations of Convolutional Neural Networks. 2016. https://arxiv.org/abs/1511.06856
"""  # noqa: E501

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxinit._calibrate._unit_moments import widen
from jaxinit._calibrate.changes import scale_layer
from jaxinit._calibrate.problem import Done, Problem
from jaxinit._calibrate.scales import Layer, spread
from jaxinit.signal.adjusting import Program, keep, read_settings

Rates = dict[int, np.ndarray]  # by the number of a layer, for each of its steps


def equalize_rates(problem: Problem) -> Done:
    """Scales layers until their rates are equal.

    The rate of layer k is C_k = sqrt(mean G_k^2 / mean W_k^2), with G_k the gradient of
    the output weighted by normal numbers, a mean over which is the expected square. Let
    the output be proportional to each weight, as with relu: factors r_k of product 1
    leave it as it is, and G_k becomes G_k / r_k, so that C_k becomes C_k / r_k^2. All
    are equal to their geometric mean C at once with r_k = sqrt(C_k / C). Other
    activations take more rounds.

    In a residual branch the rates of all layers together do not depend on their common
    scale: each branch has a mean of its own, and adds what it added before. The rates
    of queries and keys do not follow their scales at all. The bias of a layer goes with
    its output: it is multiplied by the factors of all layers before it, and its own.
    """
    weights = problem.weights
    changed, meeting = [], {}
    for number in problem.list_changed():
        role = problem.program.find_role(problem.layers[number].site)
        if role in ("query", "key"):
            meeting[number] = "the rates of queries and keys do not follow their scales"
        else:
            changed.append(number)
    first = rates = _find_rates(problem, changed)
    logs = _compare_all(problem, rates)
    best, kept = _find_unrest(logs), weights.save()
    rounds = 0
    while rounds < problem.rounds and _find_unrest(logs) > problem.tol:
        _scale(problem, logs)
        logs = _compare_all(problem, _find_rates(problem, changed))
        rounds += 1
        if _find_unrest(logs) < best:
            best, kept = _find_unrest(logs), weights.save()
    weights.load(kept)
    rates = _find_rates(problem, changed)
    both = {number: (first[number], rates[number]) for number in rates}
    reasons = meeting | _list_unequal(_compare_all(problem, rates), problem.tol)
    return Done(rounds=rounds, rates=both, reasons=reasons)


def _list_unequal(logs: Rates, tol: float) -> dict[int, str]:
    """Lists the layers whose rate is far from the others', with words for it."""
    reasons = {}
    for number, log in logs.items():
        apart = float(np.expm1(np.abs(log)).max())
        if np.isnan(apart):
            reasons[number] = "stays as it is: its weight or its gradient is zero"
        elif apart > tol:
            reasons[number] = f"its rate is {100 * apart:.2g} % off the mean"
    return reasons


def _find_unrest(logs: Rates) -> float:
    """Finds how far rates are from their geometric mean, as a share of it."""
    every = [abs(log).max(initial=0.0, where=~np.isnan(log)) for log in logs.values()]
    return float(np.expm1(max(every, default=0.0)))


def _compare_all(problem: Problem, rates: Rates) -> Rates:
    """Returns logarithms of rates over the mean of their branch; NaN for rates of 0."""
    structure = problem.program.read_structure()
    assert structure is not None
    groups: dict[Any, list[float]] = {}
    logs: Rates = {}
    places: dict[int, list[Any]] = {}
    for number, rate in rates.items():
        branch = structure.rows[problem.layers[number].leaves[0]].branch
        # In a stack of blocks each has its own branch; a stack of layers is one chain.
        places[number] = [(branch, i) if branch else 0 for i in range(rate.size)]
        with np.errstate(divide="ignore", invalid="ignore"):
            log = np.log(np.float64(rate))
        logs[number] = np.where(np.isfinite(log), log, np.nan)
        for place, value in zip(places[number], logs[number].flat, strict=True):
            groups.setdefault(place, []).extend([] if np.isnan(value) else [value])
    means = {place: np.mean(values or [0.0]) for place, values in groups.items()}
    return {
        number: log - np.reshape([means[place] for place in places[number]], log.shape)
        for number, log in logs.items()
    }


def _scale(problem: Problem, logs: Rates) -> None:
    """Multiplies each layer by the root of its rate over the mean."""
    structure = problem.program.read_structure()
    assert structure is not None
    factors = {number: np.exp(np.nan_to_num(log) / 2) for number, log in logs.items()}
    through: dict[str, float] = {}  # the factors on the output, by the weight's path
    for number, layer in enumerate(problem.layers):
        left = not (problem.aim.chosen[number] or layer.reason or layer.follows)
        if number not in factors and not left:
            continue
        row = structure.rows[layer.leaves[0]]
        before = [through[path] for path in row.before if path in through]
        level = np.exp(np.mean(np.log(before))) if before else 1.0
        if left:  # it stays as it is, and passes on what comes
            through[row.path] = level
            continue
        factor = factors[number]
        scale_layer(problem.weights, layer, factor)
        through[row.path] = level * float(np.prod(factor))
        if layer.bias is not None:
            running = level * np.cumprod(factor).reshape(factor.shape)
            shape = problem.weights.leaves[layer.bias].shape
            axes = layer.bias_axes[0], ()
            problem.weights.scale(layer.bias, spread(running, shape, axes))


def _find_rates(problem: Problem, changed: Sequence[int]) -> Rates:
    """Computes the rate of each layer that may change, for each of its steps."""
    program, layers = problem.program, [problem.layers[i] for i in changed]
    axes = tuple((layer.leaves, layer.scale_axes) for layer in layers)
    token = "calibrate between", program.spelling, axes, read_settings()
    run = keep(token, lambda: jax.jit(_build(program, layers)))
    params, rest = problem.weights.stored
    leaves = jax.tree.leaves(params)
    others = jax.tree.leaves((rest, problem.noise, problem.inputs))
    rates = jax.device_get(run(leaves, others, problem.key))
    return dict(zip(changed, rates, strict=True))


def _build(program: Program, layers: Sequence[Layer]) -> Callable[..., list[Any]]:
    """Makes the function that computes the rates."""
    closed = program.plan.closed

    def run(leaves: list[Any], others: list[Any], key: jax.Array) -> list[jax.Array]:
        places = sorted({leaf for layer in layers for leaf in layer.leaves})

        def project(chosen: list[Any]) -> jax.Array:
            """Weights the outputs by normal numbers, and sums them."""
            given = list(leaves)
            for place, leaf in zip(places, chosen, strict=True):
                given[place] = leaf
            total = jnp.zeros((), np.float32)
            results = core.jaxpr_as_fun(closed)(*given, *others)
            for number, result in enumerate(results):
                if jnp.issubdtype(result.dtype, np.floating):
                    drawn = jax.random.normal(
                        jax.random.fold_in(key, number), result.shape, result.dtype
                    )
                    total += (drawn * result).sum().astype(np.float32)
            return total

        slopes = jax.grad(project)([leaves[place] for place in places])
        by_leaf = dict(zip(places, slopes, strict=True))
        return [_compare(layer, leaves, by_leaf) for layer in layers]

    return run


def _compare(layer: Layer, leaves: list[Any], slopes: dict[int, Any]) -> jax.Array:
    """Computes the rate of each step of a layer: its gradient over its weight."""

    def square(arrays: Any) -> Any:
        total: Any = 0.0
        for leaf, (steps, _) in zip(layer.leaves, layer.scale_axes, strict=True):
            x = arrays[leaf]
            wide = x.astype(widen(x.dtype))
            axes = tuple(axis for axis in range(x.ndim) if axis not in steps)
            total = total + (abs(wide) ** 2).sum(axes)
        return total

    return jnp.sqrt(square(slopes) / square(leaves))
