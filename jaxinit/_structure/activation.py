"""Finds activations in a jaxpr: chains of elementwise operations behind a layer."""

import functools
import heapq
import math
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxinit._gain import ACTIVATIONS
from jaxinit._jaxpr.equation import (
    bind,
    find_bodies,
    find_variables,
    holds,
    is_constant,
)
from jaxinit._jaxpr.evaluation import walk
from jaxinit._jaxpr.primitives import CALLS, CUSTOM, ELEMENTWISE, NAME, SAME
from jaxinit._jaxpr.spelling import spell_program

Function = Callable[[jax.Array], jax.Array]
Var = Any  # core.Var, whose aval has no shape for a type checker
_FORWARDS = frozenset({"custom_jvp_call"})  # its derivative is a rule forwards
_GRID = np.linspace(-4, 4, 161, dtype=np.float32)  # where activations are compared


def list_scalars(
    jaxpr: core.Jaxpr, numbers: Mapping[Var, core.Literal]
) -> dict[Any, int]:
    """Lists what is made of numbers alone, with the equations that make it.

    Numbers that the model captures are made by none: -1.
    """
    scalars: dict[Any, int] = dict.fromkeys(numbers, -1)
    for index, eqn in enumerate(jaxpr.eqns):
        spread = eqn.primitive.name == "broadcast_in_dim"
        if spread or not any(_shape(v) for v in eqn.outvars):
            if all(is_constant(a) or a in scalars for a in eqn.invars):
                scalars |= dict.fromkeys(eqn.outvars, index)
    return scalars


def find_activation(
    jaxpr: core.Jaxpr,
    output: Var,
    uses: Mapping[Any, list[int]],
    numbers: Mapping[Var, core.Literal],
    scalars: Mapping[Any, int] | None = None,
) -> tuple[tuple[core.JaxprEqn, ...], Var | None]:
    """Finds the chain of elementwise operations that starts at an output.

    Numbers that the model captures become part of it.

    Args:
      jaxpr: the program.
      output: the variable.
      uses: the equations that read each variable.
      numbers: what the model captures.
      scalars: as `list_scalars` lists them, for many outputs of one program.
    """
    made = list_scalars(jaxpr, numbers) if scalars is None else scalars
    reached: dict[Any, int] = {output: -1}
    chain: dict[int, core.JaxprEqn] = {}
    ahead = sorted({*uses.get(output, ())} - {-1})  # a heap: operands come first
    while ahead:
        index = heapq.heappop(ahead)
        eqn = jaxpr.eqns[index]
        if index in chain or not _is_elementwise(eqn):
            continue
        if all(a in reached or a in made for a in find_variables(eqn.invars)):
            chain[index] = eqn
            reached |= dict.fromkeys(eqn.outvars, index)
            for use in (use for var in eqn.outvars for use in uses.get(var, ())):
                if use >= 0:
                    heapq.heappush(ahead, use)
    ends = [
        var
        for var, index in reached.items()
        if index >= 0
        and var.aval.shape == output.aval.shape
        and jnp.issubdtype(var.aval.dtype, np.floating)
        and any(use not in chain for use in uses.get(var, []))
    ]
    # An output that equations outside the chain read too has no activation: it enters
    # a normalization, say, which also squares it.
    same = {output}
    for eqn in chain.values():
        if eqn.primitive.name in SAME and eqn.invars[0] in same:
            same.update(eqn.outvars)
    escapes = any(use not in chain for var in same for use in uses.get(var, []))
    if not ends or escapes:
        return (), None
    end = max(ends, key=lambda var: reached[var])
    needed, left = set[int](), [reached[end]]
    while left:
        if (index := left.pop()) >= 0 and index not in needed:
            needed.add(index)
            operands = find_variables(jaxpr.eqns[index].invars)
            left += [reached[a] if a in reached else made[a] for a in operands]
    kept = []
    for index in sorted(needed):
        eqn = jaxpr.eqns[index]
        operands = [a if is_constant(a) else numbers.get(a, a) for a in eqn.invars]
        kept.append(eqn.replace(invars=operands))
    trivial = all(eqn.primitive.name in SAME for eqn in kept)
    return ((), None) if trivial else (tuple(kept), end)


