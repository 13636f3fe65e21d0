"""Figures of a comparison: the panels of a plot side by side."""

import textwrap
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from jaxinit import _check as check
from jaxinit._panels import png
from jaxinit.lab._result.outcome import Outcome
from jaxinit.lab._show._marks import INK
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
    columns = min(_COLUMNS // (1 + plot.wide), len(specs))
    rows = -(-len(specs) // columns)
    width, height = columns * (6.2 if plot.wide else 3.1), 2.5 * rows + 0.8
    figure = Figure((width, height))
    figure.suptitle(textwrap.fill(plot.title, round(11 * width)), fontsize=11)
    figure.subplots_adjust(0.6 / width, 0.6 / height, 0.98, 1 - 0.75 / height)
    figure.subplots_adjust(wspace=0.3, hspace=0.65)
    texts, lines = [], []
    for text, style in plot.key(comparison):
        texts.append(text)
        lines.append(Line2D([], [], **{"color": INK, **style}))
    ncols = max(1, round(width / 1.6))
    figure.legend(lines, texts, loc="lower center", ncols=ncols, frameon=False)
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
