"""Plots of a comparison, as PNG."""

import textwrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from jaxinit._panels import COLOURS, band, heatmap, histogram, note, png
from jaxinit.lab.comparison import Comparison

_COLUMNS = 4


def plots(comparison: Comparison) -> dict[str, bytes]:
    """Draws every plot of a comparison; returns PNG files by name."""
    drawn = {"signals": _signals} if comparison.signals else {}
    drawn |= {
        "weights": _weights,
        "heatmaps": _heatmaps,
        "biases": _biases,
    }
    if len(comparison.steps):
        drawn = {"loss": _loss, **drawn}
    return {name: png(draw(comparison)) for name, draw in drawn.items()}


def histogram_and_heatmap(weight: np.ndarray, title: str) -> bytes:
    """Draws the entries of one weight, as a PNG file.

    Their histogram and their places.
    """
    figure = Figure((9, 3.6), layout="constrained")
    figure.suptitle(title, fontsize=10)
    left, right = figure.subplots(1, 2)
    histogram(left, weight.ravel(), COLOURS[1], "weights")
    left.set_xlabel("value")
    left.set_ylabel("density")
    figure.colorbar(heatmap(right, weight), ax=right)
    right.set_xlabel("last axis")
    right.set_ylabel("all other axes")
    return png(figure)


def _panels(
    comparison: Comparison, title: str, share: bool
) -> tuple[Figure, list[Axes]]:
    """Makes a panel for each initializer, titled by its spec."""
    specs = [repr(init) for init in comparison.settings.initializers]
    columns = min(_COLUMNS, len(specs))
    rows = -(-len(specs) // columns)
    figure = Figure((3.1 * columns, 2.3 * rows + 0.6), layout="constrained")
    figure.suptitle(title, fontsize=11)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=share, sharey=share)
    axes = list(grid.ravel())
    for spec, axis in zip(specs, axes, strict=False):
        axis.set_title(_wrapped(spec), fontsize=8)
        axis.tick_params(labelsize=7)
    for axis in axes[len(specs) :]:
        axis.set_visible(False)
    return figure, axes[: len(specs)]


def _wrapped(spec: str, width: int = 38) -> str:
    return "\n".join(textwrap.wrap(spec, width))


def _loss(comparison: Comparison) -> Figure:
    """Draws loss curves: each initializer before the grey ones of the others."""
    title = "Training loss at the best learning rate: median and range over seeds"
    figure, axes = _panels(comparison, title, share=True)
    curves = comparison.at_best(comparison.curves)
    chance = comparison.task.chance
    visible = curves[np.isfinite(curves) & (curves > 0)]
    if visible.size:  # curves that explode leave the panel rather than flatten the rest
        bottom = max(visible.min(), 1e-4 * chance)
        axes[0].set_ylim(0.7 * bottom, max(8 * chance, 2 * bottom))
    for i, axis in enumerate(axes):
        axis.set_yscale("log")
        axis.axhline(chance, color="#888888", linewidth=0.8, linestyle=":")
        for other in curves:
            median = np.median(other, axis=0)
            axis.plot(
                comparison.steps, median, color="#d5d5d5", linewidth=0.7, zorder=0
            )
        band(axis, comparison.steps, curves[i], COLOURS[1])
        top = axes[0].get_ylim()[1]
        if not (np.isfinite(curves[i]) & (curves[i] < top)).any():
            lost = not np.isfinite(curves[i]).any()
            note(axis, "not finite" if lost else "above the panel")
    figure.supxlabel("step", fontsize=9)
    figure.supylabel("training loss (dotted: chance)", fontsize=9)
    return figure


def _signals(comparison: Comparison) -> Figure:
    """Draws how signal and gradient change with depth, at initialisation."""
    title = "Standard deviation by layer before training; 1 is healthy (band: seeds)"
    figure, axes = _panels(comparison, title, share=True)
    layers = np.arange(1, comparison.settings.depth + 1)
    assert comparison.signals is not None
    forward, gradient = comparison.signals
    lines = {
        "signal, over the first layer's": (COLOURS[1], forward, forward[..., :1]),
        "gradient, over the last layer's": (COLOURS[9], gradient, gradient[..., -1:]),
    }
    for colour, above, below in lines.values():
        with np.errstate(all="ignore"):
            ratio = above.astype(float) / below.astype(float)
        for i, axis in enumerate(axes):
            band(axis, layers, ratio[i], colour)
    for i, axis in enumerate(axes):
        axis.set_yscale("log")
        axis.set_ylim(1e-6, 1e6)
        axis.axhline(1, color="#888888", linewidth=0.8, linestyle=":")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        if not (forward[i, :, -1] > 0).any():
            note(axis, "the signal is zero")
    handles = [
        Line2D([], [], color=line[0], label=label) for label, line in lines.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=9)
    return figure


def _weights(comparison: Comparison) -> Figure:
    """Draws histograms of all kernel entries, before and after training."""
    title = "Kernel entries before and after training (first seed, best learning rate)"
    figure, axes = _panels(comparison, title, share=False)
    for i, axis in enumerate(axes):
        for kernels, colour, label in zip(
            comparison.kernels(i),
            (COLOURS[4], COLOURS[0]),
            ("before", "after"),
            strict=True,
        ):
            histogram(axis, np.concatenate([k.ravel() for k in kernels]), colour, label)
        axis.set_yscale("log")
        axis.legend(fontsize=6)
    figure.supylabel("density", fontsize=9)
    return figure


def _heatmaps(comparison: Comparison) -> Figure:
    """Draws the kernel of the middle layer, before training and after."""
    layer = len(comparison.kernels(0)[0]) // 2
    title = f"Kernel of layer {layer + 1}: before (left) and after training (right)"
    figure, axes = _panels(comparison, title, share=False)
    for i, axis in enumerate(axes):
        axis.set_axis_off()
        for kernels, left in zip(comparison.kernels(i), (0.0, 0.49), strict=True):
            inner = axis.inset_axes((left, 0, 0.46, 1))
            inner.set_xticks([])
            inner.set_yticks([])
            heatmap(inner, kernels[layer])
    return figure


def _biases(comparison: Comparison) -> Figure:
    """Draws the root mean square of the biases by layer, after training."""
    title = "Root mean square of the biases by layer after training (all start at zero)"
    figure, axes = _panels(comparison, title, share=False)
    for i, axis in enumerate(axes):
        _, after = comparison.biases(i)
        size = np.array([np.sqrt(np.mean(b.astype(float) ** 2)) for b in after])
        axis.bar(np.arange(1, len(size) + 1), np.where(np.isfinite(size), size, 0))
        if not np.isfinite(size).all():
            note(axis, "not finite")
    figure.supxlabel("layer", fontsize=9)
    return figure
