"""What `check` returns: layers, verdicts, and the report that holds them."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import numpy as np

Condition = Literal[
    "healthy",
    "vanishing",
    "exploding",
    "vanishing gradient",
    "exploding gradient",
    "symmetric",
    "dead",
    "saturated",
    "collapsed",
    "non-finite",
]


@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
    """One layer, or one step of a scanned layer; statistics are arrays over seeds.

    Attributes:
      path: of the module, or of the weight in the parameters; a step of a loop as
        "blocks/dense[3]".
      kind: "dense", "conv", or "module" for any other module, whose own layers have
        rows of theirs.
      shape: of the output.
      fan_in: inputs of one output; 0 for a module.
      activation: the name of the elementwise function behind the output, or None.
      forward: of the output ``mean``, ``std``, ``rms``, ``fourth`` (the fourth central
        moment over the squared variance: 3 for a normal law), ``largest``, ``zeros``,
        ``nonfinite`` (shares), ``distance`` (one less the cosine between outputs of
        different inputs), ``alike`` (share of units that equal another) and ``sample``
        (some entries, [seeds, entries]); behind it, if an activation follows,
        ``activation_zeros``, ``dead`` (units that are zero for every input) and
        ``saturated`` (shares); of a layer's weight and bias ``weight_std`` and
        ``bias_rms``; ``input_rms`` where the input is no other layer's activation.
      backward: of the gradient at the output ``std``, ``rms``, ``nonfinite`` (share)
        and ``norm`` (per example); of that at the weight ``weight_std`` (root mean
        square) and ``weight_alike`` (share of units that equal another).
      predicted: by mean-field theory ``std`` of the output and ``gradient_std``; empty
        where the theory does not fit.
      condition: what is wrong with the layer, or "healthy".
    """

    path: str
    kind: str
    shape: tuple[int, ...]
    fan_in: int
    activation: str | None
    forward: Mapping[str, np.ndarray]
    backward: Mapping[str, np.ndarray]
    predicted: Mapping[str, float]
    condition: Condition

    def mean(self, name: str) -> float:
        """Returns a statistic's mean over seeds: ``"std"`` or ``"gradient_std"``."""
        return float(np.mean(self._values(name)))

    def error(self, name: str) -> float:
        """Returns the standard error of that mean; not a number for one seed."""
        values = self._values(name)
        if len(values) < 2:
            return float("nan")
        return float(np.std(values, ddof=1) / np.sqrt(len(values)))

    def _values(self, name: str) -> np.ndarray:
        side = self.backward if name.startswith("gradient_") else self.forward
        return np.asarray(side[name.removeprefix("gradient_")], np.float64)


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
      condition: what.
      layers: paths of the layers concerned, in the order of execution.
      reason: the numbers, in a sentence.
      cure: what to change, ready to paste where that is possible.
    """

    condition: Condition
    layers: tuple[str, ...]
    reason: str
    cure: str


@dataclasses.dataclass(frozen=True, eq=False)
class SignalReport:
    """The health of a model at initialisation, over many seeds.

    Attributes:
      layers: in the order of execution.
      findings: what is wrong, the cause first; empty for a healthy model.
      seeds: how many.
      jacobian: of the output by the input, for some seeds: the ``mean_square`` of the
        singular values and the ``largest``; empty where the input has no derivative.
      loss: by seed; without a loss, the output times random numbers.
      limit: the factor over all layers that makes a signal vanish or explode.
    """

    layers: tuple[Layer, ...]
    findings: tuple[Finding, ...]
    seeds: int
    jacobian: Mapping[str, np.ndarray]
    loss: np.ndarray
    limit: float

    @property
    def condition(self) -> Condition:
        """The first finding's condition, or "healthy"."""
        return self.findings[0].condition if self.findings else "healthy"

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings
