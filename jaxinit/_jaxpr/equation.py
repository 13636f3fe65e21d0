"""Equations of a traced program: their operands, their programs, what they draw."""

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxinit._jaxpr.primitives import DIVISIBLE, RANDOM


@dataclass(frozen=True, eq=False)
class Fixed:
    """A constant in place of a variable, as `core.Literal` is, hashed by identity."""

    val: Any
    aval: Any


def fix(atom: Any) -> Fixed:
    """Returns a constant as it is now: a NumPy array may change later."""
    if isinstance(atom, Fixed):
        return atom
    return Fixed(keep(atom.val), atom.aval)


def keep(value: Any) -> Any:
    """Returns a value as it is now: NumPy arrays are copied."""
    return value.copy() if isinstance(value, np.ndarray) else value


def is_constant(atom: Any) -> TypeGuard[core.Literal | Fixed]:
    """Returns whether a constant stands in place of a variable."""
    return isinstance(atom, (core.Literal, Fixed))


def find_variables(atoms: Iterable[Any]) -> list[Any]:
    """Returns the operands that are variables."""
    return [atom for atom in atoms if not is_constant(atom)]


def list_uses(jaxpr: core.Jaxpr) -> dict[Any, list[int]]:
    """Lists the equations that read each variable; -1 stands for the results."""
    uses: dict[Any, list[int]] = {}
    for index, eqn in enumerate(jaxpr.eqns):
        for variable in find_variables(eqn.invars):
            uses.setdefault(variable, []).append(index)
    for variable in find_variables(jaxpr.outvars):
        uses.setdefault(variable, []).append(-1)
    return uses


def bind(eqn: core.JaxprEqn, values: list[Any]) -> list[Any]:
    """Computes the results of an equation from its operands."""
    params = eqn.primitive.get_bind_params(eqn.params)
    with eqn.ctx.manager:
        results = eqn.primitive.bind(*values, **params)
    return list(results) if eqn.primitive.multiple_results else [results]


def find_bodies(eqn: core.JaxprEqn) -> Iterator[core.Jaxpr]:
    """Yields the programs that an equation runs, loops and branches included."""
    yield from core.jaxprs_in_params(eqn.params)


def open_body(eqn: core.JaxprEqn) -> core.ClosedJaxpr | None:
    """Returns the program of a call or loop; None if it has none, or several."""
    body = eqn.params.get("call_jaxpr", eqn.params.get("jaxpr"))
    if isinstance(body, core.Jaxpr) and not body.constvars:
        return core.ClosedJaxpr(body, ())
    return body if isinstance(body, core.ClosedJaxpr) else None


def count_operands(scan: core.JaxprEqn) -> tuple[int, int]:
    """Counts the operands of a scan that are constants, and those that it carries."""
    if "ft_in" in scan.params:  # JAX 0.11 and later
        consts, carry, _ = scan.params["ft_in"].unpack()
        return len(consts), len(carry)
    return scan.params["num_consts"], scan.params["num_carry"]


def holds(eqn: core.JaxprEqn, wanted: Callable[[core.JaxprEqn], Any]) -> bool:
    """Returns whether an equation, or one in its programs, is wanted."""
    return bool(wanted(eqn)) or any(
        holds(inside, wanted) for body in find_bodies(eqn) for inside in body.eqns
    )


def draws(eqn: core.JaxprEqn) -> bool:
    """Returns whether an equation draws random numbers or derives keys."""
    return holds(eqn, lambda inside: inside.primitive.name in RANDOM)


def is_divisible(eqn: core.JaxprEqn) -> bool:
    """Returns whether values do not depend on how devices share the work."""
    bodies = list(find_bodies(eqn))
    if not bodies:
        return eqn.primitive.name in DIVISIBLE
    return all(is_divisible(inside) for body in bodies for inside in body.eqns)


def is_divided(jaxpr: core.Jaxpr) -> bool:
    """Returns whether a program makes values whose types are divided over a mesh."""
    atoms = [*jaxpr.invars, *(v for eqn in jaxpr.eqns for v in eqn.outvars)]
    shardings = (getattr(atom.aval, "sharding", None) for atom in atoms)
    if any(any(getattr(sharding, "spec", None) or ()) for sharding in shardings):
        return True
    return any(is_divided(body) for eqn in jaxpr.eqns for body in find_bodies(eqn))


def is_key(aval: Any) -> bool:
    """Returns whether a value is a typed key, or an array of keys."""
    return bool(jnp.issubdtype(aval.dtype, jax.dtypes.prng_key))


@functools.cache
def name_generator(dtype: Any) -> str:
    """Returns the name of the generator that typed keys of a dtype belong to."""
    names: list[str] = []
    key = jax.ShapeDtypeStruct((), dtype)
    jax.eval_shape(lambda key: names.append(str(jax.random.key_impl(key))), key)
    return names[0]
