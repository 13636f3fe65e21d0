"""`MeanField`: the maps of a network of equal layers, and their fixed points."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from jaxinit import _check as check
from jaxinit._gain import Activation
from jaxinit.signal.theory._expectation import (
    LARGEST,
    SMALLEST,
    AnyActivation,
    Expectation,
    check_correlation,
)

Phase = Literal["ordered", "critical", "chaotic"]

# A slope this close to 1 counts as 1: a hundred times the error of quadrature, and a
# depth scale of a million layers.
TOLERANCE = 1e-6
ROUNDING = 1e-12  # the rounding of a ratio of two expectations, with a margin
ENDLESS = 1e24  # a variance that grows to this grows without end


@dataclass(frozen=True)
class MeanField:
    """A wide, deep, fully connected network of equal layers, as two maps.

    Expectations are computed by quadrature in float64, to about 1e-8 of their size for
    any activation that is smooth between bends and jumps. Up to 8 of these are found
    anywhere within +-16; more, or steps of less than 1/100 in u, cost digits, and so do
    many oscillations within u = +-9 sqrt(q): "sin" is right to 1e-8 at q = 10, to 1e-6
    at 30 and to 1e-3 at 100.

    Attributes:
      activation: f: a name that `jaxinit.gain` knows, a (name, parameter) pair such as
        ("leaky_relu", 0.2), or an elementwise function in JAX or NumPy.
      weight_variance: Var[W] * fan_in, above 0: the squared gain.
      bias_variance: Var[b], 0 or above.
      derivative: f', if it is not the derivative of f, such as a straight-through
        estimate. By default it is JAX's derivative, or central differences for a NumPy
        function; where f jumps, its square is infinite.

    Raises:
      ValueError: if a variance is out of range, a name is unknown, or the function is
        not elementwise, is not real or returns NaN.
      TypeError: if an argument has the wrong type.

    Example:
      >>> from jaxinit.signal.theory import MeanField
      >>> he = MeanField("relu", weight_variance=2)
      >>> abs(he.variance_map(3.0) - 3.0) < 1e-6, he.phase
      (True, 'critical')
      >>> wild = MeanField(jnp.tanh, weight_variance=2.5**2, bias_variance=0.3**2)
      >>> wild.phase, 0 < wild.fixed_correlation < 1
      ('chaotic', True)

    References:
      Schoenholz, Gilmer, Ganguli, Sohl-Dickstein. Deep Information Propagation. 2017. https://arxiv.org/abs/1611.01232
    """  # noqa: E501

    activation: AnyActivation
    weight_variance: float
    bias_variance: float = 0.0
    derivative: Activation | None = None
    _of: Expectation = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Checks the arguments, and prepares the expectations."""
        try:
            weight = check.not_negative(weight_variance=self.weight_variance)
            if not weight:
                rule = "weight_variance must be above 0."
                raise check.Unfit(rule, weight_variance=self.weight_variance)
            bias = check.not_negative(bias_variance=self.bias_variance)
            expectation = Expectation(self.activation, self.derivative)
        except check.Unfit as error:
            raise error.at("MeanField") from None
        object.__setattr__(self, "weight_variance", weight)
        object.__setattr__(self, "bias_variance", bias)
        object.__setattr__(self, "_of", expectation)

    def variance_map(self, q: float) -> float:
        """Computes the variance after a layer from q, the variance before it.

        It is weight_variance E[f(u)^2] + bias_variance, for u of variance q.
        """
        return self._variance(_check_variance("variance_map", q))

    def correlation_map(self, c: float, q: float | None = None) -> float:
        """Computes the correlation after a layer from c, the correlation before it.

        It is (weight_variance E[f(u1) f(u2)] + bias_variance) / variance_map(q), for u1
        and u2 of variance q (by default the fixed point) and correlation c; the limit
        where q is 0 or infinite.
        """
        try:
            c = check_correlation(c=c)
        except check.Unfit as error:
            raise error.at("MeanField.correlation_map") from None
        q = self.fixed_point if q is None else _check_variance("correlation_map", q)
        return 1 - self._distance(q, 1 - c)

    @cached_property
    def fixed_point(self) -> float:
        """The variance q* that many layers lead to, from q = 1.

        It is the first zero of variance_map(q) - q in the direction in which the map
        moves q = 1; 1 if the map does not move it; 0.0 if the signal dies out, and
        infinite if it grows without end (beyond 1e24).
        """
        lowest = math.log(1e-290 if self._variance(0) else 1e-12)
        near = 0.0  # log q of the last variance that the map moves
        growth = self._growth(near)
        if abs(growth) <= ROUNDING:
            return 1.0
        step = math.copysign(math.log(4), growth)
        far = step
        while lowest < far < math.log(ENDLESS):
            other = self._growth(far)
            if abs(other) > ROUNDING:
                if (other > 0) != (growth > 0):
                    return math.exp(zero_of(self._growth, near, far, growth, other))
                near, growth = far, other
            far += step
        return 0.0 if step < 0 else math.inf

    @cached_property
    def fixed_correlation(self) -> float:
        """The correlation c* that many layers lead to, for any two different inputs.

        It is 1.0 unless the slope of the correlation's map at c = 1 is above 1; then it
        is the one other fixed point, between 0 and 1. There is only one, since the
        map's Taylor coefficients are not negative. Where q is 0 or infinite, it is the
        fixed point of the map's limit, and NaN if there is no limit.
        """
        slope = self._correlation_slope(0.0)
        if math.isnan(slope):
            return slope
        if slope <= 1 + TOLERANCE:
            return 1.0
        q = self.fixed_point
        independent = self.weight_variance * self._of.mean(q) ** 2 + self.bias_variance
        if independent <= ROUNDING * self._variance(q):
            return 0.0

        def excess(r: float) -> float:  # falls from slope - 1, which may be infinite
            return self._distance(q, r) / r - 1

        return 1 - zero_of(excess, 0, 1, min(slope, 1e3) - 1, excess(1))

    @cached_property
    def slope(self) -> float:
        """The factor on a gradient's variance, per layer: weight_variance E[f'(u)^2].

        u has the variance `fixed_point`, or its limit. It is often written chi_1.
        """
        return self.weight_variance * self._of.slope_square(self.fixed_point)

    @property
    def phase(self) -> Phase:
        """Ordered if the slope is below 1, chaotic if above, critical within 1e-6."""
        if abs(self.slope - 1) <= TOLERANCE:
            return "critical"
        return "ordered" if self.slope < 1 else "chaotic"

    @cached_property
    def depth_scale_variance(self) -> float:
        """The number of layers in which the distance to the fixed point shrinks by e.

        It is -1 / log(weight_variance E[f'(u)^2 + f(u) f''(u)]), where the argument is
        the slope of `variance_map` at its fixed point; infinite if that is not below 1.
        """
        return _depth_scale(
            self.weight_variance * self._of.square_growth(self.fixed_point)
        )

    @cached_property
    def depth_scale_correlation(self) -> float:
        """The number of layers in which the distance to `fixed_correlation` shrinks by e.

        It is -1 / log(weight_variance E[f'(u1) f'(u2)]), where the argument is the
        slope of `correlation_map` at its fixed point; infinite if that is not below 1,
        as happens without biases if the variance dies out or grows without end: a
        linear map and that of relu have slope 1. A network can be trained up to a depth
        of a small multiple of this scale.
        """  # noqa: E501
        return _depth_scale(self._correlation_slope(1 - self.fixed_correlation))

    def gain_forward(self, q: float = 1.0) -> float:
        """Computes the gain that makes up for the activation: sqrt(q / E[f(u)^2]).

        u has variance q. At q = 1 this is `jaxinit.gain` of the function.
        """
        q = _check_variance("gain_forward", q)
        square = self._of.square(q)
        return math.sqrt(q / square) if square else math.inf

    def gain_backward(self, q: float = 1.0) -> float:
        """Computes the gain that keeps gradients: 1 / sqrt(E[f'(u)^2]).

        u has variance q. Weights with Var[W] * fan_out = gain^2 give a gradient the
        same variance on both sides of a layer.
        """
        square = self._of.slope_square(_check_variance("gain_backward", q))
        return 1 / math.sqrt(square) if square else math.inf

    def _variance(self, q: float) -> float:
        return self.weight_variance * self._of.square(q) + self.bias_variance

    def _growth(self, log_q: float) -> float:
        """Computes the logarithm of variance_map(q) / q, from log q."""
        q = math.exp(log_q)
        return finite_log(self._variance(q)) - log_q

    def _distance(self, q: float, r: float) -> float:
        """Computes 1 - c after a layer, from r = 1 - c before it."""
        q = min(max(q, SMALLEST), LARGEST)
        difference = self.weight_variance * self._of.half_difference(q, r)
        return difference / self._variance(q) if difference else 0.0

    def _correlation_slope(self, r: float) -> float:
        """Computes the slope of the correlation's map at c = 1 - r."""
        q = min(max(self.fixed_point, SMALLEST), LARGEST)
        slope = self.weight_variance * self._of.slope_product(q, r)
        return slope * q / self._variance(q) if slope else 0.0


