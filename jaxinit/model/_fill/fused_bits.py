"""Evaluates equations with random bits fused with the law that they feed.

On CPU `jax.random` makes its Threefry bits by a loop that XLA cannot fuse; the draws of
this library write them out. A trace for `jit_init` has them as deferred calls, which
are written out here. The draws of `jax.random` stay as they are, except in laws, to
which fused bits give the same values: XLA fuses other operations in another way.
"""

import functools
from typing import Any

import jax
import numpy as np
from jax.extend import core

from jaxinit._jaxpr.equation import bind, holds, open_body
from jaxinit._jaxpr.evaluation import evaluate
from jaxinit._jaxpr.primitives import BITS, CALLS
from jaxinit.random import threefry

_WIDTHS = (32, 64)  # bits of an entry that can be written out


def fuse(eqn: core.JaxprEqn, values: list[Any], every: bool) -> list[Any]:
    """Evaluates one equation of a program that is compiled for CPU.

    Args:
      eqn: the equation.
      values: its operands.
      every: whether all bits are fused, not only those that are deferred.
    """
    every = every or _is_deferred(eqn)
    if not _fuses(eqn, every) or eqn.params.get("branches_platforms"):
        return bind(eqn, values)
    if eqn.primitive.name == BITS:
        return [_draw_bits(eqn, values[0])]
    rule = functools.partial(fuse, every=every)
    if eqn.primitive.name in CALLS and (body := open_body(eqn)):
        with eqn.ctx.manager:
            return evaluate(body.jaxpr, body.consts, values, rule)

    def rewrite(closed: core.ClosedJaxpr) -> core.ClosedJaxpr:
        def run(*args: Any) -> list[Any]:
            return evaluate(closed.jaxpr, closed.consts, args, rule)

        return jax.make_jaxpr(run)(*closed.in_avals)

    with eqn.ctx.manager:
        rewritten = {
            name: rewrite(value)
            for name, value in eqn.params.items()
            if isinstance(value, core.ClosedJaxpr)
        }
    return bind(eqn.replace(params={**eqn.params, **rewritten}), values)


def _fuses(eqn: core.JaxprEqn, every: bool) -> bool:
    """Returns whether an equation makes bits that are to be fused."""
    if every:
        return holds(eqn, lambda inside: inside.primitive.name == BITS)
    return holds(eqn, lambda inside: _is_deferred(inside) and _fuses(inside, True))


def _is_deferred(eqn: core.JaxprEqn) -> bool:
    return bool(eqn.params.get("name") == threefry.DEFERRED)


def _draw_bits(eqn: core.JaxprEqn, key: jax.Array) -> jax.Array:
    """Draws the bits of an equation, for one key or an array of keys."""
    shape, width = eqn.params["shape"], eqn.params["bit_width"]
    with eqn.ctx.manager:
        if width not in _WIDTHS or not threefry.fits(key):
            bits: jax.Array = bind(eqn, [key])[0]
            return bits

        def draw(key: jax.Array) -> jax.Array:
            return threefry.bits(key, shape, np.dtype(f"uint{width}"))

        for _ in range(key.ndim):
            draw = jax.vmap(draw)
        return draw(key)
