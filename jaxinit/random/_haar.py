"""Orthonormal matrices, uniform by the Haar measure."""

import jax
import numpy as np


def orthonormal(key: jax.Array, rows: int, columns: int, dtype: np.dtype) -> jax.Array:
    """Draws a matrix with orthonormal columns, or rows where those are fewer."""
    return jax.random.orthogonal(key, rows, (), dtype, columns)
