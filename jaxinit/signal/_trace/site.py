"""Sites: the places in a jaxpr where `check` measures."""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax.extend import core

from jaxinit._structure.activation import Var, apply

# For each axis, the positions in another array that entries come from; -1 for zeros.
Places = tuple[np.ndarray, ...]


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Site:
    """The output of a module, in a jaxpr; that of a layer is a `Product`."""

    number: int
    loop: int  # the number of the loop whose body this is in
    path: str  # of the module, or of the weight
    output: Var
    kind: str = "module"  # or dense, conv
    fan_in: int = 0
    unit_axes: tuple[int, ...] = (-1,)  # of the output

    @property
    def parts(self) -> dict[str, Var]:
        """The variables whose values are kept."""
        return {"output": self.output}

    @property
    def activation(self) -> Callable[[jax.Array], jax.Array] | None:
        """The elementwise function behind the output, None if there is none."""
        return None


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Product(Site):
    """The output of a layer: a matrix product or convolution of data with a weight."""

    leaves: frozenset[int]  # numbers of the parameters that the weight is made of
    weight_unit_axes: tuple[int, ...]
    eqn: core.JaxprEqn  # the product or convolution
    weight: Var
    bias: Var | None
    input: Var
    chain: tuple[core.JaxprEqn, ...]  # from the output to the activation
    activated: Var | None  # the last of the chain
    behind: int | None = None  # number of the site whose activation is the input
    places: Places | None = None  # where in it; None where the shapes differ

    @property
    def leaf(self) -> int:
        """The number of the parameter that the layer goes by."""
        return min(self.leaves)

    @property
    def parts(self) -> dict[str, Var]:
        """The variables whose values are kept."""
        parts = {"output": self.output, "weight": self.weight}
        if self.bias is not None:
            parts["bias"] = self.bias
        if self.behind is None:
            parts["input"] = self.input
        return parts

    @property
    def activation(self) -> Callable[[jax.Array], jax.Array] | None:
        """The elementwise function behind the output, None if there is none."""
        if self.activated is None:
            return None
        return functools.partial(apply, self.chain, self.output, self.activated)


class Hidden(NamedTuple):
    """A layer whose values no program can return, as those inside a while loop.

    Attributes:
      leaves: numbers of the parameters that its weight is made of.
      inside: what it is inside of, in words.
    """

    leaves: frozenset[int]
    inside: str


Values = dict[str, jax.Array]  # by their part in a site
Placed = tuple[Site, tuple[int, ...]]  # a site and the lengths of the loops around it
