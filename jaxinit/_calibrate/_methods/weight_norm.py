"""The data-dependent start of weight normalization, and the within-layer step.

Both give each unit's output, over the data, a mean and a standard deviation; they differ
in the mean that they choose.

References:
  Salimans, Kingma. Weight Normalization. 2016. https://arxiv.org/abs/1602.07868
  Krähenbühl, Doersch, Donahue, Darrell. Data-dependent Initializations of Convolutional Neural Networks. 2016. https://arxiv.org/abs/1511.06856
"""  # noqa: E501

import jax
import jax.numpy as jnp

from jaxinit._calibrate._unit_moments import Moments, Solution

WITHIN = 0.1  # the mean that the within-layer step gives: units of relu start alive


def standardize_units(
    moments: Moments, target: jax.Array, offset: jax.Array
) -> Solution:
    """Finds factor and bias that give each unit its mean and standard deviation.

    With t = w x, mean m and standard deviation d over the data, the unit becomes

        t target / d + offset - m target / d,

    so that g = target / d, the length of its weight in units of the old one, and b =
    offset - m g. The next layer sees this output.
    """
    alive = moments.is_alive
    scale = target / jnp.sqrt(jnp.where(alive, moments.spread, 1))
    scale = jnp.where(alive, scale, 1)
    bias = offset - moments.product * scale
    return Solution(scale, jnp.where(alive, bias, moments.bias))
