"""Slopes of logarithms against the logarithm of the size, and what is wrong with them.

A layer transfers if what it does to its input does not depend on the size. So each is
judged by ratios of its own, which no fault of a layer before it changes: what the
initial weight makes of the input at the start; what the change of the weight since then
makes of the input at each step; and what the initial weight makes of the change of the
input. A parameter that is added or multiplied entry by entry, and a table that is
looked up, has its entries in place of these.
"""

import dataclasses
import importlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

LEVEL = 0.95  # of every interval
CARRIED = "grows behind others"  # a verdict: is not at fault
MINOR = "bias", "gain", "offset"  # roles of rows that are shown last, or if they fail

Along = Literal["width", "depth"]
Condition = Literal["start", "update", "attention", "decay", "stream", "aligned"]


class Slope(NamedTuple):
    """A slope of log y against log x, with the ends of its interval."""

    value: float
    low: float
    high: float

    @property
    def known(self) -> bool:
        """Whether there is one: zeros have no logarithm."""
        return not math.isnan(self.value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """A layer, or another thing that is measured at every size.

    Attributes:
      path: its path; along depth with a star for the number of a block.
      kind: "dense", "conv", "attention" (its logits), "stream" (what residual
        branches are added to), or "parameter" for one that is in no product.
      role: what its weight does, as `jaxinit.structure` tells it.
      values: by name, means of absolute values. # [sizes, seeds, steps + 1]
      decay: what the optimizer takes off the weight at each step without a gradient,
        over the weight. # [sizes, seeds, 1]
    """

    path: str
    kind: str
    role: str
    values: Mapping[str, np.ndarray]
    decay: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """What is wrong with a layer.

    Attributes:
      condition: "start" (initial weights), "update" (the learning rate), "attention"
        (the scale of its logits), "decay", "stream" (what residual branches add up to)
        or "aligned" (initial weights along which the layers before it move; Everett's
        standard parameterization accepts these).
      path: the layer.
      of: the kind of what is measured there, as in its row.
      step: after how many steps it shows.
      slope: by which exponent of the size it grows, or falls if it is negative.
      reason: a sentence that says so and names the cause.
    """

    condition: Condition
    path: str
    of: str
    step: int
    slope: Slope
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class CoordinateRow:
    """A layer, or another thing that was measured at every size.

    Attributes:
      path: its path; along depth with a star for the number of a block: its values are
        means over all of them.
      kind: "dense", "conv", "attention" (its logits), "stream" (what residual
        branches are added to), or "parameter" for one that is in no product.
      role: what its weight does, as `jaxinit.structure` tells it.
      slopes: of the mean absolute value of its output, or of its entries, by step from
        the start. A `Slope` has a ``value``, and the ends ``low`` and ``high`` of its
        interval; NaN where a value is zero.
      update: of what the change of its weight makes of its input, over the input;
        of the entries' change for a parameter in no product; of the output's change for
        a stream and attention.
      verdict: "transfers", how it fails, or "grows behind others" if a fault of other
        layers makes its output grow.
      measured: the values.
    """

    path: str
    kind: str
    role: str
    slopes: tuple[Slope, ...]
    update: tuple[Slope, ...]
    verdict: str
    measured: Measured

    def __repr__(self) -> str:
        return f"CoordinateRow({self.path!r}, {self.verdict!r})"


def fit_slopes(sizes: Sequence[int], values: np.ndarray) -> list[Slope]:
    """Fits a slope at each step, by least squares over sizes and seeds.

    The interval is Student's: the variance is that of seeds at the same size, or of the
    residuals where there is one seed. # values: [sizes, seeds, steps]
    """
    return [_fit(sizes, values[..., step]) for step in range(values.shape[-1])]


def _fit(sizes: Sequence[int], values: np.ndarray) -> Slope:
    if not np.isfinite(values).all():
        return Slope(math.inf, math.inf, math.inf)
    if not (values > 0).all():
        return Slope(math.nan, math.nan, math.nan)
    x, y = np.log(np.asarray(sizes, np.float64)), np.log(values)
    count, seeds = y.shape
    around = x - x.mean()
    spread = seeds * (around**2).sum()
    slope = float((around @ (y - y.mean())).sum() / spread)
    if seeds > 1:
        rest, freedom = y - y.mean(1, keepdims=True), count * (seeds - 1)
    else:
        rest, freedom = y - y.mean() - slope * around[:, None], count - 2
    if not freedom:
        return Slope(slope, slope, slope)
    special = importlib.import_module("scipy.special")  # JAX needs SciPy
    error = math.sqrt((rest**2).sum() / freedom / spread)
    reach = float(special.stdtrit(freedom, (1 + LEVEL) / 2)) * error
    return Slope(slope, slope - reach, slope + reach)


class Slopes:
    """The slopes of one `Measured`, by step.

    Attributes:
      size: of its output, or of its entries.
      start: of its output over its input, at the start alone.
      update: of what the change of its weight makes of the input, over that.
      drift: of the change of its input, over that.
      passed: of what the initial weight makes of the change of the input, over that.
      change: of the change of its output.
      decay: of its weight decay; None without one.
    """

    def __init__(self, sizes: Sequence[int], of: Measured):
        """Fits them."""
        v = of.values

        def fit(name: str, over: str) -> list[Slope]:
            if name not in v:
                return []
            if over not in v:
                return fit_slopes(sizes, v[name])
            zero = v[over] == 0  # the inputs of the first layer never change
            ratio = np.where(zero, 0.0, v[name] / np.where(zero, 1.0, v[over]))
            return fit_slopes(sizes, ratio)

        self.size = fit("output", "")
        self.start = fit("output", "input")[0]
        self.update = fit("moved", "input")
        self.drift = fit("drift", "input")
        self.passed = fit("passed", "drift")
        self.change = fit("change", "")
        self.decay = fit_slopes(sizes, of.decay)[0] if of.decay is not None else None


def judge(
    things: Sequence[Measured],
    slopes: Sequence[Slopes],
    along: Along,
    tolerance: float,
) -> list[Finding]:
    """Finds what does not transfer, causes first.

    Args:
      things: what is measured.
      slopes: their slopes.
      along: what grows.
      tolerance: the exponent below which an interval must reach.
    """
    found: list[Finding] = []
    for each, its in zip(things, slopes, strict=True):
        if each.kind == "attention":
            found += _judge_attention(each, its, along, tolerance)
        elif each.kind != "stream":
            found += _judge_layer(each, its, along, tolerance)
    found = _drop_effects(found, things, slopes, tolerance)
    if along == "depth" or not any(x.condition != "aligned" for x in found):
        streams = (
            finding
            for each, its in zip(things, slopes, strict=True)
            if each.kind == "stream"
            for finding in _judge_stream(each, its, along, tolerance)
        )
        moved = any(x.condition == "update" for x in found)
        causes = (x for x in streams if not (x.step and moved))  # not what they add to
        found += [first] if (first := next(causes, None)) else []
    order = "start", "stream", "attention", "update", "decay", "aligned"
    return sorted(found, key=lambda finding: order.index(finding.condition))


def _drop_effects(
    found: list[Finding],
    things: Sequence[Measured],
    slopes: Sequence[Slopes],
    tolerance: float,
) -> list[Finding]:
    """Drops what goes with the fault of another layer.

    These are the entries of an accused layer's own bias, and the logits of an attention
    whose queries or keys it makes: each is accused where it alone is wrong. Where
    something grows, inputs behind it leave the start, more so when wide; the updates of
    layers there were made for what they were, and so make ever less of them.
    """
    moved = {x.path for x in found if x.condition == "update" and x.of != "parameter"}
    roles = {each.path: each.role for each in things if each.path in moved}
    makers = [path for path, role in roles.items() if "query" in role or "key" in role]
    left = {
        each.path
        for each, its in zip(things, slopes, strict=True)
        if any(slope.low > tolerance for slope in its.drift)
    }
    grows = any(x.condition in ("start", "update") and x.slope.value > 0 for x in found)

    def follows(finding: Finding) -> bool:
        if finding.slope.value < 0:
            return grows and finding.condition == "update" and finding.path in left
        parent, _, _ = finding.path.rpartition("/")
        if finding.of == "attention":
            return finding.step > 0 and any(_is_below(parent, x) for x in makers)
        return finding.of == "parameter" and parent in moved

    return [x for x in found if not follows(x)]


def _is_below(parent: str, path: str) -> bool:
    """Returns whether a path is that of a parent, or of what is within it."""
    return not parent or f"{path}/".startswith(f"{parent}/")


def _judge_layer(
    each: Measured, its: Slopes, along: Along, tolerance: float
) -> Iterator[Finding]:
    """Finds what is wrong with a layer, or with a parameter in no product."""
    start = its.start
    may_fall = "readout" in each.role
    wrong_start = start.low > tolerance or start.high < -tolerance and not may_fall
    if wrong_start:
        how = "shrink" if start.value > 0 else "grow"
        what = "initial weights" if each.kind != "parameter" else "initial entries"
        reason = (
            f"{_grow(along, start)} at the start: its {what} should {how} with the "
        )
        reason += f"{along}, by {_power(along, -start.value)}"
        yield _find("start", each, 0, start, reason)
    step, update = _find_worst(its.update, along, tolerance)
    if step is not None and update.value > 0:
        near = abs(update.value - 1) < 0.25
        what = "is not divided by" if near else "does not fall enough with"
        reason = f"{_grow(along, update)} after step {step}: its learning rate {what} "
        reason += f"the {along}"
        yield _find("update", each, step, update, reason)
    elif step is not None:
        reason = (
            f"{_grow(along, update)} after step {step}, by its update: it learns ever "
        )
        reason += "less, as if its learning rate were divided by "
        reason += f"{_divisor(along, -update.value)} once too often, or Adam's ε were "
        reason += "too large"
        yield _find("update", each, step, update, reason)
    passed = next((n for n, s in enumerate(its.passed) if n and s.low > tolerance), 0)
    if passed and not wrong_start and step is None:
        slope = its.passed[passed]
        reason = f"{_grow(along, slope)} after step {passed}, by no update of its own: "
        reason += "its initial weights point where the layers before it move"
        yield _find("aligned", each, passed, slope, reason)
    decay = its.decay
    falls = along == "depth" and decay is not None and decay.value < 0  # as updates may
    if decay is not None and decay.known and abs(decay.value) > tolerance and not falls:
        reason = f"has weight decay that goes as {_power(along, decay.value)} at each "
        reason += "step: learning rate times weight decay should not depend on the "
        reason += along
        yield _find("decay", each, 0, decay, reason)


def _judge_attention(
    each: Measured, its: Slopes, along: Along, tolerance: float
) -> Iterator[Finding]:
    """Finds logits that grow; at random starts they fall, by right."""
    if its.start.low > tolerance:
        reason = (
            f"{_grow(along, its.start)} at the start: products of queries and keys are "
        )
        reason += "not divided by the size of a head or its root"
        yield _find("attention", each, 0, its.start, reason)
        return
    step, change = _find_worst(its.change, along, tolerance)
    if step is not None and change.value > 0:
        reason = (
            f"{_grow(along, change)} after step {step}: divide products of queries and "
        )
        reason += "keys by the size of a head, not by its root"
        yield _find("attention", each, step, change, reason)


def _judge_stream(
    each: Measured, its: Slopes, along: Along, tolerance: float
) -> Iterator[Finding]:
    """Finds sums of residual branches that grow."""
    cure = ""
    if along == "depth":
        cure = ": what its residual branches add should be multiplied by L^-1"
    step, change = _find_worst(its.change, along, tolerance)
    if its.start.low > tolerance:
        reason = f"{_grow(along, its.start)} at the start{cure}"
        yield _find("stream", each, 0, its.start, reason)
    elif step is not None and change.value > 0:
        reason = f"{_grow(along, change)} after step {step}{cure}"
        yield _find("stream", each, step, change, reason)


def _find_worst(
    slopes: Sequence[Slope], along: Along, tolerance: float
) -> tuple[int | None, Slope]:
    """Finds the first step after which something grows, or whether it falls to the end.

    Falling counts if it does so after every step: what begins at zeros moves later.
    Along depth the update of a layer may fall, since there are more of them.
    """
    after = [(step, s) for step, s in enumerate(slopes) if step and s.known]
    for step, slope in after:
        if slope.low > tolerance:
            return step, slope
    if after and along == "width" and all(s.high < -tolerance for _, s in after):
        return after[0]
    return None, Slope(math.nan, math.nan, math.nan)


def _find(
    condition: Condition, each: Measured, step: int, slope: Slope, reason: str
) -> Finding:
    return Finding(
        condition=condition,
        path=each.path,
        of=each.kind,
        step=step,
        slope=slope,
        reason=f"{each.path} {reason}",
    )


def _power(along: Along, exponent: float) -> str:
    letter = "n" if along == "width" else "L"
    return f"{letter}^{_write(exponent)}"


def _write(exponent: float) -> str:
    return f"{exponent:.2f}".replace("0.", ".", 1)


def _grow(along: Along, slope: Slope) -> str:
    if math.isinf(slope.value):
        return "is not finite at some size"
    word = "grows" if slope.value > 0 else "falls"
    return f"{word} as {_power(along, slope.value)}"


def _divisor(along: Along, exponent: float) -> str:
    """Names what a learning rate is to be divided by."""
    if abs(exponent - 1) < 0.25:
        return f"the {along}"
    if abs(exponent - 0.5) < 0.2:
        return f"the square root of the {along}"
    return _power(along, exponent)
