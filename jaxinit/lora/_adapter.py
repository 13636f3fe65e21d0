"""A weight and its adapter, and what every method reads off its arguments."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxinit import _check as check


class Adapter(NamedTuple):
    """A weight and its adapter: the layer computes x (w + scale a b).

    Attributes:
      w: [..., inputs, outputs] what stays frozen, of the dtype of the weight.
      a: [..., inputs, rank], in 32 bits or more.
      b: [..., rank, outputs], in 32 bits or more.
      scale: the factor on a b.
    """

    w: jax.Array
    a: jax.Array
    b: jax.Array
    scale: float

    @property
    def merged(self) -> jax.Array:
        """The weight with the adapter added, of the dtype of w."""
        whole = self.w.astype(self.a.dtype) + self.scale * (self.a @ self.b)
        return whole.astype(self.w.dtype)


class Form(NamedTuple):
    """What every method reads off its arguments."""

    w: jax.Array
    rank: int
    scale: float

    @property
    def inputs(self) -> int:
        return self.w.shape[-2]

    @property
    def outputs(self) -> int:
        return self.w.shape[-1]

    @property
    def wide(self) -> jax.Array:
        """The weight in at least 32 bits."""
        narrow = self.w.dtype.itemsize < 4
        return self.w.astype(jnp.float32) if narrow else self.w

    def split(self, a: jax.Array, b: jax.Array) -> Adapter:
        """Takes what the adapter adds off the weight."""
        rest = self.wide - self.scale * (a @ b)
        return Adapter(rest.astype(self.w.dtype), a, b, self.scale)

    def keep(self, a: jax.Array, b: jax.Array) -> Adapter:
        """Leaves the weight, for an adapter that adds nothing yet."""
        return Adapter(self.w, a, b, self.scale)


def read(
    method: str, w: ArrayLike, rank: int, alpha: float | None, rank_stabilized: bool
) -> Form:
    """Checks the arguments of a method."""
    try:
        weight = jnp.asarray(w)
        if weight.ndim < 2 or not jnp.issubdtype(weight.dtype, np.floating):
            rule = "w must be a matrix of floats, or a stack of them."
            raise check.Unfit(rule, w=w)
        most = min(weight.shape[-2:])
        if not 1 <= check.integer(rank=rank) <= most:
            rule = f"rank must lie between 1 and {most}, the smaller size of w."
            raise check.Unfit(rule, rank=rank)
        check.boolean(rank_stabilized=rank_stabilized)
        size = float(rank) if alpha is None else check.real(alpha=alpha)
        if not size:
            raise check.Unfit("alpha must not be 0.", alpha=alpha)
        if alpha is None and rank_stabilized:
            size = math.sqrt(rank)  # by default the scale is 1
        scale = size / (math.sqrt(rank) if rank_stabilized else rank)
    except check.Unfit as error:
        raise error.at(f"lora.{method}") from None
    return Form(weight, rank, scale)
