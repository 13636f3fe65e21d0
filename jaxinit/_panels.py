"""Parts of plots that descriptions, reports and comparisons share."""

import io

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

# Paul Tol's "muted" and "bright" colors, told apart by people with any color vision.
COLORS = (
    *("#cc6677", "#332288", "#ddcc77", "#117733", "#88ccee", "#882255"),
    *("#44aa99", "#999933", "#aa4499", "#ee7733", "#4477aa", "#555555"),
)
_DPI = 110
_FLAT = 1e-9  # of the largest value: a narrower range has no room for bins
_EXTREME = 1e150  # larger values, and their reciprocals, overflow in a density


def png(figure: Figure) -> bytes:
    """Returns a figure as a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=_DPI)
    return file.getvalue()


def band(
    axis: Axes, x: np.ndarray, y: np.ndarray, color: str, share: float = 1.0
) -> None:
    """Draws the median over seeds, and the range that holds this share of them.

    Values without a logarithm are left out. # x: [points], y: [seeds, points]
    """
    y = np.where(np.isfinite(y) & (y > 0), y, np.nan)
    seen = ~np.isnan(y).all(axis=0)
    if seen.any():
        low, middle, high = np.full((3, len(x)), np.nan)
        parts = (1 - share) / 2, 0.5, (1 + share) / 2
        for line, part in zip((low, middle, high), parts, strict=True):
            line[seen] = np.nanquantile(y[:, seen], part, axis=0)
        axis.plot(x, middle, color=color, linewidth=1.6)
        axis.fill_between(x, low, high, color=color, alpha=0.25, linewidth=0)


def note(axis: Axes, text: str, height: float = 0.85) -> None:
    """Writes a line into a panel."""
    axis.text(0.5, height, text, transform=axis.transAxes, ha="center")


def histogram(
    axis: Axes,
    values: np.ndarray,
    color: str,
    label: str | None = None,
    bins: int = 80,
    outline: bool = False,
) -> None:
    """Draws a density of the finite values, or a note where there are none."""
    finite = values[np.isfinite(values)].astype(float)
    finite = finite[np.abs(finite) < _EXTREME]
    finite[np.abs(finite) < 1 / _EXTREME] = 0
    if not finite.size:
        note(axis, "not finite", 0.5)
    elif np.ptp(finite) <= _FLAT * np.abs(finite).max():
        each = f"all {finite[0]:.3g}"
        axis.axvline(finite[0], color=color, label=label and f"{label}: {each}")
        if label is None:
            note(axis, each)
    else:
        axis.hist(
            finite,
            bins,
            density=True,
            histtype="step" if outline else "stepfilled",
            alpha=None if outline else 0.55,
            color=color,
            label=label,
        )


def spread(axis: Axes, mean: float, std: float) -> None:
    """Marks a standard deviation on both sides of a mean."""
    for x in (mean - std, mean + std):
        axis.axvline(x, color=COLORS[0], linewidth=1, linestyle="--")


def heatmap(axis: Axes, weight: np.ndarray) -> AxesImage:
    """Draws a weight as a matrix, white at zero."""
    matrix = np.atleast_2d(weight).astype(float)
    matrix = matrix.reshape(-1, matrix.shape[-1])
    finite = np.abs(matrix[np.isfinite(matrix)])
    limit = float(np.quantile(finite, 0.995)) if finite.size else 1.0
    limit = limit or float(finite.max(initial=0)) or 1.0
    return axis.imshow(matrix, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")


def histogram_and_heatmap(weight: np.ndarray, title: str) -> bytes:
    """Draws the histogram and the heat map of one weight, as a PNG file."""
    figure = Figure((9, 3.6), layout="constrained")
    figure.suptitle(title, fontsize=10)
    left, right = figure.subplots(1, 2)
    histogram(left, weight.ravel(), COLORS[1], "weights")
    left.set_xlabel("value")
    left.set_ylabel("density")
    figure.colorbar(heatmap(right, weight), ax=right)
    right.set_xlabel("last axis")
    right.set_ylabel("all other axes")
    return png(figure)
