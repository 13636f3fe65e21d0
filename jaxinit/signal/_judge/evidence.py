"""Evidence: the measurements that verdicts are based on."""

import dataclasses
import functools
import math
from collections.abc import Sequence

from jaxinit.signal._measure.layers import Measured
from jaxinit.signal._measure.statistics import average, log_size


@dataclasses.dataclass(frozen=True, eq=False)
class Evidence:
    """Measured layers and the limit of drift; methods name layers by their index.

    Attributes:
      layers: in the order of execution.
      limit: the factor over all layers that makes a signal vanish or explode.
    """

    layers: Sequence[Measured]
    limit: float

    @functools.cached_property
    def weighted(self) -> list[int]:
        """The layers, modules aside."""
        return [i for i, m in enumerate(self.layers) if m.site.kind != "module"]

    @functools.cached_property
    def finite(self) -> list[int]:
        """The layers, modules aside, whose outputs are all finite."""
        layers = self.layers
        return [i for i in self.weighted if not average(layers[i].forward["nonfinite"])]

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
