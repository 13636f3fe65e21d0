"""Puts equal draws of a program into one loop.

XLA compiles a draw every time that it occurs in a program, and a deep model draws the
same shape many times. Here equations that are equal but for their operands, and do not
depend on each other, become the body of one loop: compilation grows with the kinds of
parameters, not with their number. Values do not change.
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

Chain = tuple[core.JaxprEqn, ...]  # each is the only reader of the one before


class _Group(NamedTuple):
    """Chains that are equal but for their operands; evaluated as one equation."""

    chains: list[Chain]

    @property
    def invars(self) -> list[Any]:
        """The operands of the chains, one after another."""
        return [atom for chain in self.chains for atom in _list_operands(chain)]

    @property
    def outvars(self) -> list[Any]:
        """The results of the chains, one after another."""
        return [variable for chain in self.chains for variable in chain[-1].outvars]


class _Entry(NamedTuple):
    """An entry of a loop's stacked results, not yet taken out."""

    column: jax.Array
    row: int


def merge_draws(closed: core.ClosedJaxpr, result: Any) -> Callable[..., Any]:
    """Turns a program into a function, with equal draws in loops.

    Args:
      closed: the program.
      result: a tree like the one that the program's function returns, of shapes, say.

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
    """Groups equal chains that wait for the same number of draws, in execution order.

    Of the chains that wait for the same number, those that draw nothing come first.
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
    """Returns each draw with its only readers, such as its scaling; others alone."""
    uses = list_uses(jaxpr)
    chains, taken = [], set()
    for index, eqn in enumerate(jaxpr.eqns):
        if index in taken:
            continue
        chain = [eqn]
        while draws(eqn) and len(results := chain[-1].outvars) == 1:
            (use, *more) = uses.get(results[0], [-1])
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
    """Returns the operands of a chain, without values that it makes itself."""
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
    results = jax.lax.map(lambda each: _make(group.chains[0], each), columns)
    return [_Entry(column, row) for row in range(count) for column in results]


def _make(chain: Chain, operands: Any) -> list[Any]:
    """Evaluates a chain on its operands."""
    first, *rest = chain
    remaining = iter(operands)
    results = bind(first, [next(remaining) for _ in first.invars])
    values = dict(zip(first.outvars, results, strict=True))
    walk(rest, values, bind, constant=lambda _: next(remaining))
    return read(values, chain[-1].outvars)


def _stack(operands: Sequence[Any]) -> jax.Array:
    """Stacks operands; entries of one loop's results are selected together."""
    first = operands[0]
    if all(isinstance(x, _Entry) and x.column is first.column for x in operands):
        column: jax.Array = first.column
        return column[np.array([x.row for x in operands])]
    return jnp.stack(list(map(_take, operands)))


def _take(value: Any) -> Any:
    return value.column[value.row] if isinstance(value, _Entry) else value
