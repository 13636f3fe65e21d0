"""Judges a model: asks every verdict which layers it is true of."""

from collections.abc import Mapping, Sequence

import numpy as np

from jaxinit.signal._judge import drift
from jaxinit.signal._judge.evidence import Evidence
from jaxinit.signal._judge.findings import Finding, Layer
from jaxinit.signal._judge.prediction import predict_layers
from jaxinit.signal._judge.verdicts import VERDICTS, Condition
from jaxinit.signal._measure.layers import Measured


def judge(
    measured: Sequence[Measured],
    limit: float,
    gains: Mapping[str, np.ndarray] | None = None,
    framework: str = "linen",
    paths: Sequence[str] = (),
) -> tuple[tuple[Layer, ...], tuple[Finding, ...]]:
    """Makes layers and findings from measurements.

    Args:
      measured: the layers in the order of execution.
      limit: the factor over all layers that makes a signal vanish or explode.
      gains: the gains, as in `Evidence`.
      framework: what the model is written in, as in `Evidence`.
      paths: those of all parameters.
    """
    evidence = Evidence(measured, limit, gains or {}, framework, paths)
    marks: dict[Condition, list[int]] = {}
    for verdict in VERDICTS:
        marks[verdict.name] = verdict.mark(evidence, marks)
    findings = tuple(
        Finding(
            condition=verdict.name,
            layers=tuple(measured[i].name for i in where),
            reason=verdict.reason(evidence, where) + ".",
            cure=verdict.cure(evidence, where),
        )
        for verdict in VERDICTS
        if (where := marks[verdict.name])
    )
    conditions: dict[int, Condition] = {}
    for verdict in reversed(VERDICTS):
        if where := marks[verdict.name]:
            more = drift.find_modules(evidence, where) if verdict.modules else []
            conditions |= dict.fromkeys([*where, *more], verdict.name)
    theory = predict_layers(measured)
    layers = tuple(
        Layer(
            path=m.name,
            kind=m.site.kind,
            shape=m.shape,
            fan_in=m.site.fan_in,
            activation=m.activation,
            forward=m.forward,
            backward=m.backward,
            predicted=theory.get(i, {}),
            condition=conditions.get(i, "healthy"),
        )
        for i, m in enumerate(measured)
    )
    return layers, findings
