"""A draw: one weight, and what is known about it."""

import contextlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import jax

from bench.meters.race import Contender
from bench.meters.row import Case

Shape = tuple[int, ...]
Init = Callable[..., jax.Array]  # init(key, shape, dtype)
Law = Literal["uniform", "normal", "truncated_normal", "orthogonal", "sparse"]


@dataclass(frozen=True, kw_only=True)
class Draw(Case):
    """One draw of a weight.

    Attributes:
      init: our initializer.
      law: the law of its entries, which the peers are asked for.
      verify: takes the draw and the drawn weight; returns what it found, or raises
        `bench.meters.row.Unverified`.
      theirs: JAX's own initializer of this kind, if there is one.
      peers: builds a contender from the draw, by the peer's name.
      eager: whether the eager call is timed too.
    """

    init: Any
    law: Law
    verify: Callable[["Draw", jax.Array], str]
    theirs: Init | None = None
    peers: Mapping[str, Callable[["Draw"], Contender]] = field(default_factory=dict)
    eager: bool = False

    def ours(self, key: jax.Array) -> jax.Array:
        """Draws the weight."""
        weight: jax.Array = self.init(key, self.shape, self.dtype)
        return weight

    @cached_property
    def jitted(self) -> Callable[[jax.Array], jax.Array]:
        """Our initializer under `jax.jit`, the same function at each call."""
        return jax.jit(lambda key: self.ours(key))

    @cached_property
    def reference(self) -> Callable[[jax.Array], jax.Array] | None:
        """JAX's initializer under `jax.jit`, the same function at each call."""
        if (theirs := self.theirs) is None:
            return None
        return jax.jit(lambda key: theirs(key, self.shape, self.dtype))

    @property
    def matrix(self) -> tuple[int, int]:
        """Rows and columns of the orthogonal matrix in the weight."""
        if self.init.name == "delta_orthogonal":
            rows, columns = self.shape[-2:]
        else:
            rows, columns = math.prod(self.shape[:-1]), self.shape[-1]
        return rows, columns

    def enable_types(self) -> contextlib.AbstractContextManager[Any]:
        """Enables 64-bit types, for as long as a draw that needs them is measured."""
        if self.dtype in ("float64", "complex128"):
            context: contextlib.AbstractContextManager[Any] = jax.enable_x64(True)
            return context
        return contextlib.nullcontext()
