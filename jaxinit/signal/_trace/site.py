"""Sites: the places in a jaxpr where `check` measures."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.extend import core

from jaxinit.signal._trace.activation import Var, apply

# For each axis, the positions in another array that entries come from; -1 for zeros.
Places = tuple[np.ndarray, ...]


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Site:
    """The output of a layer or of a module, in a jaxpr."""

    number: int
    loop: int  # the number of the loop whose body this is in
    path: str  # of the module, or of the weight
    output: Var
    leaf: int | None = None  # of the weight; None for a module
    kind: str = "module"  # or dense, conv
    fan_in: int = 0
    unit_axes: tuple[int, ...] = (-1,)  # of the output
    weight_unit_axes: tuple[int, ...] = (-1,)
    eqn: Any = None  # the product or convolution
    weight: Var | None = None
    bias: Var | None = None
    input: Var = None
    chain: tuple[core.JaxprEqn, ...] = ()  # from the output to the activation
    activated: Var | None = None  # the last of the chain
    behind: int | None = None  # number of the site whose activation is the input
    places: Places | None = None  # where in it; None where the shapes differ

    @property
    def parts(self) -> dict[str, Var]:
        """The variables whose values are kept."""
        parts = {"output": self.output, "weight": self.weight, "bias": self.bias}
        if self.behind is None:
            parts["input"] = self.input
        return {name: var for name, var in parts.items() if var is not None}

    @property
    def activation(self) -> Callable[[jax.Array], jax.Array] | None:
        """The elementwise function behind the output, None if there is none."""
        if self.activated is None:
            return None
        return functools.partial(apply, self.chain, self.output, self.activated)


Values = dict[str, jax.Array]  # by their part in a site
Placed = tuple[Site, tuple[int, ...]]  # a site and the lengths of the loops around it
