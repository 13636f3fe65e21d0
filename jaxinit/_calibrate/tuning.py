"""`TuningReport`: what `tune` has done to the weights and to the objective."""

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxinit import _paths, _text
from jaxinit._import import explain_missing
from jaxinit._result import Result
from jaxinit._table import Column, Table
from jaxinit._text import number, span

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ROUNDING = 1e-6  # a scale this near to its bound lies on it


@dataclasses.dataclass(frozen=True, kw_only=True)
class TunedTensor:
    """What became of one tensor.

    Attributes:
      path: its path.
      shape: its sizes.
      scales: its factors: one, or one for each layer that it stacks.
      minimum: the least that a factor may be.
      before: the root of the mean square of its entries as drawn.
      after: that of the entries now.
    """

    path: str
    shape: tuple[int, ...]
    scales: tuple[float, ...]
    minimum: float
    before: float
    after: float

    @property
    def is_bounded(self) -> bool:
        """Whether a factor lies on its bound."""
        return min(self.scales) <= self.minimum + _ROUNDING


@dataclasses.dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class TuningReport(Result):
    """What `tune` has done; it prints as a table, and notebooks show one.

    Attributes:
      method: "gradinit" or "metainit".
      tensors: a row for each tensor that has scales.
      columns: what is measured at each step; the first is the objective.
      before: these, on the first batch of the call, of the weights as drawn.
      after: these, on the same batch, of the weights now.
      state: a dictionary of arrays with which `tune` goes on; ``state["curve"]`` holds
        the columns at each step since the first. # [steps, columns]
      gamma: the bound of GradInit on the norm of the gradient.
      stopped: why there were fewer steps than asked for; "" if there were not.
    """

    method: str
    tensors: tuple[TunedTensor, ...]
    columns: tuple[str, ...]
    before: dict[str, float]
    after: dict[str, float]
    state: dict[str, np.ndarray]
    gamma: float | None = None
    stopped: str = ""

    @property
    def curve(self) -> dict[str, np.ndarray]:
        """The columns at each step, by name."""
        return dict(zip(self.columns, self.state["curve"].T, strict=True))

    @property
    def steps(self) -> int:
        """The number of steps since the first, those of resumed calls included."""
        return len(self.state["curve"])

    def to_dict(self) -> dict[str, Any]:
        """Returns all numbers, unrounded, as plain Python values."""
        rows = [dataclasses.asdict(row) for row in self.tensors]
        for row in rows:
            row |= {name: list(row[name]) for name in ("shape", "scales")}
        return {
            "method": self.method,
            "steps": self.steps,
            "gamma": self.gamma,
            "stopped": self.stopped,
            "before": self.before,
            "after": self.after,
            "curve": {name: values.tolist() for name, values in self.curve.items()},
            "tensors": rows,
        }

    def __repr__(self) -> str:
        steps = _text.plural(self.steps, "step")
        return (
            f"TuningReport({self.method!r}, {steps}, {self._compare(self.columns[0])})"
        )

    def _compare(self, column: str) -> str:
        return f"{column} {number(self.before[column])} → {number(self.after[column])}"

    def _table(self) -> Table:
        notes = [
            (f"On the first batch: {', '.join(map(self._compare, self.columns))}.", "")
        ]
        if self.gamma is not None:
            count = int((self.curve["gradient norm"] > self.gamma).sum())
            text = f"{count} of {_text.plural(self.steps, 'step')} lowered the norm of "
            text += f"the gradient, which was above gamma, {number(self.gamma)}."
            notes.append((text, ""))
        if count := sum(row.is_bounded for row in self.tensors):
            tensors = _text.plural(count, "tensor")
            notes.append((f"{tensors} at the least scale allowed.", "wrong"))
        if self.stopped:
            notes.append((self.stopped, "wrong"))
        rows = _paths.sort_naturally(self.tensors, lambda row: row.path)
        return Table.of(_COLUMNS, rows, notes)

    def plot(self) -> "Figure":
        """Draws what was measured at each step, and the scale of each tensor.

        Returns:
          A figure of matplotlib; ``figure.savefig("tuning.png")`` keeps it.

        Raises:
          ModuleNotFoundError: if matplotlib is not installed.
        """
        with explain_missing("TuningReport.plot()", "lab"):
            from matplotlib.figure import Figure

            from jaxinit._panels import COLORS
        panels, count = len(self.columns) + 1, len(self.tensors)
        figure = Figure(
            (3.4 * panels, max(2.8, 1 + 0.18 * count)), layout="constrained"
        )
        *lines, bars = figure.subplots(1, panels)
        for axis, (name, values) in zip(lines, self.curve.items(), strict=True):
            axis.plot(np.arange(len(values)), values, color=COLORS[10], linewidth=1.2)
            axis.set_title(name, fontsize=9)
            if len(values) and 0 < 30 * values.min() < values.max():
                axis.set_yscale("log")
            axis.set_xlabel("step")
            if name == "gradient norm" and self.gamma is not None:
                axis.axhline(self.gamma, color=COLORS[0], linewidth=1, linestyle="--")
        for place, row in enumerate(self.tensors):
            color = COLORS[0 if row.is_bounded else 10]
            places = [place] * len(row.scales)
            bars.plot(row.scales, places, ".", color=color)
        bars.axvline(1, color=COLORS[11], linewidth=0.8)
        names = [_paths.shown(row.path) for row in self.tensors]
        bars.set_yticks(range(count), names, fontsize=7)
        bars.invert_yaxis()
        bars.set_title("scale", fontsize=9)
        return figure


_COLUMNS: tuple[Column[TunedTensor], ...] = (
    Column("path", lambda row: _paths.shown(row.path), left=True),
    Column("shape", lambda row: _text.shape(row.shape)),
    Column("scale", lambda row: span(row.scales)),
    Column("root mean square", lambda row: number(row.before)),
    Column("after", lambda row: number(row.after)),
)
