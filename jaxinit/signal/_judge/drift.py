"""Finds drift: signals and gradients that vanish or explode.

Both are judged by how far they drift over the whole depth, not layer by layer: by a
factor of ``limit`` between the first layer's input and all layers from some depth on,
or between the last layer's gradient and all layers up to some depth. A signal that
recovers, as behind a normalization or on a residual path, is healthy.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from jaxinit._text import plural
from jaxinit.signal._judge.cures import describe_weights
from jaxinit.signal._judge.evidence import Evidence
from jaxinit.signal._measure.statistics import log_size

_LEAST = 0.1  # the share of all layers that makes a drift
_SMALL = 0.1  # an input below this is to blame for a small signal
_STAYS = 10.0  # if the layers keep the signal within this factor of the input


def find_silence(evidence: Evidence) -> list[int]:
    """Finds the layers that zeros enter, if the last one is among them.

    A branch may begin or end with zeros, and the last layer may be zero; but if zeros
    enter the last layer, no input makes a difference to the output. A module that turns
    the signal to zero, such as a norm, is named with the first layer behind it.
    """
    layers, unfed = evidence.layers, evidence.unfed
    if not unfed or evidence.weighted[-1] != unfed[-1]:
        return []
    first = unfed[0]
    while first and layers[first - 1].site.kind == "module":
        if np.any(layers[first - 1].forward["rms"]):
            break
        first -= 1
    return [*range(first, unfed[0]), *unfed]


def find_vanishing(evidence: Evidence) -> list[int]:
    """Finds the layers behind which the signal stays too small."""
    return _find_signal_drift(evidence, lambda size, least, most: size < least)


def find_exploding(evidence: Evidence) -> list[int]:
    """Finds the layers behind which the signal stays too large."""
    return _find_signal_drift(evidence, lambda size, least, most: size > most)


def find_vanishing_gradient(evidence: Evidence) -> list[int]:
    """Finds the layers before which the gradient stays too small."""
    return _find_gradient_drift(evidence, lambda size, bound: size < -bound)


def find_exploding_gradient(evidence: Evidence) -> list[int]:
    """Finds the layers before which the gradient stays too large."""
    return _find_gradient_drift(evidence, lambda size, bound: size > bound)


def _find_signal_drift(
    evidence: Evidence, holds: Callable[[float, float, float], bool]
) -> list[int]:
    finite, weighted = evidence.finite, evidence.weighted
    bound = math.log(evidence.limit)
    start = evidence.start(finite)
    # An input may be small, but not so small that layers have nothing to learn from.
    # Behind a large one the usual size is no loss: tanh, say, ends all at 1.
    least, most = min(max(start, -bound), 0) - bound, start + bound
    # The last layer's own scale is a choice: a small head does not vanish.
    inner = [i for i in finite if i != weighted[-1] or len(weighted) == 1]
    sizes = {i: log_size(evidence.layers[i].forward["rms"]) for i in finite}
    arriving = [i for i in inner if sizes[i] > -math.inf]
    drifting = _find_drift(arriving, lambda i: holds(sizes[i], least, most))
    if drifting and finite[-1] not in inner:  # the last layer joins those before it
        size = sizes[finite[-1]]
        if -math.inf < size < least or size > most:
            drifting.append(finite[-1])
    return drifting


def _find_gradient_drift(
    evidence: Evidence, holds: Callable[[float, float], bool]
) -> list[int]:
    layers, weighted = evidence.layers, evidence.weighted
    if len(evidence.finite) < len(weighted):  # no gradient means anything
        return []
    waiting = set(find_waiting(evidence))
    end = log_size(layers[weighted[-1]].backward["norm"])
    norms = {
        i: log_size(layers[i].backward["norm"]) - end
        for i in reversed(weighted)
        if i not in waiting and not math.isnan(end)
    }
    bound = math.log(evidence.limit)

    def find(items: list[int]) -> list[int]:
        return _find_drift(items, lambda i: holds(norms[i], bound))[::-1]

    # A layer before a loop over time gets gradients from all its steps: those of the
    # loop alone tell whether they come from the last steps only.
    loops = dict.fromkeys(layers[i].site.loop for i in norms if layers[i].step)
    inside = [[i for i in norms if layers[i].site.loop == loop] for loop in loops]
    drifts = map(find, [list(norms), *inside])
    return next((drift for drift in drifts if drift), [])


def _find_drift(items: Sequence[int], holds: Callable[[int], bool]) -> list[int]:
    """Returns the longest end on which ``holds`` is true; [] if it is one branch only.

    The first queries and keys of a transformer, say, get little gradient: no drift.
    """
    end = find_suffix(items, holds)
    return end if len(end) >= _LEAST * len(items) else []


def find_suffix(items: Sequence[int], holds: Callable[[int], bool]) -> list[int]:
    """Returns the longest end of a sequence on which ``holds`` is true."""
    end: list[int] = []
    for item in reversed(items):
        if not holds(item):
            break
        end.append(item)
    return end[::-1]


def find_waiting(evidence: Evidence) -> list[int]:
    """Finds layers whose gradient is zero only until something behind them opens.

    A layer is closed if it returns zeros but learns, as the last one of a residual
    branch often does at the start, or the readout: layers before it get a gradient
    after the first step. So do all once a gain that is zero has learned, such as the
    alphas of ReZero; where in the network that gain is, is not known.
    """
    layers = evidence.layers
    closed = find_closed(evidence)
    last = len(layers) if evidence.opens_by_gain else closed[-1] if closed else 0
    return [i for i in range(last) if not np.any(layers[i].backward["norm"])]


def find_closed(evidence: Evidence) -> list[int]:
    """Finds layers that return zeros but learn."""
    return [
        i
        for i, m in enumerate(evidence.layers)
        if not np.any(m.forward["rms"])
        and np.all(m.backward["norm"] > 0)
        and np.all(m.backward.get("weight_std", 1) > 0)
        and m.path != "(output)"
    ]


def find_modules(evidence: Evidence, where: Sequence[int]) -> list[int]:
    """Finds modules behind the first marked layer whose signal is about as large."""
    rms = [log_size(m.forward["rms"]) for m in evidence.layers]
    sizes = [rms[i] for i in where if math.isfinite(rms[i])]
    if not sizes:
        return []
    low, high = math.floor(min(sizes)) - 1, math.ceil(max(sizes)) + 1
    return [
        i
        for i in range(where[0], len(rms))
        if evidence.layers[i].site.kind == "module" and low <= rms[i] <= high
    ]


def describe_signal(evidence: Evidence, where: Sequence[int]) -> str:
    """Says by how much a signal changes, from end to end."""
    if find_silence(evidence):
        gains = "".join(
            f": the gain {path} is zero" for path in evidence.zero_gains[:1]
        )
        return f"{evidence.place(where)}: the signal is zero for every input{gains}"
    inner = evidence.weighted[:-1] or evidence.weighted
    sizes = [log_size(evidence.layers[i].forward["rms"]) for i in inner]
    start, end, steps = _find_ends([evidence.start(evidence.weighted), *sizes])
    if start < math.log(_SMALL) and end > start - math.log(_STAYS):
        what = f"is {_format_power(end)}, since the input is {_format_power(start)}"
    else:
        what = _describe_change(start, end, steps) + describe_weights(evidence)
    return f"{evidence.place(where)}: the signal {what}"


def describe_gradient(evidence: Evidence, where: Sequence[int]) -> str:
    """Says by how much a gradient changes, from end to end."""
    back = reversed(evidence.weighted)
    sizes = [log_size(evidence.layers[i].backward["norm"]) for i in back]
    what = _describe_change(*_find_ends(sizes)) + describe_weights(evidence)
    return f"{evidence.place(where)}: the gradient {what}"


def _find_ends(sizes: Sequence[float]) -> tuple[float, float, int]:
    """Returns the logarithms of a drift's first and last size, and its steps."""
    finite = [i for i, size in enumerate(sizes) if math.isfinite(size)]
    if not finite:
        return 0.0, 0.0, 1
    return sizes[finite[0]], sizes[finite[-1]], max(1, finite[-1] - finite[0])


def _describe_change(start: float, end: float, steps: int) -> str:
    if start == end:
        return "is zero"
    way = "shrinks" if end < start else "grows"
    each = math.exp((end - start) / steps)
    ends = f"from {_format_power(start)} to {_format_power(end)}"
    return f"{way} by {each:.2g} per layer, {ends} over {plural(steps, 'layer')}"


def _format_power(log: float) -> str:
    return f"{math.exp(log):.2g}" if abs(log) < 700 else f"1e{log / math.log(10):.0f}"
