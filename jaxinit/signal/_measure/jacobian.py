"""Computes singular values of the Jacobian of output by input, by products with it."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxinit._adapt.functions import Model
from jaxinit._jaxpr.merging import merge_draws
from jaxinit.signal._measure.statistics import is_float, real


def prepare_singular_values(
    model: Model, inputs: tuple[Any, ...], key: jax.Array
) -> Any:
    """Makes a program for singular values of the output by the first float input.

    The Jacobian is taken at one example, in float32 or wider, and enters by products
    only: random vectors give the mean square of its singular values, subspace iteration
    the largest. Complex numbers count as pairs of real ones, which leaves the singular
    values as they are. Returns None if there is no derivative, or if the model does not
    run on a single example.
    """
    which = next((i for i, x in enumerate(inputs) if is_float(x.dtype)), None)
    if which is None or not inputs[which].ndim:
        return None
    vectors, rounds = 8, 8
    examples = inputs[which].shape[0]
    drawn, stored = jax.make_jaxpr(model.init, return_shape=True)(key)
    init = merge_draws(drawn, stored)

    def single(inputs: tuple[Any, ...]) -> list[Any]:
        return [x[:1] if x.shape[:1] == (examples,) else x for x in inputs]

    def outputs(params: Any, rest: Any, noise: Any, args: list[Any]) -> list[Any]:
        leaves = jax.tree.leaves(model.apply(params, rest, noise, *args))
        return [leaf for leaf in leaves if is_float(leaf.dtype)]

    try:
        if not jax.eval_shape(outputs, *stored, key, single(inputs)):
            return None
    except Exception:  # the model itself is sound: it was measured on all examples
        return None

    def one(key: jax.Array, inputs: tuple[Any, ...]) -> dict[str, jax.Array]:
        first, noise, start = jax.random.split(key, 3)
        params, rest = init(first)
        args = single(inputs)
        chosen = args[which]

        def output(x: jax.Array) -> jax.Array:
            if jnp.iscomplexobj(chosen):
                x = jax.lax.complex(x[..., 0], x[..., 1])
            here = [*args[:which], x.astype(chosen.dtype), *args[which + 1 :]]
            leaves = outputs(params, rest, noise, here)
            parts = [real(leaf).reshape(-1).astype(kind) for leaf in leaves]
            return jnp.concatenate(parts)

        x = real(chosen)
        kind = x.dtype
        y, back = jax.vjp(output, x)
        forth = jax.linear_transpose(back, y)
        smallest = min(x.size, y.size)
        u = jax.random.normal(start, (y.size, min(vectors, smallest)), kind)

        def improve(number: int, state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            u, mean = state
            # Orthonormal vectors: where all singular values are equal, the first round
            # is exact.
            u = jnp.linalg.qr(u)[0]
            v = jax.vmap(back)(u.T)[0]
            here = (v**2).sum() / len(v) * (y.size / smallest)
            pushed = jax.vmap(lambda v: forth((v,))[0])(v)
            return pushed.T, jnp.where(number == 0, here, mean)

        u, mean = jax.lax.fori_loop(0, rounds, improve, (u, jnp.zeros((), kind)))
        values = jnp.linalg.svd(jnp.linalg.qr(u)[1], compute_uv=False)
        return {"mean_square": mean, "largest": jnp.sqrt(values.max())}

    return jax.jit(lambda keys, inputs: jax.lax.map(lambda key: one(key, inputs), keys))
