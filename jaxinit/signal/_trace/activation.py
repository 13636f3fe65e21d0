"""Activations in a jaxpr: chains of elementwise operations behind a layer."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxinit._gain import ACTIVATIONS
from jaxinit.model import bind

Function = Callable[[jax.Array], jax.Array]
Var = Any  # core.Var; to the types its aval has no shape
CALLS = {"jit", "pjit", "closed_call", "core_call"}
SAME = {"reshape", "convert_element_type", "copy", "squeeze", "expand_dims", "name"}
ELEMENTWISE = frozenset(
    """abs acos acosh add and asin asinh atan atan2 atanh cbrt ceil clamp
    convert_element_type copy cos cosh digamma div eq erf erf_inv erfc exp exp2 expm1
    floor ge gt integer_pow is_finite le lgamma log log1p logistic lt max min mul name
    ne neg nextafter not or pow rem round rsqrt select_n sign sin sinh sqrt square
    stop_gradient sub tan tanh xor""".split()
)
_GRID = np.linspace(-4, 4, 161, dtype=np.float32)  # where activations are compared


def activation(
    jaxpr: core.Jaxpr, output: Var, uses: Mapping[Any, list[int]]
) -> tuple[tuple[core.JaxprEqn, ...], Var | None]:
    """Finds the chain of elementwise operations that starts at an output."""
    reached: dict[Any, int] = {output: -1}
    chain: dict[int, core.JaxprEqn] = {}
    scalars: set[Any] = set()
    for index, eqn in enumerate(jaxpr.eqns):
        mine = [a for a in eqn.invars if not isinstance(a, core.Literal)]
        spread = eqn.primitive.name == "broadcast_in_dim"
        if all(a in scalars for a in mine) and (
            spread or not any(_shape(v) for v in eqn.outvars)
        ):
            scalars.update(eqn.outvars)
            chain[index] = eqn
            continue
        if not any(a in reached for a in mine) or not _elementwise(eqn):
            continue
        if all(a in reached or a in scalars for a in mine):
            chain[index] = eqn
            reached |= {var: index for var in eqn.outvars}
    ends = [
        var
        for var, index in reached.items()
        if index >= 0
        and var.aval.shape == output.aval.shape
        and jnp.issubdtype(var.aval.dtype, np.floating)
        and any(use not in chain for use in uses.get(var, []))
    ]
    # An output that is also read as it is goes on by another way: into a
    # normalisation, say, which squares it besides.
    same = {output}
    for eqn in chain.values():
        if eqn.primitive.name in SAME and eqn.invars[0] in same:
            same.update(eqn.outvars)
    escapes = any(use not in chain for var in same for use in uses.get(var, []))
    if not ends or escapes:
        return (), None
    end = max(ends, key=lambda var: reached[var])
    needed = {end}
    kept = []
    for index in sorted(chain, reverse=True):
        if needed.intersection(chain[index].outvars):
            kept.append(chain[index])
            needed.update(
                a for a in chain[index].invars if not isinstance(a, core.Literal)
            )
    trivial = all(eqn.primitive.name in SAME for eqn in kept)
    return ((), None) if trivial else (tuple(reversed(kept)), end)


def _elementwise(eqn: core.JaxprEqn) -> bool:
    if eqn.primitive.name in ELEMENTWISE:
        return True
    bodies = list(core.jaxprs_in_params(eqn.params))
    names = CALLS | {"custom_jvp_call", "custom_vjp_call"}
    return (
        eqn.primitive.name in names
        and bool(bodies)
        and all(
            _elementwise(inside)
            or (inside.primitive.name == "broadcast_in_dim" and _of_scalar(inside))
            for body in bodies
            for inside in body.eqns
        )
    )


def _shape(variable: Var) -> tuple[int, ...]:
    shape: tuple[int, ...] = variable.aval.shape
    return shape


def _of_scalar(eqn: core.JaxprEqn) -> bool:
    return not _shape(eqn.invars[0])


def apply(
    chain: tuple[core.JaxprEqn, ...], start: Var, end: Var, x: jax.Array
) -> jax.Array:
    """Applies a chain, from one of its variables to another, to any array.

    The chain has the start's shape and dtype written into it, so others are filled up.
    """
    shape, dtype = start.aval.shape, start.aval.dtype
    if x.shape != shape or x.dtype != dtype:
        size = math.prod(shape)
        rows = -(-x.size // size)
        flat = jnp.pad(x.reshape(-1).astype(dtype), (0, rows * size - x.size))
        full = [
            apply(chain, start, end, row.reshape(shape))
            for row in jnp.split(flat, rows)
        ]
        return jnp.concatenate(full).reshape(-1)[: x.size].reshape(x.shape)
    env: dict[Any, Any] = {start: x}
    for eqn in chain:
        values = [
            atom.val if isinstance(atom, core.Literal) else env[atom]
            for atom in eqn.invars
        ]
        results = values if eqn.primitive.name == "name" else bind(eqn, values)
        env |= dict(zip(eqn.outvars, results, strict=True))
    found: jax.Array = env[end]
    return found


def form_of(function: Function | None, output: Var) -> str:
    """Spells an activation behind an output, equal for equal functions."""
    return "" if function is None else str(jax.make_jaxpr(function)(output.aval))


def name_of(function: Function | None, output: Var) -> str | None:
    """Names an activation behind an output; None if there is none.

    By how it is spelt, and else by its values, which takes programs to compile.
    """
    if function is None:
        return None
    form = form_of(function, output)
    for name, known in ACTIVATIONS.items():
        if form_of(known, output) == form:
            return name
    values = np.asarray(function(jnp.asarray(_GRID)), np.float64)
    for name, known in ACTIVATIONS.items():
        shape = np.asarray(known(_GRID), np.float64)
        factor = float(values @ shape / (shape @ shape))
        if np.allclose(values, factor * shape, rtol=1e-5, atol=1e-6) and factor > 0:
            return name if abs(factor - 1) < 1e-5 else f"{factor:.3g} {name}"
    return "function"
