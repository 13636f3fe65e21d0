"""Sparse weights, most of which are zero."""

import math

import jax
import numpy as np
from jax.typing import DTypeLike

from jaxinit import _check as check
from jaxinit import _extent as extents
from jaxinit import random
from jaxinit._initializer import Drawn, Moments, initializer


@initializer
def sparse(
    sparsity: float, stddev: float = 1e-2, dtype: DTypeLike | None = None
) -> Drawn:
    """Builds an initializer of normal weights, a stated share of which are zero.

    Law: N(0, stddev^2), and 0 in ceil(sparsity fan_in) of the fan_in weights of each
    output; Var[w] = stddev^2 (1 - zeros / fan_in).

    Outputs run along the last axis, and the count is exact for each: every output has
    the same number of inputs, chosen uniformly without replacement.

    Args:
      sparsity: the share of zeros, from 0 to 1.
      stddev: standard deviation of the weights that are not zero, 0 or above.
      dtype: default dtype of the weights, float or complex.

    Returns:
      An `Initializer`.

    Raises:
      ValueError: if sparsity is not in [0, 1] or stddev is negative; at the call, if
        the shape has fewer than two axes.

    Example:
      >>> w = sparse(0.9)(jax.random.key(0), (100, 8))
      >>> (w == 0).sum(axis=0).tolist()
      [90, 90, 90, 90, 90, 90, 90, 90]

    References:
      Martens. Deep learning via Hessian-free optimization. 2010.
      https://www.cs.toronto.edu/~jmartens/docs/Deep_HessianFree.pdf
    """
    sparsity = check.fraction(sparsity=sparsity)
    stddev = check.not_negative(stddev=stddev)

    def zeros(shape: tuple[int, ...]) -> tuple[int, int]:
        """Returns how many weights of an output are zero, and how many it has."""
        if len(shape) < 2:
            raise check.Unfit(
                "needs an axis of inputs and one of outputs.", shape=shape
            )
        rows = math.prod(shape[:-1])
        return math.ceil(sparsity * rows), rows

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
        count, rows = zeros(shape)
        values, places = jax.random.split(key)
        weight = random.normal(values, shape, dtype) * np.asarray(stddev, dtype)
        zero = random.subset(places, count, (rows, shape[-1])).reshape(shape)
        return jax.numpy.where(zero, np.zeros((), dtype), weight)

    def moments(shape: tuple[int, ...]) -> Moments:
        count, rows = zeros(shape)
        return Moments(0.0, stddev * stddev * (1 - count / rows))

    return draw, moments, lambda shape: extents.normal(0.0, stddev)