def _is_elementwise(eqn: core.JaxprEqn) -> bool:
    if eqn.primitive.name in ELEMENTWISE | {NAME}:
        return True
    bodies = list(find_bodies(eqn)) if eqn.primitive.name in CALLS | CUSTOM else []
    inside = [inner for body in bodies for inner in body.eqns]
    return bool(bodies) and all(
        _is_elementwise(inner) or _spreads_number(inner) for inner in inside
    )


def _spreads_number(eqn: core.JaxprEqn) -> bool:
    return eqn.primitive.name == "broadcast_in_dim" and not _shape(eqn.invars[0])


def _shape(variable: Var) -> tuple[int, ...]:
    shape: tuple[int, ...] = variable.aval.shape
    return shape


def apply(
    chain: tuple[core.JaxprEqn, ...], start: Var, end: Var, x: jax.Array
) -> jax.Array:
    """Applies a chain, from one of its variables to another, to any array.

    The start's shape and dtype are written into the chain, so any other array is cast,
    padded and cut into pieces of that shape.
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
    values: dict[Any, Any] = {start: x}
    walk(chain, values, _compute)
    result: jax.Array = values[end]
    return result


def _compute(eqn: core.JaxprEqn, values: list[Any]) -> list[Any]:
    return values if eqn.primitive.name == NAME else bind(eqn, values)


def differentiate(function: Function, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Computes an activation and its slopes."""
    # Backwards, which functions with a derivative of their own allow too.
    y, back = jax.vjp(function, x)
    return y, back(jnp.ones_like(y))[0]


def spell_activation(
    chain: tuple[core.JaxprEqn, ...], start: Var, end: Var
) -> Hashable:
    """Spells a chain that `apply` takes: equal for equal functions and slopes."""
    function: Callable[..., Any] = functools.partial(apply, chain, start, end)
    if _has(chain, CUSTOM - _FORWARDS):
        function = functools.partial(differentiate, function)
    elif _has(chain, _FORWARDS):  # half the time of backwards
        function = functools.partial(_push, function)
    return _spell_values(function, start.aval)


def _has(chain: tuple[core.JaxprEqn, ...], names: frozenset[str]) -> bool:
    return any(
        holds(eqn, lambda inside: inside.primitive.name in names) for eqn in chain
    )


def _push(function: Function, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    y, slope = jax.jvp(function, (x,), (jnp.ones_like(x),))
    return y, slope


_SCALES = SAME | {"broadcast_in_dim", "div", "mul", "neg"}


def _is_scale(eqn: core.JaxprEqn) -> bool:
    return eqn.primitive.name in _SCALES or not _shape(eqn.outvars[0])


@functools.lru_cache(maxsize=1024)
def _spell_known(name: str, shape: tuple[int, ...], dtype: Any) -> Hashable:
    return _spell_values(ACTIVATIONS[name], jax.ShapeDtypeStruct(shape, dtype))


def _spell_values(function: Callable[[jax.Array], Any], x: Any) -> Hashable:
    return spell_program(jax.make_jaxpr(function)(x))


def read_activation(
    jaxpr: core.Jaxpr,
    output: Var,
    uses: Mapping[Any, list[int]],
    scalars: Mapping[Any, int],
) -> str | None:
    """Names the activation behind an output by its text; nothing is compiled."""
    chain, end = find_activation(jaxpr, output, uses, {}, scalars)
    if end is None or all(map(_is_scale, chain)):
        return None
    return (
        _find_known(functools.partial(apply, chain, output, end), output) or "function"
    )


def _find_known(function: Function, output: Var) -> str | None:
    """Finds the name of the known activation with the same program."""
    form = _spell_values(function, output.aval)
    shape, dtype = output.aval.shape, output.aval.dtype
    known = (name for name in ACTIVATIONS if _spell_known(name, shape, dtype) == form)
    return next(known, None)


def name_activation(function: Function | None, output: Var) -> str | None:
    """Names an activation behind an output; None if there is none.

    The name is that of a known activation with the same program, or else the same
    values, up to a factor. Values need programs to be compiled.
    """
    if function is None:
        return None
    if known := _find_known(function, output):
        return known
    values = np.asarray(function(jnp.asarray(_GRID)), np.float64)
    for name, activation in ACTIVATIONS.items():
        shape = np.asarray(activation(_GRID), np.float64)
        factor = float(values @ shape / (shape @ shape))
        if np.allclose(values, factor * shape, rtol=1e-5, atol=1e-6) and factor > 0:
            return name if abs(factor - 1) < 1e-5 else f"{factor:.3g} {name}"
    return "function"
