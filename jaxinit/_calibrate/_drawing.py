"""Draws the standard deviations of layers before and after a calibration."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxinit._panels import COLORS, png

_NAMED = 16  # up to this many layers have their names below the axis


class _Shown(Figure):
    """A figure that notebooks show, with or without pyplot."""

    def _repr_png_(self) -> bytes:
        return png(self)


def draw(
    title: str,
    names: Sequence[str],
    before: Sequence[np.ndarray],
    after: Sequence[np.ndarray],
) -> Figure:
    """Draws a line before and one after, with the range of units.

    Args:
      title: the title.
      names: of layers, in their order.
      before: standard deviations of each layer, by unit, before the calibration.
      after: the same afterwards.
    """
    figure = _Shown((8, 4), layout="constrained")
    axis = figure.subplots()
    places = np.arange(1, len(names) + 1)
    lines = ("before", COLORS[11], before), ("after", COLORS[10], after)
    for label, color, stds in lines:
        low, middle, high = (
            np.array([_positive(how(each)) for each in stds])
            for how in (np.min, np.median, np.max)
        )
        axis.plot(places, middle, "o-", color=color, markersize=3, label=label)
        axis.fill_between(places, low, high, color=color, alpha=0.2, linewidth=0)
    axis.set_yscale("log")
    axis.set_ylabel("standard deviation of the output")
    axis.set_title(title, fontsize=10)
    if len(places) <= _NAMED:
        axis.set_xticks(places, names, rotation=45, ha="right", fontsize=7)
    else:
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_xlabel("layer")
    axis.legend(frameon=False)
    return figure


def _positive(value: float) -> float:
    """Returns a number that has a logarithm, or NaN, which is not drawn."""
    return float(value) if np.isfinite(value) and value > 0 else np.nan
