"""Weights without randomness: zeros, ones, any constant."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from jaxinit import _check as check
from jaxinit._initializer import Drawn, Moments, initializer


def _filled(value: Any) -> Drawn:
    """Returns a draw that broadcasts a number or array to the shape."""
    try:
        array = np.asarray(value)
        numeric = jnp.issubdtype(array.dtype, np.number) or array.dtype == np.bool_
    except ValueError:  # rows of different lengths
        numeric = False
    if not numeric:
        rule = "value must be a number or a regular array of numbers."
        raise check.Unfit(rule, TypeError, value=value)

    def fits(shape: tuple[int, ...]) -> None:
        try:
            fitting = np.broadcast_shapes(array.shape, shape) == shape
        except ValueError:
            fitting = False
        if not fitting:
            rule = (
                f"value has shape {array.shape}, which does not broadcast to this one."
            )
            raise check.Unfit(rule, shape=shape)

    def fill(key: Any, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
        fits(shape)
        if np.iscomplexobj(array) and not jnp.issubdtype(dtype, np.complexfloating):
            raise check.Unfit("value is complex.", dtype=dtype.name)
        if np.dtype(dtype).kind in "iu":
            bounds = jnp.iinfo(dtype)
            if np.any((array < bounds.min) | (array > bounds.max) | (array % 1 != 0)):
                rule = "value is not an integer that this type holds."
                raise check.Unfit(rule, dtype=dtype.name)
        return jnp.broadcast_to(jnp.asarray(array.astype(dtype)), shape)

    def moments(shape: tuple[int, ...]) -> Moments:
        fits(shape)
        return Moments(array.mean().item(), array.var().item())

    return fill, moments


@initializer(random=False)
def zeros(dtype: DTypeLike | None = None) -> Drawn:
    """Builds an initializer of zeros.

    Law: w = 0; Var[w] = 0.

    For biases. A layer whose kernel is zero passes no signal and its units stay equal:
    the symmetry that training cannot break. Both ``zeros(key, shape)`` and
    ``zeros()(key, shape)`` work; the key is ignored. Any number type.

    Args:
      dtype: default dtype of the weights.

    Returns:
      An `Initializer`, or the array when called with key and shape.

    Example:
      >>> bool((zeros(jax.random.key(0), (2, 3)) == zeros()(None, (2, 3))).all())
      True

    References:
      Goodfellow, Bengio, Courville. Deep Learning, section 8.4. 2016.
      https://www.deeplearningbook.org
    """
    return _filled(0)


@initializer(random=False)
def ones(dtype: DTypeLike | None = None) -> Drawn:
    """Builds an initializer of ones.

    Law: w = 1; Var[w] = 0.

    For the scales of normalisation layers. Called like `zeros`.

    Args:
      dtype: default dtype of the weights.

    Returns:
      An `Initializer`, or the array when called with key and shape.

    Example:
      >>> float(ones(jax.random.key(0), (2, 3)).sum())
      6.0

    References:
      Ioffe, Szegedy. Batch Normalization. 2015. https://arxiv.org/abs/1502.03167
    """
    return _filled(1)


@initializer(random=False)
def constant(value: ArrayLike, dtype: DTypeLike | None = None) -> Drawn:
    """Builds an initializer of one value, or of an array that broadcasts to the shape.

    Law: w = value; Var[w] = 0.

    Args:
      value: a number, or an array whose shape broadcasts to that of the weight.
      dtype: default dtype of the weights, any number type; an integer type must hold
        the value exactly.

    Returns:
      An `Initializer`; it ignores the key.

    Raises:
      TypeError: if value is not numeric.
      ValueError: at the call, if value does not broadcast to the shape, or the dtype
        cannot hold it.

    Example:
      >>> constant([1.0, 2.0])(None, (3, 2)).tolist()
      [[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]]

    References:
      Goodfellow, Bengio, Courville. Deep Learning, section 8.4. 2016.
      https://www.deeplearningbook.org
    """
    return _filled(value)
