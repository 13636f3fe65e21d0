"""AutoInit: the scale of each layer by theory, without passes over data.

References:
  Bingham, Miikkulainen. AutoInit: Analytic Signal-Preserving Weight Initialization for Neural Networks. 2023. https://arxiv.org/abs/2109.08958
"""  # noqa: E501

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend import core

from jaxinit._calibrate.changes import scale_layer
from jaxinit._calibrate.problem import Done, Problem
from jaxinit._jaxpr.equation import count_operands, list_uses
from jaxinit._jaxpr.evaluation import begin, walk
from jaxinit._jaxpr.primitives import RESHAPES, SAME, SCAN
from jaxinit._structure.activation import apply, find_activation
from jaxinit.signal.adjusting import Plan, Product
from jaxinit.signal.theory import MeanField

_AS_ARGUMENT = RESHAPES | SAME | {"gather", "dynamic_slice", "rev", "slice"}
_AS_ARGUMENT |= {"transpose"}
_POINTS = np.linspace(0.1, 4, 16, dtype=np.float32)
_CENTERED = 1e-6  # a squared mean, as a share of the second moment, that counts as 0


class Fact(NamedTuple):
    """What theory knows of an array.

    Attributes:
      mean: its mean, NaN if unknown.
      square: its mean square.
      is_data: whether it depends on the inputs; else it is made of parameters alone.
    """

    mean: float
    square: float
    is_data: bool = False


class Inverse(NamedTuple):
    """The reciprocal of the size of data, as norms divide by, times a gain.

    Attributes:
      gain: the mean square of the gain.
    """

    gain: float


Known = Fact | Inverse | None


def scale_by_theory(problem: Problem) -> Done:
    """Scales each layer to the size that gives its output the target in theory.

    Weights of mean 0 and mean square v make of inputs x the variance fan_in v E[x^2],
    so that v = target^2 / (fan_in E[x^2]). E[x^2] is that of the data at the first
    layer; E[f(u)^2] for u normal behind an activation f; 1 behind a norm; and the sum
    where branches are added.
    """
    weights = problem.weights
    stored = weights.stored
    args = jax.tree.leaves((stored, problem.noise, problem.inputs))
    targets = {
        layer.site.number: std
        for layer, std in zip(problem.layers, problem.aim.stds, strict=True)
    }
    squares: dict[int, float | None] = {}
    plan = problem.program.plan
    count = len(args) - len(problem.inputs)
    facts = [_measure(arg, place >= count) for place, arg in enumerate(args)]
    _follow(plan, facts, targets, squares)
    reasons = {}
    for number in problem.list_changed():
        layer, std = problem.layers[number], problem.aim.stds[number]
        square = squares.get(layer.site.number)
        if len(layer.site.leaves) > 1:
            reasons[number] = "stays as it is: its weight is made of several parameters"
        elif square is None:
            reasons[number] = "stays as it is: no theory tells the size of its inputs"
        elif 0 < square < math.inf:
            weight = np.asarray(weights.leaves[layer.leaves[0]], np.float64)
            steps = layer.scale_axes[0][0]
            others = tuple(axis for axis in range(weight.ndim) if axis not in steps)
            size = np.sqrt((weight**2).mean(others))
            wanted = std / math.sqrt(layer.site.fan_in * square)
            with np.errstate(divide="ignore"):
                scale_layer(weights, layer, np.where(size > 0, wanted / size, 1.0))
    return Done(1, reasons=reasons)


def _measure(array: Any, is_data: bool = False) -> Fact | None:
    """Finds the moments of an argument of the program; None of what is no number."""
    if not jax.numpy.issubdtype(array.dtype, np.floating):
        return None
    values = np.asarray(array, np.float64)
    return Fact(float(values.mean()), float((values**2).mean()), is_data)


