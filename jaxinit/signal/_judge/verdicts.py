"""Verdicts: all that can be wrong with a model, one entry each.

A new verdict is a word in `Condition` and an entry in `VERDICTS`, from which `python
tests/pages.py` writes its row in the README. The order of the list is that of findings:
the cause first. The limits of attention are derived in `_trace.attention`,
those of logits in `_measure.chance`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np

from jaxinit._text import number
from jaxinit.signal._judge import cures, drift
from jaxinit.signal._judge.evidence import Evidence
from jaxinit.signal._measure.chance import MOST
from jaxinit.signal._measure.statistics import average

Condition = Literal[  # in the order in which messages and legends list them
    "healthy",
    "vanishing",
    "exploding",
    "vanishing gradient",
    "exploding gradient",
    "symmetric",
    "dead",
    "saturated",
    "saturated attention",
    "collapsed",
    "loss above chance",
    "non-finite",
]
Marks = Mapping[Condition, Sequence[int]]
LIMIT = 100.0  # the factor over all layers, unless `check` gets another
_MOST = 0.5  # of a layer's units or entries
_DEAD = 0.9  # of a layer's units: deep relu networks tend to 1/2 for any one direction
_COLLAPSED = 1e-4  # one minus the cosine between outputs of different inputs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """One thing that can be wrong.

    Attributes:
      name: the condition in findings and layers.
      means: the meaning, as the README states it.
      limit: where it begins.
      color: its color in plots, unlike that of any other and of what is healthy.
      mark: finds the layers it is true of, given those that earlier verdicts marked.
      reason: says why, in a sentence with the numbers of the marked layers.
      cure: says what to change.
      modules: whether it also marks modules whose signal is about as large.
    """

    name: Condition
    means: str
    limit: str
    color: str
    mark: Callable[[Evidence, Marks], list[int]]
    reason: Callable[[Evidence, Sequence[int]], str]
    cure: Callable[[Evidence, Sequence[int]], str]
    modules: bool = False


def _mark_symmetric(evidence: Evidence, earlier: Marks) -> list[int]:
    layers = evidence.layers
    alike = {*evidence.above(_MOST, "weight_alike")} & {*evidence.above(_MOST, "alike")}
    return sorted(
        i
        for i in alike.difference(_list_undecided(evidence))
        if average(layers[i].backward["weight_alike"]) > _MOST
    )


def _list_undecided(evidence: Evidence) -> list[int]:
    """Lists layers of which the first step will tell whether units stay alike.

    Their gradients are zero, and so equal, until a layer behind them opens, whose
    inputs differ: as the conditioning of a diffusion transformer, which starts at zeros
    before a readout of zeros. Of two layers of zeros in sequence neither ever opens.
    """
    if {*evidence.unfed} & {*evidence.silent}:
        return []
    opening = [
        i
        for i in drift.find_closed(evidence)
        if average(evidence.layers[i].backward.get("input_alike", 0)) <= _MOST
    ]
    waiting = drift.find_waiting(evidence)
    return [i for i in waiting if opening and i < opening[-1]]


def _explain_symmetric(evidence: Evidence, where: Sequence[int]) -> str:
    share = average(evidence.layers[where[0]].forward["alike"])
    return (
        f"{evidence.place(where)}: {share:.0%} of the units equal another, in output "
        "and gradient: they stay equal forever, and count as one"
    )


def _mark_dead(evidence: Evidence, earlier: Marks) -> list[int]:
    quiet = {i for i in evidence.unfed if not np.any(evidence.layers[i].forward["rms"])}
    return [i for i in evidence.above(_DEAD, "dead") if i not in quiet]


def _explain_dead(evidence: Evidence, where: Sequence[int]) -> str:
    share = average(evidence.layers[where[-1]].forward["dead"])
    return f"{evidence.place(where)}: {share:.0%} of the units are zero for every input"


def _mark_non_finite(evidence: Evidence, earlier: Marks) -> list[int]:
    bad = [
        i
        for i, m in enumerate(evidence.layers)
        if average(m.forward["nonfinite"]) + average(m.backward["nonfinite"]) > 0
    ]
    # Bad outputs come first: a bad output makes the gradients before it bad.
    return sorted(bad, key=lambda i: not evidence.layers[i].forward["nonfinite"].any())


def _explain_non_finite(evidence: Evidence, where: Sequence[int]) -> str:
    first = evidence.layers[where[0]]
    passing = "output" if np.any(first.forward["nonfinite"]) else "gradient"
    return f"{first.name}: the first {passing} that is infinite or no number"


def _mark_saturated(evidence: Evidence, earlier: Marks) -> list[int]:
    names = "saturated", "gate_saturated"
    return sorted({i for name in names for i in evidence.above(_MOST, name)})


def _explain_saturated(evidence: Evidence, where: Sequence[int]) -> str:
    last = evidence.layers[where[-1]]
    std = average(last.forward["std"])
    if not average(last.forward.get("saturated", 0)) > _MOST:
        share = average(last.forward["gate_saturated"])
        return (
            f"{evidence.place(where)}: {share:.0%} of the entries of a gate are where "
            f"it is flat (std of the layer {std:.2g})"
        )
    share = average(last.forward["saturated"])
    return (
        f"{evidence.place(where)}: {share:.0%} of the entries are where "
        f"{last.activation} is flat (std {std:.2g})"
    )


def _explain_saturated_attention(evidence: Evidence, where: Sequence[int]) -> str:
    forward = evidence.layers[where[0]].forward
    share = average(forward["attention_saturated"])
    return (
        f"{evidence.place(where)}: {share:.0%} of the queries give one key all the "
        f"weight, for logits of std {average(forward['attention_std']):.2g}: no "
        "gradient tells them of the other keys"
    )


def _mark_vanishing(evidence: Evidence, earlier: Marks) -> list[int]:
    if earlier["symmetric"] or earlier["dead"]:  # they explain a signal of zero
        return drift.find_vanishing(evidence)
    return drift.find_silence(evidence) or drift.find_vanishing(evidence)


def _mark_vanishing_gradient(evidence: Evidence, earlier: Marks) -> list[int]:
    where = drift.find_vanishing_gradient(evidence)
    if earlier["symmetric"] or earlier["dead"]:  # they explain a gradient of zero
        where = [i for i in where if np.any(evidence.layers[i].backward["norm"])]
    return where


def _mark_collapsed(evidence: Evidence, earlier: Marks) -> list[int]:
    """Finds the end of the network in which different inputs look alike."""
    if earlier["symmetric"] or earlier["dead"]:  # they explain it
        return []
    layers = evidence.layers
    inner = [i for i in evidence.finite if average(layers[i].forward["rms"]) > 0]
    distances = {i: average(layers[i].forward["distance"]) for i in inner}
    if not inner:
        return []
    if distances[inner[0]] < 10 * _COLLAPSED:  # what enters is alike
        return inner[:1] if cures.is_offset(evidence) else []
    return drift.find_suffix(inner, lambda i: distances[i] < _COLLAPSED)


def _explain_collapsed(evidence: Evidence, where: Sequence[int]) -> str:
    distance = average(evidence.layers[where[-1]].forward["distance"])
    if cures.is_offset(evidence):
        forward = evidence.layers[evidence.weighted[0]].forward
        mean, std = cures.read_moments(forward)
        return (
            f"{evidence.place(where)}: different inputs have outputs of cosine "
            f"1 - {distance:.1g}, since the mean of the input, {number(mean)}, is "
            f"{abs(mean) / std:.2g} of its standard deviations"
        )
    return (
        f"{evidence.place(where)}: different inputs have outputs of cosine "
        f"1 - {distance:.1g}: the network no longer tells inputs apart"
    )


def _mark_above_chance(evidence: Evidence, earlier: Marks) -> list[int]:
    """Finds the layer whose outputs are known to be logits, if far above chance."""
    if earlier["exploding"] or earlier["non-finite"]:  # they explain any loss
        return []
    known = [i for i in evidence.finite if evidence.layers[i].classes]
    losses = {i: _read_losses(evidence, i) for i in known[-1:]}
    return [i for i, (loss, chance) in losses.items() if loss > MOST * chance]


def _explain_above_chance(evidence: Evidence, where: Sequence[int]) -> str:
    first = evidence.layers[where[0]]
    loss, chance = _read_losses(evidence, where[0])
    return (
        f"{evidence.place(where)}: the cross-entropy starts at {loss:.3g}, where "
        f"guessing among {first.classes} classes has {chance:.2g}: logits of std "
        f"{average(first.forward['std']):.2g} are certain of a random class"
    )


def _read_losses(evidence: Evidence, i: int) -> tuple[float, float]:
    """Returns the expected loss of a layer's outputs, and that of guessing."""
    forward = evidence.layers[i].forward
    return average(forward["expected_loss"]), average(forward["chance_loss"])


