"""Layers stacked in one weight, each drawn on its own."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxinit import _check as check
from jaxinit._axes import Axes, layer_of, positions
from jaxinit._extent import Extent
from jaxinit._initializer import Drawn, Initializer, Moments, initializer
from jaxinit.initializers._inner import check_init, draw_part, extent_of, moments_of


@initializer
def stacked(
    init: Callable[..., Any], axis: Axes = 0, dtype: DTypeLike | None = None
) -> Drawn:
    """Builds an initializer of layers stacked in one weight, as `nn.scan` stacks them.

    Law: that of init for the shape of one layer; Var[w] is one layer's.

    Layer i of the stack is ``init(jax.random.fold_in(key, i), shape of a layer)``: it
    does not depend on how many layers there are, and fans, norms and sparsity are those
    of a layer.

    Args:
      init: draws one layer: an initializer, or any function of (key, shape, dtype).
        Its own default dtype is ignored.
      axis: the axis, or axes, that count the layers; several count in row-major order.
      dtype: default dtype of the weights, float or complex.

    Returns:
      An `Initializer`.

    Raises:
      TypeError: if init is not a function, or an axis not an integer.
      ValueError: at the call, if the shape lacks the axis or a layer does not fit init.

    Example:
      >>> w = stacked(orthogonal())(jax.random.key(0), (12, 64, 64))
      >>> bool(abs(w[3].T @ w[3] - jnp.eye(64)).max() < 1e-5)
      True

    References:
      Heek, Levskaya, Oliver, Ritter, Rondepierre, Steiner, van Zee. Flax: a neural
      network library and ecosystem for JAX. 2020. https://github.com/google/flax
    """
    check_init(init=init)
    check.axes(axis=axis)

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
        layer, stack = layer_of(shape, axis), positions(shape, axis=axis)
        sizes = [shape[place] for place in stack]

        def one(number: jax.Array) -> jax.Array:
            return draw_part(
                init, jax.random.fold_in(key, number), layer, dtype, shape, "layer"
            )

        layers = jax.vmap(one)(jnp.arange(math.prod(sizes), dtype=np.uint32))
        return jnp.moveaxis(layers.reshape(*sizes, *layer), range(len(stack)), stack)

    def moments(shape: tuple[int, ...]) -> Moments | None:
        if not isinstance(init, Initializer):
            return None
        return moments_of(init, layer_of(shape, axis))

    def extent(shape: tuple[int, ...]) -> Extent | None:
        if not isinstance(init, Initializer):
            return None
        return extent_of(init, layer_of(shape, axis))

    return draw, moments, extent