def _follow(
    plan: Plan,
    facts: Sequence[Known],
    targets: Mapping[int, float],
    squares: dict[int, float | None],
) -> None:
    """Follows facts through a program, and notes E[x^2] of the inputs of layers."""
    jaxpr = plan.closed.jaxpr
    uses = list_uses(jaxpr)
    layers = {site.output: site for site in plan.sites if isinstance(site, Product)}
    behind: dict[Any, Fact] = {}  # the facts of values behind activations

    def note(variable: Any, fact: Known) -> Known:
        """Notes the fact of what an activation makes of a variable."""
        if isinstance(fact, Fact) and fact.mean**2 <= _CENTERED * fact.square:
            chain, end = find_activation(jaxpr, variable, uses, {})
            if end is not None:

                def function(x: Any) -> Any:
                    return apply(chain, variable, end, x)

                square = MeanField(function, 1.0).variance_map(fact.square)
                odd = np.allclose(function(_POINTS), -function(-_POINTS), atol=1e-6)
                behind[end] = Fact(0.0 if odd else math.nan, square, True)
        return fact

    def rule(eqn: core.JaxprEqn, facts: list[Known]) -> list[Known]:
        results = eqn.outvars
        if body := plan.inner.get(eqn):
            if eqn.primitive.name == SCAN:
                consts, carried = count_operands(eqn)
                facts[consts : consts + carried] = [None] * carried
            _follow(body, facts, targets, squares)
            return [None] * len(results)
        if results[0] in layers:
            std = targets[layers[results[0]].number]
            return [note(results[0], Fact(0.0, std**2, True))]
        if results[0] in behind:
            return [behind[results[0]]]
        fact = _compute(eqn.primitive.name, facts)
        if eqn.primitive.name in ("add", "mul"):
            note(results[0], fact)
        return [fact] * len(results)

    values = begin(jaxpr, [None] * len(jaxpr.constvars), facts)
    walk(jaxpr.eqns, values, rule, constant=_measure_constant)
    for site in layers.values():
        fact = values[site.input]
        squares[site.number] = fact.square if isinstance(fact, Fact) else None


def _measure_constant(atom: Any) -> Fact | None:
    return _measure(np.asarray(atom.val))


def _compute(name: str, facts: Sequence[Known]) -> Known:
    """Finds the fact of a result, from those of independent operands."""
    first, second = (*facts, None)[:2]
    if name in _AS_ARGUMENT:
        return first
    if name in ("rsqrt", "sqrt"):
        # Of what is known of no operation, sums over data: a norm multiplies by it, or
        # divides by it.
        return _take_root(name, first) if isinstance(first, Fact) else Inverse(1.0)
    if name in ("mul", "div") and Inverse in map(type, facts):
        norm, other = (first, second) if isinstance(first, Inverse) else (second, first)
        assert isinstance(norm, Inverse)
        if isinstance(other, Fact) and not other.is_data:
            return Inverse(norm.gain * other.square)
        centered = not isinstance(other, Fact) or other.mean == 0
        return Fact(0.0 if centered else math.nan, norm.gain, True)
    if not (isinstance(first, Fact) and isinstance(second, Fact)):
        return None
    data = first.is_data or second.is_data
    means = [0.0 if fact.square == 0 else fact.mean for fact in (first, second)]
    both = 0.0 if 0 in means else means[0] * means[1]
    if name == "mul":
        return Fact(both, first.square * second.square, data)
    if name in ("add", "sub") and not math.isnan(both):
        sign = 1 if name == "add" else -1
        square = first.square + second.square + 2 * sign * both
        return Fact(means[0] + sign * means[1], square, data)
    return None


def _take_root(name: str, fact: Fact) -> Known:
    """Finds the root of a constant, such as the variances of a norm that are stored."""
    if fact.mean <= 0 or fact.mean**2 < (1 - _CENTERED) * fact.square:
        return None
    root = fact.mean ** (-0.5 if name == "rsqrt" else 0.5)
    return Fact(root, root**2, fact.is_data)
