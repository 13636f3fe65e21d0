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

Chain = tuple[core.JaxprEqn, ...]  # each reads the one before, and nothing else does


def merged(closed: core.ClosedJaxpr, result: Any) -> Callable[..., Any]:
    """Makes a function of a program, with its equal draws in loops.

    Args:
      closed: the program.
      result: a tree as the program's function returns it, of shapes, say.

    Returns:
      A function of the same arguments, with the same values.
    """

    def run(*args: Any) -> Any:
        results = _evaluate(closed, jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(result), results)

    return run


def _evaluate(closed: core.ClosedJaxpr, args: list[Any]) -> list[Any]:
    jaxpr = closed.jaxpr
    env: dict[Any, Any] = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    env |= dict(zip(jaxpr.invars, args, strict=True))
    # A chain's level is the number of draws that it waits for.
    level: dict[Any, int] = dict.fromkeys(env, 0)
    speller = Speller()
    plain: dict[int, list[Chain]] = {}
    equal: dict[int, dict[Any, list[Chain]]] = {}
    for chain in _chains(jaxpr):
        waits = max((level[a] for a in _variables(chain[0])), default=0)
        random = draws(chain[0])
        if random:
            signature = tuple(_signature(eqn, speller) for eqn in chain)
            equal.setdefault(waits, {}).setdefault(signature, []).append(chain)
        else:
            plain.setdefault(waits, []).append(chain)
        level |= dict.fromkeys(chain[-1].outvars, waits + random)
    for waits in sorted({*plain, *equal}):
        for chain in plain.get(waits, ()):
            _run([chain], env)
        for group in equal.get(waits, {}).values():
            _run(group, env)
    return [_read(env, atom) for atom in jaxpr.outvars]


def _chains(jaxpr: core.Jaxpr) -> list[Chain]:
    """Returns each draw with what alone reads it, such as its scaling; others alone."""
    users: dict[Any, list[core.JaxprEqn | None]] = {}
    for eqn in jaxpr.eqns:
        for atom in _variables(eqn):
            users.setdefault(atom, []).append(eqn)
    for atom in jaxpr.outvars:
        if not isinstance(atom, core.Literal):
            users.setdefault(atom, []).append(None)
    chains, taken = [], set()
    for eqn in jaxpr.eqns:
        if id(eqn) in taken:
            continue
        chain = [eqn]
        while draws(eqn) and len(made := chain[-1].outvars) == 1:
            (user, *more) = users.get(made[0]) or [None]
            if user is None or more or len(_variables(user)) > 1 or draws(user):
                break
            chain.append(user)
            taken.add(id(user))
        chains.append(tuple(chain))
    return chains


def _variables(eqn: core.JaxprEqn) -> list[Any]:
    return [atom for atom in eqn.invars if not isinstance(atom, core.Literal)]


def _signature(eqn: core.JaxprEqn, speller: Speller) -> Any:
    """Spells an equation and the types of its operands, equal for equal ones."""
    operands = tuple(
        speller.constant(atom)
        if isinstance(atom, core.Literal) and np.ndim(atom.val)
        else (atom.aval, isinstance(atom, core.Literal))
        for atom in eqn.invars
    )
    return speller.equation(eqn), operands


class _Entry(NamedTuple):
    """An entry of what a loop made, not yet taken out."""

    column: jax.Array
    row: int


def _run(group: list[Chain], env: dict[Any, Any]) -> None:
    """Evaluates chains that are equal but for their operands."""
    operands = [_operands(chain) for chain in group]
    if len(group) < _FEWEST:
        results = [
            _made(chain, [_read(env, atom) for atom in atoms])
            for chain, atoms in zip(group, operands, strict=True)
        ]
    else:
        columns = [_column(env, each) for each in zip(*operands, strict=True)]
        stacked = jax.lax.map(lambda each: _made(group[0], each), columns)
        results = [[_Entry(column, i) for column in stacked] for i in range(len(group))]
    for chain, found in zip(group, results, strict=True):
        env |= dict(zip(chain[-1].outvars, found, strict=True))


def _operands(chain: Chain) -> list[Any]:
    """Returns what a chain reads, but for what it made itself."""
    first, *rest = chain
    literals = [a for eqn in rest for a in eqn.invars if isinstance(a, core.Literal)]
    return [*first.invars, *literals]


def _made(chain: Chain, values: list[Any]) -> list[Any]:
    """Evaluates a chain on its operands."""
    first, *rest = chain
    given = iter(values)
    made = bind(first, [next(given) for _ in first.invars])
    for eqn in rest:
        atoms = eqn.invars
        made = bind(
            eqn,
            [next(given) if isinstance(a, core.Literal) else made[0] for a in atoms],
        )
    return made


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
