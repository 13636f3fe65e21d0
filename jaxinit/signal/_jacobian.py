"""Singular values of the Jacobian of output by input, by products with it."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxinit.model import merged
from jaxinit.signal._model import Model
from jaxinit.signal._statistics import is_float


def singular_values(model: Model, inputs: tuple[Any, ...], key: jax.Array) -> Any:
    """Makes a program for singular values of the output by the first float input.

    Of one example, by products with the Jacobian: its mean square by random vectors,
    the largest by subspace iteration.
    """
    which = next((i for i, x in enumerate(inputs) if is_float(x.dtype)), None)
    if which is None or not all(x.ndim for x in inputs):
        return None
    vectors, rounds = 8, 8
    init = merged(*jax.make_jaxpr(model.init, return_shape=True)(key))

    def one(key: jax.Array, inputs: tuple[Any, ...]) -> dict[str, jax.Array]:
        first, noise, start = jax.random.split(key, 3)
        params, rest = init(first)
        single = [x[:1] for x in inputs]

        def output(x: jax.Array) -> jax.Array:
            args = [*single[:which], x, *single[which + 1 :]]
            leaves = jax.tree.leaves(model.apply(params, rest, noise, *args))
            parts = [leaf.reshape(-1) for leaf in leaves if is_float(leaf.dtype)]
            flat: jax.Array = jnp.concatenate([part.astype(x.dtype) for part in parts])
            return flat

        x = single[which]
        y, back = jax.vjp(output, x)
        forth = jax.linear_transpose(back, y)
        smallest = min(x.size, y.size)
        u = jax.random.normal(start, (y.size, min(vectors, smallest)), y.dtype)
        u = jnp.linalg.qr(u)[0].T  # orthonormal: exact where all values are equal
        pulled = jax.vmap(back)(u)[0]
        mean = (pulled**2).sum() / len(u) * (y.size / smallest)

        def improve(_: int, u: jax.Array) -> jax.Array:
            u = jnp.linalg.qr(u.T)[0].T
            v = jax.vmap(back)(u)[0]
            pushed: jax.Array = jax.vmap(lambda v: forth((v,))[0])(v)
            return pushed

        u = jax.lax.fori_loop(0, rounds, improve, u)
        values = jnp.linalg.svd(jnp.linalg.qr(u.T)[1], compute_uv=False)
        return {"mean_square": mean, "largest": jnp.sqrt(values.max())}

    return jax.jit(lambda keys, inputs: jax.lax.map(lambda key: one(key, inputs), keys))
