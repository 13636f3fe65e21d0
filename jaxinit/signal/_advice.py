"""Advice: what is wrong with a model, in words and numbers, and what to change."""

import math
from collections.abc import Sequence

import numpy as np

from jaxinit.signal._averages import average, log_size, start_of
from jaxinit.signal._cures import cure_of, weights_of
from jaxinit.signal._findings import Condition, Finding
from jaxinit.signal._measure import Measured

_SMALL = 0.1  # an input that is to blame for a small signal
_STAYS = 10.0  # the factor within which the layers keep it


def finding(
    condition: Condition,
    where: Sequence[int],
    measured: Sequence[Measured],
    names: Sequence[str],
    weighted: Sequence[int],
) -> Finding:
    """Says what is wrong, with the numbers, and what to change."""
    if condition == "non-finite":  # gradients before a bad output are bad behind it
        where = sorted(where, key=lambda i: not measured[i].forward["nonfinite"].any())
    first, last = measured[where[0]], measured[where[-1]]
    place = names[where[0]]
    if len(where) > 1:
        place += f" – {names[where[-1]]}"
    backward = condition.endswith("gradient")
    if condition in ("vanishing", "exploding") or backward:
        reason = f"{place}: {_drift(measured, weighted, backward)}"
    elif condition == "non-finite":
        passing = "output" if np.any(first.forward["nonfinite"]) else "gradient"
        reason = f"{names[where[0]]}: the first {passing} that is infinite or no number"
    elif condition == "symmetric":
        share = average(first.forward["alike"])
        reason = (
            f"{place}: {share:.0%} of the units equal another, in output and gradient: "
            "they stay equal for ever, and count as one"
        )
    elif condition == "dead":
        share = average(last.forward["dead"])
        reason = f"{place}: {share:.0%} of the units are zero for every input"
    elif condition == "saturated":
        share = average(last.forward["saturated"])
        reason = f"{place}: {share:.0%} of the entries are where {last.activation} is "
        reason += f"flat (std {average(last.forward['std']):.2g})"
    elif condition == "saturated attention":
        share = average(first.forward["attention_saturated"])
        std = average(first.forward["attention_std"])
        reason = (
            f"{place}: {share:.0%} of the queries give one key all the weight, for "
            f"logits of std {std:.2g}: no gradient tells them of the other keys"
        )
    elif condition == "loss above chance":
        loss, chance = (
            average(first.forward[name]) for name in ("expected_loss", "chance_loss")
        )
        reason = (
            f"{place}: the cross-entropy starts at {loss:.3g}, where guessing among "
            f"{first.classes} classes has {chance:.2g}: logits of std "
            f"{average(first.forward['std']):.2g} are certain of a random class"
        )
    else:
        distance = average(last.forward["distance"])
        reason = (
            f"{place}: different inputs have outputs of cosine 1 - {distance:.1g}: "
            "the network no longer tells inputs apart"
        )
    cure = cure_of(condition, where, measured, names, weighted)
    return Finding(condition, tuple(names[i] for i in where), reason + ".", cure)


def _drift(
    measured: Sequence[Measured], weighted: Sequence[int], backward: bool
) -> str:
    """Says by how much a signal or a gradient changes, from end to end."""
    start, end, steps = _ends(measured, weighted, backward)
    weights = weights_of(measured, weighted)
    if backward:
        return f"the gradient {_change(start, end, steps)}{weights}"
    if start < math.log(_SMALL) and end > start - math.log(_STAYS):
        return f"the signal is {_power(end)}, since the input is {_power(start)}"
    return f"the signal {_change(start, end, steps)}{weights}"


def _ends(
    measured: Sequence[Measured], weighted: Sequence[int], backward: bool
) -> tuple[float, float, int]:
    """Returns the logarithms of the sizes between which a drift runs, and its steps."""
    if backward:
        sizes = [log_size(measured[i].backward["norm"]) for i in reversed(weighted)]
    else:
        inner = list(weighted[:-1]) or list(weighted)
        sizes = [start_of(measured, weighted)]
        sizes += [log_size(measured[i].forward["rms"]) for i in inner]
    finite = [i for i, size in enumerate(sizes) if math.isfinite(size)]
    if not finite:
        return 0.0, 0.0, 1
    return sizes[finite[0]], sizes[finite[-1]], max(1, finite[-1] - finite[0])


def _change(start: float, end: float, steps: int) -> str:
    if start == end:
        return "is zero"
    way = "shrinks" if end < start else "grows"
    each = math.exp((end - start) / steps)
    return (
        f"{way} by {each:.2g} per layer, from {_power(start)} to {_power(end)} "
        f"over {steps} layers"
    )


def _power(log: float) -> str:
    return f"{math.exp(log):.2g}" if abs(log) < 700 else f"1e{log / math.log(10):.0f}"
