"""Equal draws of a program, put into one loop.

XLA compiles a draw as often as it stands in a program, and a deep model draws the same
shape many times. Here equations that are equal but for their operands, and do not
depend on each other, become the body of one loop: what is compiled grows with the kinds
of parameters and not with their number. Values do not change.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxinit._jaxpr.equation import bind, draws, find_variables, is_constant, list_uses
from jaxinit._jaxpr.evaluation import begin, read, walk
from jaxinit._jaxpr.spelling import Speller

_FEWEST = 3  # equal equations that are worth a loop

Chain = tuple[core.JaxprEqn, ...]  # each reads the one before, and nothing else does


class _Group(NamedTuple):
    """Chains that are equal but for their operands: an equation, to the evaluator."""

    chains: list[Chain]

    @property
    def invars(self) -> list[Any]:
        """What the chains read, one after another."""
        return [atom for chain in self.chains for atom in _list_operands(chain)]

    @property
    def outvars(self) -> list[Any]:
        """What the chains make, one after another."""
        return [variable for chain in self.chains for variable in chain[-1].outvars]


class _Entry(NamedTuple):
    """An entry of what a loop made, not yet taken out."""

    column: jax.Array
    row: int


def merge_draws(closed: core.ClosedJaxpr, result: Any) -> Callable[..., Any]:
    """Makes a function of a program, with its equal draws in loops.

    Args:
      closed: the program.
      result: a tree as the program's function returns it, of shapes, say.

    Returns:
      A function of the same arguments, with the same values.
    """

    def evaluate(*args: Any) -> Any:
        jaxpr = closed.jaxpr
        values = begin(jaxpr, closed.consts, jax.tree.leaves(args))
        walk(_group(jaxpr), values, _make_group)
        results = map(_take, read(values, jaxpr.outvars))
        return jax.tree.unflatten(jax.tree.structure(result), results)

    return evaluate


def _group(jaxpr: core.Jaxpr) -> list[_Group]:
    """Groups chains that are equal and wait for as many draws, in order of execution.

    All that waits for as many draws and draws nothing comes before the draws.
    """
    waits_of: dict[Any, int] = {}  # by variable, the number of draws that it waits for
    speller = Speller()
    plain: dict[int, list[_Group]] = {}
    equal: dict[int, dict[Any, _Group]] = {}
    for chain in _list_chains(jaxpr):
        reads = find_variables(chain[0].invars)
        waits = max((waits_of.get(variable, 0) for variable in reads), default=0)
        random = draws(chain[0])
        if random:
            signature = tuple(_spell(eqn, speller) for eqn in chain)
            group = equal.setdefault(waits, {}).setdefault(signature, _Group([]))
            group.chains.append(chain)
        else:
            plain.setdefault(waits, []).append(_Group([chain]))
        waits_of |= dict.fromkeys(chain[-1].outvars, waits + random)
    return [
        group
        for waits in sorted({*plain, *equal})
        for group in (*plain.get(waits, ()), *equal.get(waits, {}).values())
    ]


def _list_chains(jaxpr: core.Jaxpr) -> list[Chain]:
    """Returns each draw with what alone reads it, such as its scaling; others alone."""
    uses = list_uses(jaxpr)
    chains, taken = [], set()
    for index, eqn in enumerate(jaxpr.eqns):
        if index in taken:
            continue
        chain = [eqn]
        while draws(eqn) and len(made := chain[-1].outvars) == 1:
            (use, *more) = uses.get(made[0], [-1])
            user = jaxpr.eqns[use]
            if use < 0 or more or len(find_variables(user.invars)) > 1 or draws(user):
                break
            chain.append(user)
            taken.add(use)
        chains.append(tuple(chain))
    return chains


def _spell(eqn: core.JaxprEqn, speller: Speller) -> Any:
    """Spells an equation and the types of its operands, equal for equal ones."""
    operands = tuple(
        speller.spell_constant(atom)
        if is_constant(atom) and np.ndim(atom.val)
        else (atom.aval, is_constant(atom))
        for atom in eqn.invars
    )
    return speller.spell(eqn), operands


def _list_operands(chain: Chain) -> list[Any]:
    """Returns what a chain reads, but for what it made itself."""
    first, *rest = chain
    return [*first.invars, *(a for eqn in rest for a in eqn.invars if is_constant(a))]


def _make_group(group: _Group, values: list[Any]) -> list[Any]:
    """Evaluates the chains of a group on their operands."""
    count = len(group.chains)
    size = len(values) // count
    operands = [values[i * size : (i + 1) * size] for i in range(count)]
    if count < _FEWEST:
        each = zip(group.chains, operands, strict=True)
        return [v for chain, mine in each for v in _make(chain, map(_take, mine))]
    columns = [_stack(column) for column in zip(*operands, strict=True)]
    made = jax.lax.map(lambda each: _make(group.chains[0], each), columns)
    return [_Entry(column, row) for row in range(count) for column in made]


def _make(chain: Chain, operands: Any) -> list[Any]:
    """Evaluates a chain on its operands."""
    first, *rest = chain
    given = iter(operands)
    made = bind(first, [next(given) for _ in first.invars])
    values = dict(zip(first.outvars, made, strict=True))
    walk(rest, values, bind, constant=lambda _: next(given))
    return read(values, chain[-1].outvars)


def _stack(operands: Sequence[Any]) -> jax.Array:
    """Stacks operands; those that one loop made are not taken apart for it."""
    first = operands[0]
    if all(isinstance(x, _Entry) and x.column is first.column for x in operands):
        column: jax.Array = first.column
        return column[np.array([x.row for x in operands])]
    return jnp.stack(list(map(_take, operands)))


def _take(value: Any) -> Any:
    return value.column[value.row] if isinstance(value, _Entry) else value
