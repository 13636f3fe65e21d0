"""Records of a judged model: its layers with their numbers, and what is wrong.

Tables, pages and plots are drawn from `Findings` alone.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxinit._structure.result import Structure
from jaxinit._text import number
from jaxinit.signal._judge.verdicts import Condition


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Layer:
    """One layer, or one step of a scanned layer; statistics are arrays over seeds.

    Attributes:
      path: the path of the module, or of the weight in the parameters; with the step of
        a loop, as in "blocks/dense[3]".
      kind: "dense", "conv", or "module" for any other module, whose own layers have
        rows too.
      shape: the shape of the output.
      fan_in: the number of inputs of one output; 0 for a module.
      activation: the name of the elementwise function behind the output, or None.
      forward: statistics of the output: ``mean``, ``std``, ``rms``, ``fourth`` (the
        fourth central moment over the squared variance: 3 for a normal law),
        ``largest``, ``zeros`` and ``nonfinite`` (shares), ``distance`` (one minus the
        cosine between outputs of different inputs), ``alike`` (the share of units that
        equal another) and ``sample`` (some entries, [seeds, entries]). For complex
        outputs y the variance is E|y - Ey|^2, the mean is its modulus, and the cosine
        is Re<a, b> / |a||b|. If an activation follows: its ``activation_zeros``,
        ``dead`` (units that are zero for every input) and ``saturated`` (shares). If
        sigmoid or tanh follow a sum or a part of the output, as in the cell of a
        recurrent network: ``gate_saturated`` (a share). If
        the output is a query or key: ``attention_std`` (of the logits) and
        ``attention_saturated`` (the share of the queries that give one key all the
        weight). Of a layer's weight and bias: ``weight_mean``, ``weight_std``,
        ``weight_alike`` and ``bias_rms``. Where the input is not just another layer's
        activation: ``input_rms``, ``input_mean`` and ``input_nonfinite``. Where the
        output may be logits of classes: ``expected_loss``, their cross-entropy for
        random labels, and ``chance_loss``, that of guessing.
      backward: statistics of the gradient at the output: ``std``, ``rms``,
        ``nonfinite`` (a share) and ``norm`` (per example); of that at the weight:
        ``weight_std`` (root mean square), ``weight_alike`` (the share of units that
        equal another) and ``input_alike`` (the share of inputs that do).
      predicted: the ``std`` of the output and the ``gradient_std`` that mean-field
        theory predicts; empty where the theory does not fit.
      condition: what is wrong with the layer, or "healthy".
      updates: where `check` took steps, the root mean square of the change of the
        weight at each over that of the weight before it, [seeds, steps]; else None.
      role: what its weight does, as `jaxinit.structure` tells it: such as "hidden"; ""
        for a module, or where it is not told.
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
    updates: np.ndarray | None = None
    role: str = ""

    def values(self, name: str) -> np.ndarray:
        """Returns a statistic by seed: forward "std", backward "gradient_std"."""
        side = self.backward if name.startswith("gradient_") else self.forward
        return np.asarray(side[name.removeprefix("gradient_")], np.float64)

    def mean(self, name: str) -> float:
        """Returns a statistic's mean over seeds."""
        return over_seeds(self.values(name))[0]

    def error(self, name: str) -> float:
        """Returns the standard error of that mean; NaN for one seed."""
        return over_seeds(self.values(name))[1]

    def __repr__(self) -> str:
        size = f"{self.kind} {self.shape}, std {number(self.mean('std'))}"
        return f"Layer({self.path!r}, {size}, {self.condition})"


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
      condition: the name of it.
      layers: paths of the layers concerned, in the order of execution.
      reason: the numbers, in a sentence.
      cure: what to change, ready to paste where that is possible.
    """

    condition: Condition
    layers: tuple[str, ...]
    reason: str
    cure: str


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Findings:
    """A judged model, with the attributes that `SignalReport` explains."""

    layers: tuple[Layer, ...]
    findings: tuple[Finding, ...]
    seeds: int
    jacobian: Mapping[str, np.ndarray]
    loss: np.ndarray
    limit: float
    unseen: Mapping[str, str] = dataclasses.field(default_factory=dict)
    training: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    structure: Structure | None = None

    @property
    def condition(self) -> Condition:
        """The first finding's condition, or "healthy"."""
        return self.findings[0].condition if self.findings else "healthy"

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings


def over_seeds(values: Any) -> tuple[float, float]:
    """Computes a mean and its standard error, which is nan for one seed."""
    array = np.asarray(values, np.float64)
    with np.errstate(all="ignore"):  # some values may not be finite
        mean = float(np.mean(array))
        if len(array) < 2:
            return mean, math.nan
        return mean, float(np.std(array, ddof=1) / np.sqrt(len(array)))
