"""`Outcome`: what a run measured, and what follows from it."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxinit._text import plural
from jaxinit.lab._result.health import Health
from jaxinit.lab._result.row import Row
from jaxinit.lab._result.statistics import (
    LEARNED,
    Effect,
    Sensitivity,
    against_one,
    interval,
    mean_ratio,
    median,
    paired,
    sensitivity,
)
from jaxinit.lab._train.grid import Scores, Signals
from jaxinit.lab._train.layout import find_first_equal
from jaxinit.lab._train.probe import Probe
from jaxinit.lab._tried._network import list_stacks
from jaxinit.lab._tried.data import Task
from jaxinit.lab._tried.networks import NETWORKS
from jaxinit.lab._tried.settings import Settings


class Seconds(NamedTuple):
    """Wall time, compilation included."""

    initialize: float
    train: float
    evaluate: float


@dataclass(frozen=True, eq=False, repr=False)
class Outcome:
    """The results of a run; `Comparison`, their public face, documents each field."""

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
            lost: np.ndarray = ~finite | (self.scores.loss > 2 * self.task.chance)
        return lost

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
        losses: np.ndarray = np.where(self.diverged, np.inf, self.scores.loss)
        return losses

    @cached_property
    def distinct(self) -> np.ndarray:  # [initializers, seeds]
        """Whether each seed's run differs from those of all seeds before it.

        A seed changes the initial parameters and the masks of dropout, nothing else:
        where both are equal, as for an initializer without randomness, several seeds
        are one run, shown several times. A user's own model may draw more random
        numbers in training; there the curves must be equal, too.
        """
        s = self.settings
        leaves = jax.tree.leaves(self.initial)
        if s.random_training:
            leaves.append(self.curves)
        distinct = np.ones((len(s.initializers), s.seeds), bool)
        for init, row in enumerate(distinct):
            first = find_first_equal([leaf[init, : s.seeds] for leaf in leaves])
            row[: len(first)] = np.array(first) == np.arange(len(first))
        return distinct

    @property
    def trained(self) -> np.ndarray:  # [initializers]
        """How many distinct runs of each initializer learned anything.

        Such a run ends below 99 % of the loss of chance and does not diverge. They are
        counted at the best learning rate or, if it has none, at the rate with most.
        """
        bar = LEARNED * self.task.chance
        learned = (self.ranked_loss <= bar) & self.distinct[..., None]
        count = learned.sum(axis=1)  # [initializers, learning rates]
        at_best = count[np.arange(len(count)), self.best]
        trained: np.ndarray = np.where(at_best, at_best, count.max(axis=1))
        return trained

    @property
    def ranking(self) -> list[int]:
        """Indices of the initializers, best to worst; those that do not train last.

        They are ordered by the median of final training losses at the best learning
        rate, then by the mean. Test scores have no part in it, so that they can be
        compared with those of the first.
        """
        loss = self.at_best(self.ranked_loss)
        keys = loss.mean(axis=1), median(loss[..., None])[:, 0], self.trained == 0
        return [int(i) for i in np.lexsort(keys)]

    @property
    def reference(self) -> int:
        """Index of the table's best initializer, the first of the ranking."""
        return self.ranking[0]

    def effect(self, name: str, index: int, reference: int) -> Effect:
        """Compares two initializers by their indices, each at its best learning rate.

        Each distinct run counts once. If one of the two has a single run, that run is
        held against the spread of the other's, as `statistics.against_one` does.

        Args:
          name: "test", the test score, or "loss", the final training loss, which is
            infinite where a cell has diverged.
          index: the index of the one initializer.
          reference: the index of the other.
        """
        higher = name == "test"
        values = self.at_best(self.scores.test if higher else self.ranked_loss)
        ours, theirs = self.distinct[index], self.distinct[reference]
        if 1 in (ours.sum(), theirs.sum()):
            pair = values[index][ours], values[reference][theirs]
            return against_one(*pair, higher_is_better=higher)
        both = ours & theirs
        pair = values[index][both], values[reference][both]
        return paired(*pair, higher_is_better=higher)

    def against_best(self) -> list[dict[str, Effect]]:
        """Compares each initializer with the table's best, seed by seed.

        Returns:
          For each initializer its `effect` on "test" and on "loss".
        """
        best = self.reference
        return [
            {name: self.effect(name, i, best) for name in ("test", "loss")}
            for i in range(len(self.settings.initializers))
        ]

    def rates(self) -> list[Sensitivity]:
        """Finds for each initializer the learning rates that train."""
        rates = self.settings.learning_rates
        best = float(median(self.ranked_loss).min())
        return [
            sensitivity(loss, rates, best=best, chance=self.task.chance)
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
        trained, distinct = self.trained, self.distinct
        lowest = 0.0 if self.task.kind == "classification" else -math.inf
        rows = []
        for i, init in enumerate(self.settings.initializers):
            steps = float(np.median(first[i]))
            once, against = distinct[i], effects[i]["test"]
            score = interval(test[i][once])
            best = i == reference and trained[i] > 0
            row = Row(
                initializer=repr(init),
                learning_rate=self.settings.learning_rates[self.best[i]],
                forward_ratio=mean_ratio(forward, i, -1, 0),
                gradient_ratio=mean_ratio(gradient, i, 0, -1),
                steps_to_target=steps if math.isfinite(steps) else None,
                final_loss=float(loss[i][once].mean()),
                test_mean=score.mean,
                test_stddev=_stddev(test[i][once]),
                test_error=score.error,
                test_low=float(np.maximum(score.low, lowest)),  # keeps nan
                test_high=float(np.minimum(score.high, 1)),
                against_best=against.difference,
                against_best_low=against.low,
                against_best_high=against.high,
                effect="best" if best else against.verdict,
                rates_that_train=rates[i].decades,
                share_that_trains=rates[i].share,
                diverged=float(self.diverged[i].mean()),
                distinct_runs=int(once.sum()),
                trained=int(trained[i]),
                seeds_needed=against.seeds_needed,
            )
            rows.append(row)
        return rows

    def cells(self, index: int) -> list[dict[str, Any]]:
        """Returns the numbers of an initializer's cells, a dictionary for each.

        Steps are infinite where the target was not reached; ``stopped_at`` is None for
        a cell that trained to the last step.
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
        known = NETWORKS.get(self.settings.model)
        stack = known.stack if known else ""
        name = f"Dense_0/{name}" if stack else name  # norms have biases, too
        return _select_layers(before, stack, name), _select_layers(after, stack, name)


def _stddev(values: np.ndarray) -> float:
    """Computes the standard deviation; nan of one value, or if one is not finite."""
    many = len(values) > 1 and np.isfinite(values).all()
    return float(values.std()) if many else math.nan


def _select_layers(params: Any, stack: str, name: str) -> list[np.ndarray]:
    """Takes one cell's parameters of a name, layer by layer."""
    return [
        np.asarray(layer)
        for path, layers in list_stacks(params, stack)
        if f"/{path}".endswith(f"/{name}")
        for layer in layers
    ]


def count_cells(settings: Settings) -> str:
    """Says what the cells of a comparison are: all combinations of what it varies."""
    counts = len(settings.initializers), settings.seeds, len(settings.learning_rates)
    return " × ".join(map(plural, counts, ("initializer", "seed", "learning rate")))
