"""Figures of a comparison: the panels of a plot side by side."""

import textwrap
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from jaxinit import _check as check
from jaxinit._panels import png
from jaxinit.lab._result.outcome import Outcome
from jaxinit.lab._show.plots import Plot, select_plots

_COLUMNS = 4
_STYLE: Any = {"font.size": 9}


def plots(comparison: Outcome) -> dict[str, bytes]:
    """Draws every plot of a comparison; returns PNG files by name."""
    with mpl.rc_context(_STYLE):
        possible = select_plots(comparison)
        return {name: png(_draw(comparison, plot)) for name, plot in possible.items()}


def plot(comparison: Outcome, name: str) -> Figure:
    """Draws a plot, by its name."""
    try:
        possible = select_plots(comparison)
        check.choice(tuple(possible), name=name)
    except check.Unfit as error:
        raise error.at("Comparison.plot") from None
    with mpl.rc_context(_STYLE):
        return _draw(comparison, possible[name])


def _draw(comparison: Outcome, plot: Plot) -> Figure:
    """Draws all panels of a plot, titled by their specs."""
    specs = [repr(init) for init in comparison.settings.initializers]
    columns = min(_COLUMNS, len(specs))
    rows = -(-len(specs) // columns)
    figure = Figure((3.1 * columns, 2.5 * rows + 0.5))
    top = 1 - 0.75 / (2.5 * rows + 0.5)
    figure.suptitle(textwrap.fill(plot.title, 34 * columns), fontsize=11)
    figure.subplots_adjust(0.6 / (3.1 * columns), 0.35 / (2.5 * rows), 0.98, top)
    figure.subplots_adjust(wspace=0.3, hspace=0.65)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    draw = plot.panel(comparison)
    for i, axis in enumerate(axes):
        axis.set_visible(i < len(specs))
        if i < len(specs):
            draw(axis, i)
            spec = textwrap.wrap(specs[i], 38)[:2]
            axis.set_title("\n".join(spec), fontsize=8, parse_math=False, pad=14)
            axis.tick_params(labelsize=7)
    return figure
