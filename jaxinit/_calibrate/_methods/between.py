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
    activations take more rounds. The bias of a layer goes with its output: it is
    multiplied by the factors of all layers before it, and its own.
    """
    weights = problem.weights
    changed = problem.list_changed()
    first = rates = _find_rates(problem, changed)
    best, kept = _find_unrest(rates), weights.save()
    rounds = 0
    while rounds < problem.rounds and _find_unrest(rates) > problem.tol:
        _scale(problem, rates)
        rates = _find_rates(problem, changed)
        rounds += 1
        if _find_unrest(rates) < best:
            best, kept = _find_unrest(rates), weights.save()
    weights.load(kept)
    rates = _find_rates(problem, changed)
    return Done(rounds, {number: (first[number], rates[number]) for number in rates})


def _find_unrest(rates: Rates) -> float:
    """Finds how far rates are from their geometric mean, as a share of it."""
    logs = _log(rates)
    every = np.concatenate([each.ravel() for each in logs.values()] or [np.zeros(1)])
    known = every[np.isfinite(every)]
    return float(np.expm1(np.abs(known).max(initial=0.0)))


def _log(rates: Rates) -> Rates:
    """Returns logarithms of rates over their geometric mean; NaN for rates of 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = {number: np.log(np.float64(rate)) for number, rate in rates.items()}
    every = np.concatenate([each.ravel() for each in logs.values()] or [np.zeros(0)])
    known = every[np.isfinite(every)]
    middle = known.mean() if known.size else 0.0
    return {n: np.where(np.isfinite(x), x - middle, np.nan) for n, x in logs.items()}


def _scale(problem: Problem, rates: Rates) -> None:
    """Multiplies each layer by the root of its rate over the geometric mean."""
    structure = problem.program.read_structure()
    assert structure is not None
    factors = {n: np.exp(np.nan_to_num(x) / 2) for n, x in _log(rates).items()}
    through: dict[str, float] = {}  # the factors on the output, by the weight's path
    for number, factor in factors.items():
        layer = problem.layers[number]
        scale_layer(problem.weights, layer, factor)
        row = structure.rows[layer.leaves[0]]
        before = [through[path] for path in row.before if path in through]
        level = np.exp(np.mean(np.log(before))) if before else 1.0
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
            wide = x.astype(jnp.promote_types(x.dtype, np.float32))
            axes = tuple(axis for axis in range(x.ndim) if axis not in steps)
            total = total + (abs(wide) ** 2).sum(axes)
        return total

    return jnp.sqrt(square(slopes) / square(leaves))
