"""Heat maps of weights and biases, square, each with its colors explained by a bar."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from jaxinit._panels import heatmap, note
from jaxinit._text import number
from jaxinit.lab._result.outcome import Outcome

_PIXELS = 128  # of a heat map, in each direction
_COLORS = 64  # of a bar
# The maps of a kernel: where each stands in its panel, as shares of the width.
_SIDE, _GAP = 0.31, 0.345


def draw_kernels(comparison: Outcome, axis: Axes, index: int) -> None:
    """Draws the middle kernel before and after training, and what training added."""
    axis.set_axis_off()
    before, after = comparison.kernels(index)
    if not after:
        return
    first, last = (_thin(kernels[len(kernels) // 2]) for kernels in (before, after))
    limit = max(_limit(first), _limit(last))
    with np.errstate(invalid="ignore"):
        change = last - first
    maps = (
        ("before", first, limit),
        ("after", last, limit),
        ("after − before", change, _limit(change)),
    )
    for place, (title, matrix, high) in enumerate(maps):
        inner = axis.inset_axes((place * _GAP, 0, _SIDE, 1))
        inner.set_box_aspect(1)
        inner.set_anchor("S")
        inner.set_xticks([])
        inner.set_yticks([])
        inner.set_title(title, fontsize="medium", loc="left", pad=3)
        _color(inner, matrix, high)


def draw_biases(comparison: Outcome, axis: Axes, index: int) -> None:
    """Draws the biases after training, a row for each layer."""
    axis.set_axis_off()
    _, after = comparison.biases(index)
    rows = [bias.ravel()[:_PIXELS].astype(float) for bias in after]
    matrix = np.full((len(rows), max(map(len, rows))), np.nan)
    for row, bias in zip(matrix, rows, strict=True):
        row[: len(bias)] = bias
    inner = axis.inset_axes((0.12, 0.34, 0.85, 0.66))
    _color(inner, matrix, _limit(matrix), below=-0.5)
    for side in (inner.xaxis, inner.yaxis):
        side.set_major_locator(MaxNLocator(4, integer=True))
        side.set_major_formatter(lambda value, _: f"{value + 1:g}")
    inner.set_xlabel("unit", loc="right", labelpad=1)
    inner.text(0, 1.03, "layer", transform=inner.transAxes, va="bottom")


def _thin(weight: np.ndarray) -> np.ndarray:
    """Returns a weight as a matrix; of a large one, every few rows and columns."""
    matrix = weight.reshape(-1, weight.shape[-1]).astype(float)
    rows, columns = (-(-size // _PIXELS) for size in matrix.shape)
    return matrix[::rows, ::columns]


def _limit(matrix: np.ndarray) -> float:
    """Returns the value of the deepest color: few entries are beyond it."""
    finite = np.abs(matrix[np.isfinite(matrix)])
    high = float(np.quantile(finite, 0.995)) if finite.size else 0.0
    return high or float(finite.max(initial=0))


def _color(axis: Axes, matrix: np.ndarray, high: float, below: float = -0.1) -> None:
    """Draws a matrix in colors up to this value, and below it the bar that says so."""
    if not np.isfinite(matrix).any():
        return note(axis, "not finite", 0.5)
    image: AxesImage = heatmap(axis, matrix)
    image.set_clim(-(high or 1.0), high or 1.0)
    image.set_interpolation("none")
    bar = axis.inset_axes((0, below, 1, 0.05))
    bar.imshow(np.linspace(-1, 1, _COLORS)[None], cmap=image.cmap, aspect="auto")
    bar.set_yticks([])
    bar.set_xticks([_COLORS / 2], [f"±{number(high)}"])
    bar.tick_params(length=0)
    return None