def zero_of(
    function: Callable[[float], float], a: float, b: float, at_a: float, at_b: float
) -> float:
    """Finds a zero between a and b, at which the function's signs differ.

    The method is regula falsi with the weights of Anderson and Bjoerck (1973).
    """
    for _ in range(100):
        x = b - at_b * (b - a) / (at_b - at_a)
        at_x = function(x)
        if (at_x > 0) == (at_b > 0):
            shrink = 1 - at_x / at_b
            at_a *= shrink if shrink > 0 else 0.5
        else:
            a, at_a = b, at_b
        if abs(x - b) <= 1e-13 * (abs(x) + 1) or not at_x:
            return x
        b, at_b = x, at_x
    return b


def finite_log(number: float) -> float:
    """Computes a logarithm that is finite at 0 and infinity too."""
    return math.log(min(max(number, 1e-300), 1e300))


def _depth_scale(factor: float) -> float:
    """Computes the number of equal factors over which their product falls by e."""
    factor = abs(factor)
    if not factor < 1 - TOLERANCE:
        return math.inf
    return -1 / math.log(factor) if factor else 0.0


def _check_variance(method: str, q: float) -> float:
    try:
        return check.not_negative(q=q)
    except check.Unfit as error:
        raise error.at(f"MeanField.{method}") from None
