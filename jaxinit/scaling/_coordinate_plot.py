"""Plots a coordinate check: outputs against the size, a line for each step."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from jaxinit._panels import note, png
from jaxinit.scaling._slopes import CARRIED, MINOR, CoordinateRow

_COLUMNS = 4
_MOST = 24  # panels at most: those with a finding first


class _Shown(Figure):
    """A figure that notebooks show, with or without pyplot."""

    def _repr_png_(self) -> bytes:
        return png(self)


def draw(
    rows: Sequence[CoordinateRow], sizes: Sequence[int], along: str, summary: str
) -> Figure:
    """Draws the rows of a report."""
    ranked = sorted(rows, key=lambda x: (x.verdict == "transfers", x.role in MINOR))
    kept = {id(row) for row in ranked[:_MOST]}
    rows = [row for row in rows if id(row) in kept]
    columns = max(min(_COLUMNS, len(rows)), 1)
    lines = max(-(-len(rows) // columns), 1)
    figure = _Shown((3.2 * columns, 2.3 * lines + 0.9), layout="constrained")
    figure.suptitle(f"Coordinate check: {summary}", fontsize=10)
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for panel, row in zip(panels, rows, strict=False):
        _draw_row(panel, sizes, row)
    for panel in panels[len(rows) :]:
        panel.remove()
    if rows:
        figure.legend(
            handles=panels[0].get_lines(),
            loc="outside lower center",
            ncols=8,
            fontsize=8,
            frameon=False,
        )
    for panel in panels[max(len(rows) - columns, 0) : len(rows)]:
        panel.set_xlabel(along, fontsize=8)
    figure.supylabel("mean absolute output, or entry of a parameter", fontsize=8)
    return figure


def _draw_row(panel: Axes, sizes: Sequence[int], row: CoordinateRow) -> None:
    values = row.measured.values["output"]  # [sizes, seeds, steps + 1]
    values = np.where(np.isfinite(values) & (values > 0), values, math.nan)
    colors = colormaps["viridis"](np.linspace(0, 0.9, values.shape[-1]))
    wrong = row.verdict != "transfers"
    path = row.path if len(row.path) <= 30 else "…" + row.path[-29:]
    title = f"{path}\n{row.verdict}" if wrong else path
    accused = wrong and row.verdict != CARRIED
    panel.set_title(title, fontsize=8, color="#a4262c" if accused else "black")
    panel.tick_params(labelsize=7)
    if np.isnan(values).all():
        note(panel, "zero, or not finite", 0.5)
        return
    panel.set_xscale("log", base=2)
    panel.set_yscale("log")
    for step, color in enumerate(colors):
        logs = np.log(values[..., step])
        seen = ~np.isnan(logs).all(1)
        middle = np.full(len(logs), math.nan)
        middle[seen] = np.exp(np.nanmean(logs[seen], axis=1))
        label = f"step {step}" if step else "start"
        panel.plot(sizes, middle, "o-", color=color, ms=3, lw=1.2, label=label)
    # What is flat looks flat: a panel spans a decade or more.
    low, high = np.log10(np.nanmin(values)), np.log10(np.nanmax(values))
    reach = max(0.55 * (high - low), 0.5)
    panel.set_ylim(*10.0 ** ((low + high) / 2 + np.array([-reach, reach])))
    panel.set_xticks(sizes, [str(size) for size in sizes])
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=6))
    panel.yaxis.set_major_formatter("{x:g}")
    panel.minorticks_off()
