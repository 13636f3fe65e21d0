"""Measures the layers of a model within a program of the caller's: a training step."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxinit.signal._measure.program import find_layers
from jaxinit.signal._measure.statistics import compute_moments, wide
from jaxinit.signal._trace.evaluate import evaluate_plan


class Deviations(NamedTuple):  # each [layers]
    """Standard deviations of the entries of each layer's output, and of its gradient.

    Layers are those of `check`: products of data with a weight, in their order.
    """

    forward: jax.Array
    gradient: jax.Array


def differentiate(
    loss: Callable[[Any], jax.Array],
    model: Callable[..., Any],
    params: Any,
    *rest: Any,
    stack: str = "",
) -> tuple[jax.Array, Any, Deviations | None]:
    """Computes a loss and its gradient, and measures the layers on the way.

    It can be traced, so that it works under `jax.jit` and `jax.vmap`.

    Args:
      loss: computes a number from the model's output.
      model: the model: ``output = model(params, *rest)``.
      params: the parameters.
      *rest: further arguments, pytrees of arrays.
      stack: what the paths of layers begin with that are steps of a loop. The steps of
        other loops, such as those over time, are counted together. "" for no path.

    Returns:
      The loss, its gradient with respect to the parameters, and the deviations at each
      layer; None if there are no layers.
    """
    traced, shapes = jax.make_jaxpr(model, return_shape=True)(params, *rest)
    plan, found = find_layers(traced, params)
    sites = [(site, steps) for site, steps in found if site.kind != "module"]
    tree = jax.tree.structure(shapes)
    shifts = {}
    for site, steps in sites:
        y = site.output.aval
        shifts[site.number] = {"output": jnp.zeros((*steps, *y.shape), y.dtype)}

    def run(params: Any, shifts: Any) -> tuple[jax.Array, Any]:
        results, values = evaluate_plan(plan, jax.tree.leaves((params, rest)), shifts)
        return loss(jax.tree.unflatten(tree, results)), values

    of_both = jax.value_and_grad(run, argnums=(0, 1), has_aux=True)
    (number, values), (gradient, slopes) = of_both(params, shifts)
    if not sites:
        return number, gradient, None

    def deviate(flow: Any) -> jax.Array:
        each = []
        for site, steps in sites:
            y = flow[site.number]["output"]
            stacked = stack and site.path.startswith(stack)
            rows = y.reshape(-1, *y.shape[len(steps) :]) if stacked else y[None]
            each.append(compute_moments(rows, jnp).std)
        return jnp.concatenate([stds.astype(wide(number)) for stds in each])

    return number, gradient, Deviations(deviate(values), deviate(slopes))
