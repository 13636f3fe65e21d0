"""Statistics over few seeds: intervals, paired effects, and which rates train.

Pure functions of NumPy arrays. The bootstrap draws from a generator of fixed seed, so
equal values give equal intervals. A diverged run is counted, never dropped: means are
over all seeds, and not finite where one seed is not; medians, ranks and differences
treat NaN as the worst value there is.
"""

import bisect
import functools
import math
from statistics import NormalDist
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxinit import _check as check

LEVEL = 0.95  # of every interval
INTERVAL = (
    f"{100 * LEVEL:g} % bootstrap interval of the mean over seeds: percentiles, "
    "widened for few seeds by Student's t"
)
LEAST_SEEDS = 3  # that can show an effect
MOST_SEEDS = 1000  # up to which `Effect.seeds_needed` counts
LEARNED = 0.99  # a loss above this share of chance is chance and rounding
_RESAMPLES = 10_000
_SEED = 0  # of the bootstrap: no seed of a comparison changes it

_Z = NormalDist().inv_cdf((1 + LEVEL) / 2)

Verdict = Literal["better", "worse", "cannot tell"]


class Interval(NamedTuple):
    """A mean over seeds and how far it can be trusted.

    Attributes:
      mean: over all values; not finite where one of them is not.
      error: standard error of the mean.
      low: lower end of the interval.
      high: upper end.
    """

    mean: float
    error: float
    low: float
    high: float


class Effect(NamedTuple):
    """A comparison of two initializers.

    Attributes:
      difference: mean over seeds of the differences.
      low: lower end of its interval.
      high: upper end.
      verdict: "better" or "worse" where the interval excludes 0 and there are 3 seeds
        or more, otherwise "cannot tell", which is not "equal".
      seeds_needed: where it cannot be told, the least number of seeds whose interval
        would exclude 0 if mean and standard deviation of the differences stayed as they
        are; inf if 1000 would not do; nan if fewer than two seeds, or one that
        diverged, leave the standard deviation unknown.
    """

    difference: float
    low: float
    high: float
    verdict: Verdict
    seeds_needed: float


class Sensitivity(NamedTuple):
    """The learning rates that train.

    Attributes:
      trains: whether each rate trains, in the order in which they were given.
      decades: log10 of the largest over the smallest rate of the range around the
        best in which every rate tried trains; 0 for one rate alone, nan for none. A
        range that reaches the ends of what was tried may be wider than it says.
      share: share of all rates tried that train.
    """

    trains: tuple[bool, ...]
    decades: float
    share: float


def interval(values: Any) -> Interval:
    """Computes mean, standard error and a bootstrap interval of 95 % over seeds.

    The interval is the bootstrap's percentile interval, made wider for few seeds: its
    ends are moved away from the mean by the factor sqrt(n / (n - 1)) t / z, where t
    and z are the 97.5 % points of Student's t with n - 1 degrees of freedom and of the
    normal law. Without it the interval of 3 seeds lies between the smallest and the
    largest value and misses the true mean one time in four; with it, of a normal law,
    about one time in twenty, at every n; of a law as skewed as the exponential, about
    one time in eight up to 8 seeds.

    Args:
      values: a number for each seed; NaN and infinity are accepted.

    Returns:
      The mean over all seeds. One seed has no error and no interval: they are nan. Two
      seeds have both, but the interval is some 9 times the distance of the two.
      If a value is not finite, neither is the mean, and error and interval are nan.

    Raises:
      ValueError: if there is no value, or the values have more than one axis.
      TypeError: if the values are not real numbers.

    Example:
      >>> from jaxinit.lab._result.statistics import interval
      >>> result = interval([0.8, 0.9, 1.0])
      >>> result.low < 0.8 < 0.9 == result.mean < 1.0 < result.high
      True

    References:
      Hesterberg. What Teachers Should Know About the Bootstrap. The American
        Statistician 69. 2015. https://doi.org/10.1080/00031305.2015.1089789
    """
    try:
        array = _by_seed(values=values)
    except check.Unfit as unfit:
        raise unfit.at("interval") from None
    n = len(array)
    if n < 2 or not np.isfinite(array).all():
        with np.errstate(all="ignore"):
            return Interval(float(array.mean()), math.nan, math.nan, math.nan)
    # Means are taken of distances from the first value, so that equal values have
    # exactly that value for their mean and for both ends.
    distances = array - array[0]
    center = distances.mean()
    error = distances.std(ddof=1) / math.sqrt(n)
    means = _resamples(n) @ distances / n
    ends = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    low, high = center + widen(n, n - 1) * (ends - center)
    mean, low, high = (float(array[0] + end) for end in (center, low, high))
    return Interval(mean, float(error), low, high)


