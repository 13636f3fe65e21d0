"""Holds a report to the limits of a test suite, and says which layers break them."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, get_args

from jaxinit import _check as check
from jaxinit._gain import NONLINEARITIES
from jaxinit._text import number, percent, plural
from jaxinit.signal._judge.findings import Findings, Layer
from jaxinit.signal._judge.verdicts import Condition
from jaxinit.signal._report.columns import explain
from jaxinit.signal._report.tree import join_runs

Range = tuple[float, float]
_FEW = 3  # up to this many layers, a message gives all their numbers


@dataclasses.dataclass(frozen=True)
class Limits:
    """Arguments of `SignalReport.assert_healthy`, checked."""

    allow: tuple[str, ...]
    limit: float | None
    std: Range | None
    gradient: Range | None
    dead: float | None
    saturated: float | None

    @classmethod
    def of(
        cls,
        allow: Any,
        limit: Any,
        std: Any,
        gradient: Any,
        dead: Any,
        saturated: Any,
    ) -> "Limits":
        """Checks the arguments."""
        conditions = [word for word in get_args(Condition) if word != "healthy"]
        if not isinstance(allow, (str, tuple, list, set, frozenset)):
            rule = "allow must be a condition, or several in a tuple."
            raise check.Unfit(rule, TypeError, allow=allow)
        allowed = (allow,) if isinstance(allow, str) else tuple(allow)
        for word in allowed:
            check.choice(conditions, allow=word)
        if limit is not None and check.real(limit=limit) <= 1:
            raise check.Unfit("limit must be above 1.", limit=limit)
        return cls(
            allowed,
            None if limit is None else float(limit),
            None if std is None else _read_range(std=std),
            None if gradient is None else _read_range(gradient=gradient),
            None if dead is None else check.fraction(dead=dead),
            None if saturated is None else check.fraction(saturated=saturated),
        )


def _read_range(**argument: Any) -> Range:
    """Returns an argument as a pair of numbers, the lower one first."""
    ((name, value),) = argument.items()
    rule = f"{name} must be a pair (low, high) with 0 <= low < high."
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise check.Unfit(rule, TypeError, **argument)
    try:
        low, high = (
            end if end == math.inf else check.not_negative(end=end) for end in value
        )
    except check.Unfit as error:
        raise check.Unfit(rule, error.kind, **argument) from None
    if not low < high:
        raise check.Unfit(rule, **argument)
    return low, high


@dataclasses.dataclass(frozen=True)
class _Rule:
    """A limit, and the numbers that it is about, by path of the layer."""

    text: str
    values: Sequence[tuple[str, float]]
    ends: Range
    cure: str
    spell: Callable[[float], str] = number

    def explain_broken(self, report: Findings) -> str | None:
        """Says which layers are beyond the limit; None if there are none."""
        low, high = self.ends  # NaN is beyond every limit
        beyond = [(path, x) for path, x in self.values if not low <= x <= high]
        if not beyond:
            return None
        came = [f"{self.spell(x)} at {path}" for path, x in beyond]
        if len(beyond) <= _FEW:
            said = ", ".join(came)
        else:
            where = join_runs(report.layers, [path for path, _ in beyond])
            among = f"{len(beyond)} of {plural(len(self.values), 'layer')}"
            said = f"{came[0]} to {came[-1]}, beyond it in {among}: {where}"
        return f"{self.text}. It is {said}. Cure: {self.cure}"


def find_broken(report: Findings, limits: Limits) -> list[str]:
    """Lists what is wrong with a model, a line for each finding or broken limit."""
    findings = [
        f"{finding.condition}: {explain(report, finding)} Cure: {finding.cure}"
        for finding in report.findings
        if finding.condition not in limits.allow
    ]
    layers = [layer for layer in report.layers if layer.kind != "module"]
    rules = _make_rules(layers, limits) if layers else ()
    return findings + [line for rule in rules if (line := rule.explain_broken(report))]


def _make_rules(layers: Sequence[Layer], limits: Limits) -> Iterator[_Rule]:
    """Yields a rule for each limit that is set."""
    cure = "use weights that suit the activation"
    suited = [x.activation for x in layers if x.activation in NONLINEARITIES]
    if suited:
        cure += f", such as kernel_init=jaxinit.he_normal(gain={suited[0]!r})"
    deep = cure + ", a normalization or residual paths"
    first, last = layers[0], layers[-1]
    std = [(x.path, x.mean("std")) for x in layers]
    norms = [(x.path, x.mean("gradient_norm")) for x in layers]
    gradient = [(path, _divide(norm, norms[-1][1])) for path, norm in norms]
    over_last = f"the gradient's norm over that at {last.path} must"
    if limits.limit is not None:
        ends = 1 / limits.limit, limits.limit
        within = f"stay within a factor of limit={limits.limit:g}"
        # The scale of the last layer is a choice, and zeros are left to the findings.
        drift = [(path, _divide(value, std[0][1])) for path, value in std[:-1] if value]
        text = f"the signal's std over that at {first.path} must {within}"
        yield _Rule(text, drift, ends, deep)
        open_ones = [(path, ratio) for path, ratio in gradient if ratio]
        yield _Rule(f"{over_last} {within}", open_ones, ends, deep)
    if limits.std is not None:
        low, high = limits.std
        text = f"the signal's std must lie in std=({low:g}, {high:g})"
        yield _Rule(text, std, limits.std, deep)
    if limits.gradient is not None:
        low, high = limits.gradient
        text = f"{over_last} lie in gradient=({low:g}, {high:g})"
        yield _Rule(text, gradient, limits.gradient, deep)
    smaller = "use smaller weights, or a normalization"
    for name, what, most, change in (
        ("dead", "units", limits.dead, f"start the biases at zeros(), or {cure}"),
        ("saturated", "entries", limits.saturated, smaller),
    ):
        if most is not None:
            shares = [(x.path, x.mean(name)) for x in layers if name in x.forward]
            text = f"the share of {name} {what} must be at most {name}={most:g}"
            yield _Rule(text, shares, (0, most), change, percent)


def _divide(above: float, below: float) -> float:
    return above / below if below else math.nan
