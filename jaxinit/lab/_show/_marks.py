"""What the panels of all plots have in common: colors, styles of lines, and axes."""

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator

from jaxinit._panels import COLORS, note

Panel = Callable[[Axes, int], None]
Style = dict[str, Any]  # of a line, as matplotlib has it; without a color: any

# Text, marks, other curves.
INK, MIDDLE, FAINT = "#1b1b1d", "#8a8a8b", "#d5d5d6"
THICK, BROAD = 1.8, 5.0  # points: a mean; what has an extent
BAND = 0.25  # the opacity of an interval
MEAN: tuple[str, Style] = "mean of the seeds", {"linewidth": THICK}
INTERVAL: tuple[str, Style] = "95 % interval", {"linewidth": BROAD, "alpha": BAND}
DOTTED: Style = {"linewidth": 0.8, "linestyle": ":"}
CHANCE: tuple[str, Style] = "chance", DOTTED
_DECADES = 1e6  # the factor from the median to an axis's end: curves may leave it
_SHORT = 4  # times: a logarithmic axis on which 1, 2 and 5 are too few marks


def choose_color(index: int) -> str:
    """Returns an initializer's color in every plot."""
    return COLORS[index % len(COLORS)]


def name_axes(axis: Axes, across: str, up: str) -> None:
    """Names the axes, the vertical one above its end, where it takes no width."""
    axis.set_xlabel(across, loc="right", labelpad=1)
    axis.text(0, 1.03, up, transform=axis.transAxes, va="bottom")


def mask(values: np.ndarray) -> np.ndarray:
    """Replaces values that a logarithmic axis cannot show by nan."""
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(values) & (values > 0), values, np.nan)


def set_logarithmic(axis: Axes, limits: tuple[float, float]) -> None:
    """Makes the vertical axis logarithmic, between limits, with few ticks."""
    axis.set_yscale("log")
    axis.set_ylim(*limits)
    set_ticks(axis)


def set_ticks(axis: Axes) -> None:
    """Marks few values of a logarithmic axis, at 1, 2 and 5 where it is short."""
    low, high = axis.get_ylim()
    subs = (1.0, 2.0, 5.0) if high < 50 * low else (1.0,)
    few = MaxNLocator(4) if high < _SHORT * low else None
    axis.yaxis.set_major_locator(few or LogLocator(subs=subs, numticks=5))
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.minorticks_off()


def choose_limits(values: np.ndarray, least: float = 0.0) -> tuple[float, float]:
    """Returns the limits of an axis for all values within decades of the median."""
    seen = values[np.isfinite(values) & (values > 0)].astype(float)
    if not seen.size:
        return 0.1, 10.0
    middle = float(np.median(seen))
    low = max(float(seen.min()), middle / _DECADES, least)
    high = min(float(seen.max()), middle * _DECADES)
    return low / 1.5, max(high, low) * 1.5


def explain_empty(axis: Axes, values: np.ndarray) -> None:
    """Says why a panel is empty, if it is."""
    low, high = axis.get_ylim()
    with np.errstate(invalid="ignore"):
        if ((values >= low) & (values <= high)).any():
            return
        why = "outside the panel" if np.isfinite(values).any() else "not finite"
        note(axis, "zero" if (values == 0).any() else why, 0.5)
