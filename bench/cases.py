"""Cases: what is drawn, by whom, and against which limit."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from bench.timing import Contender

Shape = tuple[int, ...]
Init = Callable[..., jax.Array]  # init(key, shape, dtype)
Law = Literal["uniform", "normal", "truncated_normal", "orthogonal", "sparse"]


@dataclass(frozen=True)
class Case:
    """One draw.

    Attributes:
      name: what the table calls it.
      init: our initializer.
      shape: sizes of the weight.
      dtype: its dtype.
      law: the law of its entries, which the peers are asked for.
      verify: takes the case and the weight drawn; returns what was found, or raises
        `bench.verify.Unverified`.
      theirs: the same initializer of JAX, if JAX has it.
      peers: builds a contender from the case, by the peer's name.
      eager: whether the eager call is timed too.
      impls: our other programs for the same, by the name that `init` takes as ``impl``.
      argument: makes what `init` takes in place of a key, where it takes an array.
    """

    name: str
    init: Any
    shape: Shape
    dtype: str
    law: Law
    verify: Callable[["Case", jax.Array], str]
    theirs: Init | None = None
    peers: Mapping[str, Callable[["Case"], Contender]] = field(default_factory=dict)
    eager: bool = False
    impls: tuple[str, ...] = ()
    argument: Callable[["Case"], jax.Array] | None = None

    def ours(self, key: jax.Array) -> jax.Array:
        """Draws the weight."""
        weight: jax.Array = self.init(key, self.shape, self.dtype)
        return weight

    @cached_property
    def jitted(self) -> Callable[[jax.Array], jax.Array]:
        """Returns ours under `jax.jit`, the same function at each call."""
        return jax.jit(lambda key: self.ours(key))

    @cached_property
    def reference(self) -> Callable[[jax.Array], jax.Array] | None:
        """Returns JAX's initializer under `jax.jit`, the same function at each call."""
        if (theirs := self.theirs) is None:
            return None
        return jax.jit(lambda key: theirs(key, self.shape, self.dtype))

    @property
    def bytes(self) -> int:
        """Returns the size of the weight in memory."""
        return math.prod(self.shape) * int(jnp.dtype(self.dtype).itemsize)

    @property
    def x64(self) -> bool:
        """Returns whether the case needs 64-bit types."""
        return self.dtype in ("float64", "complex128")

    @property
    def matrix(self) -> tuple[int, int]:
        """Returns rows and columns of the orthogonal matrix in the weight."""
        if self.init.name == "delta_orthogonal":
            rows, columns = self.shape[-2:]
        else:
            rows, columns = math.prod(self.shape[:-1]), self.shape[-1]
        return rows, columns


@dataclass(frozen=True)
class Limit:
    """The least work that a draw could be.

    Attributes:
      kind: "fill", a plain fill of a fresh array of the shape, "product", a product
        of two square matrices, or "copy", an array of the shape from another.
      contender: does that work.
      share: which part of that work the draw needs.
      flops: floating-point operations of the contender; 0 but for a product.
    """

    kind: Literal["fill", "product", "copy"]
    contender: Contender
    share: float
    flops: float


def limit(case: Case) -> Limit:
    """Returns the limit of a case."""
    if case.impls:
        return _copy(case)
    return _product(case) if case.law == "orthogonal" else _fill(case)


def _fill(case: Case) -> Limit:
    fill = jax.jit(lambda value: jnp.full(case.shape, value, case.dtype))

    def prepare(repeat: int) -> Any:
        return jnp.asarray(np.asarray(repeat, case.dtype))

    return Limit("fill", Contender(fill, prepare, jitted=True), 1.0, 0.0)


def _copy(case: Case) -> Limit:
    """Reads an array and writes its negative; ours does one of the two."""
    negative = jax.jit(lambda x: -x)
    x = jnp.ones(case.shape, case.dtype)
    return Limit("copy", Contender(negative, lambda repeat: x, jitted=True), 0.5, 0.0)


def haar_flops(rows: int, columns: int) -> float:
    r"""Counts the operations of a product of random reflectors.

    2 m n^2 - 2 n^3 / 3 for m = max(rows, columns) and n the other, as LAPACK's orgqr
    needs; 4 n^3 / 3 for a square. Drawing and scaling are of lower order.
    """
    m, n = max(rows, columns), min(rows, columns)
    return 2 * m * n**2 - 2 * n**3 / 3


def _product(case: Case) -> Limit:
    """Multiplies two squares of the matrix's smaller size, in full precision."""
    size = min(case.matrix)
    square = jax.jit(lambda x: jnp.matmul(x, x, precision=jax.lax.Precision.HIGHEST))
    x = jnp.full((size, size), np.asarray(1 / size, case.dtype))
    flops = 2.0 * size**3
    contender = Contender(square, lambda repeat: x, jitted=True)
    return Limit("product", contender, haar_flops(*case.matrix) / flops, flops)