VERDICTS = (
    Verdict(
        name="symmetric",
        means="units have equal weights, outputs and gradients, and keep them forever",
        limit=f"{_MOST:.0%} of the units",
        color="#117733",
        mark=_mark_symmetric,
        reason=_explain_symmetric,
        cure=cures.cure_symmetry,
    ),
    Verdict(
        name="dead",
        means="units are zero for every input",
        limit=f"{_DEAD:.0%} of the units",
        color="#555555",
        mark=_mark_dead,
        reason=_explain_dead,
        cure=cures.cure_dead,
    ),
    Verdict(
        name="exploding",
        means="the signal grows by a factor, from some layer to the end",
        limit=f"`limit`, {LIMIT:g}",
        color="#882255",
        mark=lambda evidence, _: drift.find_exploding(evidence),
        reason=drift.describe_signal,
        cure=cures.cure_drift,
        modules=True,
    ),
    Verdict(
        name="vanishing",
        means="the signal shrinks by a factor, from some layer to the end, or zeros "
        "enter the last layer, whatever the input",
        limit=f"`limit`, {LIMIT:g}",
        color="#ee7733",
        mark=_mark_vanishing,
        reason=drift.describe_signal,
        cure=cures.cure_vanishing,
        modules=True,
    ),
    Verdict(
        name="non-finite",
        means="a number is infinite or NaN, first in the layer named",
        limit="any",
        color="#cc6677",
        mark=_mark_non_finite,
        reason=_explain_non_finite,
        cure=cures.cure_overflow,
    ),
    Verdict(
        name="saturated",
        means="entries lie where the slope of the activation, or of a recurrent gate, "
        "is below 1/20 of its steepest",
        limit=f"{_MOST:.0%} of the entries",
        color="#88ccee",
        mark=_mark_saturated,
        reason=_explain_saturated,
        cure=cures.cure_saturation,
    ),
    Verdict(
        name="saturated attention",
        means="queries give one key all the weight, where softmax is flat too",
        limit=f"{_MOST:.0%} of the queries",
        color="#332288",
        mark=lambda evidence, _: evidence.above(_MOST, "attention_saturated"),
        reason=_explain_saturated_attention,
        cure=cures.cure_attention,
    ),
    Verdict(
        name="exploding gradient",
        means="the gradient grows by a factor on its way back, up to some layer",
        limit=f"`limit`, {LIMIT:g}",
        color="#aa4499",
        mark=lambda evidence, _: drift.find_exploding_gradient(evidence),
        reason=drift.describe_gradient,
        cure=cures.cure_gradient,
    ),
    Verdict(
        name="vanishing gradient",
        means="the gradient shrinks by a factor on its way back, up to some layer",
        limit=f"`limit`, {LIMIT:g}",
        color="#999933",
        mark=_mark_vanishing_gradient,
        reason=drift.describe_gradient,
        cure=cures.cure_gradient,
    ),
    Verdict(
        name="collapsed",
        means="outputs of different inputs are parallel, or the inputs are: their mean "
        "outweighs what differs",
        limit=f"1 − cosine below {_COLLAPSED:g}",
        color="#44aa99",
        mark=_mark_collapsed,
        reason=_explain_collapsed,
        cure=cures.cure_collapse,
    ),
    Verdict(
        name="loss above chance",
        means="logits are certain of a random class: the limit is on their "
        "cross-entropy for random labels over log(classes)",
        limit=f"{MOST:g}",
        color="#ddcc77",
        mark=_mark_above_chance,
        reason=_explain_above_chance,
        cure=cures.cure_loss,
    ),
)
