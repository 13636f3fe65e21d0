"""Inputs of models, which tests share: each is the beginning of one draw.

Modules draw while they are collected, in every process of a run. JAX's value of an
entry does not depend on the shape, so that one program makes what many would make.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

KEY = jax.random.key(1)
NORMAL = np.asarray(jax.random.normal(KEY, (4096,)))
TOKENS = np.asarray(jax.random.randint(KEY, (128,), 0, 100))


def draw_normal(*shape):
    """Returns what `jax.random.normal` draws by the key."""
    return jnp.asarray(NORMAL[: math.prod(shape)].reshape(shape))


def draw_tokens(*shape):
    """Returns what `jax.random.randint` draws by the key, up to 99."""
    return jnp.asarray(TOKENS[: math.prod(shape)].reshape(shape))
