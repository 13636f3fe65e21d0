"""Computes variances forwards through a wide network, and of gradients backwards.

A variance is a number; behind convolutions it is a field over positions, because zero
padding takes less of the signal at the border. A convolution has the variance

  q(p) = Var[b] + Var[W] fan_in sum_t s(t) m(p * stride + t * dilation - padding)

at position p. m is the second moment of its input, zero outside of it; s(t) is the
share of tap t in the variance of the weights, the same for all taps if the entries are
independent and of one law. Backwards the sum is transposed.

References:
  Xiao, Bahri, Sohl-Dickstein, Schoenholz, Pennington. Dynamical Isometry and a Mean Field Theory of CNNs. 2018. https://arxiv.org/abs/1806.05393
"""  # noqa: E501

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxinit.signal.theory._expectation import LARGEST, Expectation

Field = Any  # a number, or an array over positions


@dataclass(frozen=True)
class Dense:
    """A layer in which every output sums over all inputs.

    Attributes:
      weight: Var[W] * fan_in.
      bias: Var[b].
      ratio: fan_out / fan_in.
    """

    weight: float
    bias: float
    ratio: float

    def variance(self, moment: Field) -> Field:
        """Computes the variance of the output from the input's second moment."""
        return self.weight * float(np.mean(moment)) + self.bias

    def gradient(self, gradient: Field) -> Field:
        """Computes the variance of a gradient at the input from that at the output."""
        return self.weight * self.ratio * gradient


@dataclass(frozen=True, eq=False)
class Convolution(Dense):
    """A layer in which an output sums over the inputs under its window.

    Attributes:
      shares: the shares of the taps in the weights' variance; their sum is 1. # [*taps]
      sizes: the sizes of the input's axes.
      places: for each axis, the positions in the input under the taps of each output;
        -1 for padding. # [outputs, taps]
    """

    shares: np.ndarray
    sizes: tuple[int, ...]
    places: tuple[np.ndarray, ...]

    def variance(self, moment: Field) -> Field:
        """As in `Dense`, by position."""
        padded = np.pad(np.broadcast_to(moment, self.sizes), (0, 1))  # -1 is a zero
        taps = np.ndenumerate(self.shares)
        total = sum(share * padded[self._index_under(tap)] for tap, share in taps)
        return self.weight * total + self.bias

    def gradient(self, gradient: Field) -> Field:
        """As in `Dense`, by position."""
        padded = np.zeros([size + 1 for size in self.sizes])
        for tap, share in np.ndenumerate(self.shares):
            np.add.at(padded, self._index_under(tap), share * gradient)
        inside = padded[tuple(map(slice, self.sizes))]
        return self.weight * self.ratio * inside

    def _index_under(self, tap: tuple[int, ...]) -> tuple[np.ndarray, ...]:
        """Returns the index of the inputs under a tap, for all outputs."""
        each = zip(self.places, tap, strict=True)
        return np.ix_(*(places[:, t] for places, t in each))


def propagate_variances(
    of: Sequence[Expectation], layers: Sequence[Dense], moment: Field
) -> tuple[list[Field], list[Field]]:
    """Computes variances, and second moments behind the activations, layer by layer."""
    variances, moments = [], []
    for activation, layer in zip(of, layers, strict=True):
        variances.append(layer.variance(moment))
        moment = _evaluate_field(activation.square, variances[-1])
        moments.append(moment)
    return variances, moments


def propagate_gradients(
    of: Sequence[Expectation],
    layers: Sequence[Dense],
    variances: Sequence[Field],
    last: Field,
) -> list[Field]:
    """Computes the variances of gradients, layer by layer, from that at the last."""
    gradients = [last]
    for index in reversed(range(len(layers) - 1)):
        q, gradient = variances[index], layers[index + 1].gradient(gradients[-1])
        if not np.ndim(q):  # a dense layer, perhaps before a convolution
            gradient = float(np.mean(gradient))
        gradients.append(_evaluate_field(of[index].slope_square, q) * gradient)
    return gradients[::-1]


def _evaluate_field(expectation: Callable[[float], float], q: Field) -> Field:
    """Computes an expectation at each variance of a field.

    If there are many, it interpolates by a polynomial in log q, of which expectations
    are analytic functions: the degree makes it right to 1e-6 of the largest value.
    Variances more than eight decades below the largest are raised to that.
    """
    if not np.ndim(q):
        return expectation(q)
    values, place = np.unique(np.minimum(q, LARGEST), return_inverse=True)
    high = values[-1]
    low = max(values[0], 1e-8 * high)
    degree = 8 + math.ceil(2 * math.log(high / low)) if high else 0
    if values.size <= degree + 1:
        expected = np.array([expectation(value) for value in values.tolist()])
    else:
        curve = np.polynomial.Chebyshev.interpolate(
            np.vectorize(lambda log: expectation(math.exp(log))),
            degree,
            [math.log(low), math.log(high)],
        )
        expected = np.maximum(curve(np.log(np.maximum(values, low))), 0)
    return expected[place].reshape(q.shape)
