"""Equations evaluated with random bits fused with their law.

On CPU `jax.random` makes its Threefry bits by a loop that XLA cannot fuse; the draws of
this library write them out. A trace for `jit_init` has them as calls that are deferred,
and here they are written out. The draws of `jax.random` stay as they are, but for laws,
to which fused bits give the same values: XLA fuses other operations in another way.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core

from jaxinit.model._equation import bind, bodies
from jaxinit.random import _threefry

_INLINED = ("jit", "pjit", "closed_call", "core_call")
_WIDTHS = (32, 64)  # bits of an entry that can be written out


def evaluated(
    jaxpr: core.Jaxpr, consts: Sequence[Any], args: Sequence[Any], every: bool
) -> list[Any]:
    """Evaluates a program that is compiled for CPU."""
    env: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
    env |= dict(zip(jaxpr.invars, args, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else env[atom]

    for eqn in jaxpr.eqns:
        made = fused(eqn, list(map(read, eqn.invars)), every)
        env |= dict(zip(eqn.outvars, made, strict=True))
    return list(map(read, jaxpr.outvars))


def fused(eqn: core.JaxprEqn, values: list[Any], every: bool) -> list[Any]:
    """Evaluates one equation of a program that is compiled for CPU.

    Args:
      eqn: the equation.
      values: its operands.
      every: whether all bits are fused, not only those that are deferred.
    """
    every = every or eqn.params.get("name") == _threefry.DEFERRED
    name = eqn.primitive.name
    if not _fuses(eqn, every) or eqn.params.get("branches_platforms"):
        return bind(eqn, values)
    if name == "random_bits":
        return [_bits(eqn, values[0])]
    inner = {k: v for k, v in eqn.params.items() if isinstance(v, core.ClosedJaxpr)}
    if name in _INLINED and len(inner) == 1:
        (closed,) = inner.values()
        with eqn.ctx.manager:
            return evaluated(closed.jaxpr, closed.consts, values, every)
    if not inner:
        return bind(eqn, values)
    with eqn.ctx.manager:
        rewritten = {k: _rewritten(closed, every) for k, closed in inner.items()}
    return bind(eqn.replace(params={**eqn.params, **rewritten}), values)


def _fuses(eqn: core.JaxprEqn, every: bool) -> bool:
    """Returns whether there are bits in an equation that are to be fused."""
    every = every or eqn.params.get("name") == _threefry.DEFERRED
    if eqn.primitive.name == "random_bits":
        return every
    return any(_fuses(inner, every) for body in bodies(eqn) for inner in body.eqns)


def _rewritten(closed: core.ClosedJaxpr, every: bool) -> core.ClosedJaxpr:
    """Returns a program with fused bits."""

    def run(*args: Any) -> list[Any]:
        return evaluated(closed.jaxpr, closed.consts, args, every)

    return jax.make_jaxpr(run)(*closed.in_avals)


def _bits(eqn: core.JaxprEqn, key: jax.Array) -> jax.Array:
    """Draws the bits of an equation, for one key or an array of keys."""
    shape, width = eqn.params["shape"], eqn.params["bit_width"]
    with eqn.ctx.manager:
        if width not in _WIDTHS or not _threefry.fits(key):
            bits: jax.Array = bind(eqn, [key])[0]
            return bits

        def draw(key: jax.Array) -> jax.Array:
            return _threefry.bits(key, shape, np.dtype(f"uint{width}"))

        for _ in range(key.ndim):
            draw = jax.vmap(draw)
        return draw(key)
