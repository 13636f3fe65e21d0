"""The plot of a transfer: loss against learning rate, a line for each size."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxinit._panels import COLORS
from jaxinit.lab._result.drift import LOST
from jaxinit.lab._result.rates import Transferred
from jaxinit.lab._show._marks import (
    CHANCE,
    INK,
    MIDDLE,
    Panel,
    name_axes,
    set_logarithmic,
)

_ROOM = 0.07  # of the height, in logarithms, above and below all points
# From light to dark, as sizes grow: colors that all plots have.
_RAMP = ("#ddcc77", "#ee7733", "#cc6677", "#aa4499", "#882255", "#332288")


def choose_size_color(index: int, count: int) -> str:
    """Returns the color of a size, of this many."""
    return _RAMP[index * (len(_RAMP) - 1) // max(1, count - 1) % len(_RAMP)]


def number_size_color(index: int, count: int) -> int:
    """Returns the place of a size's color among those of all plots."""
    return COLORS.index(choose_size_color(index, count))


def draw_curves(result: Transferred) -> Panel:
    """Returns a function that draws the panel of the i-th parameterization.

    Points are means over seeds, and bars reach from the lowest to the highest seed. A
    run that diverged counts as twice the loss of chance. A ring is at the best rate.
    """
    sweep = result.sweep
    exponents, top = np.array(sweep.exponents), LOST * sweep.task.chance
    capped = {
        key: np.minimum(result.rank(*key), top).astype(float) for key in result.losses
    }
    lowest = min((losses.min() for losses in capped.values()), default=top / 10)
    highest = max((losses.max() for losses in capped.values()), default=top)
    high = max(float(highest), sweep.task.chance)
    low = min(max(float(lowest), 1e-6 * top), 0.9 * high)
    room = (high / low) ** _ROOM
    limits = low / room, high * room

    def draw(axis: Axes, index: int) -> None:
        name = sweep.names[index]
        set_logarithmic(axis, limits)
        axis.set_xlim(exponents[0] - 0.5, exponents[-1] + 0.5)
        axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axis.axhline(sweep.task.chance, color=MIDDLE, **CHANCE[1])
        for place, size in enumerate(sweep.sizes):
            if (name, size) not in capped:
                continue
            color = choose_size_color(place, len(sweep.sizes))
            losses = capped[name, size]
            mean = losses.mean(axis=0)
            ends = losses.min(axis=0), losses.max(axis=0)
            axis.vlines(exponents, *ends, color=color, linewidth=3, alpha=0.3)
            axis.plot(exponents, mean, "o-", color=color, ms=3, lw=1.6, label=str(size))
        _mark_best(axis, result, name)
        name_axes(axis, "log2 of the learning rate", "loss")

    return draw


def _mark_best(axis: Axes, result: Transferred, name: str) -> None:
    """Marks best rates: a ring inside the grid, a cross at its ends."""
    for row in result.rows:
        if row.parameterization != name or row.best.state == "none":
            continue
        inside = row.best.state == "inside"
        form = {"mfc": "none", "ms": 8} if inside else {"ms": 7}
        marker = "o" if inside else "x"
        axis.plot(row.best.exponent, row.best.loss, marker, color=INK, **form)


def plot(result: Transferred) -> Figure:
    """Draws the panels of all parameterizations side by side, with the same axes."""
    sweep = result.sweep
    count = len(sweep.names)
    figure = Figure((0.8 + 3.6 * count, 3.6), layout="constrained")
    axes = figure.subplots(1, count, squeeze=False, sharex=True, sharey=True)[0]
    draw = draw_curves(result)
    for i, axis in enumerate(axes):
        draw(axis, i)
        axis.set_title(sweep.names[i], parse_math=False)
    if result.losses:
        axes[-1].legend(title=sweep.varied, frameon=False, fontsize=8)
    return figure
