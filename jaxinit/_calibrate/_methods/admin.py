"""Admin: residual branches of a transformer with norms behind them, balanced.

References:
  Liu, Liu, Gao, Chen, Han. Understanding the Difficulty of Training Transformers. 2020. https://arxiv.org/abs/2004.08249
"""  # noqa: E501

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jax.extend import core

from jaxinit import _check as check
from jaxinit._calibrate.changes import scale_layer
from jaxinit._calibrate.problem import Done, Problem
from jaxinit._jaxpr.equation import find_variables, holds, is_constant, list_uses
from jaxinit._jaxpr.primitives import PRODUCTS, RESHAPES, SAME

_MOVES = RESHAPES | SAME | {"transpose"}
_NEEDS = (
    "admin is for transformers whose norms stand behind each branch, x = norm(x + "
    "f(x)), outside of loops, and the model has no such branch"
)
_CURE = ' Use method="lsuv", with targets=[("role:residual", ...)] for branches.'


class Branch(NamedTuple):
    """The end of a residual branch, whose sum goes through a norm.

    Attributes:
      number: the number of the layer that ends it.
      factor: what its output is multiplied by before the sum.
      omega: the number of the parameter that multiplies what bypasses it, if one does.
    """

    number: int
    factor: float
    omega: int | None


def balance_branches(problem: Problem) -> Done:
    """Weights what bypasses each branch by the variance of the branches before it.

    A pass with all weights omega = 1 measures Var[f_j]. Then

        x = norm(omega_i x + f_i(x)),    omega_i^2 = 1 + sum over j < i of Var[f_j];

    the 1, with which the authors' code begins, stands for the input. A model without
    such parameters computes the same, as its norm does not see the size of the sum, if
    the last kernel and bias of branch i are divided by omega_i.
    """
    branches = _find_branches(problem)
    weights = problem.weights
    changed = problem.list_changed()
    for branch in branches:
        if branch.omega is not None and branch.number in changed:
            weights.set(branch.omega, np.ones(()))
    outcomes = problem.measure()
    total = 1.0
    for branch in branches:
        omega = math.sqrt(total)
        layer = problem.layers[branch.number]
        if branch.number not in changed:
            pass  # but what it adds counts
        elif branch.omega is not None:
            weights.set(branch.omega, np.asarray(omega))
        else:
            scale_layer(weights, layer, np.asarray(1 / omega))
            if layer.bias is not None:
                weights.scale(layer.bias, np.asarray(1 / omega))
        added = (branch.factor * float(outcomes[branch.number].moments.std)) ** 2
        total += added if math.isfinite(added) else 0.0
    return Done(1)


def _find_branches(problem: Problem) -> list[Branch]:
    """Finds the ends of branches in their order; raises if none is of this kind."""
    structure = problem.program.read_structure()
    assert structure is not None
    branches = []
    for number, layer in enumerate(problem.layers):
        if layer.reason or layer.follows:
            continue
        row = structure.rows[layer.leaves[0]]
        branch = None if layer.steps else _find_branch(problem, number)
        left = "residual" not in row.roles or not problem.aim.chosen[number]
        if branch is None and left:
            continue
        if branch is None:
            rule = f"{_NEEDS}: {row.path} ends one of another kind.{_CURE}"
            raise check.Unfit(rule, method="admin")
        branches.append(branch)
    if not branches:
        raise check.Unfit(f"{_NEEDS}.{_CURE}", method="admin")
    return branches


def _find_branch(problem: Problem, number: int) -> Branch | None:
    """Finds where a branch meets what bypasses it; None if no norm takes the sum alone.

    Where norms stand before the branches, the sum goes on beside the next norm.
    """
    layer = problem.layers[number]
    jaxpr = problem.program.plan.closed.jaxpr
    uses = list_uses(jaxpr)
    met = _find_sum(jaxpr, uses, layer.site.output)
    if met is None:
        return None
    place, factor, entry = met
    (result,) = jaxpr.eqns[place].outvars
    goes_on = _find_sum(jaxpr, uses, result, alone=False) is not None
    if goes_on or not _meets_norm(jaxpr, result):
        return None
    made = {var: eqn for eqn in jaxpr.eqns for var in eqn.outvars}
    other = next((x for x in jaxpr.eqns[place].invars if x is not entry), None)
    return Branch(number, factor, _find_omega(problem, made, uses, other))


def _find_sum(
    jaxpr: core.Jaxpr, uses: Mapping[Any, list[int]], start: Any, alone: bool = True
) -> tuple[int, float, Any] | None:
    """Finds the sum that a value goes into, in another shape or times a number.

    Returns:
      The place of the sum, the number, and the operand of the sum that it is.
    """
    waiting = [(start, 1.0)]
    while waiting:
        at, factor = waiting.pop()
        readers = uses.get(at, [])
        if alone and len(readers) != 1:
            return None
        for index in readers:
            if index < 0:
                continue
            eqn = jaxpr.eqns[index]
            if eqn.primitive.name == "add" and not any(map(is_constant, eqn.invars)):
                return index, factor, at
            if eqn.primitive.name in _MOVES:
                waiting.append((eqn.outvars[0], factor))
            numbers = [x.val for x in eqn.invars if is_constant(x)]
            if eqn.primitive.name == "mul" and numbers and np.ndim(numbers[0]) == 0:
                waiting.append((eqn.outvars[0], factor * float(numbers[0])))
    return None


def _meets_norm(jaxpr: core.Jaxpr, start: Any) -> bool:
    """Returns whether a root of what is made of a value is taken, before products."""
    made = {start}
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        if name in PRODUCTS or made.isdisjoint(find_variables(eqn.invars)):
            continue
        if holds(eqn, lambda inside: inside.primitive.name in {"rsqrt", "sqrt"}):
            return True
        if name != "add" or any(map(is_constant, eqn.invars)):
            made.update(eqn.outvars)
    return False


def _go_back(made: Mapping[Any, core.JaxprEqn], at: Any) -> Any:
    """Returns the value that this one is, perhaps in another shape or type."""
    while not is_constant(at) and at in made and made[at].primitive.name in _MOVES:
        (at, *_) = made[at].invars
    return at


def _find_omega(
    problem: Problem,
    made: Mapping[Any, core.JaxprEqn],
    uses: Mapping[Any, list[int]],
    other: Any,
) -> int | None:
    """Finds the parameter that multiplies what bypasses a branch, and nothing else.

    The gain of a norm multiplies what the branch reads too.
    """
    at = None if other is None else _go_back(made, other)
    product = None if at is None or is_constant(at) else made.get(at)
    if product is None or product.primitive.name != "mul":
        return None
    if len(uses[product.outvars[0]]) != 1:
        return None
    invars = problem.program.plan.closed.jaxpr.invars
    numbers = {invar: number for number, invar in enumerate(invars)}
    for atom in product.invars:
        at = _go_back(made, atom)
        number = None if is_constant(at) else numbers.get(at)
        if number is not None and number < len(problem.weights.leaves):
            return number
    return None
