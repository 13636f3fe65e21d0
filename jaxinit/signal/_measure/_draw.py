"""Draws what a seed needs, by the programs of `jit_init`: one for each law."""

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


def prepare_draw(program: Program, start: jax.ShapeDtypeStruct | None) -> Any:
    """Makes the function from a key to a `Seed`; equal ones share all they compile.

    Args:
      program: the model.
      start: the type of the vectors for the Jacobian; None draws none.
    """
    init = core.jaxpr_as_fun(program.init)
    tree = jax.tree.structure(program.stored)

    def draw(key: jax.Array) -> Seed:
        first, noise, last = jax.random.split(key, 3)
        vectors = start and jax.random.normal(last, start.shape, start.dtype)
        stored = jax.tree.unflatten(tree, init(first))
        return Seed(stored, noise, draw_cotangents(program, last), vectors)

    shapes = tuple((x.shape, x.dtype) for x in program.outputs)
    vectors = start and (start.shape, start.dtype)
    token = spell_program(program.init), tree, shapes, program.loss is None, vectors
    return keep(token, lambda: jit_init(draw))


def draw_cotangents(program: Program, key: jax.Array) -> list[jax.Array]:
    """Draws the numbers that multiply the outputs: a cotangent of unit variance."""
    if program.loss:
        return []
    shapes = [x.shape for x in program.outputs if is_float(x.dtype)]
    keys = jax.random.split(key, len(shapes))
    return [jax.random.normal(key, s) for key, s in zip(keys, shapes, strict=True)]
