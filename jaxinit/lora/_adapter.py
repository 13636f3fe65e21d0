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
    def dtype(self) -> np.dtype:
        """The dtype of the adapter, of at least 32 bits."""
        return np.dtype(np.float32) if self.w.dtype.itemsize < 4 else self.w.dtype

    @property
    def wide(self) -> jax.Array:
        """The weight in at least 32 bits, which every device has in whole."""
        return gather(self.w.astype(self.dtype))

    def split(self, a: jax.Array, b: jax.Array) -> Adapter:
        """Takes what the adapter adds off the weight."""
        rest = (self.wide - self.scale * (a @ b)).astype(self.w.dtype)
        if any(jax.typeof(self.w).sharding.spec):
            rest = jax.sharding.reshard(rest, jax.typeof(self.w).sharding)
        return Adapter(rest, a, b, self.scale)

    def keep(self, a: jax.Array, b: jax.Array) -> Adapter:
        """Leaves the weight, for an adapter that adds nothing yet."""
        return Adapter(self.w, a, b, self.scale)


def gather(array: jax.Array) -> jax.Array:
    """Returns an array that every device has in whole, as factorizations need it.

    Only arrays on a mesh of explicit axes say in their type how they are cut.
    """
    cut = jax.typeof(array).sharding
    if not any(cut.spec):
        return array
    whole = jax.NamedSharding(cut.mesh, jax.P())
    gathered: jax.Array = jax.sharding.reshard(array, whole)
    return gathered


def as_array(**argument: ArrayLike) -> jax.Array:
    """Returns the argument as an array of JAX."""
    ((name, value),) = argument.items()
    try:
        return jnp.asarray(value)
    except (TypeError, ValueError):
        rule = f"{name} must be an array of floats."
        raise check.Unfit(rule, TypeError, **argument) from None


def read(
    method: str, w: ArrayLike, rank: int, alpha: float | None, rank_stabilized: bool
) -> Form:
    """Checks the arguments of a method."""
    try:
        weight = as_array(w=w)
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
