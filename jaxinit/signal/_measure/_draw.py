"""Draws what a seed needs, by the programs of `jit_init`: one for each law."""

import functools
from typing import Any, NamedTuple

import jax
from jax.extend import core

from jaxinit._jaxpr.spelling import spell_program
from jaxinit.model import jit_init
from jaxinit.signal._measure._kept import keep
from jaxinit.signal._measure.program import Program
from jaxinit.signal._measure.statistics import is_float


class Seed(NamedTuple):
    """What is drawn for one seed.

    Attributes:
      stored: the parameters, and what else the model stores.
      noise: the key for noise.
      cotangents: what multiplies the outputs, without a loss.
      vectors: those that the singular values of the Jacobian start with, if any do.
    """

    stored: Any
    noise: jax.Array
    cotangents: list[jax.Array]
    vectors: jax.Array | None


def prepare_draw(program: Program, vectors: Any) -> tuple[Any, Seed]:
    """Makes the function from a key to a `Seed`; equal ones share all they compile.

    Args:
      program: the model.
      vectors: the type of those for the Jacobian; None draws none.

    Returns:
      The function, and the types of what it draws.
    """
    init = core.jaxpr_as_fun(program.init)
    tree = jax.tree.structure(program.stored)

    def draw(key: jax.Array) -> Seed:
        first, noise, last = jax.random.split(key, 3)
        start = vectors and jax.random.normal(last, vectors.shape, vectors.dtype)
        stored = jax.tree.unflatten(tree, init(first))
        return Seed(stored, noise, draw_cotangents(program, last), start)

    cotangents = jax.eval_shape(lambda key: draw_cotangents(program, key), program.key)
    types = Seed(program.stored, program.key, cotangents, vectors)
    leaves, form = jax.tree.flatten((cotangents, vectors))
    drawn = form, *((x.shape, x.dtype) for x in leaves)
    token = spell_program(program.init), tree, drawn
    return keep(token, lambda: jit_init(draw)), types


def draw_cotangents(program: Program, key: jax.Array) -> list[jax.Array]:
    """Draws the numbers that multiply the outputs: a cotangent of unit variance."""
    if program.loss:
        return []
    shapes = [x.shape for x in program.outputs if is_float(x.dtype)]
    keys = jax.random.split(key, len(shapes))
    return [jax.random.normal(key, s) for key, s in zip(keys, shapes, strict=True)]


@functools.lru_cache(maxsize=8)
def prepare_split(seeds: int) -> Any:
    """Makes the function from a key to a key for each seed."""

    def split(key: jax.Array) -> list[jax.Array]:
        keys = jax.random.split(key, seeds)
        return [jax.lax.index_in_dim(keys, i, keepdims=False) for i in range(seeds)]

    return jit_init(split)
