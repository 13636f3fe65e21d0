"""Draws: a key and a shape become random numbers of unit scale.

This room knows laws, the distributions of the numbers, and nothing about fans or
layers. Arguments follow `jax.random`.
"""

from jaxinit.random._laws import bits as bits
from jaxinit.random._laws import disk as disk
from jaxinit.random._laws import normal as normal
from jaxinit.random._laws import truncated_normal as truncated_normal
from jaxinit.random._laws import uniform as uniform
from jaxinit.random._subset import subset as subset
from jaxinit.random._truncation import (
    complex_truncated_variance as complex_truncated_variance,
)
from jaxinit.random._truncation import normal_mass as normal_mass
from jaxinit.random._truncation import truncated_moments as truncated_moments
from jaxinit.random.haar import Method as Method
from jaxinit.random.haar import matmul as matmul
from jaxinit.random.haar import orthonormal as orthonormal
from jaxinit.random.haar import whole as whole
