"""Random subsets of an exact size, without sorting.

Selection sampling (Fan, Muller, Rezucha 1962; Knuth, volume 2, algorithm 3.4.2S): row
after row, a column takes the row with probability need / left, where ``need`` rows are
still to be taken and ``left`` rows remain. Every set of rows is equally likely.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxinit import _check as check
from jaxinit.random._laws import bits
from jaxinit.random.threefry import times

_U32 = np.uint32


def subset(key: jax.Array, count: int, shape: tuple[int, int]) -> jax.Array:
    """Draws a boolean mask: in each column exactly count rows.

    Rows are fewer than 2^32; probabilities are off by less than 2^-32.

    Example:
      >>> mask = jaxinit.random.subset(jax.random.key(0), 3, (8, 2))
      >>> mask.sum(axis=0).tolist()
      [3, 3]
    """
    rows, columns = shape
    try:
        if check.at_least(0, count=count) > rows:
            raise check.Unfit(f"there are only {rows} rows to take.", count=count)
    except check.Unfit as error:
        raise error.at("random.subset", "key") from None

    def step(
        state: tuple[jax.Array, jax.Array], drawn: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        need, left = state
        taken = times(drawn, left) < need  # [columns]
        return (need - taken.astype(_U32), left - _U32(1)), taken

    drawn = bits(key, shape, _U32)
    # Under shard_map the state varies over the devices as the bits do.
    none = jnp.sum(drawn[:1], 0, dtype=_U32) & _U32(0)
    start = (none + _U32(count), jnp.full((), _U32(rows)))
    mask: jax.Array = lax.scan(step, start, drawn)[1]
    return mask
