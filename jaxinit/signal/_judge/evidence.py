"""Evidence: the measurements that verdicts are based on."""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from jaxinit.signal._measure.layers import Measured
from jaxinit.signal._measure.statistics import average, log_size
from jaxinit.signal._trace.site import Product


@dataclasses.dataclass(frozen=True, eq=False)
class Evidence:
    """Measured layers and the limit of drift; methods name layers by their index.

    Attributes:
      layers: in the order of execution.
      limit: the factor over all layers that makes a signal vanish or explode.
      gains: by path, the largest entry of a parameter that multiplies data entry by
        entry, and the largest of its gradient. # [seeds, 2]
      framework: "linen", "nnx", "equinox", "haiku" or "functions".
      paths: those of all parameters.
    """

    layers: Sequence[Measured]
    limit: float
    gains: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    framework: str = "linen"
    paths: Sequence[str] = ()

    @functools.cached_property
    def weighted(self) -> list[int]:
        """The layers, modules aside."""
        return [i for i, m in enumerate(self.layers) if m.site.kind != "module"]

    @functools.cached_property
    def finite(self) -> list[int]:
        """The layers, modules aside, whose outputs are all finite."""
        layers = self.layers
        return [i for i in self.weighted if not average(layers[i].forward["nonfinite"])]

    @functools.cached_property
    def unfed(self) -> list[int]:
        """The layers that zeros enter, for every input of the model and all seeds."""
        before = {(m.site.number, m.step): m.forward for m in self.layers}

        def is_unfed(m: Measured) -> bool:
            if "input_rms" in m.forward:
                return not np.any(m.forward["input_rms"])
            behind = m.site.behind if isinstance(m.site, Product) else None
            if behind is None:  # tokens, say, enter
                return False
            source = before[behind, m.step]
            zeros = source.get("activation_zeros", source["rms"] == 0)
            return bool(np.all(zeros == 1))

        return [i for i in self.finite if is_unfed(self.layers[i])]

    @functools.cached_property
    def silent(self) -> list[int]:
        """The layers whose weight and output are zero."""
        layers = self.layers
        return [
            i
            for i in self.finite
            if not np.any(layers[i].forward["rms"])
            and not np.any(layers[i].forward["weight_std"])
        ]

    @property
    def zero_gains(self) -> list[str]:
        """The paths of gains that are zero in all seeds."""
        return [path for path, of in self.gains.items() if not of[:, 0].any()]

    @property
    def opens_by_gain(self) -> bool:
        """Whether a gain is zero but learns, as in ReZero, and opens a branch."""
        return any((self.gains[path][:, 1] > 0).all() for path in self.zero_gains)

    def above(self, share: float, name: str) -> list[int]:
        """Finds layers in which a statistic, a share of units, is above ``share``."""
        layers = self.layers
        return [
            i for i in self.finite if average(layers[i].forward.get(name, 0)) > share
        ]

    def start(self, where: Sequence[int]) -> float:
        """Returns the logarithm of the signal's size at the start of some layers."""
        forward = [self.layers[i].forward for i in where]
        inputs = [each["input_rms"] for each in forward if "input_rms" in each]
        sizes = map(log_size, (*inputs[:1], *(each["rms"] for each in forward)))
        return next((size for size in sizes if math.isfinite(size)), 0.0)

    def place(self, where: Sequence[int]) -> str:
        """Names some layers by the first and the last."""
        first, last = self.layers[where[0]].name, self.layers[where[-1]].name
        return first if len(where) == 1 else f"{first} – {last}"
