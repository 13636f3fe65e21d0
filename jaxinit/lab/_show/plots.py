"""Plots of a comparison: a panel for each initializer, all of one size and scale.

A plot is a function of the comparison that returns how to draw the panel of the i-th
initializer, in the color that it has everywhere. Panels stand side by side in a figure
(`jaxinit.lab._show.figure`), and each alone in the page.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from jaxinit._panels import histogram
from jaxinit.lab._result.outcome import Outcome
from jaxinit.lab._result.statistics import interval, median
from jaxinit.lab._show._maps import draw_biases, draw_kernels
from jaxinit.lab._show._marks import (
    BAND,
    BROAD,
    CHANCE,
    DOTTED,
    FAINT,
    INK,
    INTERVAL,
    MEAN,
    MIDDLE,
    THICK,
    Panel,
    Style,
    choose_color,
    choose_limits,
    explain_empty,
    mask,
    name_axes,
    set_logarithmic,
    set_ticks,
)


class Plot(NamedTuple):
    """A plot.

    Attributes:
      title: what it shows, in a heading.
      text: how to read it.
      panel: makes the function that draws one initializer's panel.
      key: what each kind of line means.
      wide: whether a panel takes the room of two.
    """

    title: str
    text: str
    panel: Callable[[Outcome], Panel]
    key: Callable[[Outcome], list[tuple[str, Style]]] = lambda comparison: []
    wide: bool = False


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


def _compute_log_intervals(comparison: Outcome, values: np.ndarray) -> np.ndarray:
    """As `_compute_intervals`, of logarithms: no end is below zero, out of the panel.

    # [initializers, seeds, ...] -> [initializers, 3, ...]
    """
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        ends: np.ndarray = np.exp(_compute_intervals(comparison, np.log(values)))
        return ends


def compute_curves(comparison: Outcome) -> np.ndarray:
    """Computes mean, low and high of the training loss at the best learning rates.

    # [initializers, 3, blocks]
    """
    return _compute_log_intervals(comparison, comparison.at_best(comparison.curves))


def limit_losses(
    comparison: Outcome, middle: np.ndarray, *ends: np.ndarray
) -> tuple[float, float]:
    """Returns the limits of an axis for losses: those that explode leave the panel.

    Args:
      comparison: what the losses are of.
      middle: means or medians.
      ends: of their intervals; those of what is in the panel are in it as well.
    """
    chance = comparison.task.chance
    low, high = choose_limits(np.append(middle.ravel(), chance), 1e-4 * chance)
    high = min(high, max(8 * chance, 3 * low))
    inside = (middle >= low) & (middle <= high)
    for end in ends:
        seen = mask(end[inside])[np.isfinite(mask(end[inside]))]
        low = min([low, *seen / 1.5])
        high = max([high, *seen * 1.5])
    return float(low), float(high)


def draw_curve(
    axis: Axes, steps: np.ndarray, ends: np.ndarray, color: str, band: bool
) -> None:
    """Draws a mean, and its interval as a band.

    # ends: [3, blocks]
    """
    mean, low, high = map(mask, ends)
    if band:
        axis.fill_between(steps, low, high, color=color, alpha=BAND, lw=0)
    axis.plot(steps, mean, color=color, linewidth=THICK)


def draw_chance(axis: Axes, comparison: Outcome) -> None:
    """Draws a line at the loss of chance."""
    axis.axhline(comparison.task.chance, color=MIDDLE, **CHANCE[1])


def _loss(comparison: Outcome) -> Panel:
    steps, curves = comparison.steps, compute_curves(comparison)
    limits = limit_losses(comparison, *np.moveaxis(curves, 1, 0))

    def draw(axis: Axes, index: int) -> None:
        set_logarithmic(axis, limits)
        draw_chance(axis, comparison)
        for mean, _, _ in curves:
            axis.plot(steps, mask(mean), color=FAINT, linewidth=0.7, zorder=0)
        draw_curve(axis, steps, curves[index], choose_color(index), band=True)
        explain_empty(axis, curves[index, 0])
        name_axes(axis, "step", "training loss")

    return draw


def _explain_rates(comparison: Outcome) -> list[tuple[str, Style]]:
    """Returns the line of each learning rate: the larger, the thicker."""
    rates = sorted(comparison.settings.learning_rates)
    parts = [(place + 1) / len(rates) for place in range(len(rates))]
    return [
        (
            f"learning rate {rate:g}",
            {"linewidth": 0.6 + 2 * p, "alpha": 0.35 + 0.65 * p},
        )
        for rate, p in zip(rates, parts, strict=True)
    ]


def _loss_by_rate(comparison: Outcome) -> Panel:
    medians = median(np.moveaxis(comparison.curves, -1, 1))  # [inits, blocks, rates]
    limits = limit_losses(comparison, medians)
    order = np.argsort(comparison.settings.learning_rates)
    styles = _explain_rates(comparison)

    def draw(axis: Axes, index: int) -> None:
        set_logarithmic(axis, limits)
        draw_chance(axis, comparison)
        for (_, style), rate in zip(styles, order, strict=True):
            line = mask(medians[index, :, rate])
            axis.plot(comparison.steps, line, color=choose_color(index), **style)
        explain_empty(axis, medians[index])
        name_axes(axis, "step", "training loss")

    return draw


def _sensitivity(comparison: Outcome) -> Panel:
    rates = np.array(comparison.settings.learning_rates)
    order = np.argsort(rates)
    rates, losses = rates[order], comparison.ranked_loss[..., order]
    means = _compute_log_intervals(comparison, losses)
    limits = limit_losses(comparison, *np.moveaxis(means, 1, 0))

    def draw(axis: Axes, index: int) -> None:
        set_logarithmic(axis, limits)
        axis.set_xscale("log")
        axis.set_xlim(rates[0] / 1.5, rates[-1] * 1.5)
        axis.set_xticks(rates[:: -(-len(rates) // 4)], minor=False)
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.minorticks_off()
        draw_chance(axis, comparison)
        for mean, _, _ in means:
            axis.plot(rates, mask(mean), color=FAINT, linewidth=0.7, zorder=0)
        mean, low, high = means[index]
        bar: Style = {"alpha": BAND, "linewidth": BROAD}
        axis.vlines(rates, low, high, color=choose_color(index), **bar)
        color = choose_color(index)
        axis.plot(rates, mask(mean), "o-", color=color, ms=4, lw=THICK)
        lost = rates[np.isinf(losses[index]).any(axis=0)]
        height = np.full(len(lost), 0.94)
        axis.plot(
            lost, height, "x", color=INK, ms=5, transform=axis.get_xaxis_transform()
        )
        name_axes(axis, "learning rate", "final loss")

    return draw


def _through_training(values: np.ndarray, up: str, mark: float | None) -> Panel:
    """Draws values by layer, a line for each moment.

    # values: [initializers, seeds, moments, layers]
    """
    with np.errstate(invalid="ignore"):
        middle = np.median(values.astype(float), axis=1)
    limits = choose_limits(middle if mark is None else np.append(middle.ravel(), mark))

    def draw(axis: Axes, index: int) -> None:
        set_logarithmic(axis, limits)
        layers, last = np.arange(1, values.shape[-1] + 1), len(middle[index]) - 1
        if mark is not None:
            axis.axhline(mark, color=MIDDLE, **DOTTED)
        for moment, line in enumerate(middle[index]):
            color = choose_color(index) if moment else INK
            style = _style_moment(moment, last)
            axis.plot(layers, mask(line), color=color, **style)
        axis.set_xlim(0.5, layers[-1] + 0.5)
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        explain_empty(axis, middle[index])
        name_axes(axis, "layer", up)

    return draw


def _style_moment(moment: int, last: int) -> Style:
    """Returns the style of a line at a moment of training."""
    if moment == 0:
        return {"linestyle": "--", "linewidth": 1.3}
    if moment == last:
        return {"linewidth": 2.0, "marker": ".", "markersize": 4}
    return {"linewidth": 1.0, "alpha": 0.25 + 0.5 * moment / last}


def _explain_moments(comparison: Outcome) -> list[tuple[str, Style]]:
    """Returns the line of each moment."""
    steps = comparison.probe_steps.tolist()
    return [
        (f"step {step:g}", _style_moment(moment, len(steps) - 1))
        for moment, step in enumerate(steps)
    ]


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
        set_ticks(axis)
        axis.xaxis.set_major_locator(MaxNLocator(3))
        name_axes(axis, "value", "density")

    return draw


_ENTRIES: list[tuple[str, Style]] = [
    ("before training", {"linewidth": 1.0}),
    ("after training", {"linewidth": BROAD, "alpha": 0.55}),
]
_KERNELS = "First seed, best learning rate."
_GEOMETRIC = (
    "Geometric mean over seeds and its 95 % bootstrap interval; a single distinct run "
    "has none."
)
_PLOTS = {
    "loss": Plot(
        title="Training loss at the best learning rate",
        text=f"{_GEOMETRIC} A curve on the dotted line has learned nothing but the "
        "frequencies of classes, or the mean of the targets.",
        panel=_loss,
        key=lambda _: [
            MEAN,
            INTERVAL,
            ("other initializers", {"linewidth": 0.7, "alpha": 0.4}),
            CHANCE,
        ],
    ),
    "loss_by_rate": Plot(
        title="Training loss at every learning rate",
        text="Median over seeds.",
        panel=_loss_by_rate,
        key=lambda comparison: [*_explain_rates(comparison), CHANCE],
    ),
    "sensitivity": Plot(
        title="Learning-rate sensitivity",
        text=f"Final training loss against the learning rate. {_GEOMETRIC} A cross "
        "marks a rate at which a seed or more diverged; then there is no mean.",
        panel=_sensitivity,
        key=lambda _: [MEAN, INTERVAL, CHANCE],
    ),
    "signals": Plot(
        title="Signal by layer, through training",
        text="Standard deviation of each layer's output, before its activation; median "
        "over seeds. A level dashed line is healthy; one that leaves the panel "
        "vanishes or explodes.",
        panel=_signals,
        key=_explain_moments,
    ),
    "gradients": Plot(
        title="Gradient by layer, through training",
        text="Standard deviation of the gradient with respect to each layer's output; "
        "median over seeds.",
        panel=_gradients,
        key=_explain_moments,
    ),
    "updates": Plot(
        title="Update-to-weight ratio by layer, through training",
        text="Norm of the change that one step makes to a kernel, over the norm of the "
        "kernel; median over seeds. Far above 1e-3 weights are overwritten, far below "
        "they hardly learn.",
        panel=_updates,
        key=lambda comparison: [
            *_explain_moments(comparison),
            ("1e-3, a usual size", DOTTED),
        ],
    ),
    "weights": Plot(
        title="Kernel entries before and after training",
        text=f"{_KERNELS} Each panel has axes of its own.",
        panel=lambda comparison: _entries(comparison, "kernels"),
        key=lambda _: _ENTRIES,
    ),
    "heatmaps": Plot(
        title="The kernel in the middle of the network",
        text="Red above zero, blue below, as deep as the bar says; before and after "
        "have the same colors. Equal "
        f"columns are equal units: the symmetry that training cannot break. {_KERNELS}",
        panel=lambda comparison: functools.partial(draw_kernels, comparison),
        wide=True,
    ),
    "biases": Plot(
        title="Bias entries before and after training",
        text=f"{_KERNELS} Each panel has axes of its own.",
        panel=lambda comparison: _entries(comparison, "biases"),
        key=lambda _: _ENTRIES,
    ),
    "bias_maps": Plot(
        title="Biases after training, by layer and unit",
        text=f"Red above zero, blue below, as deep as the bar says. {_KERNELS}",
        panel=lambda comparison: functools.partial(draw_biases, comparison),
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
