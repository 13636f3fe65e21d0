"""Runs a model's traced program, and keeps the values at its sites."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxinit._jaxpr.equation import bind, count_operands
from jaxinit._jaxpr.evaluation import begin, read, walk
from jaxinit._jaxpr.primitives import CUSTOM, SCAN
from jaxinit.signal._trace.attention import Attention
from jaxinit.signal._trace.find import Plan
from jaxinit.signal._trace.site import Product, Values


def evaluate_plan(
    plan: Plan, args: Sequence[Any], shifts: Mapping[int, Values]
) -> tuple[list[Any], dict[int, Values]]:
    """Runs the jaxpr of a plan and keeps the values at its sites.

    Args:
      plan: the plan.
      args: the arguments of the jaxpr.
      shifts: for each site to keep, zeros to be added to its ``output`` and to its
        ``weight``, if given: the gradient with respect to them is that at the site; and
        the weight that it had ``before``, if given. They have a leading axis for each
        loop around the site. Each attention that is here too keeps its logits.

    Returns:
      The results, and for each site the values ``output``, ``weight``, ``bias`` and
      ``input`` that it has; ``input`` only where it is not known to be just another
      layer's activation, or where the weight before is given. With that come
      ``product``, the output without the bias, and ``moved``, the product of the input
      with what the weight has changed. For each attention the result of
      `Attention.measure`, or its logits as ``output``. Values have a leading axis for
      each loop around the site.
    """
    jaxpr = plan.closed.jaxpr
    sites = [site for site in plan.sites if site.number in shifts]
    added = {
        site.output: shifts[site.number]["output"]
        for site in sites
        if "output" in shifts[site.number]
    }
    products = {site.eqn: site for site in sites if isinstance(site, Product)}
    kept: dict[int, Values] = {}

    def shift(eqn: core.JaxprEqn, values: list[Any]) -> list[Any]:
        if body := plan.inner.get(eqn):
            results, inside = _evaluate_inner(eqn, body, values, shifts)
            kept.update(inside)
        else:
            product = products.get(eqn)
            if product and "weight" in shifts[product.number]:
                values[_find_side(product)] += shifts[product.number]["weight"]
            results = bind(eqn, values)
            if product and "before" in shifts[product.number]:
                before = shifts[product.number]["before"]
                change = _multiply_change(product, values, before)
                kept[product.number] = change | {"product": results[0]}
        return [
            result + added[var] if var in added else result
            for var, result in zip(eqn.outvars, results, strict=True)
        ]

    env = begin(jaxpr, plan.closed.consts, args)
    walk(jaxpr.eqns, env, shift)
    for site in sites:
        parts = site.parts
        values = read(env, parts.values())
        more = kept.get(site.number, {})
        kept[site.number] = dict(zip(parts, values, strict=True)) | more
    for each in plan.attentions:
        if isinstance(each, Attention) and each.number in shifts:
            kept[each.number] = {"output": env[each.logits]}
        else:
            kept[each.number] = each.measure(env)
    return read(env, jaxpr.outvars), kept


def _find_side(product: Product) -> int:
    """Returns which operand of a product is the weight."""
    return 0 if product.eqn.invars[0] is product.weight else 1


def _multiply_change(product: Product, values: list[Any], before: jax.Array) -> Values:
    """Multiplies the input of a layer with the change of its weight."""
    operands, side = list(map(jax.lax.stop_gradient, values)), _find_side(product)
    operands[side] -= before
    (moved,) = bind(product.eqn, operands)
    return {"input": operands[1 - side], "moved": moved}


def _evaluate_inner(
    eqn: core.JaxprEqn,
    body: Plan,
    values: list[Any],
    shifts: Mapping[int, Values],
) -> tuple[list[Any], dict[int, Values]]:
    """Evaluates a loop, or a function that is rematerialized or has own derivatives."""
    inside = body.all_numbers()
    mine = {number: values for number, values in shifts.items() if number in inside}
    if eqn.primitive.name in CUSTOM:
        return _evaluate_custom(eqn, body, values, mine)
    if eqn.primitive.name != SCAN:
        policy, cse = eqn.params["policy"], eqn.params["prevent_cse"]
        run = functools.partial(evaluate_plan, body)
        again = jax.checkpoint(run, policy=policy, prevent_cse=cse)
        results, kept = again(values, mine)
        return results, kept
    count, carried = count_operands(eqn)
    consts, carry = values[:count], values[count : count + carried]

    def step(carry: list[Any], xs: tuple[list[Any], dict[int, Values]]) -> Any:
        each, shifts = xs
        results, kept = evaluate_plan(body, [*consts, *carry, *each], shifts)
        return results[:carried], (results[carried:], kept)

    last, (stacked, kept) = jax.lax.scan(
        step,
        carry,
        (values[count + carried :], mine),
        length=eqn.params["length"],
        reverse=eqn.params["reverse"],
        unroll=eqn.params["unroll"],
    )
    return [*last, *stacked], kept


def _evaluate_custom(
    eqn: core.JaxprEqn, body: Plan, values: list[Any], shifts: Mapping[int, Values]
) -> tuple[list[Any], dict[int, Values]]:
    """Evaluates a function that defines its own derivatives.

    Its own rule says what flows back out of it. The body runs beside it, for what flows
    within: its layers get the gradients that JAX derives from the body.
    """
    results, kept = evaluate_plan(
        body, list(map(jax.lax.stop_gradient, values)), shifts
    )
    pairs = zip(bind(eqn, values), results, strict=True)
    return [_send_back(own, inside) for own, inside in pairs], kept


def _send_back(own: jax.Array, inside: jax.Array) -> jax.Array:
    """Returns the first of two equal arrays; both get its gradient."""
    if not jnp.issubdtype(own.dtype, np.inexact):
        return own
    sent: jax.Array = _first(own, inside)
    return sent


@jax.custom_vjp
def _first(own: jax.Array, inside: jax.Array) -> jax.Array:
    return own


_first.defvjp(lambda own, inside: (own, None), lambda _, slope: (slope, slope))
