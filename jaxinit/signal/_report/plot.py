"""Plots a report: signal and gradient by depth, singular values, histograms."""

import itertools
from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator

from jaxinit._gain import normal_density
from jaxinit._panels import COLORS, band, histogram, note, png
from jaxinit.signal._judge.findings import Findings, Layer
from jaxinit.signal._judge.verdicts import VERDICTS, Condition
from jaxinit.signal._report.columns import write_heading

_SHARE = 0.8  # the share of the seeds in the band
_SIGNAL, _THEORY, _MODULE = COLORS[10], "#222222", "#777777"
_MARKS = {verdict.name: verdict.color for verdict in VERDICTS}
_MOST = 8  # histograms at most
_NAMED = 12  # up to this many layers have their names below the axis
_DOTTED = 60  # up to this many layers have a dot each
_LONGEST = 22  # characters of a name at most
_BEYOND = 3  # decades beyond the measurements that an axis follows theory
_FAR = 150  # decades from 1 that an axis reaches: ticks further out may overflow


class _Shown(Figure):
    """A figure that notebooks show, with or without pyplot."""

    def _repr_png_(self) -> bytes:
        return png(self)


def figure(report: Findings) -> Figure:
    """Draws a report."""
    layers = [x for x in report.layers if x.kind != "module"] or list(report.layers)
    if not layers:
        empty = _Shown((6, 2))
        note(empty.subplots(), "no layers", 0.5)
        return empty
    drawable = [layer for layer in layers if _varies(layer)]
    chosen = [drawable[i] for i in _choose(len(drawable))]
    columns = len(chosen) if len(chosen) < 6 else -(-len(chosen) // 2)
    lines = -(-len(chosen) // max(columns, 1))
    heights = 4.2, 0.4 + 1.8 * lines
    if not chosen:
        whole = _Shown((13, heights[0]), layout="constrained")
        _draw_top(whole, report, layers)
        return whole
    whole = _Shown((13, sum(heights)), layout="constrained")
    halves: Any = whole.subfigures(2, 1, height_ratios=heights, hspace=0.02)
    top, bottom = halves
    _draw_top(top, report, layers)
    theory = "; dashed: the theory's normal law" * any(x.predicted for x in chosen)
    title = f"Outputs before the activation, all seeds{theory}"
    bottom.suptitle(title, fontsize=9)
    panels = bottom.subplots(lines, columns, squeeze=False).ravel()
    for axis, layer in zip(panels, chosen, strict=False):
        _draw_outputs(axis, layer)
    for axis in panels[len(chosen) :]:
        axis.remove()
    return whole


def _draw_top(
    place: Figure | SubFigure, report: Findings, layers: Sequence[Layer]
) -> None:
    """Draws signal, gradient and updates by depth, and the singular values."""
    place.suptitle(f"Signal at initialization: {write_heading(report)}", fontsize=11)
    ratios = [4, 4, *[3] * bool(report.training), *[1.2] * bool(report.jacobian)]
    forward, backward, *rest = place.subplots(1, len(ratios), width_ratios=ratios)
    _draw_by_depth(forward, report, layers, "std")
    _draw_by_depth(backward, report, layers, "gradient_std")
    forward.set_title("standard deviation of the output", fontsize=9)
    backward.set_title("standard deviation of the gradient at the output", fontsize=9)
    if report.training:
        _draw_updates(rest[0], layers)
    if report.jacobian:
        _draw_singular(rest[-1], report)
    place.legend(
        handles=_make_handles(report, layers),
        loc="outside lower center",
        ncols=8,
        fontsize=8,
        frameon=False,
    )


def _varies(layer: Layer) -> bool:
    """Returns whether a layer's output has two values or more, for a histogram."""
    sample = layer.values("sample")
    finite = sample[np.isfinite(sample)]
    return finite.size > 0 and float(finite.min()) < float(finite.max())


def _choose(count: int) -> list[int]:
    """Chooses indices at equal distances, the first and the last among them."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, _MOST))})


def _draw_by_depth(
    axis: Axes, report: Findings, layers: Sequence[Layer], name: str
) -> None:
    """Draws a standard deviation layer by layer."""
    axis.set_yscale("log")
    axis.set_autoscaley_on(False)  # its margins may overflow
    axis.tick_params(labelsize=8)
    x = np.arange(1, len(layers) + 1)
    y = np.stack([layer.values(name) for layer in layers], axis=1)  # [seeds, layers]
    band(axis, x, y, _SIGNAL, _SHARE)
    theory = np.array([x.predicted.get(name, np.nan) for x in layers], float)
    theory = np.where(np.isfinite(theory) & (theory > 0), theory, np.nan)
    axis.plot(x, theory, color=_THEORY, linestyle="--", linewidth=1, zorder=3)
    modules = _place_modules(report, layers, name)
    if modules.size:
        axis.plot(*modules, "+", color=_MODULE, markersize=5, zorder=2)
    middle = [_find_middle(values) for values in y.T]
    for i, (layer, value) in enumerate(zip(layers, middle, strict=True), start=1):
        color = _MARKS.get(layer.condition, _SIGNAL)
        if np.isfinite(value) and value > 0:
            if len(layers) <= _DOTTED or layer.condition != "healthy":
                axis.plot(i, value, "o", color=color, markersize=3.5, zorder=4)
        else:
            _mark_at_edge(axis, i, value == 0, color)
    place = 0.5
    for condition, run in itertools.groupby(layers, lambda layer: layer.condition):
        end = place + len(list(run))
        if condition != "healthy":
            axis.axvspan(place, end, color=_MARKS[condition], alpha=0.12, linewidth=0)
        place = end
    axis.set_xlim(0.5, len(layers) + 0.5)
    _set_decades(axis, np.concatenate([y.ravel(), modules[1:].ravel()]), theory)
    if len(layers) <= _NAMED:
        names = [_shorten(layer.path) for layer in layers]
        axis.set_xticks(x, names, rotation=35, ha="right", rotation_mode="anchor")
    else:
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_xlabel("layer, in order of execution", fontsize=8)


def _find_middle(values: np.ndarray) -> float:
    """Computes the median of the positive finite values.

    Without any it is 0, or NaN where no value is finite.
    """
    shown = values[np.isfinite(values) & (values > 0)]
    if shown.size:
        return float(np.median(shown))
    return 0.0 if np.isfinite(values).any() else np.nan


def _mark_at_edge(axis: Axes, x: float, zero: bool, color: str) -> None:
    """Marks values that have no logarithm: zeros below, values not finite above."""
    axis.plot(
        x,
        0.03 if zero else 0.97,
        "v" if zero else "x",
        color=color,
        markersize=5,
        transform=axis.get_xaxis_transform(),
        zorder=4,
    )


def _place_modules(report: Findings, layers: Sequence[Layer], name: str) -> np.ndarray:
    """Returns the places and values of modules, each at the layer before it.

    Shape: [2, modules].
    """
    place, before, points = 0, np.nan, []
    for layer in report.layers:
        value = _find_middle(layer.values(name))
        if layer.kind != "module":
            place, before = place + 1, value
        elif value > 0 and value != before and len(layers) < len(report.layers):
            points.append((max(place, 1), value))
    return np.array(points, float).reshape(-1, 2).T


def _take_logarithms(values: np.ndarray) -> np.ndarray:
    logarithms: np.ndarray = np.log10(values[np.isfinite(values) & (values > 0)])
    return logarithms


def _set_decades(axis: Axes, values: np.ndarray, theory: np.ndarray) -> None:
    """Sets the limits of a logarithmic axis, a decade or more apart.

    Theory has values where measurements overflow: its line may leave the panel.
    """
    measured, expected = _take_logarithms(values), _take_logarithms(theory)
    if measured.size:
        least, most = measured.min() - _BEYOND, measured.max() + _BEYOND
        expected = expected[(expected > least) & (expected < most)]
    shown = np.concatenate([measured, expected])
    low, high = (shown.min(), shown.max()) if shown.size else (0.0, 0.0)
    low, high = min(low, (low + high - 1) / 2), max(high, (low + high + 1) / 2)
    margin = 0.08 * (high - low)
    limits = 10.0 ** np.clip([low - margin, high + margin], -_FAR, _FAR)
    axis.set_ylim(*limits)
    if high - low < 2:  # decades alone would leave hardly a label
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.yaxis.set_minor_formatter(lambda value, _: "")


def _shorten(path: str) -> str:
    return path if len(path) <= _LONGEST else "…" + path[1 - _LONGEST :]


def _draw_singular(axis: Axes, report: Findings) -> None:
    """Draws the singular values of each seed."""
    axis.set_title("singular values\nof the Jacobian", fontsize=9)
    axis.tick_params(labelsize=8)
    axis.set_yscale("log")
    axis.set_autoscaley_on(False)
    square, largest = (
        np.asarray(report.jacobian[name], np.float64)
        for name in ("mean_square", "largest")
    )
    parts = {"root mean\nsquare": np.sqrt(square), "largest": largest}
    for place, values in enumerate(parts.values()):
        shown = values[np.isfinite(values) & (values > 0)]
        spread = np.linspace(-0.12, 0.12, len(shown)) if len(shown) > 1 else [0.0]
        if shown.size:
            axis.plot(place + np.asarray(spread), shown, "o", color=_SIGNAL, alpha=0.7)
        else:
            _mark_at_edge(axis, place, bool(np.any(values == 0)), _SIGNAL)
    axis.axhline(1, color=_THEORY, linewidth=0.8, linestyle=":")
    axis.set_xlim(-0.5, 1.5)
    axis.set_xticks([0, 1], list(parts))
    _set_decades(axis, np.concatenate([square**0.5, largest]), np.ones(1))


def _draw_updates(axis: Axes, layers: Sequence[Layer]) -> None:
    """Draws the updates over the weights by depth, at the first and the last step."""
    axis.set_title("update over weight", fontsize=9)
    axis.set_yscale("log")
    axis.set_autoscaley_on(False)
    axis.tick_params(labelsize=8)
    axis.set_xlabel("layer, in order of execution", fontsize=8)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    moved = [layer.updates for layer in layers if layer.updates is not None]
    x, updates = np.arange(1, len(moved) + 1), np.stack(moved, axis=1)
    for step, style, label in ((0, "o", "first step"), (-1, "+", "last step")):
        middle = [_find_middle(values) for values in updates[..., step].T]
        y = np.where(np.isfinite(middle) & (np.array(middle) > 0), middle, np.nan)
        axis.plot(x, y, style, color=_SIGNAL, markersize=4, label=label)
    axis.legend(fontsize=7, frameon=False)
    axis.set_xlim(0.5, len(moved) + 0.5)
    _set_decades(axis, updates.ravel(), np.zeros(0))


def _make_handles(report: Findings, layers: Sequence[Layer]) -> list[Any]:
    """Makes the entries of the legend."""
    handles: list[Any] = [Line2D([], [], color=_SIGNAL, label="median of the seeds")]
    if report.seeds > 1:
        share = f"{100 * _SHARE:.0f} % of the seeds"
        handles.append(Patch(color=_SIGNAL, alpha=0.25, linewidth=0, label=share))

    def mark(shape: str, color: str, label: str) -> None:
        line = Line2D([], [], color=color, marker=shape, linestyle="", label=label)
        handles.append(line)

    if any(layer.predicted for layer in layers):
        dashed = Line2D([], [], color=_THEORY, linestyle="--", label="theory")
        handles.append(dashed)
    if any(_place_modules(report, layers, n).size for n in ("std", "gradient_std")):
        mark("+", _MODULE, "modules")
    middles = [
        _find_middle(x.values(name)) for x in layers for name in ("std", "gradient_std")
    ]
    if 0 in middles:
        mark("v", _SIGNAL, "zero")
    if np.isnan(middles).any():
        mark("x", _SIGNAL, "not finite")
    present = {layer.condition for layer in layers} - {"healthy"}
    for condition in sorted(present, key=get_args(Condition).index):
        mark("o", _MARKS[condition], condition)
    return handles


def _draw_outputs(axis: Axes, layer: Layer) -> None:
    """Draws a histogram of some entries of a layer's output, over all seeds."""
    color = _MARKS.get(layer.condition, _SIGNAL)
    sample = layer.values("sample").ravel()
    lost = np.mean(~np.isfinite(sample))
    note = f", {100 * lost:.2g} % not finite" if lost else ""
    axis.set_title(_shorten(layer.path) + note, fontsize=8)
    axis.tick_params(labelsize=7)
    axis.xaxis.get_offset_text().set_fontsize(7)
    axis.set_yticks([])
    histogram(axis, sample, color, bins=40)
    std = layer.predicted.get("std", np.nan)
    if np.isfinite(std) and std > 0:
        # The outputs set the limits of the axes, not the theory.
        axis.set(xlim=axis.get_xlim(), ylim=axis.get_ylim())
        z = np.linspace(-4, 4, 161)
        axis.plot(std * z, normal_density(z) / std, "--", color=_THEORY, linewidth=0.9)
