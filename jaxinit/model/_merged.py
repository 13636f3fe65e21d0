"""Equal draws of a program, put into one loop.

XLA compiles a draw as often as it stands in a program, and a deep model draws the same
shape many times. Here equations that are equal but for their operands, and do not
depend on each other, become the body of one loop: what is compiled grows with the kinds
of parameters and not with their number. Values do not change.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxinit.model._equation import Speller, bind, draws

_FEWEST = 3  # equal equations that are worth a loop


def merged(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function with its equal draws in loops.

    Args:
      function: a function of arrays that JAX can trace; its result is a pytree of
        arrays.

    Returns:
      A function of the same arguments, with the same values.
    """

    def run(*args: Any) -> Any:
        closed, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
        results = _evaluate(closed, jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(shapes), results)

    return run


def _evaluate(closed: core.ClosedJaxpr, args: list[Any]) -> list[Any]:
    jaxpr = closed.jaxpr
    env: dict[Any, Any] = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    env |= dict(zip(jaxpr.invars, args, strict=True))
    # An equation's level is the number of draws that it waits for.
    level: dict[Any, int] = dict.fromkeys(env, 0)
    speller = Speller()
    plain: dict[int, list[core.JaxprEqn]] = {}
    equal: dict[int, dict[Any, list[core.JaxprEqn]]] = {}
    for eqn in jaxpr.eqns:
        waits = max((level[a] for a in _variables(eqn)), default=0)
        random = draws(eqn)
        if random:
            groups = equal.setdefault(waits, {})
            groups.setdefault(_signature(eqn, speller), []).append(eqn)
        else:
            plain.setdefault(waits, []).append(eqn)
        level |= dict.fromkeys(eqn.outvars, waits + random)
    for waits in sorted({*plain, *equal}):
        for eqn in plain.get(waits, ()):
            _run([eqn], env)
        for group in equal.get(waits, {}).values():
            _run(group, env)
    return [_read(env, atom) for atom in jaxpr.outvars]


def _variables(eqn: core.JaxprEqn) -> list[Any]:
    return [atom for atom in eqn.invars if not isinstance(atom, core.Literal)]


def _signature(eqn: core.JaxprEqn, speller: Speller) -> Any:
    """Spells an equation and the types of its operands, equal for equal ones."""
    operands = tuple(
        speller.constant(atom)
        if isinstance(atom, core.Literal) and np.ndim(atom.val)
        else atom.aval
        for atom in eqn.invars
    )
    return speller.equation(eqn), operands


class _Entry(NamedTuple):
    """An entry of what a loop made, not yet taken out."""

    column: jax.Array
    row: int


def _run(group: list[core.JaxprEqn], env: dict[Any, Any]) -> None:
    """Evaluates equations that are equal but for their operands."""
    if len(group) < _FEWEST:
        results = [bind(eqn, [_read(env, a) for a in eqn.invars]) for eqn in group]
    else:
        atoms = zip(*(eqn.invars for eqn in group), strict=True)
        columns = [_column(env, each) for each in atoms]
        stacked = jax.lax.map(lambda each: bind(group[0], each), columns)
        results = [[_Entry(column, i) for column in stacked] for i in range(len(group))]
    for eqn, found in zip(group, results, strict=True):
        env |= dict(zip(eqn.outvars, found, strict=True))


def _column(env: Mapping[Any, Any], atoms: tuple[Any, ...]) -> jax.Array:
    """Stacks operands; those that one loop made are not taken apart for it."""
    held = [None if isinstance(atom, core.Literal) else env[atom] for atom in atoms]
    if all(
        isinstance(h, _Entry) and h.column is held[0].column  # type: ignore[union-attr]
        for h in held
    ):
        column: jax.Array = held[0].column  # type: ignore[union-attr]
        return column[np.array([h.row for h in held])]  # type: ignore[union-attr]
    return jnp.stack([_read(env, atom) for atom in atoms])


def _read(env: Mapping[Any, Any], atom: Any) -> Any:
    if isinstance(atom, core.Literal):
        return atom.val
    held = env[atom]
    return held.column[held.row] if isinstance(held, _Entry) else held
