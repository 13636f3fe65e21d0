"""Verdicts: from what was measured to what is wrong, and what to change.

Signal and gradient are judged by how far they drift over the whole depth, not layer by
layer: a factor of ``limit`` (100 by default) between the first layer's input and all
layers from some depth on, or between the last layer's gradient and all layers up to
some depth. What recovers, as behind a normalisation or on a residual path, is healthy.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from jaxinit._gain import ACTIVATIONS
from jaxinit.signal import theory
from jaxinit.signal._measure import Measured
from jaxinit.signal._recommend import builder_of, weight_variance
from jaxinit.signal._report import Condition, Finding, Layer

_MOST = 0.5  # of a layer's units or entries
_DEAD = 0.9  # of a layer's units: deep relu networks tend to 1/2 for any one direction
_COLLAPSED = 1e-4  # one less the cosine of different inputs
_ORDER: tuple[Condition, ...] = (
    "symmetric",
    "dead",
    "exploding",
    "vanishing",
    "non-finite",
    "saturated",
    "exploding gradient",
    "vanishing gradient",
    "collapsed",
)
_GRID = np.linspace(-4, 4, 161, dtype=np.float32)


def judge(
    measured: Sequence[Measured], limit: float
) -> tuple[tuple[Layer, ...], tuple[Finding, ...]]:
    """Makes layers and findings of what was measured.

    Args:
      measured: in the order of execution.
      limit: the factor over all layers that makes a signal vanish or explode.
    """
    names = [_name(m) for m in measured]
    predicted = _predicted(measured)
    weighted = [i for i, m in enumerate(measured) if m.site.kind != "module"]
    marks: dict[Condition, list[int]] = {}
    marks["non-finite"] = [
        i
        for i, m in enumerate(measured)
        if _average(m.forward["nonfinite"]) + _average(m.backward["nonfinite"]) > 0
    ]
    finite = [i for i in weighted if not _average(measured[i].forward["nonfinite"])]
    marks["dead"] = _above(_DEAD, "dead", measured, finite)
    marks["saturated"] = _above(_MOST, "saturated", measured, finite)
    marks["symmetric"] = [
        i
        for i in finite
        if _average(measured[i].forward["alike"]) > _MOST
        and _average(measured[i].backward["weight_alike"]) > _MOST
        and not _behind(measured, finite, i, marks["dead"])
    ]
    marks["collapsed"] = _collapsed(measured, finite)
    marks |= _drift(measured, finite, limit)
    if len(finite) < len(weighted):  # then no gradient is one
        marks["vanishing gradient"] = marks["exploding gradient"] = []
    if marks["symmetric"] or marks["dead"]:  # which explain a gradient of zero
        marks["collapsed"] = []
        marks["vanishing gradient"] = [
            i
            for i in marks["vanishing gradient"]
            if np.any(measured[i].backward["norm"])
        ]
    findings = tuple(
        _finding(condition, marks[condition], measured, names, weighted)
        for condition in _ORDER
        if marks.get(condition)
    )
    conditions: dict[int, Condition] = {}
    for condition in reversed(_ORDER):
        conditions |= dict.fromkeys(marks.get(condition, ()), condition)
    layers = tuple(
        Layer(
            names[i],
            m.site.kind,
            m.shape,
            m.site.fan_in,
            activation_name(m),
            m.forward,
            m.backward,
            predicted.get(i, {}),
            conditions.get(i, "healthy"),
        )
        for i, m in enumerate(measured)
    )
    return layers, findings


def _name(m: Measured) -> str:
    return m.path + (f"[{', '.join(map(str, m.step))}]" if m.step else "")


def _average(values: object) -> float:
    return float(np.mean(np.asarray(values, np.float64)))


def _log_size(values: np.ndarray) -> float:
    """Averages the logarithm of a size over seeds; infinite if none is finite."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(np.asarray(values, np.float64))
    finite = logs[np.isfinite(logs)]
    if not finite.size:
        return (
            -math.inf if np.nanmax(logs, initial=-math.inf) == -math.inf else math.inf
        )
    return float(finite.mean())


def _drift(
    measured: Sequence[Measured], weighted: Sequence[int], limit: float
) -> dict[Condition, list[int]]:
    """Finds layers where signal or gradient has vanished or exploded for good."""
    bound = math.log(limit)
    first = measured[weighted[0]]
    start = _log_size(first.forward.get("input_rms", first.forward["rms"]))
    # The last layer's own scale is a choice: a small head does not vanish.
    inner = list(weighted[:-1]) or list(weighted)
    sizes = {i: _log_size(measured[i].forward["rms"]) - start for i in inner}
    finite = [i for i in inner if sizes[i] > -math.inf]
    marks: dict[Condition, list[int]] = {
        "vanishing": _suffix(finite, lambda i: sizes[i] < -bound),
        "exploding": _suffix(finite, lambda i: sizes[i] > bound),
    }
    waiting = _waiting(measured)
    end = _log_size(measured[weighted[-1]].backward["norm"])
    norms = {
        i: _log_size(measured[i].backward["norm"]) - end
        for i in weighted
        if i not in waiting and not math.isnan(end)
    }
    open_ones = list(norms)
    back = list(reversed(open_ones))
    marks["vanishing gradient"] = _suffix(back, lambda i: norms[i] < -bound)[::-1]
    marks["exploding gradient"] = _suffix(back, lambda i: norms[i] > bound)[::-1]
    return marks


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
    return [i for i in where if _average(measured[i].forward.get(name, 0)) > share]


