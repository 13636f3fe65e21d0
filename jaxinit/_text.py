"""Numbers, counts and sizes as people read them."""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

_ROUNDING = 1e-5  # relative: an error below it says nothing about seeds


def number(value: float) -> str:
    """Returns a number in three digits, or a dash for nan."""
    if math.isnan(value):
        return "–"
    if math.isinf(value) or value == 0:
        return "0" if value == 0 else "∞" if value > 0 else "-∞"
    return f"{value:.3g}" if 1e-3 <= abs(value) < 1e3 else f"{value:.1e}"


def or_dash(value: Any, text: Callable[[Any], str]) -> str:
    """Returns a value as text, or a dash for None."""
    return "–" if value is None else text(value)


def with_error(value: float, error: float) -> str:
    """Returns a number and its standard error, if it has one beyond rounding."""
    if not math.isfinite(value) or not error > _ROUNDING * abs(value):
        return number(value)
    digits = f"{error:.0f}" if 1 <= error < 1e3 else f"{error:.1g}"
    return f"{number(value)}±{digits}"  # no space: a cell stays one line


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


def plural(count: int, noun: str, form: str = "") -> str:
    """Returns a number of things, such as "1 seed" and "3 entries"."""
    if count != 1:
        noun = re.sub("([^aeiou])y$", r"\1ie", noun) + "s"
    return f"{count:{form}} {noun}"


def size(count: float) -> str:
    """Returns a number of bytes."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024 or unit == "TiB":
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"


def shape(sizes: Sequence[int]) -> str:
    """Returns the shape of an array."""
    return "×".join(map(str, sizes)) or "scalar"
