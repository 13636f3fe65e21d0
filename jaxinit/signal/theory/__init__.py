"""Mean-field theory: predicts signals and gradients of a wide network, by depth.

A layer is z' = W f(z) + b, with independent weights of variance weight_variance /
fan_in and biases of variance bias_variance. Where layers are wide every z is normal,
and two inputs give two jointly normal z of some correlation, so that a layer maps
numbers to numbers:

  q -> weight_variance E[f(u)^2] + bias_variance              the variance
  c -> (weight_variance E[f(u1) f(u2)] + bias_variance) / q'  the correlation

for u, u1, u2 of variance q and correlation c, and q' the variance after the layer. The
same expectation of the derivative, weight_variance E[f'(u)^2], is the factor on the
variance of a gradient that goes back through the layer, and the slope of the second map
at c = 1. Below 1 all inputs grow alike and gradients vanish (ordered), above 1 close
inputs part and gradients explode (chaotic); deep networks train near 1 (critical).

weight_variance is a squared gain: he_normal(gain=g) has weight_variance g^2.

References:
  Poole, Lahiri, Raghu, Sohl-Dickstein, Ganguli. Exponential expressivity in deep neural networks through transient chaos. 2016. https://arxiv.org/abs/1606.05340
  Schoenholz, Gilmer, Ganguli, Sohl-Dickstein. Deep Information Propagation. 2017. https://arxiv.org/abs/1611.01232
  Pennington, Schoenholz, Ganguli. Resurrecting the sigmoid in deep learning through dynamical isometry. 2017. https://arxiv.org/abs/1711.04735
  Cho, Saul. Kernel Methods for Deep Learning. 2009. https://papers.nips.cc/paper/3628-kernel-methods-for-deep-learning
"""  # noqa: E501

import math
from collections.abc import Iterator

from jaxinit import _check as check
from jaxinit._gain import Activation
from jaxinit.signal.theory._expectation import AnyActivation, Expectation
from jaxinit.signal.theory._mean_field import (
    ENDLESS,
    ROUNDING,
    finite_log,
    zero_of,
)
from jaxinit.signal.theory._mean_field import MeanField as MeanField
from jaxinit.signal.theory._profile import Profile as Profile
from jaxinit.signal.theory._profile import profile as profile


def critical_weight_variance(
    activation: AnyActivation,
    bias_variance: float = 0.0,
    *,
    derivative: Activation | None = None,
) -> float:
    """Computes the weight variance at which gradients keep their size.

    This is the critical line: the weight_variance for which ``MeanField(activation,
    weight_variance, bias_variance).slope`` is 1. A fixed point q on it obeys q = E[f^2]
    / E[f'^2] + bias_variance, in which only q is unknown. Of several, the smallest one
    that iteration from q = 1 leads to counts.

    Args:
      activation: as in `MeanField`.
      bias_variance: Var[b], 0 or above.
      derivative: as in `MeanField`.

    Returns:
      The weight variance, Var[W] * fan_in.

    Raises:
      ValueError: if there is no such variance, or where `MeanField` raises it.
      TypeError: if an argument has the wrong type.

    Example:
      >>> from jaxinit.signal.theory import critical_weight_variance
      >>> abs(critical_weight_variance("relu") - 2) < 1e-6
      True
      >>> abs(critical_weight_variance("tanh") - 1) < 1e-6
      True
      >>> critical_weight_variance("tanh", 0.05) > 1.7
      True

    References:
      Schoenholz, Gilmer, Ganguli, Sohl-Dickstein. Deep Information Propagation. 2017. https://arxiv.org/abs/1611.01232
    """  # noqa: E501
    try:
        bias = check.not_negative(bias_variance=bias_variance)
        of = Expectation(activation, derivative)
        for q in _find_critical_variances(of, bias):
            slope_square = of.slope_square(q)
            if 0 < slope_square < math.inf:
                network = MeanField(activation, 1 / slope_square, bias, derivative)
                if network.phase == "critical":
                    return network.weight_variance
        rule = "no weight_variance has slope 1 at a variance that q = 1 leads to."
        raise check.Unfit(rule, activation=activation)
    except check.Unfit as error:
        raise error.at("critical_weight_variance") from None


def _find_critical_variances(of: Expectation, bias: float) -> Iterator[float]:
    """Yields the solutions of q = E[f^2] / E[f'^2] + bias, the limits 0 and inf too."""

    def excess(log_q: float) -> float:
        q = math.exp(log_q)
        slope = of.slope_square(q)
        return finite_log(of.square(q) / slope + bias if slope else math.inf) - log_q

    if not bias and not of.square(0):
        yield 0.0
    low = math.log(max(bias, 1e-12))
    at_low = excess(low)
    while low < math.log(ENDLESS):
        high = low + math.log(2)
        at_high = excess(high)
        if abs(at_high) > ROUNDING:
            if (at_low > 0) != (at_high > 0):
                yield math.exp(zero_of(excess, low, high, at_low, at_high))
            at_low = at_high
        low = high
    yield math.inf
