"""Rounds of passes: until each layer has the standard deviation that it should have."""

import math
from collections.abc import Sequence

import numpy as np

from jaxinit._calibrate.changes import Weights, scale_layer
from jaxinit._calibrate.passes import Aim, Outcome
from jaxinit._calibrate.problem import Done, Problem
from jaxinit._calibrate.scales import Layer, spread


def apply_solutions(
    weights: Weights, layers: Sequence[Layer], outcomes: Sequence[Outcome], aim: Aim
) -> None:
    """Changes weights and biases as a pass found; tied ones once."""
    for layer, outcome in zip(layers, outcomes, strict=True):
        if layer.reason or layer.follows:
            continue
        scale_layer(weights, layer, outcome.solution.scale)
        if layer.bias is not None and aim.offset is not None:
            assert outcome.solution.bias is not None
            shape = weights.leaves[layer.bias].shape
            new = spread(outcome.solution.bias, shape, layer.bias_axes)
            weights.set(layer.bias, new)


def run_rounds(problem: Problem) -> Done:
    """Scales layers until all have what the method gives them.

    A pass finds the scales of all layers whose weights are used once, in their order.
    Weights that several steps of a loop share, or that are tied across one, are scaled
    behind the pass, so that others have moved on: these take further rounds. Should
    they lead away from the aim, the weights are those of the best round.
    """
    weights, aim = problem.weights, problem.aim
    best, kept = math.inf, weights.save()
    for done in range(problem.rounds + 1):
        outcomes = problem.measure()
        errors = {
            i: find_error(problem.layers[i], outcomes[i], aim.stds[i], aim.offset)
            for i in problem.list_changed()
        }
        if all(error <= problem.find_tol(i) for i, error in errors.items()):
            return Done(done)
        # One that cannot be reached should not hide what the others gain.
        unrest = sum(min(error, 1.0) for error in errors.values())
        if unrest < best:
            best, kept = unrest, weights.save()
        if done == problem.rounds:
            break
        outcomes = problem.run(weights.stored, problem.noise, aim, True)
        before = weights.leaves.copy()
        apply_solutions(weights, problem.layers, outcomes, aim)
        if all(a is b for a, b in zip(before, weights.leaves, strict=True)):
            weights.load(kept)
            return Done(done)  # nothing more can be reached
    weights.load(kept)
    return Done(problem.rounds)


def find_error(
    layer: Layer, outcome: Outcome, std: float, offset: float | None
) -> float:
    """Finds how far units are from their aim, as a share of it; dead ones aside."""
    moments = outcome.moments
    error = np.abs(moments.std / std - 1)
    if layer.bias is not None and offset is not None:
        error = np.maximum(error, np.abs(moments.mean - offset) / std)
    error = np.where(np.isfinite(error), error, np.inf)
    return float(np.max(np.where(moments.is_constant, 0.0, error), initial=0.0))
