"""Limits: the least work that a draw could take."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from bench.meters.race import Contender, Timing
from bench.meters.row import LIMIT
from bench.weight.draw import Draw, Shape


@dataclass(frozen=True, kw_only=True)
class Limit:
    """Work that no draw of a weight can do without.

    Attributes:
      kind: "fill", a plain fill of a fresh array of the shape, "product", a product
        of two square matrices, or "copy", an array of the shape from another.
      contender: does that work.
      share: which part of that work the draw needs.
      flops: floating-point operations of the contender; 0 except for a product.
    """

    kind: Literal["fill", "product", "copy"]
    contender: Contender
    share: float = 1.0
    flops: float = 0.0

    def rate(self, timings: Mapping[str, Timing]) -> dict[str, Any]:
        """Computes the limit's seconds, and which share of our time they are."""
        measured = timings[LIMIT].median
        seconds = measured * self.share
        return {
            "kind": self.kind,
            "seconds": seconds,
            "gflops": self.flops / measured / 1e9 if self.flops else None,
            "share": seconds / timings["ours"].median,
        }


def limit_draw(draw: Draw) -> Limit:
    """Returns the limit of a draw."""
    if draw.law == "orthogonal":
        return _multiply(*draw.matrix, draw.dtype)
    return _fill(draw.shape, draw.dtype)


def limit_copy(shape: Shape, dtype: str) -> Limit:
    """Returns the limit of work that reads an array or writes one.

    Its contender does both: it reads an array and writes its negative.
    """
    negative = jax.jit(lambda x: -x)
    x = jnp.ones(shape, dtype)
    contender = Contender(negative, lambda repeat: x, jitted=True)
    return Limit(kind="copy", contender=contender, share=0.5)


def _fill(shape: Shape, dtype: str) -> Limit:
    fill = jax.jit(lambda value: jnp.full(shape, value, dtype))

    def prepare(repeat: int) -> Any:
        return jnp.asarray(np.asarray(repeat, dtype))

    return Limit(kind="fill", contender=Contender(fill, prepare, jitted=True))


def _multiply(rows: int, columns: int, dtype: str) -> Limit:
    """Multiplies two squares of the matrix's smaller size, in full precision."""
    size = min(rows, columns)
    square = jax.jit(lambda x: jnp.matmul(x, x, precision=jax.lax.Precision.HIGHEST))
    x = jnp.full((size, size), np.asarray(1 / size, dtype))
    flops = 2.0 * size**3
    return Limit(
        kind="product",
        contender=Contender(square, lambda repeat: x, jitted=True),
        share=haar_flops(rows, columns) / flops,
        flops=flops,
    )


def haar_flops(rows: int, columns: int) -> float:
    r"""Counts the operations of a product of random reflectors.

    2 m n^2 - 2 n^3 / 3 for m = max(rows, columns) and n the other, as LAPACK's orgqr
    needs; 4 n^3 / 3 for a square. Drawing and scaling are of lower order.
    """
    m, n = max(rows, columns), min(rows, columns)
    return 2 * m * n**2 - 2 * n**3 / 3
