"""Finds gains in a jaxpr: parameters that multiply data entry by entry.

They are the gains of norms, the scales of layers, the alphas of residual branches.
"""

from collections.abc import Sequence

from jax.extend import core

from jaxinit._jaxpr.equation import count_operands, open_body
from jaxinit._jaxpr.evaluation import begin, read, walk
from jaxinit._jaxpr.primitives import SCAN, WRAPPERS

# The leaves of parameters that a value is made of, and whether data are among them.
_Fact = tuple[frozenset[int], bool]
_NONE: _Fact = (frozenset(), False)


def find_gains(closed: core.ClosedJaxpr, parameters: int) -> frozenset[int]:
    """Returns the numbers of the leaves that are gains.

    Args:
      closed: a program whose first arguments are its parameters, and the rest data.
      parameters: the number of parameters.
    """
    gains: set[int] = set()
    count = len(closed.in_avals) - parameters
    facts = [(frozenset({leaf}), False) for leaf in range(parameters)]
    _walk(closed, [*facts, *[(frozenset(), True)] * count], gains)
    return frozenset(gains)


def _walk(
    closed: core.ClosedJaxpr, facts: Sequence[_Fact], gains: set[int]
) -> list[_Fact]:
    """Returns the facts of a program's results, and adds its gains to the others."""
    jaxpr = closed.jaxpr

    def join(eqn: core.JaxprEqn, operands: list[_Fact]) -> list[_Fact]:
        leaves = frozenset[int]().union(*(fact[0] for fact in operands))
        has_data = any(fact[1] for fact in operands)
        if eqn.primitive.name == "mul" and {fact[1] for fact in operands} == {
            True,
            False,
        }:
            gains.update(*(fact[0] for fact in operands if not fact[1]))
        body = open_body(eqn) if eqn.primitive.name in WRAPPERS | {SCAN} else None
        if body is not None and eqn.primitive.name == SCAN:
            consts, carried = count_operands(eqn)
            carry = [(frozenset[int](), True)] * carried
            operands = [*operands[:consts], *carry, *operands[consts + carried :]]
        if body is not None and len(body.in_avals) == len(operands):
            results = _walk(body, operands, gains)
            if eqn.primitive.name != SCAN:
                return results
        # What data and parameters make together is data.
        fact = (frozenset[int](), True) if has_data else (leaves, False)
        return [fact] * len(eqn.outvars)

    known = begin(jaxpr, [_NONE] * len(jaxpr.constvars), facts)
    walk(jaxpr.eqns, known, join, constant=lambda _: _NONE)
    return read(known, jaxpr.outvars, lambda _: _NONE)
