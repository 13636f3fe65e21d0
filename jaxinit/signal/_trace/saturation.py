"""Measures where an elementwise function is flat."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._structure.activation import differentiate

_GRID = np.linspace(-8, 8, 321)  # where the steepest slope is looked for
FLAT = 0.05  # the share of the steepest slope below which a function is saturated


def measure_saturation(
    function: Callable[[jax.Array], jax.Array], y: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns where a function of y is zero, and where it is flat but not zero."""
    a, slope = differentiate(function, y)
    grid = jnp.asarray(_GRID, y.dtype)
    steepest = jnp.abs(differentiate(function, grid)[1]).max()
    zero = a == 0
    return zero, (jnp.abs(slope) < FLAT * steepest) & ~zero
