"""Plots of a comparison: a panel for each initializer, all of one size and scale.

A plot is a function of the comparison that returns how to draw the panel of the i-th
initializer, in the color that it has everywhere. Panels stand side by side in a figure
(`jaxinit.lab._show.figure`), and each alone in the page.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator

from jaxinit._panels import COLORS, heatmap, histogram, note
from jaxinit.lab._result.outcome import Outcome
from jaxinit.lab._result.statistics import interval, median

Panel = Callable[[Axes, int], None]

INK, MIDDLE, FAINT = (
    "#1b1b1d",
    "#8a8a8b",
    "#d5d5d6",
)  # text, marks, other curves
_DECADES = 1e6  # the factor from the median to an axis's end: curves may leave it
_PIXELS = 128  # of a heat map, in each direction


class Plot(NamedTuple):
    """A plot.

    Attributes:
      title: what it shows, in a heading.
      text: how to read it.
      panel: makes the function that draws one initializer's panel.
    """

    title: str
    text: str
    panel: Callable[[Outcome], Panel]


def choose_color(index: int) -> str:
    """Returns an initializer's color in every plot."""
    return COLORS[index % len(COLORS)]


def _name_axes(axis: Axes, across: str, up: str) -> None:
    """Names the axes, the vertical one above its end, where it takes no width."""
    axis.set_xlabel(across, loc="right", labelpad=1)
    axis.text(0, 1.03, up, transform=axis.transAxes, va="bottom")


def _mask(values: np.ndarray) -> np.ndarray:
    """Replaces values that a logarithmic axis cannot show by nan."""
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(values) & (values > 0), values, np.nan)


_SHORT = 4  # times: a logarithmic axis on which 1, 2 and 5 are too few marks


def set_logarithmic(axis: Axes, limits: tuple[float, float]) -> None:
    """Makes the vertical axis logarithmic, between limits, with few ticks."""
    axis.set_yscale("log")
    axis.set_ylim(*limits)
    _set_ticks(axis)


def _set_ticks(axis: Axes) -> None:
    """Marks few values of a logarithmic axis, at 1, 2 and 5 where it is short."""
    low, high = axis.get_ylim()
    subs = (1.0, 2.0, 5.0) if high < 50 * low else (1.0,)
    few = MaxNLocator(4) if high < _SHORT * low else None
    axis.yaxis.set_major_locator(few or LogLocator(subs=subs, numticks=5))
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.minorticks_off()


def _choose_limits(values: np.ndarray, least: float = 0.0) -> tuple[float, float]:
    """Returns the limits of an axis for all values within decades of the median."""
    seen = values[np.isfinite(values) & (values > 0)].astype(float)
    if not seen.size:
        return 0.1, 10.0
    middle = float(np.median(seen))
    low = max(float(seen.min()), middle / _DECADES, least)
    high = min(float(seen.max()), middle * _DECADES)
    return low / 1.5, max(high, low) * 1.5


def _explain_empty(axis: Axes, values: np.ndarray) -> None:
    """Says why a panel is empty, if it is."""
    low, high = axis.get_ylim()
    with np.errstate(invalid="ignore"):
        if ((values >= low) & (values <= high)).any():
            return
        why = "outside the panel" if np.isfinite(values).any() else "not finite"
        note(axis, "zero" if (values == 0).any() else why, 0.5)


def _compute_intervals(comparison: Outcome, values: np.ndarray) -> np.ndarray:
    """Computes mean, low and high over distinct runs; one run has no interval.

    # [initializers, seeds, ...] -> [initializers, 3, ...]
    """
    ends = []
    for by_seed, once in zip(values, comparison.distinct, strict=True):
        columns = by_seed[once].reshape(once.sum(), -1).astype(float).T
        each = [(one.mean, one.low, one.high) for one in map(interval, columns)]
        ends.append(np.reshape(each, (-1, 3)).T.reshape(3, *by_seed.shape[1:]))
    return np.stack(ends)


def _limit_losses(comparison: Outcome, losses: np.ndarray) -> tuple[float, float]:
    """Returns the limits of an axis for losses: those that explode leave the panel."""
    chance = comparison.task.chance
    low, high = _choose_limits(np.append(losses.ravel(), chance), 1e-4 * chance)
    return low, min(high, max(8 * chance, 3 * low))


def _loss(comparison: Outcome) -> Panel:
    steps, chance = comparison.steps, comparison.task.chance
    curves = comparison.at_best(comparison.curves)
    means = _compute_intervals(comparison, curves)
    limits = _limit_losses(comparison, means[:, 0])

    def draw(axis: Axes, index: int) -> None:
        set_logarithmic(axis, limits)
        axis.axhline(chance, color=MIDDLE, linewidth=0.8, linestyle=":")
        for mean, _, _ in means:
            axis.plot(steps, _mask(mean), color=FAINT, linewidth=0.7, zorder=0)
        mean, low, high = means[index]
        bottom = np.maximum(low, limits[0])  # an interval of a mean may reach below 0
        axis.fill_between(
            steps, bottom, high, color=choose_color(index), alpha=0.25, lw=0
        )
        axis.plot(steps, _mask(mean), color=choose_color(index), linewidth=1.8)
        _explain_empty(axis, mean)
        _name_axes(axis, "step", "training loss")

    return draw


