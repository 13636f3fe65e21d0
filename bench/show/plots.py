"""Plots of a result, as PNG: how many times longer each peer takes."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from bench.meters.row import Row

# Paul Tol's "bright" colors, told apart by people with any color vision.
_COLORS = {
    "jax": "#4477aa",
    "jax eager": "#66ccee",
    "torch": "#ee6677",
    "keras": "#ccbb44",
    "numpy": "#228833",
    **{"loop": "#66ccee", "eager": "#bbbbbb", "jit": "#4477aa"},
}
_BAR = 0.16  # inches
_MOST = 14  # cases of a panel


def write(result: dict[str, Any], directory: Path) -> list[Path]:
    """Writes a plot for each suite that has ratios; returns the files."""
    files = []
    directory.mkdir(parents=True, exist_ok=True)
    for suite, rows in result["suites"].items():
        compared = [row for row in rows if row["ratios"]]
        if compared:
            file = directory / f"{suite}.png"
            draw_ratios(suite, compared, result).savefig(file, dpi=110)
            files.append(file)
    return files


def draw_ratios(suite: str, rows: list[Row], result: dict[str, Any]) -> Figure:
    """Draws a bar for each case and peer, from 1, where both take the same time."""
    names = [name for name in _COLORS if any(name in row["ratios"] for row in rows)]
    panels = -(-len(rows) // _MOST)
    tall = -(-len(rows) // panels)  # cases of the tallest panel
    size = (7.5 * panels, _BAR * (len(names) + 1) * tall + 1.3)
    figure = Figure(size, layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False, sharex=True)[0]
    for panel, axis in enumerate(axes):
        _draw_bars(axis, rows[panel * tall :][:tall], names, tall)
    logs = np.log10([1.0, *(ratio for row in rows for ratio in row["ratios"].values())])
    low, high = logs.min(), logs.max()
    margin = 0.04 * max(high - low, 0.5)
    axes[0].set_xlim(10 ** (low - margin), 10 ** (high + 4 * margin))
    if high - low < 1.5:  # decades alone would leave hardly a label
        axes[0].xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    figure.supxlabel("time of the peer over ours", fontsize=9)
    figure.suptitle(_write_title(suite, result), x=0.01, ha="left", fontsize=9)
    for name in names:
        axes[0].barh(0, 0, left=1, color=_COLORS[name], label=name)
    figure.legend(loc="outside upper right", ncols=len(names), fontsize=8)
    return figure


def _draw_bars(axis: Axes, rows: list[Row], names: list[str], tall: int) -> None:
    """Draws one panel, with room for as many cases as the tallest has."""
    group = len(names) + 1
    axis.set_xscale("log")
    for index, row in enumerate(rows):
        there = [name for name in names if name in row["ratios"]]
        first = index * group + (len(names) - len(there)) / 2
        for place, name in enumerate(there):
            ratio = row["ratios"][name]
            y = first + place
            axis.barh(y, ratio - 1, left=1, height=0.9, color=_COLORS[name])
            axis.annotate(
                f"{ratio:.1f}" if ratio >= 1 else f"{ratio:.2f}",
                (max(ratio, 1), y),
                xytext=(3, 0),
                textcoords="offset points",
                va="center",
                fontsize=7,
            )
    middles = np.arange(len(rows)) * group + (len(names) - 1) / 2
    axis.set_yticks(middles, [row["case"] for row in rows], fontsize=8)
    axis.set_ylim(tall * group - 1, -1)
    axis.tick_params(axis="y", length=0)
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.xaxis.set_minor_formatter(lambda value, _: "")
    axis.tick_params(axis="x", labelsize=8)
    axis.axvline(1, color="#333333", linewidth=0.8)


def _write_title(suite: str, result: dict[str, Any]) -> str:
    machine, device = result["machine"], result["device"]
    where = f"{machine['cpu']}, {machine['cores']} cores"
    if device["platform"] != "cpu":
        where = device["kind"]
    toy = " (toy sizes)" if result["settings"]["quick"] else ""
    return f"{suite}{toy}\n{where}"
