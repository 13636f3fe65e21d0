"""`CalibrationReport`: what a calibration did to each layer."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxinit import _paths, _text
from jaxinit._import import explain_missing
from jaxinit._result import Result
from jaxinit._table import Column, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LISTED = 3  # layers that a note names; the others are counted


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class CalibratedLayer:
    """A layer before and after a calibration.

    Attributes:
      path: the path of its weight, or of its module; "[i]" tells the step of a loop
        over layers.
      role: what its weight does, as `structure` tells it.
      target: the standard deviation that it should have; None if it has none.
      before: the standard deviation of its output before, of all entries, or of each
        unit. # [] or [units...]
      after: the same afterwards.
      mean_before: the mean of its output before, likewise.
      mean_after: the same afterwards.
      scale: the factor on its weight, likewise.
      rates: by the method "between", how fast its weight changes beside its size,
        before and after; else None.
      reason: why it has not reached its target; "" if it has.
    """

    path: str
    role: str
    target: float | None
    before: np.ndarray
    after: np.ndarray
    mean_before: np.ndarray
    mean_after: np.ndarray
    scale: np.ndarray
    rates: tuple[float, float] | None = None
    reason: str = ""


class CalibrationReport(Result):
    """What `calibrate` did: a row for each layer, which prints as a table.

    Attributes:
      method: the method.
      layers: a `CalibratedLayer` for each layer, in the order of execution.
      rounds: how often all layers were scaled.
      unseen: layers that have no row, by the paths of their weights: what they are
        inside of, such as "a while loop".
    """

    def __init__(
        self,
        method: str,
        layers: Sequence[CalibratedLayer],
        rounds: int,
        unseen: dict[str, str],
    ):
        """Called by `calibrate` only."""
        self.method = method
        self.layers = tuple(layers)
        self.rounds = rounds
        self.unseen = unseen

    @property
    def left(self) -> tuple[CalibratedLayer, ...]:
        """The layers that have not reached their target, each with its reason."""
        return tuple(layer for layer in self.layers if layer.reason)

    def to_dict(self) -> dict[str, Any]:
        """Returns the numbers as plain Python values; those of units are lists."""
        layers = []
        for layer in self.layers:
            fields = {
                field.name: getattr(layer, field.name)
                for field in dataclasses.fields(layer)
            }
            if layer.rates is None:
                del fields["rates"]
            layers.append({name: _plain(value) for name, value in fields.items()})
        return {
            "method": self.method,
            "rounds": self.rounds,
            "layers": layers,
            "unseen": dict(self.unseen),
        }

    def plot(self) -> "Figure":
        """Draws the layers' standard deviations before and after. Needs matplotlib.

        Returns:
          A figure that notebooks show; ``report.plot().savefig("layers.png")`` writes
          it to a file.

        Raises:
          ModuleNotFoundError: if matplotlib is not installed.
        """
        with explain_missing("CalibrationReport.plot()", "lab"):
            from jaxinit._calibrate._drawing import draw
        columns = [(x.path, x.before, x.after) for x in self.layers]
        return draw(self._summarize(), *zip(*columns, strict=True))

    def __repr__(self) -> str:
        return f"CalibrationReport({self._summarize()})"

    def __str__(self) -> str:
        return f"{self._summarize()}\n\n{super().__str__()}"

    def _summarize(self) -> str:
        count = _text.plural(len(self.layers), "layer")
        stds = [each for layer in self.layers for each in layer.after.flat]
        rounds = _text.plural(self.rounds, "round")
        left = f", {len(self.left)} left" * bool(self.left)
        return f"{self.method}: {count}, std {_text.span(stds)}, {rounds}{left}"

    def _table(self) -> Table:
        alike: dict[str, list[str]] = {}
        for layer in self.left:
            alike.setdefault(layer.reason, []).append(_paths.shown(layer.path))
        notes = [
            (f"{_list_some(paths)}: {why}", "wrong") for why, paths in alike.items()
        ]
        notes += [
            (f"{_paths.shown(path)}: is inside {inside}", "wrong")
            for path, inside in self.unseen.items()
        ]
        rated = any(layer.rates for layer in self.layers)
        columns = [x for x in _COLUMNS if rated or x.head != "rate"]
        return Table.of(columns, self.layers, notes)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.astype(float).tolist()
    return list(value) if isinstance(value, tuple) else value


def _list_some(paths: Sequence[str]) -> str:
    more = len(paths) - _LISTED
    return ", ".join(paths[:_LISTED]) + f" and {more} more" * (more > 0)


def _show_change(before: np.ndarray, after: np.ndarray) -> str:
    return f"{_text.span(before.flat)} → {_text.span(after.flat)}"


def _show_rates(layer: CalibratedLayer) -> str:
    return "" if layer.rates is None else " → ".join(map(_text.number, layer.rates))


_COLUMNS: tuple[Column[CalibratedLayer], ...] = (
    Column("layer", lambda row: _paths.shown(row.path), left=True, wraps=True),
    Column("role", lambda row: row.role, left=True, rank=2),
    Column("std", lambda row: _show_change(row.before, row.after)),
    Column("mean", lambda row: _show_change(row.mean_before, row.mean_after), rank=1),
    Column("rate", _show_rates),
    Column("scale", lambda row: _text.span(row.scale.flat)),
)