def _loss_by_rate(comparison: Outcome) -> Panel:
    medians = median(np.moveaxis(comparison.curves, -1, 1))  # [inits, blocks, rates]
    limits = _limit_losses(comparison, medians)
    order = np.argsort(comparison.settings.learning_rates)

    def draw(axis: Axes, index: int) -> None:
        set_logarithmic(axis, limits)
        axis.axhline(comparison.task.chance, color=MIDDLE, linewidth=0.8, linestyle=":")
        for rank, rate in enumerate(order):
            axis.plot(
                comparison.steps,
                _mask(medians[index, :, rate]),
                color=choose_color(index),
                linewidth=0.6 + 2 * (rank + 1) / len(order),
                alpha=0.35 + 0.65 * (rank + 1) / len(order),
            )
        _explain_empty(axis, medians[index])
        _name_axes(axis, "step", "training loss")

    return draw


def _sensitivity(comparison: Outcome) -> Panel:
    rates = np.array(comparison.settings.learning_rates)
    order = np.argsort(rates)
    rates, losses = rates[order], comparison.ranked_loss[..., order]
    means = _compute_intervals(comparison, losses)
    limits = _limit_losses(comparison, means[:, 0])

    def draw(axis: Axes, index: int) -> None:
        set_logarithmic(axis, limits)
        axis.set_xscale("log")
        axis.set_xlim(rates[0] / 1.5, rates[-1] * 1.5)
        axis.set_xticks(rates[:: -(-len(rates) // 4)], minor=False)
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.minorticks_off()
        axis.axhline(comparison.task.chance, color=MIDDLE, linewidth=0.8, linestyle=":")
        for mean, _, _ in means:
            axis.plot(rates, _mask(mean), color=FAINT, linewidth=0.7, zorder=0)
        mean, low, high = means[index]
        ends = np.maximum(low, limits[0]), high
        axis.vlines(rates, *ends, color=choose_color(index), alpha=0.35, linewidth=5)
        axis.plot(rates, _mask(mean), "o-", color=choose_color(index), ms=4, lw=1.8)
        lost = rates[np.isinf(losses[index]).any(axis=0)]
        height = np.full(len(lost), 0.94)
        axis.plot(
            lost, height, "x", color=INK, ms=5, transform=axis.get_xaxis_transform()
        )
        _name_axes(axis, "learning rate", "final loss")

    return draw


def _through_training(values: np.ndarray, up: str, mark: float | None) -> Panel:
    """Draws values by layer, a line for each moment.

    # values: [initializers, seeds, moments, layers]
    """
    with np.errstate(invalid="ignore"):
        middle = np.median(values.astype(float), axis=1)
    limits = _choose_limits(middle if mark is None else np.append(middle.ravel(), mark))

    def draw(axis: Axes, index: int) -> None:
        set_logarithmic(axis, limits)
        layers, last = np.arange(1, values.shape[-1] + 1), len(middle[index]) - 1
        if mark is not None:
            axis.axhline(mark, color=MIDDLE, linewidth=0.8, linestyle=":")
        for moment, line in enumerate(middle[index]):
            style: dict[str, Any] = (
                {"linestyle": "--", "linewidth": 1.3, "color": INK}
                if moment == 0
                else {"linewidth": 2.0, "marker": ".", "markersize": 4}
                if moment == last
                else {"linewidth": 1.0, "alpha": 0.25 + 0.5 * moment / last}
            )
            axis.plot(layers, _mask(line), **{"color": choose_color(index), **style})
        axis.set_xlim(0.5, layers[-1] + 0.5)
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        _explain_empty(axis, middle[index])
        _name_axes(axis, "layer", up)

    return draw


def _signals(comparison: Outcome) -> Panel:
    forward = comparison.at_best(comparison.probes.forward)
    return _through_training(forward, "standard deviation", None)


def _gradients(comparison: Outcome) -> Panel:
    gradient = comparison.at_best(comparison.probes.gradient)
    return _through_training(gradient, "standard deviation", None)


def _updates(comparison: Outcome) -> Panel:
    update = comparison.at_best(comparison.probes.update)
    return _through_training(update, "‖change‖ / ‖weights‖", 1e-3)


def _entries(comparison: Outcome, name: str) -> Panel:
    def draw(axis: Axes, index: int) -> None:
        before, after = getattr(comparison, name)(index)
        for arrays, outline in ((after, False), (before, True)):
            values = np.concatenate([np.zeros(0), *(a.ravel() for a in arrays)])
            shade, label = (INK, "") if outline else (choose_color(index), None)
            histogram(axis, values, shade, label, 60, outline)
        axis.set_yscale("log")
        _set_ticks(axis)
        axis.xaxis.set_major_locator(MaxNLocator(4))
        _name_axes(axis, "value", "density")

    return draw


def _heatmaps(comparison: Outcome) -> Panel:
    def draw(axis: Axes, index: int) -> None:
        axis.set_axis_off()
        before, after = comparison.kernels(index)
        for kernels, left, when in ((before, 0.0, "before"), (after, 0.52, "after")):
            inner = axis.inset_axes((left, 0, 0.48, 0.97))
            inner.set_xticks([])
            inner.set_yticks([])
            inner.set_title(when, fontsize="medium", loc="left", pad=2)
            if kernels:
                _draw_matrix(inner, kernels[len(kernels) // 2])

    return draw


def _bias_maps(comparison: Outcome) -> Panel:
    def draw(axis: Axes, index: int) -> None:
        _, after = comparison.biases(index)
        rows = [bias.ravel()[:_PIXELS].astype(float) for bias in after]
        matrix = np.full((len(rows), max(map(len, rows))), np.nan)
        for row, bias in zip(matrix, rows, strict=True):
            row[: len(bias)] = bias
        _draw_matrix(axis, matrix)
        axis.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axis.yaxis.set_major_formatter(lambda value, _: f"{value + 1:g}")
        axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        _name_axes(axis, "unit", "layer")

    return draw


def _draw_matrix(axis: Axes, weight: np.ndarray) -> None:
    """Draws a weight as a matrix; of a large one, every few rows and columns."""
    matrix = weight.reshape(-1, weight.shape[-1])
    rows, columns = (-(-size // _PIXELS) for size in matrix.shape)
    heatmap(axis, matrix[::rows, ::columns]).set_interpolation("none")


_MOMENTS = (
    "Dashed: before training; thin to thick: through training; thickest: at the end."
)
_PLOTS = {
    "loss": Plot(
        "Training loss at the best learning rate",
        "Mean over seeds, and its 95 % bootstrap interval as a band; a single distinct "
        "run has none. Gray: the other initializers. A curve on the dotted line has "
        "learned nothing but the frequencies of classes, or the mean of the targets.",
        _loss,
    ),
    "loss_by_rate": Plot(
        "Training loss at every learning rate",
        "Median over seeds; the thicker the line, the larger the learning rate.",
        _loss_by_rate,
    ),
    "sensitivity": Plot(
        "Learning-rate sensitivity",
        "Final training loss against the learning rate: mean over seeds, and its 95 % "
        "bootstrap interval as a bar. A cross marks a rate at which a seed or more "
        "diverged; then there is no mean. Dotted: chance.",
        _sensitivity,
    ),
    "signals": Plot(
        "Signal by layer, through training",
        "Standard deviation of each layer's output, before its activation; median "
        f"over seeds. {_MOMENTS} A level dashed line is healthy; one that leaves the "
        "panel vanishes or explodes.",
        _signals,
    ),
    "gradients": Plot(
        "Gradient by layer, through training",
        f"Standard deviation of the gradient with respect to each layer's output; "
        f"median over seeds. {_MOMENTS}",
        _gradients,
    ),
    "updates": Plot(
        "Update-to-weight ratio by layer, through training",
        f"Norm of the change that one step makes to a kernel, over the norm of the "
        f"kernel; median over seeds. {_MOMENTS} Dotted: 1e-3, a usual size; far above "
        "it weights are overwritten, far below they hardly learn.",
        _updates,
    ),
    "weights": Plot(
        "Kernel entries before and after training",
        "Outlined: before; filled: after. First seed, best learning rate.",
        lambda comparison: _entries(comparison, "kernels"),
    ),
    "heatmaps": Plot(
        "The kernel in the middle of the network",
        "Red above zero, blue below. Equal columns are equal units: the symmetry that "
        "training cannot break. First seed, best learning rate.",
        _heatmaps,
    ),
    "biases": Plot(
        "Bias entries before and after training",
        "Outlined: before; filled: after. First seed, best learning rate.",
        lambda comparison: _entries(comparison, "biases"),
    ),
    "bias_maps": Plot(
        "Biases after training, by layer and unit",
        "Red above zero, blue below. First seed, best learning rate.",
        _bias_maps,
    ),
}


def select_plots(comparison: Outcome) -> dict[str, Plot]:
    """Returns the plots that a comparison has data for, by name."""
    missing = set()
    if not len(comparison.steps):
        missing |= {"loss", "loss_by_rate"}
    if len(comparison.settings.learning_rates) == 1:
        missing |= {"loss_by_rate", "sensitivity"}
    if comparison.signals is None:
        missing |= {"signals", "gradients"}
    if not comparison.biases(0)[0]:
        missing |= {"biases", "bias_maps"}
    if not comparison.kernels(0)[0]:
        missing |= {"weights", "heatmaps"}
    return {name: plot for name, plot in _PLOTS.items() if name not in missing}
