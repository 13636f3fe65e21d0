"""The initial draws: every initializer and seed, by the programs of `jit_init`."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import pop

from jaxinit._initializer import Initializer
from jaxinit.lab._tried._network import Network
from jaxinit.lab._tried.rules import Rules
from jaxinit.model import jit_init


def draw_all(
    network: Network,
    initializers: Sequence[Initializer | Rules],
    seeds: int,
    x: jax.Array,
) -> Any:
    """Draws the variables of every initializer and seed.

    All initializers are one init function: layers whose entries have one law share a
    program, whatever their initializers, and seeds share them all.

    Args:
      network: the network.
      initializers: the initializers.
      seeds: their number; seed i draws from ``jax.random.key(i)``.
      x: example inputs.

    Returns:
      The variables, in the memory of the host unless they are keys.
      # [initializers, seeds, ...] per leaf
    """
    loop = network.written_out
    functions = [loop.network.redraw_by(init) for init in initializers]

    @jit_init
    def fill(key: Any, x: jax.Array) -> Any:
        return [drop_perturbations(function(key, x)) for function in functions]

    by_seed = [fill(loop.split_key(jax.random.key(seed)), x) for seed in range(seeds)]
    by_init = [
        _stack(list(map(loop.join, drawn))) for drawn in zip(*by_seed, strict=True)
    ]
    return _stack(by_init)


def drop_perturbations(variables: Any) -> Any:
    """Drops what a user's model has to show gradients: it is of the inputs at hand."""
    if "perturbations" not in variables:
        return variables
    return pop(variables, "perturbations")[0]


def _stack(trees: Sequence[Any]) -> Any:
    """Stacks trees leaf by leaf."""

    def stack(*leaves: Any) -> Any:
        if jnp.issubdtype(leaves[0].dtype, jax.dtypes.prng_key):  # NumPy has no such
            return jnp.stack(leaves)
        return np.stack(leaves)

    return jax.tree.map(stack, *trees)
