"""Draws the standard deviations of layers before and after a calibration."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxinit._panels import COLORS, png

if TYPE_CHECKING:
    from jaxinit._calibrate.calibration import CalibrationReport

_NAMED = 16  # up to this many layers have their names below the axis


class _Shown(Figure):
    """A figure that notebooks show, with or without pyplot."""

    def _repr_png_(self) -> bytes:
        return png(self)


def draw(report: "CalibrationReport") -> Figure:
    """Draws a report: a line before and one after, with the range of units."""
    figure = _Shown((8, 4), layout="constrained")
    axis = figure.subplots()
    places = np.arange(1, len(report.layers) + 1)
    lines = (
        ("before", COLORS[11], [layer.before for layer in report.layers]),
        ("after", COLORS[10], [layer.after for layer in report.layers]),
    )
    for label, color, stds in lines:
        low, middle, high = (
            np.array([_positive(how(each)) for each in stds])
            for how in (np.min, np.median, np.max)
        )
        axis.plot(places, middle, "o-", color=color, markersize=3, label=label)
        axis.fill_between(places, low, high, color=color, alpha=0.2, linewidth=0)
    axis.set_yscale("log")
    axis.set_ylabel("standard deviation of the output")
    axis.set_title(f"{report.method}: {len(report.layers)} layers", fontsize=10)
    if len(places) <= _NAMED:
        names = [layer.path for layer in report.layers]
        axis.set_xticks(places, names, rotation=45, ha="right", fontsize=7)
    else:
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_xlabel("layer")
    axis.legend(frameon=False)
    return figure


def _positive(value: float) -> float:
    """Returns a number that has a logarithm, or NaN, which is not drawn."""
    return float(value) if np.isfinite(value) and value > 0 else np.nan
