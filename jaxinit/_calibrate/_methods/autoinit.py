"""AutoInit: the scale of each layer by theory, without passes over data.

References:
  Bingham, Miikkulainen. AutoInit: Analytic Signal-Preserving Weight Initialization for Neural Networks. 2023. https://arxiv.org/abs/2109.08958
"""  # noqa: E501

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend import core

from jaxinit._calibrate.changes import scale_layer
from jaxinit._calibrate.problem import Done, Problem
from jaxinit._calibrate.scales import Layer
from jaxinit._jaxpr.equation import count_operands, list_uses, open_body
from jaxinit._jaxpr.evaluation import begin, evaluate, walk
from jaxinit._jaxpr.primitives import RESHAPES, SAME, SCAN, WRAPPERS
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


class Sum(NamedTuple):
    """A sum of something over data.

    Attributes:
      number: how many numbers are added; 1 for a mean, of which norms take the root.
    """

    number: int


Known = Fact | Inverse | Sum | None


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class _Sizes:
    """What theory finds of the sizes of layers on its way through a program.

    Attributes:
      layers: each layer by the number of its site.
      targets: the standard deviations of those that can be scaled.
      inputs: E[x^2] of the inputs, by the number of the site; None if unknown.
      weights: the mean squares of weights that are scaled, by their parameters.
    """

    layers: Mapping[int, Layer]
    targets: Mapping[int, float]
    inputs: dict[int, float | None] = dataclasses.field(default_factory=dict)
    weights: dict[tuple[int, ...], float] = dataclasses.field(default_factory=dict)

    def find_output(self, site: Product, values: Mapping[Any, Known]) -> Known:
        """Finds the fact of a layer's output, and notes what leads to it."""
        x, weight = values[site.input], values[site.weight]
        bias = Fact(0.0, 0.0) if site.bias is None else values[site.bias]
        square = x.square if isinstance(x, Fact) else None
        self.inputs[site.number] = square
        layer, std = self.layers[site.number], self.targets.get(site.number)
        size = weight.square if isinstance(weight, Fact) else None
        if std is not None and square and math.isfinite(square) and size != 0:
            self.weights[layer.leaves] = std**2 / (site.fan_in * square)
        size = self.weights.get(layer.leaves, size) if layer.leaves else size
        if square is None or size is None or not isinstance(bias, Fact):
            return None
        return Fact(0.0, site.fan_in * size * square + bias.square, True)


def scale_by_theory(problem: Problem) -> Done:
    """Scales each layer to the size that gives its output the target in theory.

    Weights of mean 0 and mean square v make of inputs x the variance fan_in v E[x^2],
    so that v = target^2 / (fan_in E[x^2]). E[x^2] is that of the data at the first
    layer; E[f(u)^2] for u normal behind an activation f; 1 behind a norm; and the sum
    where branches are added. A layer that stays as it is makes fan_in v E[x^2] of it;
    the mean square of a bias is added.
    """
    weights = problem.weights
    stored = weights.stored
    args = jax.tree.leaves((stored, problem.noise, problem.inputs))
    changed = [(problem.layers[i], problem.aim.stds[i]) for i in problem.list_changed()]
    sizes = _Sizes(
        layers={layer.site.number: layer for layer in problem.layers},
        targets={x.site.number: std for x, std in changed if len(x.site.leaves) == 1},
    )
    plan = problem.program.plan
    count = len(args) - len(problem.inputs)
    facts = [_measure(arg, place >= count) for place, arg in enumerate(args)]
    _follow(plan, facts, sizes)
    reasons = {}
    for number in problem.list_changed():
        layer, std = problem.layers[number], problem.aim.stds[number]
        square = sizes.inputs.get(layer.site.number)
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
    sizes: _Sizes,
) -> None:
    """Follows facts through a program, and notes the sizes of its layers."""
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

    def rule(eqn: core.JaxprEqn, facts: list[Known]) -> Sequence[Known]:
        results = eqn.outvars
        if body := plan.inner.get(eqn):
            if eqn.primitive.name == SCAN:
                consts, carried = count_operands(eqn)
                facts[consts : consts + carried] = [None] * carried
            _follow(body, facts, sizes)
            return [None] * len(results)
        if results[0] in layers:
            fact = sizes.find_output(layers[results[0]], values)
            return [note(results[0], fact)]
        if results[0] in behind:
            return [behind[results[0]]]
        made = _compute(eqn, facts)
        if eqn.primitive.name in ("add", "mul"):
            note(results[0], made[0])
        return made

    values = begin(jaxpr, [None] * len(jaxpr.constvars), facts)
    walk(jaxpr.eqns, values, rule, constant=_measure_constant)


def _measure_constant(atom: Any) -> Fact | None:
    value = np.asarray(atom.val)
    return _measure(value.astype(float) if value.dtype.kind in "iu" else value)


def _compute(eqn: core.JaxprEqn, facts: list[Known]) -> Sequence[Known]:
    """Finds the facts of an equation's results, from those of independent operands."""
    name, results = eqn.primitive.name, len(eqn.outvars)
    if name in WRAPPERS and (body := open_body(eqn)):
        consts = [_measure(np.asarray(const)) for const in body.consts]
        made = evaluate(body.jaxpr, consts, facts, _compute, _measure_constant)
        # Activations are followed as a whole, and not here.
        return [fact if isinstance(fact, (Sum, Inverse)) else None for fact in made]
    if name == "reduce_sum":
        operand: Any = eqn.invars[0]
        sizes = operand.aval.shape
        return [Sum(math.prod(sizes[axis] for axis in eqn.params["axes"]))] * results
    if Sum in map(type, facts):
        return [_follow_sum(name, facts)] * results
    return [_combine(name, facts)] * results


def _follow_sum(name: str, facts: Sequence[Known]) -> Known:
    """Follows a sum over data until it is a mean, and its root is taken."""
    first, second = (*facts, None)[:2]
    if name in _AS_ARGUMENT:
        return first
    if isinstance(first, Sum) and isinstance(second, Fact):
        by = second.mean if name == "div" else 1 / second.mean if second.mean else 0
        if name in ("div", "mul") and math.isclose(by, first.number, rel_tol=1e-5):
            return Sum(1)
    facts = facts[1:] if name == "select_n" else facts  # those it selects from
    means = [fact for fact in facts if isinstance(fact, Sum) and fact.number == 1]
    others = [fact for fact in facts if not isinstance(fact, Sum)]
    fixed = all(isinstance(fact, Fact) and not fact.is_data for fact in others)
    if not fixed or len(means) + len(others) != len(facts):
        return None
    if name in ("rsqrt", "sqrt"):
        return Inverse(1.0)
    alike = name in ("abs", "add", "integer_pow", "max", "select_n", "square", "sub")
    return Sum(1) if alike or (name == "mul" and not others) else None


def _combine(name: str, facts: Sequence[Known]) -> Known:
    """Finds the fact of a result, where no operand is a sum over data."""
    first, second = (*facts, None)[:2]
    if name in _AS_ARGUMENT:
        return first
    if name in ("rsqrt", "sqrt"):
        return _take_root(name, first) if isinstance(first, Fact) else None
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
