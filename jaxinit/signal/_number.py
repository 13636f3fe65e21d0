"""Numbers as people read them, and as JSON takes them."""

import math
from typing import Any


def number(value: float) -> str:
    """Returns a number in three digits, a dash for one that does not exist."""
    if math.isnan(value):
        return "–"
    if math.isinf(value) or value == 0:
        return "0" if value == 0 else "∞" if value > 0 else "-∞"
    return f"{value:.3g}" if 1e-3 <= abs(value) < 1e3 else f"{value:.1e}"


def with_error(value: float, error: float) -> str:
    """Returns a number and, if it exists, its standard error in one digit."""
    if not math.isfinite(value) or math.isnan(error):
        return number(value)
    digits = f"{error:.0f}" if 1 <= error < 1e3 else f"{error:.1g}"
    return f"{number(value)}±{digits}"  # no space: a cell stays one line


def span(values: list[float]) -> str:
    """Returns the smallest and the largest of some numbers, or the one they all are."""
    known = [value for value in values if not math.isnan(value)]
    low, high = (number(f(known, default=math.nan)) for f in (min, max))
    return low if low == high else f"{low}–{high}"


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
