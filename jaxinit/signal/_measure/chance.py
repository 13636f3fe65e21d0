"""Compares the loss that a model starts with to the loss of guessing.

Labels are independent of the outputs z of a model that was not trained yet. For C
classes the cross-entropy is then log sum exp(z) - mean(z) on average. Equal outputs
have log C, the loss of guessing; normal ones of standard deviation s have log C +
s^2 / 2. At s = sqrt(2 log C) softmax freezes: its largest entry outweighs all others,
and the loss is twice that of guessing. A model beyond that is certain of a random class
for each input, and spends the first steps of training on unlearning it.

References:
  Derrida. Random-energy model: An exactly solvable model of disordered systems. 1981. https://doi.org/10.1103/PhysRevB.24.2613
"""  # noqa: E501

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax.extend import core

from jaxinit._jaxpr.equation import is_constant
from jaxinit._jaxpr.primitives import ELEMENTWISE
from jaxinit.signal._measure.statistics import Array, wide
from jaxinit.signal._trace.find import Plan
from jaxinit.signal._trace.site import Placed
from jaxinit.signal._trace.softmax import COPIES, Graph, read_aval

MOST = 2.0  # in units of the loss of guessing: where softmax freezes
_PIECES = COPIES | {"slice", "dynamic_slice", "transpose"}


@dataclasses.dataclass(frozen=True)
class Readout:
    """Outputs that may be logits of classes.

    Attributes:
      leaf: their place among the model's outputs.
      site: the number of the layer that computes them.
      classes: the number of classes.
      known: whether they are logits for sure: the loss is a cross-entropy of them, or
        there is one for each row of an embedding table that the input chooses from.
    """

    leaf: int
    site: int
    classes: int
    known: bool


def find_readout(
    plan: Plan,
    sites: Sequence[Placed],
    outputs: Sequence[Any],
    loss: core.ClosedJaxpr | None,
) -> Readout | None:
    """Finds the outputs that are logits, or the only ones that may be.

    Args:
      plan: the plan of the model.
      sites: its sites in the order of execution.
      outputs: shapes and dtypes of the arrays that the model returns.
      loss: the traced loss of these arrays, or None.
    """
    possible = {
        leaf: x.shape[-1]
        for leaf, x in enumerate(outputs)
        if jnp.issubdtype(x.dtype, jnp.floating) and x.ndim > 1 and x.shape[-1] > 1
    }
    known = find_logits(loss.jaxpr, outputs) & possible.keys() if loss else set()
    if not known:
        tables = plan.all_tables()
        known = {leaf for leaf, size in possible.items() if size in tables}
    if not possible or not (known or len(possible) == 1):
        return None
    leaf = min(known or possible)
    site = _find_layer(plan, leaf, sites)
    return Readout(leaf, site, possible[leaf], bool(known))


def compare_to_chance(z: Array, xp: Any = jnp) -> dict[str, Array]:
    """Computes the expected loss of logits z, and that of guessing.

    xp is `jax.numpy`, or `numpy` for an array of NumPy.
    """
    z = z.astype(wide(z))
    most = z.max(-1, keepdims=True)
    most = xp.where(xp.isfinite(most), most, z.dtype.type(0))
    normalizer = xp.log(xp.exp(z - most).sum(-1)) + most[..., 0]
    return {
        "expected_loss": (normalizer - z.mean(-1)).mean(),
        "chance_loss": xp.full((), math.log(z.shape[-1]), z.dtype),
    }


def find_logits(jaxpr: core.Jaxpr, outputs: Sequence[Any]) -> set[int]:
    """Finds the outputs of which a loss takes the softmax cross-entropy."""
    graph, places = Graph(jaxpr), {var: i for i, var in enumerate(jaxpr.invars)}
    leaves = set()
    for normalizer in graph.find_normalizers():
        shape = read_aval(normalizer.of).shape
        leaf = places.get(graph.find_root(normalizer.of, _PIECES))
        if leaf is not None and shape[normalizer.axis] == outputs[leaf].shape[-1]:
            leaves.add(leaf)
    return leaves


def _find_layer(plan: Plan, leaf: int, sites: Sequence[Placed]) -> int:
    """Finds the layer that computes an output; if it is unclear, the last layer."""
    layers = {site.output: site.number for site, _ in sites if site.kind != "module"}
    graph = Graph(plan.closed.jaxpr)
    at: Any = plan.closed.jaxpr.outvars[leaf]
    while at not in layers:
        node = graph.find_node(at)
        if node is None or node.name not in _PIECES | ELEMENTWISE:
            return list(layers.values())[-1]
        arrays = [x for x in node.inputs if not _is_number(x)]
        if len(arrays) != 1:
            return list(layers.values())[-1]
        (at,) = arrays
    return layers[at]


def _is_number(key: Any) -> bool:
    return is_constant(key) or not read_aval(key).shape
