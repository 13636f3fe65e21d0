"""Random subsets of an exact size."""

import jax
from jax import lax


def subset(key: jax.Array, count: int, shape: tuple[int, int]) -> jax.Array:
    """Draws a boolean mask: in each column exactly count rows.

    All sets of rows are equally likely.
    """
    first = lax.broadcasted_iota("int32", shape, 0) < count
    return jax.random.permutation(key, first, axis=0, independent=True)
