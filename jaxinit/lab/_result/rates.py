"""`Transferred`: what the runs of a transfer measured, and what follows from it."""

import dataclasses
import math
from collections.abc import Iterable
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from jaxinit._text import plural
from jaxinit.lab._result.drift import Best, Drift, cap, find_best, measure_drift
from jaxinit.lab._tried._sweep import Sweep

MINUS = "\N{MINUS SIGN}"


class RateRow(NamedTuple):
    """A network of one size under one parameterization.

    Attributes:
      parameterization: its name.
      size: the width or depth.
      best: its best learning rate.
      carried: its loss at the rate, of those tried, that was best at the base's size
        under the same parameterization, or at the smallest size if the base was not
        trained: what a run costs whose rate was tuned there; nan where that size has
        no rate that trains.
      diverged: share of diverged cells over all learning rates.
    """

    parameterization: str
    size: int
    best: Best
    carried: float
    diverged: float


@dataclasses.dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Transferred:
    """What was measured; `TransferResult`, its public face, documents each field."""

    sweep: Sweep
    losses: dict[tuple[str, int], np.ndarray]
    diverged: dict[tuple[str, int], np.ndarray]
    last_steps: int
    seconds: float

    @property
    def interrupted(self) -> bool:
        """Whether some sizes were not trained to their last step."""
        return len(self.losses) < len(self.sweep.experiments)

    @cached_property
    def rows(self) -> tuple[RateRow, ...]:
        """A row for each size that was trained, by parameterization."""
        return tuple(
            self._make_row(name, size)
            for name in self.sweep.names
            for size in self.list_sizes(name)
        )

    @cached_property
    def drifts(self) -> dict[str, Drift]:
        """How far the best rate moves as the size doubles, by parameterization."""
        sweep, drifts = self.sweep, {}
        for name in sweep.names:
            sizes = self.list_sizes(name)
            losses = [self.rank(name, size) for size in sizes]
            drifts[name] = measure_drift(
                losses, sizes, sweep.exponents, sweep.task.chance
            )
        return drifts

    @property
    def answer(self) -> str:
        """How far the best learning rate moves, in a sentence."""
        if not self.losses:
            return "Nothing was trained to the end."
        names, varied = self.sweep.names, self.sweep.varied
        told = [name for name in names if not math.isnan(self.drifts[name].slope)]
        parts = []
        for i, name in enumerate(told):
            moves = "" if i else "log2 of the best learning rate moves "
            each = "" if i else f" per doubling of the {varied}"
            parts.append(f"under {name} {moves}{self._tell_drift(name)}{each}")
        missing = [name for name in names if name not in told]
        if missing:
            few = f"fewer than two {varied}s have a best rate inside the grid"
            parts.append(f"under {' and '.join(missing)} it cannot be told: {few}")
        said = ", ".join(parts)
        return f"{said[0].upper()}{said[1:]}."

    def list_sizes(self, name: str) -> list[int]:
        """Lists the sizes that were trained under a parameterization."""
        return [size for size in self.sweep.sizes if (name, size) in self.losses]

    def rank(self, name: str, size: int) -> np.ndarray:  # [seeds, rates]
        """Returns final losses, infinite where a cell has diverged."""
        key = name, size
        ranked: np.ndarray = np.where(self.diverged[key], np.inf, self.losses[key])
        return ranked

    def cells(self) -> Iterable[dict[str, Any]]:
        """Yields the numbers of each cell."""
        for name in self.sweep.names:
            for size in self.list_sizes(name):
                losses, lost = self.losses[name, size], self.diverged[name, size]
                for (seed, rate), loss in np.ndenumerate(losses):
                    yield {
                        "parameterization": name,
                        self.sweep.varied: size,
                        "seed": seed,
                        "learning_rate": 2.0 ** self.sweep.exponents[rate],
                        "loss": float(loss),
                        "diverged": bool(lost[seed, rate]),
                    }

    def list_edges(self) -> list[str]:
        """Says which sizes have no best rate, in sentences."""
        groups: dict[tuple[str, str], list[str]] = {}
        for row in self.rows:
            if row.best.state != "inside":
                key = row.parameterization, row.best.state
                groups.setdefault(key, []).append(str(row.size))
        said = []
        for (name, state), sizes in groups.items():
            noun = self.sweep.varied + ("s" if len(sizes) > 1 else "")
            where = f"{name}, {noun} {' and '.join(sizes)}"
            if state == "none":
                said.append(f"{where}: no rate that was tried trains.")
            else:
                other = {"lowest": "lower", "highest": "higher"}[state]
                said.append(
                    f"{where}: the best rate is the {state} that was tried, and a "
                    f"{other} one may be better; left out of the drift."
                )
        return said

    def _tell_drift(self, name: str) -> str:
        """Says by how much the best rate moves, and how sure that is."""
        drift, trained = self.drifts[name], len(self.list_sizes(name))
        details = []
        if not math.isnan(drift.low):
            details.append(f"{signed(drift.low)} to {signed(drift.high)}")
        if len(drift.sizes) < trained:
            few = plural(trained, self.sweep.varied)
            details.append(f"{len(drift.sizes)} of {few}")
        inner = f" ({'; '.join(details)})" if details else ""
        return f"by {signed(drift.slope)}{inner}"

    def _make_row(self, name: str, size: int) -> RateRow:
        sweep = self.sweep
        chance = sweep.task.chance
        sizes = self.list_sizes(name)
        start = sweep.base if sweep.base in sizes else sizes[0]
        best, tuned = (
            find_best(self.rank(name, each), sweep.exponents, chance)
            for each in (size, start)
        )
        at_tuned = cap(self.rank(name, size)[:, tuned.place], chance)
        carried = math.nan if tuned.state == "none" else float(at_tuned.mean())
        lost = float(self.diverged[name, size].mean())
        return RateRow(
            parameterization=name,
            size=size,
            best=best,
            carried=carried,
            diverged=lost,
        )


def signed(value: float) -> str:
    """Returns a change of an exponent, with a true minus sign."""
    text = f"{value:+.2f}"
    return "0.00" if text[1:] == "0.00" else text.replace("-", MINUS)