def paired(values: Any, reference: Any, *, higher_is_better: bool) -> Effect:
    """Compares two initializers seed by seed: the first less the second.

    Args:
      values: a number for each seed, such as test scores.
      reference: those of the other initializer, on the same seeds.
      higher_is_better: True for scores, False for losses.

    Returns:
      The mean difference, its `interval` and the verdict. NaN counts as the worst,
      minus infinity for scores and infinity for losses; two equal infinities differ by
      0. Where all differences are the same infinity, so are the mean and both ends, and
      the verdict follows; where only some are infinite there is no interval (nan) and
      the seeds cannot tell.

    Raises:
      ValueError: if there is no value, or not one for each seed of the other.
      TypeError: if they are not real numbers.

    Example:
      >>> from jaxinit.lab._result.statistics import paired
      >>> paired([0.1, 0.2, 0.1], [0.5, 0.7, 0.6], higher_is_better=False).verdict
      'better'
    """
    try:
        check.boolean(higher_is_better=higher_is_better)
        ours, theirs = _by_seed(values=values), _by_seed(reference=reference)
        if len(ours) != len(theirs):
            rule = f"reference must have a number for each of the {len(ours)} seeds."
            raise check.Unfit(rule, reference=theirs)
    except check.Unfit as error:
        raise error.at("paired") from None
    differences = _differences(ours, theirs, higher_is_better)
    return _effect(differences, interval(differences), higher_is_better)


def against_one(values: Any, reference: Any, *, higher_is_better: bool) -> Effect:
    """Compares several runs of one initializer with the only run of another.

    An initializer without randomness has one run, whatever the seeds. It is not a mean,
    so it is treated as one more draw from a law as wide as that of the other's n runs:
    the interval is the mean difference ± t s sqrt(1 + 1 / n), where s is the standard
    deviation of the n runs and t the 97.5 % point of Student's t with n - 1 degrees of
    freedom. No number of seeds makes it narrower than s itself allows.

    Args:
      values: a number for each run.
      reference: those of the other initializer; one of the two has one number only.
      higher_is_better: True for scores, False for losses.

    Returns:
      The mean difference, its interval and the verdict, as in `paired`.

    Raises:
      ValueError: if neither has one number only.
      TypeError: if they are not real numbers.

    Example:
      >>> from jaxinit.lab._result.statistics import against_one
      >>> against_one([0.91, 0.93, 0.92], [0.94], higher_is_better=True).verdict
      'cannot tell'

    References:
      Crawford, Howell. Comparing an Individual's Test Score Against Norms Derived from
        Small Samples. The Clinical Neuropsychologist 12. 1998.
        https://doi.org/10.1076/clin.12.4.482.7241
    """
    try:
        check.boolean(higher_is_better=higher_is_better)
        ours, theirs = _by_seed(values=values), _by_seed(reference=reference)
        if min(len(ours), len(theirs)) > 1:
            rule = "values or reference must be of one run. For more, use paired."
            raise check.Unfit(rule, reference=theirs)
    except check.Unfit as error:
        raise error.at("against_one") from None
    differences = _differences(ours, theirs, higher_is_better)
    of_mean, n = interval(differences), len(differences)
    half = _half(n, of_mean.error * math.sqrt(n), one=True)
    ends = {"low": of_mean.mean - half, "high": of_mean.mean + half}
    return _effect(differences, of_mean._replace(**ends), higher_is_better, one=True)


def _differences(
    ours: np.ndarray, theirs: np.ndarray, higher_is_better: bool
) -> np.ndarray:
    """Subtracts; NaN is the worst there is, and equal infinities differ by 0."""
    worst = -math.inf if higher_is_better else math.inf
    ours, theirs = (np.where(np.isnan(a), worst, a) for a in (ours, theirs))
    with np.errstate(invalid="ignore"):
        return np.where(ours == theirs, 0, ours - theirs)


def _effect(
    differences: np.ndarray, seen: Interval, higher_is_better: bool, one: bool = False
) -> Effect:
    """Judges differences by the interval of their mean."""
    first = float(differences[0])
    if math.isinf(first) and (differences == first).all():
        seen = Interval(first, math.nan, first, first)
    difference, error, low, high = seen
    n, needed = len(differences), math.nan
    verdict: Verdict = "better" if (low > 0) == higher_is_better else "worse"
    if n < LEAST_SEEDS or not (low > 0 or high < 0):
        verdict = "cannot tell"
        needed = _seeds_needed(n, difference, error * math.sqrt(n), one)
    return Effect(
        difference=difference, low=low, high=high, verdict=verdict, seeds_needed=needed
    )


def _seeds_needed(n: int, difference: float, stddev: float, one: bool) -> float:
    """Finds how many seeds would show a difference, as `Effect` says it."""
    if not math.isfinite(stddev):
        return math.nan
    more = range(max(n + 1, LEAST_SEEDS), MOST_SEEDS + 1)

    def shows(seeds: int) -> bool:  # the more, the sooner
        return _half(seeds, stddev, one) < abs(difference)

    place = bisect.bisect_left(more, True, key=shows)
    return more[place] if place < len(more) else math.inf