def _behind(
    measured: Sequence[Measured], where: Sequence[int], i: int, dead: Sequence[int]
) -> bool:
    """Returns whether units are alike only because no signal arrives at a layer."""
    sizes = [float(np.mean(measured[j].forward["rms"])) for j in where if j < i]
    vanished = any(0 < size < 1e-30 for size in sizes)
    if not dead or i < dead[0]:
        return vanished
    return vanished or _average(measured[dead[0]].forward["alike"]) <= _MOST


def _collapsed(measured: Sequence[Measured], weighted: Sequence[int]) -> list[int]:
    """Finds the end of the network in which different inputs look alike."""
    inner = [i for i in weighted if _average(measured[i].forward["rms"]) > 0]
    distances = {i: _average(measured[i].forward["distance"]) for i in inner}
    if not inner or not distances[inner[0]] > 10 * _COLLAPSED:
        return []
    return _suffix(inner, lambda i: distances[i] < _COLLAPSED)


def activation_name(m: Measured) -> str | None:
    """Names the activation behind a layer by its values; None if there is none."""
    function = m.site.activation
    if function is None:
        return None
    values = np.asarray(function(_GRID))
    for name, known in ACTIVATIONS.items():
        if np.allclose(values, np.asarray(known(_GRID)), rtol=1e-5, atol=1e-6):
            return name
    for eqn in m.site.chain:
        if isinstance(eqn.params.get("name"), str) and eqn.primitive.name != "name":
            return str(eqn.params["name"])
    return "function"


def _predicted(measured: Sequence[Measured]) -> dict[int, dict[str, float]]:
    """Predicts sizes of signal and gradient along chains of dense layers."""
    place = {m.site.number: i for i, m in enumerate(measured) if not m.step}
    dense = {n: i for n, i in place.items() if measured[i].site.kind == "dense"}
    following: dict[int, list[int]] = {}
    for i in dense.values():
        behind = measured[i].site.behind
        if behind in dense:
            following.setdefault(dense[behind], []).append(i)
    found: dict[int, dict[str, float]] = {}
    for i in dense.values():
        if measured[i].site.behind in dense or "input_rms" not in measured[i].forward:
            continue
        chain = [i]
        while len(after := following.get(chain[-1], [])) == 1:
            chain.append(after[0])
        if len(chain) > 1:
            found |= _profile([measured[j] for j in chain], chain)
    return found


def _profile(
    chain: Sequence[Measured], at: Sequence[int]
) -> dict[int, dict[str, float]]:
    """Predicts a chain from its input, its weights and its last gradient."""
    activations = []
    for m in chain:
        name = activation_name(m)
        known = name is None or name in ACTIVATIONS
        activations.append((name or "identity") if known else m.site.activation)
    weights = [_average(m.forward["weight_std"] ** 2) * m.site.fan_in for m in chain]
    biases = [_average(np.square(m.forward.get("bias_rms", 0.0))) for m in chain]
    if not np.all(np.isfinite([*weights, *biases])) or not all(weights):
        return {}
    units = [math.prod(m.shape[a] for a in m.site.unit_axes) for m in chain]
    moment = _average(np.square(chain[0].forward["input_rms"], dtype=np.float64))
    try:
        profile = theory.profile(
            activations,
            weights,
            biases,
            widths=[chain[0].site.fan_in, *units],
            input_moment=moment,
        )
    except (ValueError, TypeError):  # an activation that theory cannot integrate
        return {}
    last = _average(np.square(chain[-1].backward["rms"], dtype=np.float64))
    return {
        i: {"std": math.sqrt(v), "gradient_std": math.sqrt(last * g)}
        for i, v, g in zip(at, profile.variance, profile.gradient, strict=True)
    }


def _finding(
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
        share = _average(first.forward["alike"])
        reason = (
            f"{place}: {share:.0%} of the units equal another, in output and gradient: "
            "they stay equal for ever, and count as one"
        )
        cure = "draw the weights at random. " + cure
    elif condition == "dead":
        share = _average(last.forward["dead"])
        reason = f"{place}: {share:.0%} of the units are zero for every input"
        cure = "start the biases at zeros(). " + cure
    elif condition == "saturated":
        share = _average(last.forward["saturated"])
        name = activation_name(last)
        reason = f"{place}: {share:.0%} of the entries are where {name} is flat"
        reason += f" (std {_average(last.forward['std']):.2g})"
    else:
        distance = _average(last.forward["distance"])
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
        sizes = [_log_size(measured[i].backward["norm"]) for i in reversed(weighted)]
    else:
        inner = list(weighted[:-1]) or list(weighted)
        first = measured[inner[0]].forward
        sizes = [_log_size(first.get("input_rms", first["rms"]))]
        sizes += [_log_size(measured[i].forward["rms"]) for i in inner]
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
        name = activation_name(measured[i])
        by_name.setdefault(name or "linear", []).append(measured[i])
    name, members = max(by_name.items(), key=lambda item: len(item[1]))
    gains = [
        math.sqrt(m.site.fan_in) * _average(m.forward["weight_std"]) for m in members
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
