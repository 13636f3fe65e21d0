"""Computes singular values of the Jacobian of output by input, by products with it.

Random vectors give the mean square of the singular values, subspace iteration the
largest. A Jacobian of few outputs is known after one backward pass from a basis of
these, and the iteration needs no other pass. Complex numbers count as pairs of real
ones, which leaves the singular values as they are.
"""

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxinit._adapt.functions import Model
from jaxinit._jaxpr.spelling import spell_program
from jaxinit.signal._measure.statistics import is_float, real

_VECTORS, _ROUNDS = 8, 8
_FEW = 32  # outputs: the rounds would run the model forwards and backwards 128 times


class Products(NamedTuple):
    """Products with a Jacobian, at one example, in float32 or wider.

    Attributes:
      multiply: takes what the model stores, a key for noise, the inputs and vectors u;
        returns J^T u, [inputs, vectors]; and J of that, [outputs, vectors], unless the
        outputs are few.
      start: the type of the first vectors. # [outputs, vectors]
      spelling: equal for equal products.
    """

    multiply: Callable[..., tuple[jax.Array, jax.Array | None]]
    start: jax.ShapeDtypeStruct
    spelling: Hashable

    @property
    def operand(self) -> jax.ShapeDtypeStruct:
        """The type of the vectors u."""
        rows, _ = self.start.shape
        if not _is_few(rows):
            return self.start
        return jax.ShapeDtypeStruct((rows, rows), self.start.dtype)


def prepare_products(
    model: Model, inputs: tuple[Any, ...], stored: Any, key: jax.Array
) -> Products | None:
    """Makes the products with the Jacobian of the output by the first float input.

    Returns None if there is no derivative, or if the model does not run on a single
    example.

    Args:
      model: the model.
      inputs: all examples.
      stored: the parameters and what else the model stores, or their shapes.
      key: a key like that for noise.
    """
    which = next((i for i, x in enumerate(inputs) if is_float(x.dtype)), None)
    if which is None or not inputs[which].ndim:
        return None
    examples = inputs[which].shape[0]

    def run(stored: Any, noise: Any, inputs: tuple[Any, ...], x: Any) -> list[Any]:
        args = [x[:1] if x.shape[:1] == (examples,) else x for x in inputs]
        if jnp.iscomplexobj(args[which]):
            x = jax.lax.complex(x[..., 0], x[..., 1])
        args[which] = x.astype(args[which].dtype)
        leaves = jax.tree.leaves(model.apply(*stored, noise, *args))
        return [real(leaf).reshape(-1) for leaf in leaves if is_float(leaf.dtype)]

    def take(inputs: tuple[Any, ...]) -> jax.Array:
        x: jax.Array = real(inputs[which][:1])
        return x

    x = jax.eval_shape(take, inputs)
    try:
        closed, shapes = jax.make_jaxpr(run, return_shape=True)(stored, key, inputs, x)
    except Exception:  # the model itself is sound: it was measured on all examples
        return None
    if not shapes:
        return None

    def multiply(stored: Any, noise: Any, inputs: tuple[Any, ...], u: Any) -> Any:
        leaves = jax.tree.leaves((stored, noise, inputs))

        def output(x: jax.Array) -> jax.Array:
            parts = core.jaxpr_as_fun(closed)(*leaves, x)
            return jnp.concatenate([part.astype(u.dtype) for part in parts])

        y, back = jax.vjp(output, take(inputs))
        v = jax.vmap(back, 1)(u)[0]
        pushed = None
        if not _is_few(len(y)):
            forth = jax.linear_transpose(back, y)
            pushed = jax.vmap(lambda v: forth((v,))[0], out_axes=1)(v)
        return v.reshape(len(v), -1).T, pushed

    rows = sum(part.size for part in shapes)
    vectors = min(_VECTORS, rows, x.size)
    start = jax.ShapeDtypeStruct((rows, vectors), x.dtype)
    return Products(multiply, start, (which, spell_program(closed, derivatives=True)))


def _is_few(rows: int) -> bool:
    return rows <= _FEW


def compute_singular_values(
    start: Any, multiply: Callable[[Any], tuple[Any, Any]]
) -> dict[str, np.ndarray]:
    """Computes the mean square of the singular values, and the largest, of one seed.

    Args:
      start: random normal vectors. # [outputs, vectors]
      multiply: takes vectors u; returns J^T u, and J of that unless outputs are few.
    """
    rows, vectors = start.shape
    # Orthonormal vectors: where all singular values are equal, the first round is
    # exact.
    u = np.linalg.qr(np.asarray(start))[0]
    if _is_few(rows):
        rest = np.linalg.qr(u, mode="complete")[0][:, vectors:]
        whole = np.asarray(multiply(np.concatenate([u, rest], axis=1))[0])
        square = whole.T @ whole  # J J^T, in the basis that u and the rest are
        v, u = whole[:, :vectors], square[:, :vectors]
        push = square.__matmul__
    else:
        v, u = map(np.asarray, multiply(u))

        def push(u: np.ndarray) -> np.ndarray:
            return np.asarray(multiply(u)[1])

    smallest = min(rows, len(v))
    mean = (v**2).sum() / vectors * u.dtype.type(rows / smallest)
    for _ in range(_ROUNDS - 1):
        u = push(np.linalg.qr(u)[0])
    largest = u.dtype.type(np.nan)
    triangle = np.linalg.qr(u)[1]
    if np.isfinite(triangle).all():  # LAPACK refuses others
        largest = np.sqrt(np.linalg.svd(triangle, compute_uv=False).max())
    return {"mean_square": np.asarray(mean), "largest": np.asarray(largest)}
