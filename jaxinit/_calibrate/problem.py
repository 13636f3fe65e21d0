"""What a method works on: a traced model, its layers, its weights and its data."""

import dataclasses
import types
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxinit._calibrate.changes import Weights
from jaxinit._calibrate.passes import Aim, Outcome, Pass
from jaxinit._calibrate.scales import Layer
from jaxinit.signal.adjusting import Program


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Problem:
    """A calibration that a method is to do.

    Attributes:
      program: the traced model.
      layers: its layers.
      run: the pass.
      weights: the weights, which the method changes.
      inputs: the arrays of the inputs.
      noise: the key of the model's own noise, the same in every pass.
      key: a key for what the method draws.
      aim: the standard deviation of each layer, and how its scale is solved for.
      rounds: how many rounds at most.
      tol: the relative error that is good enough.
    """

    program: Program
    layers: Sequence[Layer]
    run: Pass
    weights: Weights
    inputs: Sequence[Any]
    noise: jax.Array
    key: jax.Array
    aim: Aim
    rounds: int
    tol: float

    def measure(self) -> Sequence[Outcome]:
        """Measures all layers as they are."""
        stored = self.weights.stored
        outcomes: Sequence[Outcome] = self.run(stored, self.noise, self.aim, False)
        return outcomes

    def find_tol(self, number: int) -> float:
        """Returns the error that is good enough for a layer; its type may be coarse."""
        dtype = self.layers[number].site.output.aval.dtype
        return max(self.tol, 2 * float(jnp.finfo(dtype).eps))

    def list_changed(self) -> list[int]:
        """Lists the layers that the method may change, by number; tied ones once."""
        layers = enumerate(zip(self.layers, self.aim.chosen, strict=True))
        return [
            number
            for number, (layer, chosen) in layers
            if chosen and not layer.reason and not layer.follows
        ]


class Done(NamedTuple):
    """What a method did.

    Attributes:
      rounds: how often it changed the weights.
      rates: by the number of a layer, its rates before and after, for each step.
      reasons: by the number of a layer, why the method could not scale it.
    """

    rounds: int
    rates: Mapping[int, tuple[Any, Any]] = types.MappingProxyType({})
    reasons: Mapping[int, str] = types.MappingProxyType({})
