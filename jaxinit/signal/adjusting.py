"""Runs a traced model whose layers a rule of the caller's changes on the way.

A layer that is changed in the pass is what the layers behind it see: one pass reaches
all layers in their order.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend import core

from jaxinit._jaxpr.equation import bind, count_operands
from jaxinit._jaxpr.evaluation import evaluate
from jaxinit._jaxpr.primitives import SCAN
from jaxinit.signal._measure._given import fix_weights as fix_weights
from jaxinit.signal._measure._kept import keep as keep
from jaxinit.signal._measure._kept import read_settings as read_settings
from jaxinit.signal._measure.program import Program as Program
from jaxinit.signal._measure.program import prepare as prepare
from jaxinit.signal._measure.seeds import disable_checks as disable_checks
from jaxinit.signal._trace.find import Plan as Plan
from jaxinit.signal._trace.site import Product as Product

# Takes a layer, its product before the bias, the bias or None, and what the rule noted
# at earlier layers; returns the layer's output, and what is kept of it.
Rule = Callable[
    [Product, jax.Array, jax.Array | None, dict[Any, Any]], tuple[jax.Array, Any]
]


def run_adjusting(
    plan: Plan, args: Sequence[Any], rule: Rule, notes: dict[Any, Any] | None = None
) -> tuple[list[Any], dict[int, Any]]:
    """Runs the program of a plan; each layer's output is what the rule makes of it.

    It runs forwards only: functions with derivatives of their own are entered.

    Args:
      plan: the plan.
      args: the arguments of its program.
      rule: makes the output of a layer. In a step of a loop it sees what was noted
        before the loop and in this step.
      notes: what the rule noted before.

    Returns:
      The results, and what is kept of each layer, by the number of its site, with a
      leading axis for each loop around it.
    """
    notes = {} if notes is None else notes
    jaxpr = plan.closed.jaxpr
    layers = {site.output: site for site in plan.sites if isinstance(site, Product)}
    kept: dict[int, Any] = {}

    def compute(eqn: core.JaxprEqn, values: list[Any]) -> Sequence[Any]:
        if body := plan.inner.get(eqn):
            results, inside = _run_inner(eqn, body, values, rule, notes)
            kept.update(inside)
            return results
        site = next((layers[var] for var in eqn.outvars if var in layers), None)
        if site is None:
            return bind(eqn, values)
        bias = None
        if site.bias is None:
            (product,) = bind(eqn, values)
        else:  # the equation adds it
            side = 0 if eqn.invars[0] is site.bias else 1
            product = values[1 - side]
            bias = jax.numpy.broadcast_to(values[side], product.shape)
        output, kept[site.number] = rule(site, product, bias, notes)
        return [output]

    return evaluate(jaxpr, plan.closed.consts, args, compute), kept


def _run_inner(
    eqn: core.JaxprEqn,
    body: Plan,
    values: list[Any],
    rule: Rule,
    notes: dict[Any, Any],
) -> tuple[list[Any], dict[int, Any]]:
    """Runs a loop, or a function that is rematerialized or has own derivatives."""
    if eqn.primitive.name != SCAN:
        return run_adjusting(body, values, rule, notes)
    count, carried = count_operands(eqn)
    consts, carry = values[:count], values[count : count + carried]

    def step(carry: list[Any], each: list[Any]) -> Any:
        args = [*consts, *carry, *each]
        results, kept = run_adjusting(body, args, rule, dict(notes))
        return results[:carried], (results[carried:], kept)

    last, (stacked, kept) = jax.lax.scan(
        step,
        carry,
        values[count + carried :],
        length=eqn.params["length"],
        reverse=eqn.params["reverse"],
        unroll=eqn.params["unroll"],
    )
    return [*last, *stacked], kept
