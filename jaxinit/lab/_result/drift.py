"""Where the best learning rate lies, and how far it moves when a network grows.

The final loss of a cell is its training loss, averaged over the last tenth of the
steps. A rate's loss is the mean over seeds, in which a run that diverged counts as
twice the loss of chance. The best rate is where a parabola lies lowest that fits the
logarithms of losses: the lowest one, its two neighbors, and all around it that are
hardly higher. Where those are three it goes through them; where more rates do about as
well, which of them is lowest is chance. A lowest loss at an end of the rates that were
tried has no best rate: lower or higher rates may be better.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from jaxinit.lab._result.statistics import LEARNED, LEVEL, widen

LOST = 2.0  # times the loss of chance: what a diverged run counts as
_RESAMPLES = 4000
_SEED = 0  # of the bootstrap
_LEAST = 1e-30  # below it, a loss is 0
SLACK = 0.02  # a loss that is hardly higher than the lowest: by this share at most

State = Literal["inside", "lowest", "highest", "none"]


class Best(NamedTuple):
    """The best learning rate of a network.

    Attributes:
      exponent: log2 of it; nan where nothing trains.
      state: where it lies in the grid of rates: "inside"; "lowest" or "highest", where
        an end of the grid has the lowest loss; "none" where nothing trains: no rate has
        a loss below 99 % of that of chance.
      place: the number of the rate tried that has the lowest loss.
      loss: the loss there.
    """

    exponent: float
    state: State
    place: int
    loss: float


class Drift(NamedTuple):
    """How far the best learning rate moves when the network grows.

    Attributes:
      slope: log2 of the best rate's change when the size doubles: that of a line
        through the best rates of all sizes that lie inside the grid; nan for fewer
        than two of them.
      low: lower end of its interval over seeds; nan for one seed.
      high: upper end.
      sizes: the sizes that it is from.
    """

    slope: float
    low: float
    high: float
    sizes: tuple[int, ...]


def average_ends(curves: np.ndarray, steps: int) -> tuple[np.ndarray, int]:
    """Averages losses over the last tenth of the steps, in whole blocks.

    Args:
      curves: the loss of each block. # [..., blocks]
      steps: all steps.

    Returns:
      The means, and how many steps they are over.
    """
    blocks = curves.shape[-1]
    count = max(1, round(blocks / 10))
    with np.errstate(all="ignore"):  # of diverged cells
        ends = curves[..., -count:].astype(float).mean(axis=-1)
    return ends, count * (steps // blocks)


def find_diverged(curves: np.ndarray, ends: np.ndarray, chance: float) -> np.ndarray:
    """Returns which cells have diverged: not finite, or far above chance in the end.

    # [..., blocks], [...] -> [...]
    """
    finite = np.isfinite(curves).all(axis=-1) & np.isfinite(ends)
    with np.errstate(invalid="ignore"):
        lost: np.ndarray = ~finite | (ends > LOST * chance)
    return lost


def find_best(losses: np.ndarray, exponents: Sequence[float], chance: float) -> Best:
    """Finds the best learning rate.

    Args:
      losses: of every cell, not finite where it diverged. # [seeds, rates]
      exponents: log2 of the rates, rising at equal steps.
      chance: the loss of chance.
    """
    means = cap(losses, chance).mean(axis=0)
    index, last = int(means.argmin()), len(exponents) - 1
    loss = float(means[index])
    if loss > LEARNED * chance:
        return Best(math.nan, "none", index, loss)
    ends: dict[int, State] = {0: "lowest", last: "highest"}
    exponent = float(_locate(means, np.asarray(exponents)))
    return Best(exponent, ends.get(index, "inside"), index, loss)


def measure_drift(
    losses: Sequence[np.ndarray],
    sizes: Sequence[int],
    exponents: Sequence[float],
    chance: float,
) -> Drift:
    """Measures how the best learning rate depends on the size.

    The interval is the bootstrap's percentile interval of 95 %. The seeds of each size
    are resampled on their own, and the ends are moved away from the slope for few seeds
    as in `statistics.interval`; the degrees of freedom are those of all sizes together.
    It is about other seeds, not about how far the line fits.

    Args:
      losses: for each size the losses of its cells. # each [seeds, rates]
      sizes: the sizes.
      exponents: log2 of the rates, rising at equal steps.
      chance: the loss of chance.
    """
    rates = np.asarray(exponents)
    bests = [find_best(each, exponents, chance) for each in losses]
    kept = [i for i, best in enumerate(bests) if best.state == "inside"]
    used = tuple(sizes[i] for i in kept)
    if len(kept) < 2:
        return Drift(math.nan, math.nan, math.nan, used)
    x = np.log2(np.asarray(used, float))
    weights = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    slope = float(weights @ [bests[i].exponent for i in kept])
    seeds = len(losses[kept[0]])
    if seeds < 2:
        return Drift(slope, math.nan, math.nan, used)
    generator = np.random.default_rng(_SEED)
    drawn = []
    for i in kept:
        counts = generator.multinomial(seeds, np.full(seeds, 1 / seeds), _RESAMPLES)
        drawn.append(_locate(counts @ cap(losses[i], chance) / seeds, rates))
    slopes = weights @ np.stack(drawn)
    ends = np.quantile(slopes, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    factor = widen(seeds, len(kept) * (seeds - 1))
    low, high = slope + factor * (ends - slope)
    return Drift(slope, float(low), float(high), used)


def cap(losses: np.ndarray, chance: float) -> np.ndarray:
    """Counts runs that diverged as twice the loss of chance."""
    worst = LOST * chance
    with np.errstate(invalid="ignore"):
        return np.where(losses < worst, losses, worst)  # nan is not below


def _locate(means: np.ndarray, exponents: np.ndarray) -> np.ndarray:
    """Locates the lowest point of the parabola around the lowest loss.

    # [..., rates], [rates] -> [...]
    """
    logs = np.log(np.maximum(means, _LEAST))
    lowest = logs.argmin(axis=-1)
    x = np.arange(len(exponents)) - lowest[..., None]
    above = logs - logs.min(axis=-1, keepdims=True)
    high = above > np.log1p(SLACK)
    walls = high.cumsum(axis=-1)  # equal where no higher loss lies between
    near = walls == np.take_along_axis(walls, lowest[..., None], -1)
    fitted = (near & ~high) | (np.abs(x) <= 1)
    powers = x[..., None] ** np.arange(3.0) * fitted[..., None]  # [..., rates, 3]
    normal = np.einsum("...ri,...rj->...ij", powers, powers)
    end = (lowest == 0) | (lowest == len(exponents) - 1)
    normal[end] = np.eye(3)  # there may be two rates only; not used
    right = np.einsum("...ri,...r->...i", powers, above)
    _, tilt, bend = np.moveaxis(
        np.linalg.solve(normal, right[..., None])[..., 0], -1, 0
    )
    inside = ~end & (bend > 0)
    shift = np.where(inside, -tilt / np.where(inside, 2 * bend, 1), 0)
    first, last = (np.where(fitted, x, 0).min(axis=-1), np.where(fitted, x, 0).max(-1))
    step = exponents[1] - exponents[0]
    located: np.ndarray = exponents[lowest] + np.clip(shift, first, last) * step
    return located
