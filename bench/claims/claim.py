"""`Claim`: a sentence of a paper with numbers, and whether they come out here.

A claim measures quantities. Each has a range, stated beforehand: around the number that
the paper or an exact formula gives, or on the paper's side of a bound. A quantity holds
if all of its interval lies in the range: the bootstrap's 95 % interval over seeds; a
number without randomness is its own interval. A claim is reproduced if all hold.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Statistic = Callable[..., Any]  # reduces the axis that it is given, as np.mean does
Verdict = Literal["reproduced", "not reproduced", "not on this machine"]
Result = dict[str, Any]

LEVEL = 0.95
_RESAMPLES = 2000
_MOST = 2**22  # values that are drawn at a time


class NotHere(Exception):
    """The claim cannot be tried on this machine; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """One number of a claim.

    Attributes:
      what: what it is, in words.
      expected: the number, and where it comes from.
      low: the lower end of the range that counts as the claim's.
      high: the upper end.
      values: what was measured; one for each seed.
      statistic: what the number is of the values.
      interval: its interval, where what measured it has one of its own.
    """

    what: str
    expected: str
    low: float
    high: float
    values: np.ndarray
    statistic: Statistic = np.mean
    interval: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim of a paper as a command.

    Attributes:
      name: what the command calls it.
      source: author, year, and the place in the paper.
      link: where the paper is.
      claim: what it claims, in one sentence.
      setup: what is run here.
      measure: does so and returns the quantities; of toy size if asked.
      training: whether networks are trained.
      tried: what else was tried, and what came of it.
    """

    name: str
    source: str
    link: str
    claim: str
    setup: str
    measure: Callable[[bool], list[Quantity]]
    training: bool = False
    tried: str = ""


def near(
    what: str,
    values: Any,
    number: float,
    *,
    within: float,
    says: str = "",
    statistic: Statistic = np.mean,
) -> Quantity:
    """Returns a quantity that should be a number, to a share or, at 0, to an amount."""
    margin = within * (abs(number) or 1)
    sign = "±" if not number else f"{number:.4g} ±"
    amount = f"{within:g}" if not number else f"{100 * within:g} %"
    return Quantity(
        what=what,
        expected=f"{says + ' = ' if says else ''}{sign} {amount}",
        low=number - margin,
        high=number + margin,
        values=np.atleast_1d(np.asarray(values, np.float64)),
        statistic=statistic,
    )


def between(
    what: str,
    values: Any,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    says: str = "",
    statistic: Statistic = np.mean,
    interval: tuple[float, float] | None = None,
) -> Quantity:
    """Returns a quantity that should be above a bound, below one, or between two."""
    spelt = [f"above {low:.4g}"] * (low > -math.inf)
    spelt += [f"below {high:.4g}"] * (high < math.inf)
    return Quantity(
        what=what,
        expected=" and ".join(spelt) + (f" ({says})" if says else ""),
        low=low,
        high=high,
        values=np.atleast_1d(np.asarray(values, np.float64)),
        statistic=statistic,
        interval=interval,
    )


def geometric_mean(values: Any, axis: int | None = None) -> Any:
    """Computes the geometric mean, for factors that multiply."""
    with np.errstate(divide="ignore"):  # a factor may be 0
        return np.exp(np.mean(np.log(values), axis=axis))


def bootstrap(quantity: Quantity) -> tuple[float, float, float]:
    """Computes a quantity's number and the ends of its interval over seeds."""
    values, statistic = quantity.values, quantity.statistic
    number = float(statistic(values, axis=0))
    if quantity.interval is not None:
        return number, *quantity.interval
    if len(values) == 1 or not np.isfinite(values).all():
        return number, number, number
    generator = np.random.default_rng(0)
    count = len(values)
    rows = max(1, min(_RESAMPLES, _MOST // count))
    resampled = [
        statistic(values[generator.integers(count, size=(rows, count))], axis=1)
        for _ in range(-(-_RESAMPLES // rows))
    ]
    ends = [50 * (1 - LEVEL), 50 * (1 + LEVEL)]
    low, high = np.percentile(np.concatenate(resampled), ends)
    return number, float(low), float(high)


def try_claim(claim: Claim, quick: bool = False) -> Result:
    """Measures a claim and judges it; the result has JSON types only."""
    result: Result = {
        "name": claim.name,
        "source": claim.source,
        "link": claim.link,
        "claim": claim.claim,
        "setup": claim.setup,
        "training": claim.training,
        "tried": claim.tried,
    }
    start = time.process_time()
    try:
        quantities = [_judge(quantity) for quantity in claim.measure(quick)]
        holds = all(quantity["holds"] for quantity in quantities)
        verdict: Verdict = "reproduced" if holds else "not reproduced"
        reason = ""
    except (NotHere, ModuleNotFoundError) as error:
        quantities, verdict, reason = [], "not on this machine", str(error)
    result |= {"verdict": verdict, "reason": reason, "quantities": quantities}
    result["cpu_seconds"] = round(time.process_time() - start, 1)
    return result


def _judge(quantity: Quantity) -> Result:
    number, low, high = bootstrap(quantity)
    return {
        "what": quantity.what,
        "expected": quantity.expected,
        "range": [_finite(quantity.low), _finite(quantity.high)],
        "measured": _finite(number),
        "interval": [_finite(low), _finite(high)],
        "seeds": len(quantity.values),
        # A number that is not finite lies in no range.
        "holds": bool(
            np.isfinite(number) and quantity.low <= low and high <= quantity.high
        ),
    }


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
