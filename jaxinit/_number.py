"""Numbers as people read them, and as JSON takes them."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

_ROUNDING = 1e-5  # relative: an error below it says nothing about seeds


def over_seeds(values: Any) -> tuple[float, float]:
    """Computes a mean and its standard error, which is nan for one seed."""
    array = np.asarray(values, np.float64)
    with np.errstate(all="ignore"):  # some values may not be finite
        mean = float(np.mean(array))
        if len(array) < 2:
            return mean, math.nan
        return mean, float(np.std(array, ddof=1) / np.sqrt(len(array)))


def number(value: float) -> str:
    """Returns a number in three digits, or a dash for nan."""
    if math.isnan(value):
        return "–"
    if math.isinf(value) or value == 0:
        return "0" if value == 0 else "∞" if value > 0 else "-∞"
    return f"{value:.3g}" if 1e-3 <= abs(value) < 1e3 else f"{value:.1e}"


def with_error(value: float, error: float) -> str:
    """Returns a number and its standard error, if it has one beyond rounding."""
    if not math.isfinite(value) or not error > _ROUNDING * abs(value):
        return number(value)
    digits = f"{error:.0f}" if 1 <= error < 1e3 else f"{error:.1g}"
    return f"{number(value)}±{digits}"  # no space: a cell stays one line


def plural(count: int, noun: str) -> str:
    """Returns a number of things."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def span(values: Iterable[float], text: Callable[[float], str] = number) -> str:
    """Returns the smallest and the largest of some numbers, once if they are equal."""
    found = list(values)
    known = [value for value in found if not math.isnan(value)]
    if not known:
        return "–" if found else ""
    ends = dict.fromkeys((text(min(known)), text(max(known))))
    return (" to " if min(known) < 0 else "–").join(ends)


def percent(share: float) -> str:
    """Returns a share in percent."""
    if math.isnan(share):
        return "–"
    return "<1 %" if 0 < share < 0.01 else f"{100 * share:.0f} %"


def plain(value: Any) -> Any:
    """Replaces numbers that are not finite, which JSON lacks, by None."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
