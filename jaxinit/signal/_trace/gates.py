"""Finds gates in a jaxpr: functions that saturate, behind sums or parts of products.

A recurrent cell adds the product of its input to that of its state, or computes all of
its gates by one product and splits it; sigmoid and tanh follow. They are behind no
layer alone, and belong to each that they come from. A gate is measured as the
activation of a layer is: by the share of the entries where its slope is below 1/20 of
the steepest.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxinit._jaxpr.equation import find_variables, list_uses
from jaxinit._jaxpr.primitives import PRODUCTS, SAME
from jaxinit._structure.activation import (
    Var,
    apply,
    differentiate,
    find_activation,
    list_scalars,
    read_activation,
)

_GRID = np.linspace(-8, 8, 321)  # where the steepest slope is looked for
FLAT = 0.05  # the share of the steepest slope below which a function is saturated
_SATURATE = ("sigmoid", "tanh", "hard_sigmoid", "hard_tanh", "softsign")
_PARTS = SAME | {"slice", "split", "transpose", "dynamic_slice", "broadcast_in_dim"}


@dataclasses.dataclass(frozen=True, eq=False)
class Gate:
    """A function that saturates, in a jaxpr.

    Attributes:
      number: unique among sites, attentions and gates.
      enters: its argument.
      chain: the equations from there to its result.
      result: its result.
      operands: what it comes from.
      size: 0: it is no attention.
    """

    number: int
    enters: Var
    chain: tuple[core.JaxprEqn, ...]
    result: Var
    operands: tuple[Var, ...]
    size: int = 0

    def measure(self, env: Mapping[Any, Any]) -> dict[str, jax.Array]:
        """Computes the share of the entries at which it is flat."""

        def run(x: jax.Array) -> jax.Array:
            return apply(self.chain, self.enters, self.result, x)

        y = jax.lax.stop_gradient(env[self.enters])
        return {"gate_saturated": measure_saturation(run, y)[1].mean()}


def find_gates(jaxpr: core.Jaxpr, data: set[Any], numbers: Iterator[int]) -> list[Gate]:
    """Finds gates in a jaxpr.

    Args:
      jaxpr: a jaxpr without inner calls that hold products.
      data: the variables that depend on the inputs.
      numbers: yields a number for each gate.
    """
    uses = list_uses(jaxpr)
    parts: set[Any] = set()  # products, and their sums and pieces
    behind: list[Any] = []  # those that are not just a product with its bias
    mixed: set[Any] = set()
    for eqn in jaxpr.eqns:
        operands = find_variables(eqn.invars)
        name = eqn.primitive.name
        if name in PRODUCTS and data.intersection(operands):
            parts.update(eqn.outvars)
        elif name in _PARTS | {"add"} and parts.intersection(operands):
            parts.update(eqn.outvars)
            several = name == "add" and data.issuperset(operands) and len(operands) > 1
            if several or name not in SAME | {"add"} or mixed.intersection(operands):
                mixed.update(eqn.outvars)
                behind.extend(eqn.outvars)
    gates, scalars = [], list_scalars(jaxpr, {})
    for var in behind:
        if read_activation(jaxpr, var, uses, scalars) in _SATURATE:
            chain, result = find_activation(jaxpr, var, uses, {}, scalars)
            gates.append(Gate(next(numbers), var, chain, result, (var,)))
    return gates


def measure_saturation(
    function: Callable[[jax.Array], jax.Array], y: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns where a function of y is zero, and where it is flat but not zero."""
    a, slope = differentiate(function, y)
    grid = jnp.asarray(_GRID, y.dtype)
    steepest = jnp.abs(differentiate(function, grid)[1]).max()
    zero = a == 0
    return zero, (jnp.abs(slope) < FLAT * steepest) & ~zero
