"""Advice: what is wrong with a model, in words and numbers, and what to change."""

import math
from collections.abc import Sequence

import numpy as np

from jaxinit._gain import ACTIVATIONS
from jaxinit.signal._measure import Measured
from jaxinit.signal._recommend import builder_of, weight_variance
from jaxinit.signal._report import Condition, Finding


def finding(
    condition: Condition,
    where: Sequence[int],
    measured: Sequence[Measured],
    names: Sequence[str],
    weighted: Sequence[int],
) -> Finding:
    """Says what is wrong, with the numbers, and what to change."""
    first, last = measured[where[0]], measured[where[-1]]
    place = names[where[0]]
    if len(where) > 1:
        place += f" – {names[where[-1]]}"
    backward = condition.endswith("gradient")
    cure = _cure(measured, weighted)
    if condition in ("vanishing", "exploding") or backward:
        ends = _ends(measured, weighted, backward)
        what = "gradient" if backward else "signal"
        reason = f"{place}: the {what} {_change(*ends)}{_weights(measured, weighted)}"
    elif condition == "non-finite":
        passing = "output" if np.any(first.forward["nonfinite"]) else "gradient"
        reason = f"{names[where[0]]}: the first {passing} that is infinite or no number"
        cure = cure if len(weighted) > 2 else "check the input, and use smaller weights"
    elif condition == "symmetric":
        share = average(first.forward["alike"])
        reason = (
            f"{place}: {share:.0%} of the units equal another, in output and gradient: "
            "they stay equal for ever, and count as one"
        )
        cure = "draw the weights at random. " + cure
    elif condition == "dead":
        share = average(last.forward["dead"])
        reason = f"{place}: {share:.0%} of the units are zero for every input"
        cure = "start the biases at zeros(). " + cure
    elif condition == "saturated":
        share = average(last.forward["saturated"])
        reason = f"{place}: {share:.0%} of the entries are where {last.activation} is "
        reason += f"flat (std {average(last.forward['std']):.2g})"
    else:
        distance = average(last.forward["distance"])
        reason = (
            f"{place}: different inputs have outputs of cosine 1 - {distance:.1g}: "
            "the network no longer tells inputs apart"
        )
    return Finding(condition, tuple(names[i] for i in where), reason + ".", cure)


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


def _weights(measured: Sequence[Measured], weighted: Sequence[int]) -> str:
    """Says which gain the weights have and which the activation needs."""
    found = _common(measured, weighted)
    if found is None or not found[2]:
        return ""
    m, name, gain = found
    needed = math.sqrt(_needed(m, name))
    return f": weights of gain {gain:.2g} before {name}, which needs {needed:.2g}"


def _cure(measured: Sequence[Measured], weighted: Sequence[int]) -> str:
    found = _common(measured, weighted)
    if found is None:
        return "use kernel_init=jaxinit.lecun_normal(), or a normalisation"
    m, name, gain = found
    needed = _needed(m, name)
    text = (
        f"use kernel_init=jaxinit.{builder_of(needed)} (gain {math.sqrt(needed):.2g})"
    )
    if name == "sigmoid":
        return (
            "sigmoid passes on at most a quarter of the gradient: use tanh or relu in "
            "the hidden layers, or a normalisation before it"
        )
    if abs(gain**2 - needed) < 0.02 * needed:
        return (
            f"the weights suit {name} already: add a normalisation or residual paths, "
            "or make the network less deep"
        )
    return text


def _common(
    measured: Sequence[Measured], weighted: Sequence[int]
) -> tuple[Measured, str, float] | None:
    """Finds the activation of most layers, and the gain of their weights."""
    by_name: dict[str, list[Measured]] = {}
    for i in weighted[:-1] or weighted:
        by_name.setdefault(measured[i].activation or "linear", []).append(measured[i])
    name, members = max(by_name.items(), key=lambda item: len(item[1]))
    gains = [
        math.sqrt(m.site.fan_in) * average(m.forward["weight_std"]) for m in members
    ]
    gain = float(np.median(gains))
    return (members[0], name, gain) if math.isfinite(gain) else None


def _needed(m: Measured, name: str) -> float:
    """Returns Var[W] * fan_in that suits an activation."""
    activation = name if name in ACTIVATIONS else m.site.activation
    assert activation is not None
    try:
        return weight_variance(activation)[0]
    except (ValueError, TypeError):
        return 1.0


def average(values: object) -> float:
    return float(np.mean(np.asarray(values, np.float64)))


def log_size(values: np.ndarray) -> float:
    """Averages the logarithm of a size over seeds; infinite if none is finite."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(np.asarray(values, np.float64))
    finite = logs[np.isfinite(logs)]
    if not finite.size:
        return (
            -math.inf if np.nanmax(logs, initial=-math.inf) == -math.inf else math.inf
        )
    return float(finite.mean())


def start_of(measured: Sequence[Measured], weighted: Sequence[int]) -> float:
    """Returns the logarithm of the size that the signal starts with."""
    forward = [measured[i].forward for i in weighted]
    inputs = [each["input_rms"] for each in forward if "input_rms" in each]
    sizes = [log_size(size) for size in (*inputs[:1], *(f["rms"] for f in forward))]
    return next((size for size in sizes if math.isfinite(size)), 0.0)
