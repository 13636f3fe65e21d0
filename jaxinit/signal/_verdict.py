"""Verdicts: from what was measured to what is wrong, and what to change.

Signal and gradient are judged by how far they drift over the whole depth, not layer by
layer: a factor of ``limit`` (100 by default) between the first layer's input and all
layers from some depth on, or between the last layer's gradient and all layers up to
some depth. What recovers, as behind a normalisation or on a residual path, is healthy.
Attention is judged as `jaxinit.signal._attention` derives it, logits of classes as
`jaxinit.signal._chance` does.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from jaxinit.signal._advice import finding
from jaxinit.signal._averages import average, log_size, start_of
from jaxinit.signal._chance import MOST
from jaxinit.signal._findings import Condition, Finding, Layer
from jaxinit.signal._measure import Measured
from jaxinit.signal._prediction import predicted

_MOST = 0.5  # of a layer's units or entries
_DEAD = 0.9  # of a layer's units: deep relu networks tend to 1/2 for any one direction
_LEAST = 0.1  # of all layers, for a drift
_COLLAPSED = 1e-4  # one less the cosine of different inputs
_ORDER: tuple[Condition, ...] = (
    "symmetric",
    "dead",
    "exploding",
    "vanishing",
    "non-finite",
    "saturated",
    "saturated attention",
    "exploding gradient",
    "vanishing gradient",
    "collapsed",
    "loss above chance",
)


def judge(
    measured: Sequence[Measured], limit: float
) -> tuple[tuple[Layer, ...], tuple[Finding, ...]]:
    """Makes layers and findings of what was measured.

    Args:
      measured: in the order of execution.
      limit: the factor over all layers that makes a signal vanish or explode.
    """
    names = [_name(m) for m in measured]
    theory = predicted(measured)
    weighted = [i for i, m in enumerate(measured) if m.site.kind != "module"]
    marks: dict[Condition, list[int]] = {}
    marks["non-finite"] = [
        i
        for i, m in enumerate(measured)
        if average(m.forward["nonfinite"]) + average(m.backward["nonfinite"]) > 0
    ]
    finite = [i for i in weighted if not average(measured[i].forward["nonfinite"])]
    marks["dead"] = _above(_DEAD, "dead", measured, finite)
    marks["saturated"] = _above(_MOST, "saturated", measured, finite)
    marks["saturated attention"] = _above(
        _MOST, "attention_saturated", measured, finite
    )
    marks["loss above chance"] = _above_chance(measured, finite)
    marks["symmetric"] = [
        i
        for i in finite
        if average(measured[i].forward["weight_alike"]) > _MOST
        and average(measured[i].forward["alike"]) > _MOST
        and average(measured[i].backward["weight_alike"]) > _MOST
    ]
    marks["collapsed"] = _collapsed(measured, finite)
    marks |= _drift(measured, weighted, finite, limit)
    if marks["symmetric"] or marks["dead"]:  # which explain a gradient of zero
        marks["collapsed"] = []
        marks["vanishing gradient"] = [
            i
            for i in marks["vanishing gradient"]
            if np.any(measured[i].backward["norm"])
        ]
    if marks["exploding"] or marks["non-finite"]:  # which explain any loss
        marks["loss above chance"] = []
    findings = tuple(
        finding(condition, marks[condition], measured, names, weighted)
        for condition in _ORDER
        if marks.get(condition)
    )
    conditions: dict[int, Condition] = {}
    for condition in reversed(_ORDER):
        where = [*marks.get(condition, ()), *_modules(condition, marks, measured)]
        conditions |= dict.fromkeys(where, condition)
    layers = tuple(
        Layer(
            names[i],
            m.site.kind,
            m.shape,
            m.site.fan_in,
            m.activation,
            m.forward,
            m.backward,
            theory.get(i, {}),
            conditions.get(i, "healthy"),
        )
        for i, m in enumerate(measured)
    )
    return layers, findings


def _name(m: Measured) -> str:
    return m.path + (f"[{', '.join(map(str, m.step))}]" if m.step else "")


def _drift(
    measured: Sequence[Measured],
    weighted: Sequence[int],
    finite: Sequence[int],
    limit: float,
) -> dict[Condition, list[int]]:
    """Finds layers where signal or gradient has vanished or exploded for good."""
    bound = math.log(limit)
    start = start_of(measured, finite)
    # An input may be small, but not so small that all layers would learn from nothing.
    least = max(start, -bound) - bound
    # The last layer's own scale is a choice: a small head does not vanish.
    inner = [i for i in finite if i != weighted[-1] or len(weighted) == 1]
    sizes = {i: log_size(measured[i].forward["rms"]) for i in finite}
    arriving = [i for i in inner if sizes[i] > -math.inf]
    marks: dict[Condition, list[int]] = {
        "vanishing": _end(arriving, lambda i: sizes[i] < least),
        "exploding": _end(arriving, lambda i: sizes[i] > start + bound),
    }
    for condition in ("vanishing", "exploding"):  # it ends as those before it
        if marks[condition] and finite[-1] not in inner:
            size = sizes[finite[-1]]
            if -math.inf < size < least or size > start + bound:
                marks[condition].append(finite[-1])
    marks["vanishing gradient"] = marks["exploding gradient"] = []
    if len(finite) < len(weighted):  # then no gradient means anything
        return marks
    waiting = _waiting(measured)
    end = log_size(measured[weighted[-1]].backward["norm"])
    norms = {
        i: log_size(measured[i].backward["norm"]) - end
        for i in weighted
        if i not in waiting and not math.isnan(end)
    }
    back = list(reversed(norms))
    marks["vanishing gradient"] = _end(back, lambda i: norms[i] < -bound)[::-1]
    marks["exploding gradient"] = _end(back, lambda i: norms[i] > bound)[::-1]
    return marks


def _end(items: Sequence[int], holds: Callable[[int], bool]) -> list[int]:
    """Returns the longest end of which all hold, unless it is no drift but one branch.

    The first queries and keys of a transformer, say, get little gradient.
    """
    found = _suffix(items, holds)
    return found if len(found) >= _LEAST * len(items) else []


def _suffix(items: Sequence[int], holds: Callable[[int], bool]) -> list[int]:
    """Returns the longest end of a sequence of which all hold."""
    found: list[int] = []
    for item in reversed(items):
        if not holds(item):
            break
        found.append(item)
    return found[::-1]


def _waiting(measured: Sequence[Measured]) -> set[int]:
    """Finds layers whose gradient is zero only until a closed one opens.

    A closed layer puts out zeros but learns, as the last of a residual branch often
    starts; what lies before it gets its gradient after the first step.
    """
    closed = [
        i
        for i, m in enumerate(measured)
        if not np.any(m.forward["rms"])
        and np.all(m.backward["norm"] > 0)
        and np.all(m.backward.get("weight_std", 1) > 0)
        and m.path != "(output)"
    ]
    if not closed:
        return set()
    return {
        i
        for i, m in enumerate(measured)
        if i < closed[-1] and not np.any(m.backward["norm"])
    }


def _above(
    share: float, name: str, measured: Sequence[Measured], where: Sequence[int]
) -> list[int]:
    """Finds layers in which more than a share of the units is in some state."""
    return [i for i in where if average(measured[i].forward.get(name, 0)) > share]


def _above_chance(measured: Sequence[Measured], weighted: Sequence[int]) -> list[int]:
    """Finds the layer whose outputs are known to be logits, far above chance."""
    known = [i for i in weighted if measured[i].classes]
    return [
        i
        for i in known[-1:]
        if average(measured[i].forward["expected_loss"])
        > MOST * average(measured[i].forward["chance_loss"])
    ]


def _modules(
    condition: Condition,
    marks: Mapping[Condition, Sequence[int]],
    measured: Sequence[Measured],
) -> list[int]:
    """Finds modules among layers whose signal has gone, that are no larger."""
    where = marks.get(condition)
    if not where or condition not in ("vanishing", "exploding"):
        return []
    sizes = [log_size(measured[i].forward["rms"]) for i in where]
    low, high = (math.floor(min(sizes)) - 1, math.ceil(max(sizes)) + 1)
    return [
        i
        for i in range(where[0], len(measured))
        if measured[i].site.kind == "module"
        and low <= log_size(measured[i].forward["rms"]) <= high
    ]


def _collapsed(measured: Sequence[Measured], weighted: Sequence[int]) -> list[int]:
    """Finds the end of the network in which different inputs look alike."""
    inner = [i for i in weighted if average(measured[i].forward["rms"]) > 0]
    distances = {i: average(measured[i].forward["distance"]) for i in inner}
    if not inner or not distances[inner[0]] > 10 * _COLLAPSED:
        return []
    return _suffix(inner, lambda i: distances[i] < _COLLAPSED)
