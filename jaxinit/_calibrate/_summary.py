"""Sums up a calibration: a row for each layer, with the reason if it fell short."""

from collections.abc import Sequence

import numpy as np

from jaxinit import _text
from jaxinit._calibrate._unit_moments import Moments
from jaxinit._calibrate.calibration import CalibratedLayer
from jaxinit._calibrate.passes import Outcome
from jaxinit._calibrate.problem import Done, Problem
from jaxinit._calibrate.scales import Layer, list_rows

_THEORY = 0.5  # the relative error that is good enough for what no pass has measured


def list_layers(
    problem: Problem, before: Sequence[Outcome], after: Sequence[Outcome], done: Done
) -> list[CalibratedLayer]:
    """Lists what became of each layer, and of each step of a stack of them."""
    rows = []
    numbers = {layer: number for number, layer in enumerate(problem.layers)}
    for layer, step, name in list_rows(problem.layers):
        number = numbers[layer]
        chosen = problem.aim.chosen[number]
        aims = chosen and problem.aim.has_targets
        moments = after[number].moments
        scale = problem.weights.factors.get(layer.leaves)
        if scale is None:
            scale = np.ones_like(moments.spread)
        rates = done.rates.get(number)
        row = CalibratedLayer(
            path=name,
            role=problem.program.find_role(layer.site),
            target=problem.aim.stds[number] if aims else None,
            before=_pick(layer, before[number].moments.std, step),
            after=_pick(layer, moments.std, step),
            mean_before=_pick(layer, before[number].moments.mean, step),
            mean_after=_pick(layer, moments.mean, step),
            scale=_pick(layer, scale, step),
            rates=None if rates is None else (rates[0].flat[step], rates[1].flat[step]),
            reason=_explain(problem, done, number, moments, step) if chosen else "",
        )
        rows.append(row)
    return rows


def _pick(layer: Layer, values: np.ndarray, step: int) -> np.ndarray:
    """Returns the values of one step, by unit."""
    values = np.asarray(values)
    units = values.shape[len(layer.own) :]
    picked: np.ndarray = values.reshape(-1, *units)[step]
    return np.asarray(picked)


def _explain(
    problem: Problem, done: Done, number: int, moments: Moments, step: int
) -> str:
    """Tells why a layer has not reached its target; "" if it has."""
    layer, aim = problem.layers[number], problem.aim
    if layer.reason:
        return f"stays as it is: {layer.reason}"
    std, mean = _pick(layer, moments.std, step), _pick(layer, moments.mean, step)
    if not np.isfinite(mean).all():
        return "its output is not finite"
    if not np.isfinite(std).all():
        return "the square of its output is not finite"
    if number in done.reasons:
        return done.reasons[number]
    constant = _pick(layer, moments.is_constant, step)
    dead = int(constant.sum())
    if dead == constant.size:
        return "stays as it is: its product with the data is constant"
    of_units = (
        f"{_text.plural(dead, 'unit')} of {constant.size} constant" if dead else ""
    )
    if not aim.has_targets:
        return of_units
    error = np.abs(std / aim.stds[number] - 1)[~constant]
    tol = _THEORY if aim.solve is None else problem.find_tol(number)
    if layer.follows and error.max() > tol:
        return "has the weight of an earlier layer, and follows that one"
    if error.max() > tol and aim.solve is None:
        return f"has a std of {_text.number(float(std))}, unlike in theory"
    if error.max() > tol:
        across = float(_pick(layer, moments.across, step).max()) ** 0.5
        if across >= aim.stds[number]:
            return f"its bias alone has a std of {_text.number(across)}"
        shown = _text.span(std[~constant].flat)
        return f"has {shown} after {_text.plural(done.rounds, 'round')}"
    if aim.offset is None:
        return of_units
    off = np.abs(mean - aim.offset)[~constant] > tol * aim.stds[number]
    if off.any() and layer.bias is None:
        return "keeps its mean: it has no bias of its own"
    if off.any() and layer.follows:
        return "has the weight of an earlier layer, whose mean it does not share"
    if off.any():
        shown = _text.span(mean[~constant].flat)
        return f"has a mean of {shown} after {_text.plural(done.rounds, 'round')}"
    return of_units
