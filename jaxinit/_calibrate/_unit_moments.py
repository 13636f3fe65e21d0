"""Moments of a layer's product and its bias, and the scale that they lead to."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Moments(NamedTuple):  # each [units], or a number for a whole layer
    """Moments of a layer, whose output is its product plus its bias.

    Attributes:
      product: the mean of the product.
      spread: its variance.
      bias: the mean of the bias.
      across: the variance of the bias, which differs from unit to unit.
      joint: the covariance of both.
    """

    product: Any  # arrays of JAX in a pass, of NumPy behind it
    spread: Any
    bias: Any
    across: Any
    joint: Any

    @property
    def mean(self) -> Any:
        """The mean of the output."""
        return self.product + self.bias

    @property
    def std(self) -> Any:
        """The standard deviation of the output."""
        variance = self.spread + 2 * self.joint + self.across
        return abs(variance) ** 0.5  # rounding may make a variance of 0 negative

    @property
    def is_constant(self) -> Any:
        """Whether the product does not vary by more than rounding of its mean."""
        eps = np.finfo(self.spread.dtype).eps
        return self.spread**0.5 <= 8 * eps * abs(self.product)

    @property
    def is_alive(self) -> Any:
        """Whether the product varies, by finite numbers, so that it can be scaled."""
        return ~self.is_constant & (abs(self.spread) < np.inf)


def widen(dtype: Any) -> Any:
    """Returns the type to compute in: float32 or wider."""
    return dtype if dtype.itemsize >= 4 else np.dtype(np.float32)


class Solution(NamedTuple):
    """What becomes of a layer.

    Attributes:
      scale: the factor on its weight, for each unit, or for the whole layer.
      bias: its new bias, for each unit; None where the bias stays.
    """

    scale: Any
    bias: Any


def measure(
    product: jax.Array, bias: jax.Array | None, units: Sequence[int]
) -> Moments:
    """Computes the moments over all axes but those of units.

    Args:
      product: a layer's product with its weight.
      bias: its bias, in the same shape, or None.
      units: axes of units. In the result they stand in this order.
    """
    order = [*units, *(i for i in range(product.ndim) if i not in units)]
    sizes = [product.shape[axis] for axis in units]
    flat = product.transpose(order).reshape(*sizes, -1)
    around = flat.mean(-1)
    apart = flat - around[..., None]
    zeros = jnp.zeros_like(around)
    moments = Moments(around, (apart**2).mean(-1), zeros, zeros, zeros)
    if bias is None:
        return moments
    level = bias.transpose(order).reshape(*sizes, -1)
    first = level[..., 0]  # of a unit all are equal: nothing is rounded
    off = level - first[..., None]
    rest = off.mean(-1)
    off -= rest[..., None]
    return moments._replace(
        bias=first + rest, across=(off**2).mean(-1), joint=(off * apart).mean(-1)
    )


def pool(moments: Moments, axes: Sequence[int]) -> Moments:
    """Joins the moments of equally many entries, along axes of an array of moments."""
    if not axes:
        return moments
    axis = tuple(axes)
    product, bias = moments.product.mean(axis), moments.bias.mean(axis)
    off = moments.product - moments.product.mean(axis, keepdims=True)
    level = moments.bias - moments.bias.mean(axis, keepdims=True)
    return Moments(
        product,
        (moments.spread + off**2).mean(axis),
        bias,
        (moments.across + level**2).mean(axis),
        (moments.joint + off * level).mean(axis),
    )
