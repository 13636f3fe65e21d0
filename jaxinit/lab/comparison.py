"""`Comparison`: what a run measured, as rows, as a dictionary and as files."""

import csv
import io
import json
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxinit._number import plain
from jaxinit.lab.data import Task
from jaxinit.lab.environment import device, versions
from jaxinit.lab.grid import Scores, Signals
from jaxinit.lab.health import Health
from jaxinit.lab.probe import Probe
from jaxinit.lab.row import Row
from jaxinit.lab.settings import Settings
from jaxinit.lab.statistics import (
    Effect,
    Sensitivity,
    interval,
    median,
    paired,
    sensitivity,
)
from jaxinit.model import named

_BINS = 60


class Seconds(NamedTuple):
    """Wall time, compilation included."""

    initialise: float
    train: float
    evaluate: float


@dataclass(frozen=True)
class Comparison:
    """The results of a run.

    Attributes:
      task: the data.
      settings: what was varied and what was fixed.
      signals: standard deviations at initialisation, of the perceptron's layers; None
        for other models. # [initializers, seeds, layers]
      curves: training loss, averaged over each block.
        # [initializers, seeds, learning rates, blocks]
      steps: the last step of each block. # [blocks]
      scores: final training loss and test score.
        # [initializers, seeds, learning rates]
      initial: parameters by initializer and seed. # [initializers, seeds, ...] per leaf
      final: parameters of each cell.
        # [initializers, seeds, learning rates, ...] per leaf
      interrupted: whether training ended before its last step.
      seconds: wall time of the parts of the run.
      probes: signal, gradient and updates at a few moments of training.
        # [initializers, seeds, learning rates, moments, layers]
      probe_steps: the steps done at each moment. # [moments]
      health: verdicts by initializer, the reason why there are none, or None where
        nothing asked for them.
      stopped: with early stopping, the step after which each cell was stopped, or 0;
        its curve stays at its last value from there on, which is nan or infinite if it
        has diverged. Scores and final parameters are then those of the block of lowest
        validation loss. # [initializers, seeds, learning rates]
    """

    task: Task
    settings: Settings
    signals: Signals | None
    curves: np.ndarray
    steps: np.ndarray
    scores: Scores
    initial: Any
    final: Any
    interrupted: bool
    seconds: Seconds
    probes: Probe
    probe_steps: np.ndarray
    health: list[Health] | str | None = None
    stopped: np.ndarray | None = None

    @property
    def steps_done(self) -> int:
        """The steps that every cell has trained."""
        return int(self.steps[-1]) if len(self.steps) else 0

    @property
    def diverged(self) -> np.ndarray:  # [initializers, seeds, learning rates]
        """Whether each cell has diverged."""
        finite = np.isfinite(self.scores.loss) & np.isfinite(self.curves).all(axis=-1)
        with np.errstate(invalid="ignore"):
            found: np.ndarray = ~finite | (self.scores.loss > 2 * self.task.chance)
        return found

    @property
    def best(self) -> np.ndarray:  # [initializers]
        """Index of each initializer's best learning rate."""
        loss = self.scores.loss.astype(float)  # float32 could overflow in the mean
        loss = np.where(np.isfinite(loss), loss, np.inf).mean(axis=1)
        count = self.diverged.sum(axis=1)
        return np.array([np.lexsort(keys)[0] for keys in zip(loss, count, strict=True)])

    @property
    def ranked_loss(self) -> np.ndarray:  # [initializers, seeds, learning rates]
        """Final training losses for medians and ranks: infinite where diverged."""
        found: np.ndarray = np.where(self.diverged, np.inf, self.scores.loss)
        return found

    @property
    def reference(self) -> int:
        """Index of the table's best initializer.

        It has the lowest median of final training losses at its best learning rate,
        then the lowest mean. The test scores have no part in the choice, so that they
        can be compared with its own.
        """
        loss = self.at_best(self.ranked_loss)
        return int(np.lexsort((loss.mean(axis=1), median(loss[..., None])[:, 0]))[0])

    def against_best(self) -> list[dict[str, Effect]]:
        """Compares each initializer with the table's best, seed by seed.

        Returns:
          For each initializer the effects on "test", the test score, and on "loss", the
          final training loss, which is infinite where a cell has diverged.
        """
        loss = self.at_best(self.ranked_loss)
        test = self.at_best(self.scores.test)
        best = self.reference
        return [
            {
                "test": paired(test[i], test[best], higher_is_better=True),
                "loss": paired(loss[i], loss[best], higher_is_better=False),
            }
            for i in range(len(loss))
        ]

    def rates(self) -> list[Sensitivity]:
        """Finds for each initializer the learning rates that train."""
        given = self.settings.learning_rates
        best = float(median(self.ranked_loss).min())
        return [
            sensitivity(loss, given, best=best, chance=self.task.chance)
            for loss in self.ranked_loss
        ]

    def at_best(self, array: np.ndarray) -> np.ndarray:
        """Selects the best learning rate.

        # [initializers, seeds, learning rates, ...] -> [initializers, seeds, ...]
        """
        return np.stack(
            [cells[:, rate] for cells, rate in zip(array, self.best, strict=True)]
        )

    def first_steps(self) -> np.ndarray:
        """Computes the step at which each cell reached the target loss, or infinity.

        # [initializers, seeds, learning rates]
        """
        if not len(self.steps):
            return np.full(self.scores.loss.shape, np.inf)
        with np.errstate(invalid="ignore"):
            reached = self.curves <= self.settings.target_loss
        return np.where(reached.any(-1), self.steps[reached.argmax(-1)], np.inf)

    def rows(self) -> list[Row]:
        """Returns the table, an initializer a row."""
        loss, test = (self.at_best(a.astype(float)) for a in self.scores)
        first = self.at_best(self.first_steps())
        forward, gradient = self.signals or (None, None)
        effects, rates, reference = self.against_best(), self.rates(), self.reference
        lost = self.at_best(self.diverged)[reference].all()  # no cell is any good
        lowest = 0.0 if self.task.kind == "classification" else -math.inf
        rows = []
        for i, init in enumerate(self.settings.initializers):
            steps = float(np.median(first[i]))
            score, against = interval(test[i]), effects[i]["test"]
            row = Row(
                initializer=repr(init),
                learning_rate=self.settings.learning_rates[self.best[i]],
                forward_ratio=_ratio(forward, i, -1, 0),
                gradient_ratio=_ratio(gradient, i, 0, -1),
                steps_to_target=steps if math.isfinite(steps) else None,
                final_loss=float(loss[i].mean()),
                test_mean=score.mean,
                test_stddev=_stddev(test[i]),
                test_error=score.error,
                test_low=float(np.maximum(score.low, lowest)),  # keeps nan
                test_high=float(np.minimum(score.high, 1)),
                against_best=against.difference,
                against_best_low=against.low,
                against_best_high=against.high,
                effect="best" if i == reference and not lost else against.verdict,
                rates_that_train=rates[i].decades,
                share_that_trains=rates[i].share,
                diverged=float(self.diverged[i].mean()),
            )
            rows.append(row)
        return rows

    def cells(self, index: int) -> list[dict[str, Any]]:
        """Returns what an initializer's cells measured, a dictionary for each.

        Steps are infinite where the target was not reached; a cell that trained to the
        last step has stopped at none.
        """
        first, diverged = self.first_steps()[index], self.diverged[index]
        loss, test = (scores[index] for scores in self.scores)
        stopped = np.zeros_like(loss) if self.stopped is None else self.stopped[index]
        early = (stopped > 0) & (stopped < self.settings.steps)
        return [
            {
                "seed": seed,
                "learning_rate": float(rate),
                "final_loss": float(loss[seed, r]),
                "test": float(test[seed, r]),
                "steps_to_target": float(first[seed, r]),
                "diverged": bool(diverged[seed, r]),
                "stopped_at": int(stopped[seed, r]) if early[seed, r] else None,
            }
            for seed in range(self.settings.seeds)
            for r, rate in enumerate(self.settings.learning_rates)
        ]

    def kernels(self, index: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Returns the kernels of the first seed at the best rate, before and after."""
        return self._parameters(index, "kernel")

    def biases(self, index: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Returns the biases of the first seed at the best rate, before and after."""
        return self._parameters(index, "bias")

    def _parameters(
        self, index: int, name: str
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        before = jax.tree.map(lambda a: a[index, 0], self.initial)
        after = jax.tree.map(lambda a: a[index, 0, self.best[index]], self.final)
        split = _layers if self.settings.model == "mlp" else _leaves
        return split(before, name), split(after, name)

    def _probes(self, index: int) -> dict[str, Any]:
        """Returns what an initializer's probes measured at its best learning rate.

        # lists of [seeds, moments, layers]
        """
        forward, gradient, update = (a[index, :, self.best[index]] for a in self.probes)
        found = {"update_to_weight": update.tolist()}
        if self.signals is not None:
            signals = {"forward_stddev": forward, "gradient_stddev": gradient}
            found = {k: array.tolist() for k, array in signals.items()} | found
        return found

    def to_dict(self) -> dict[str, Any]:
        """Returns everything but the weights, as JSON types.

        What is not finite is None.
        """
        s = self.settings
        effects, rates = self.against_best(), self.rates()
        health = self.health if isinstance(self.health, list) else None
        initializers = []
        for i, init in enumerate(s.initializers):
            curves = [curve.tolist() for by_rate in self.curves[i] for curve in by_rate]
            cells = [
                {**cell, "loss": curve}
                for cell, curve in zip(self.cells(i), curves, strict=True)
            ]
            before, after = self.kernels(i)
            entry = {
                "initializer": repr(init),
                "forward_stddev": self.signals and self.signals.forward[i].tolist(),
                "gradient_stddev": self.signals and self.signals.gradient[i].tolist(),
                "weights_before": _histogram(before),
                "weights_after": _histogram(after),
                "against_best": {k: e._asdict() for k, e in effects[i].items()},
                "rates_that_train": rates[i]._asdict(),
                "probes": self._probes(i),
                "health": None if health is None else health[i].to_dict(),
                "cells": cells,
            }
            initializers.append(entry)
        task = self.task
        found = {
            "table": [row._asdict() for row in self.rows()],
            "task": {
                "name": task.name,
                "kind": task.kind,
                "train_rows": len(task.x_train),
                "validation_rows": 0 if task.x_valid is None else len(task.x_valid),
                "test_rows": len(task.x_test),
                "features": task.x_train.shape[1],
                "outputs": task.outputs,
                "chance_loss": task.chance,
            },
            "settings": {**vars(s), "initializers": [repr(i) for i in s.initializers]},
            "interrupted": self.interrupted,
            "steps_done": self.steps_done,
            "block_end_steps": self.steps.tolist(),
            "probe_steps": self.probe_steps.tolist(),
            "seconds": self.seconds._asdict(),
            "versions": versions(),
            "device": device(s.device),
            "initializers": initializers,
        }
        readable: dict[str, Any] = plain(found)
        return readable

    def to_json(self) -> str:
        """Returns `to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False)

    def to_csv(self) -> str:
        """Returns the cells as CSV text, a line for each under a line of names.

        Numbers are written in full; what is not finite is nan, inf or -inf.
        """
        text = io.StringIO()
        names = ["initializer", *self.cells(0)[0]]
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        for i, init in enumerate(self.settings.initializers):
            writer.writerows({"initializer": repr(init), **c} for c in self.cells(i))
        return text.getvalue()


def _stddev(values: np.ndarray) -> float:
    """Computes the standard deviation; nan where a value is not finite."""
    return float(values.std()) if np.isfinite(values).all() else math.nan


def _ratio(signals: np.ndarray | None, index: int, over: int, under: int) -> float:
    """Computes the geometric mean of ratios between layers, by seed.

    Nan where nothing is left to compare. # signals: [initializers, seeds, layers]
    """
    if signals is None:
        return math.nan
    above, below = signals[index, :, over], signals[index, :, under]
    with np.errstate(all="ignore"):
        return float(
            np.exp(np.mean(np.log(above.astype(float)) - np.log(below.astype(float))))
        )


def _layers(params: Any, name: str) -> list[np.ndarray]:
    """Splits one cell's parameters of a name by layer, first to last."""
    found: list[np.ndarray] = []
    for block in ("first", "hidden", "last"):
        if block in params:
            array = params[block].get("block", params[block])["Dense_0"][name]
            found += list(array) if block == "hidden" else [array]
    return found


def _leaves(params: Any, name: str) -> list[np.ndarray]:
    """Takes one cell's parameters of a name in the order of the tree."""
    leaves = [(path.rpartition("/")[2], leaf) for path, leaf in named(params)]
    return [np.asarray(x) for last, x in leaves if last == name]


def _histogram(kernels: list[np.ndarray]) -> dict[str, Any]:
    """Counts the finite entries of all kernels in bins of equal width."""
    entries = np.concatenate([np.zeros(0), *(kernel.ravel() for kernel in kernels)])
    finite = entries[np.isfinite(entries)].astype(float)
    counts, edges = np.zeros(0), np.zeros(0)
    if finite.size and finite.min() == finite.max():  # too narrow a range for bins
        counts, edges = np.array([finite.size]), finite[[0, 0]]
    elif finite.size:
        counts, edges = np.histogram(finite, _BINS)
    return {
        "counts": counts.tolist(),
        "edges": edges.tolist(),
        "not_finite": int(entries.size - finite.size),
    }
