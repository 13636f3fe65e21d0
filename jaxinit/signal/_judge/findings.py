"""What judging gives: layers with their numbers, what is wrong, and both in one record.

Tables, pages and plots are drawn from `Findings` alone.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from jaxinit._number import number, over_seeds
from jaxinit.signal._judge.verdicts import Condition


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
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
        (some entries, [seeds, entries]); of complex outputs y E|y - Ey|^2, the modulus
        of the mean, and the cosine Re<a, b> / |a||b|. Behind it, if an activation
        follows, ``activation_zeros``, ``dead`` (units that are zero for every input)
        and ``saturated`` (shares); if it is a query or key, ``attention_std`` (of the
        logits) and ``attention_saturated`` (share of the queries that give one key all
        the weight); of a layer's weight and bias ``weight_mean``, ``weight_std``,
        ``weight_alike`` and ``bias_rms``; ``input_rms``, ``input_mean`` and
        ``input_nonfinite`` where the input is not just another layer's activation;
        ``expected_loss`` and ``chance_loss`` where the output may be logits of classes:
        their cross-entropy for random labels, and that of guessing.
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

    def values(self, name: str) -> np.ndarray:
        """Returns a statistic by seed: forward "std", backward "gradient_std"."""
        side = self.backward if name.startswith("gradient_") else self.forward
        return np.asarray(side[name.removeprefix("gradient_")], np.float64)

    def mean(self, name: str) -> float:
        """Returns a statistic's mean over seeds."""
        return over_seeds(self.values(name))[0]

    def error(self, name: str) -> float:
        """Returns the standard error of that mean; not a number for one seed."""
        return over_seeds(self.values(name))[1]

    def __repr__(self) -> str:
        size = f"{self.kind} {self.shape}, std {number(self.mean('std'))}"
        return f"Layer({self.path!r}, {size}, {self.condition})"


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


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Findings:
    """A judged model, with the attributes that `SignalReport` explains."""

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
