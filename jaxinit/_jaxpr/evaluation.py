"""The one loop over the equations of a program; a rule evaluates each of them.

The caller brings the rule, a function from an equation and its operands to its results.
Values may be arrays, tracers of a new program, or facts about a value: its number in a
graph, say, or the layers that it comes from. Anything with ``invars`` and ``outvars``
may stand for an equation, such as a node of a graph.
"""

from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any

from jax.extend import core

from jaxinit._jaxpr.equation import is_constant

Values = dict[Any, Any]  # by variable
Rule = Callable[[Any, list[Any]], Sequence[Any]]  # an equation, its operands: results
Constant = Callable[[Any], Any]  # a constant in place of a variable: its value
_VALUE: Constant = attrgetter("val")


def evaluate(
    jaxpr: core.Jaxpr,
    consts: Sequence[Any],
    args: Sequence[Any],
    rule: Rule,
    constant: Constant = _VALUE,
) -> list[Any]:
    """Evaluates a program.

    Args:
      jaxpr: the program.
      consts: values of its constants.
      args: values of its arguments.
      rule: returns the results of an equation: `equation.bind` computes them.
      constant: returns the value of a constant that stands in place of a variable; by
        default the number or array itself.
    """
    values = begin(jaxpr, consts, args)
    walk(jaxpr.eqns, values, rule, constant)
    return read(values, jaxpr.outvars, constant)


def begin(jaxpr: core.Jaxpr, consts: Iterable[Any], args: Iterable[Any]) -> Values:
    """Returns the values known before the first equation: constants and arguments."""
    values: Values = dict(zip(jaxpr.constvars, consts, strict=True))
    values.update(zip(jaxpr.invars, args, strict=True))
    return values


def walk(
    equations: Iterable[Any], values: Values, rule: Rule, constant: Constant = _VALUE
) -> None:
    """Evaluates equations in order, and adds their results to the values."""
    for eqn in equations:
        results = rule(eqn, read(values, eqn.invars, constant))
        values.update(zip(eqn.outvars, results, strict=True))


def read(
    values: Values, atoms: Iterable[Any], constant: Constant = _VALUE
) -> list[Any]:
    """Returns the values of variables and constants."""
    return [constant(atom) if is_constant(atom) else values[atom] for atom in atoms]
