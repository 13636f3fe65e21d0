"""LSUV: layer-sequential unit variance.

References:
  Mishkin, Matas. All you need is a good init. 2016. https://arxiv.org/abs/1511.06422
"""

import jax
import jax.numpy as jnp

from jaxinit._calibrate._unit_moments import Moments, Solution


def scale_whole(moments: Moments, target: jax.Array, offset: jax.Array) -> Solution:
    """Finds the factor that gives a layer's output its standard deviation.

    The paper divides W by the output's standard deviation, again and again until it is
    1. With z = W x, the output s z + b has the variance

        s^2 Var[z] + 2 s Cov[z, b] + Var[b] = target^2

    over the examples and units, whose positive root is the limit of these steps at
    once. Without a bias it is target / Std[z]. There is none if Var[b] alone is larger.
    """
    del offset
    room = target**2 - moments.across
    root = jnp.sqrt(moments.joint**2 + moments.spread * jnp.maximum(room, 0))
    solvable = (room > 0) & moments.is_alive
    spread = jnp.where(solvable, moments.spread, 1)
    scale = (root - moments.joint) / spread
    return Solution(jnp.where(solvable, scale, 1), None)
