"""Equations evaluated with the bits of `jax.random` fused with their law.

On CPU `jax.random` makes its Threefry bits by a loop that XLA cannot fuse. Here they
are written out instead, wherever an equation or a program within it draws them: values
are the same, and stock initializers become as fast as those of this library.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core

from jaxinit.model._equation import bind, draws
from jaxinit.random import _threefry

_INLINED = ("jit", "pjit", "closed_call", "core_call")
_WIDTHS = (32, 64)  # bits of an entry that can be written out


def evaluated(
    jaxpr: core.Jaxpr, consts: Sequence[Any], args: Sequence[Any]
) -> list[Any]:
    """Evaluates a program that is compiled for CPU."""
    env: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
    env |= dict(zip(jaxpr.invars, args, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else env[atom]

    for eqn in jaxpr.eqns:
        env |= dict(
            zip(eqn.outvars, fused(eqn, list(map(read, eqn.invars))), strict=True)
        )
    return list(map(read, jaxpr.outvars))


def fused(eqn: core.JaxprEqn, values: list[Any]) -> list[Any]:
    """Evaluates one equation of a program that is compiled for CPU."""
    chosen = eqn.params.get("branches_platforms")  # has a path for CPU already
    if not draws(eqn) or chosen:
        return bind(eqn, values)
    name = eqn.primitive.name
    if name == "random_bits":
        return [_bits(eqn, values[0])]
    inner = {k: v for k, v in eqn.params.items() if isinstance(v, core.ClosedJaxpr)}
    if name in _INLINED and len(inner) == 1:
        (closed,) = inner.values()
        with eqn.ctx.manager:
            return evaluated(closed.jaxpr, closed.consts, values)
    if not inner:
        return bind(eqn, values)
    with eqn.ctx.manager:
        rewritten = {k: _rewritten(closed) for k, closed in inner.items()}
    return bind(eqn.replace(params={**eqn.params, **rewritten}), values)


def _rewritten(closed: core.ClosedJaxpr) -> core.ClosedJaxpr:
    """Returns a program with fused bits."""

    def run(*args: Any) -> list[Any]:
        return evaluated(closed.jaxpr, closed.consts, args)

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
