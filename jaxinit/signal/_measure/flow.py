"""The pass: runs a model forwards and backwards and returns what flows through it.

It takes weights and keys as operands, so that it depends on the model alone, and no
initializer, key or number of seeds needs a program of its own.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxinit.signal._measure._draw import Seed
from jaxinit.signal._measure._groups import Group, list_shifted, map_rows
from jaxinit.signal._measure.program import Program
from jaxinit.signal._measure.statistics import (
    Activated,
    is_float,
    measure_activation,
    wide,
)
from jaxinit.signal._trace.evaluate import evaluate_plan
from jaxinit.signal._trace.gains import find_gains
from jaxinit.signal._trace.site import Placed, Values


class Flow(NamedTuple):
    """What flows through a model, from one seed.

    Attributes:
      loss: the number whose gradients these are.
      values: the parts of each site, and the statistics of each attention, by number.
      gradients: those of the outputs and weights of the sites, by number.
      activated: for each group, what is behind its activation. # [sites * steps]
      logits: the outputs that may be logits, if there are any.
      gains: of each gain, by the number of its leaf: the largest entry and the largest
        of the gradient there.
    """

    loss: jax.Array
    values: dict[int, Values]
    gradients: dict[int, Values]
    activated: list[Activated | None]
    logits: jax.Array | None
    gains: dict[int, jax.Array]


def run_model(program: Program, seed: Seed, inputs: tuple[Any, ...]) -> Flow:
    """Runs a model forwards and backwards, from what was drawn for a seed."""
    arguments = jax.tree.leaves((*seed.stored, seed.noise, inputs))

    gains = {leaf: arguments[leaf] for leaf in list_gains(program)}

    def run(
        shifts: Mapping[int, Values], gains: Mapping[int, jax.Array]
    ) -> tuple[jax.Array, Any]:
        given = [gains.get(i, value) for i, value in enumerate(arguments)]
        results, values = evaluate_plan(program.plan, given, shifts)
        if program.loss:
            return program.loss(results), (values, results)
        return _project(results, seed.cotangents), (values, results)

    of_shifts = jax.value_and_grad(run, argnums=(0, 1), has_aux=True)
    found = of_shifts(make_zeros(program.sites), gains)
    (loss, (values, results)), (gradients, of_gains) = found
    read = program.readout
    return Flow(
        loss=loss,
        values={n: dict(filter(_is_measured, v.items())) for n, v in values.items()},
        gradients=gradients,
        activated=[_measure_activations(group, values) for group in program.groups],
        logits=results[read.leaf] if read else None,
        gains={leaf: _measure_gain(gains[leaf], of_gains[leaf]) for leaf in gains},
    )


def list_gains(program: Program) -> list[int]:
    """Lists the leaves of the parameters that are gains of real numbers."""
    leaves = jax.tree.leaves(program.stored[0])
    gains = find_gains(program.plan.closed, len(leaves))
    return [i for i in sorted(gains) if jnp.issubdtype(leaves[i].dtype, jnp.floating)]


def _measure_gain(gain: jax.Array, gradient: jax.Array) -> jax.Array:
    """Computes the largest entry of a gain, and of the gradient there."""
    return jnp.stack([jnp.abs(x.astype(jnp.float32)).max() for x in (gain, gradient)])


def _is_measured(part: tuple[str, jax.Array]) -> bool:
    """Returns whether a part of a site is measured; tokens as an input are not."""
    name, value = part
    return name != "input" or is_float(value.dtype)


def _measure_activations(
    group: Group, values: Mapping[int, Values]
) -> Activated | None:
    """Computes what is behind the activations of a group: this needs derivatives."""
    site = group.first
    if site.activation is None:
        return None
    activated: Activated = map_rows(
        lambda row: measure_activation(site, row["output"]),
        group.take_rows(values, ["output"]),
    )
    return activated


def make_zeros(sites: list[Placed]) -> dict[int, Values]:
    """Makes zeros to be added at each site.

    The gradient with respect to them is the gradient at the site.
    """
    return {
        site.number: {
            part: jnp.zeros((*steps, *var.aval.shape), var.aval.dtype)
            for part, var in list_shifted(site).items()
        }
        for site, steps in sites
    }


def _project(leaves: list[Any], cotangents: Sequence[jax.Array]) -> jax.Array:
    """Multiplies outputs by random numbers."""
    leaves = [leaf for leaf in leaves if is_float(leaf.dtype)]
    total = jnp.zeros(())
    for cotangent, leaf in zip(cotangents, leaves, strict=True):
        product = leaf.astype(wide(leaf)) * cotangent.astype(wide(leaf))
        total += product.real.sum().astype(total.dtype)
    return total