def _half(n: int, stddev: float, one: bool) -> float:
    """Computes half the width of the interval of a mean difference of n seeds.

    With ``one`` it is the mean's difference from one run, which has its own error.
    """
    if n < 2:
        return math.nan
    return _student(_Z, n - 1) * stddev * math.sqrt(one + 1 / n)


def sensitivity(
    losses: Any, learning_rates: Any, *, best: float, chance: float
) -> Sensitivity:
    """Finds which learning rates train, and how many decades they span.

    A rate trains when its median final loss is at most (best + chance) / 2: when half
    the seeds or more close half of the gap between chance and the best loss that any
    initializer reached on this task. The bar is the same for every initializer, so
    that one that never leaves chance has no rate that trains; and halves of a distance
    make sense near 0, where a factor on a loss does not.

    Args:
      losses: final training losses, infinite for runs that diverged; NaN counts as
        infinite. # [seeds, rates]
      learning_rates: the rates, in any order, above 0. # [rates]
      best: lowest median loss of all initializers and rates. If it is above 99 % of
        chance, no rate trains.
      chance: loss of the best constant prediction.

    Returns:
      The rates that train, the decades around the one of lowest median, their share.

    Raises:
      ValueError: if there is not a rate for each column of losses.

    Example:
      >>> from jaxinit.lab._result.statistics import sensitivity
      >>> losses = [[0.2, 0.1, 2.3], [0.3, 0.2, 2.3]]
      >>> sensitivity(losses, [0.001, 0.01, 0.1], best=0.1, chance=2.3).decades
      1.0
    """
    array = np.asarray(losses, np.float64)
    rates = np.asarray(learning_rates, np.float64)
    if array.ndim != 2 or 0 in array.shape or rates.shape != array.shape[1:]:
        rule = "losses must be [seeds, rates], with a column for each learning rate."
        raise check.Unfit(rule, losses=array).at("sensitivity")
    medians = median(array)
    trains = medians <= (best + chance) / 2
    if not best <= LEARNED * chance:
        trains[:] = False
    if not trains.any():
        return Sensitivity(tuple(trains.tolist()), math.nan, 0.0)
    order = np.argsort(rates)
    ranked = trains[order]
    first = last = int(np.argmin(medians[order]))
    while first > 0 and ranked[first - 1]:
        first -= 1
    while last < len(rates) - 1 and ranked[last + 1]:
        last += 1
    decades = math.log10(rates[order[last]]) - math.log10(rates[order[first]])
    return Sensitivity(tuple(trains.tolist()), decades, float(trains.mean()))


def median(losses: np.ndarray) -> np.ndarray:  # [..., seeds, rates] -> [..., rates]
    """Computes the median over seeds; NaN counts as infinite."""
    middle: np.ndarray = np.median(np.where(np.isnan(losses), np.inf, losses), axis=-2)
    return middle


def _by_seed(**argument: Any) -> np.ndarray:  # [seeds]
    """Returns real numbers by seed, as float64."""
    ((name, value),) = argument.items()
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise check.Unfit(f"{name} must be real numbers.", TypeError, **argument)
    if array.ndim != 1 or not array.size:
        raise check.Unfit(f"{name} must be a number for each seed.", **argument)
    return array.astype(np.float64)


@functools.lru_cache(maxsize=4)
def _resamples(n: int) -> np.ndarray:  # [resamples, n]
    """Draws how often each of n values is in each resample."""
    generator = np.random.default_rng(_SEED)
    drawn: np.ndarray = generator.multinomial(n, np.full(n, 1 / n), _RESAMPLES)
    return drawn


def widen(n: int, freedom: int) -> float:
    """Computes sqrt(n / (n - 1)) t / z, the factor that few seeds ask for."""
    return math.sqrt(n / (n - 1)) * _student(_Z, freedom) / _Z


def _student(z: float, freedom: int) -> float:
    """Computes the point of Student's t that belongs to the normal law's point z.

    In closed form for 1 and 2 degrees of freedom, otherwise four terms of the expansion
    of Cornish and Fisher (Abramowitz and Stegun, 26.7.5): within 0.2 % at 95 %.
    """
    if freedom == 1:
        return math.tan(math.pi * LEVEL / 2)
    if freedom == 2:
        return LEVEL * math.sqrt(2 / (1 - LEVEL**2))
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return math.fsum(term / float(freedom**power) for power, term in enumerate(terms))


def mean_ratio(signals: np.ndarray | None, index: int, over: int, under: int) -> float:
    """Computes the geometric mean of ratios between layers, by seed.

    It is nan where no signal is left. # signals: [initializers, seeds, layers]
    """
    if signals is None:
        return math.nan
    above, below = signals[index, :, over], signals[index, :, under]
    with np.errstate(all="ignore"):
        return float(
            np.exp(np.mean(np.log(above.astype(float)) - np.log(below.astype(float))))
        )
