"""The one form of a network: functions that are drawn, trained, probed and judged."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax

from jaxinit._initializer import Initializer
from jaxinit._paths import named
from jaxinit.lab._tried.rules import Rules, draw

Init = Callable[[Any, jax.Array], Any]  # from a key and inputs to variables
# From variables, inputs and a key to outputs and the collections that changed.
Train = Callable[[Any, jax.Array, jax.Array], tuple[jax.Array, Any]]


@dataclass(frozen=True)
class Network:
    """A network as functions.

    Attributes:
      init: makes variables, "params" among them, from a key and inputs.
      apply: computes outputs from variables and inputs, in evaluation.
      train: computes them in training, with a key for dropout; also returns the
        collections that changed, parameters aside.
      redraw: returns the init function that draws kernels by an initializer; by default
        `jaxinit.reinit` draws them.
      loop: how layers of equal shape are one loop; None if the network has none.
      watched: computes what `train` does in a form for probes; None for `train` itself.
      together: cells that a CPU trains fastest under one vmap.
    """

    init: Init
    apply: Callable[[Any, jax.Array], jax.Array]
    train: Train
    redraw: Callable[[Initializer | Rules], Init] | None = None
    loop: "Loop | None" = None
    watched: Train | None = None
    # CPUs have no fast program for convolutions with a kernel for each cell.
    together: int = 1

    def redraw_by(self, init: Initializer | Rules) -> Init:
        """Returns an init function that draws kernels, or what rules name, anew."""
        if self.redraw is not None:
            return self.redraw(init)

        def initialize(key: jax.Array, x: jax.Array) -> Any:
            variables = self.init(key, x)
            return {**variables, "params": draw(key, variables["params"], init)}

        return initialize

    def watch(self, variables: Any, x: jax.Array, key: jax.Array) -> jax.Array:
        """Computes outputs as in training, in the form in which layers are measured."""
        return (self.watched or self.train)(variables, x, key)[0]

    @property
    def written_out(self) -> "Loop":
        """The network with layers apart; itself, if it has no loop."""
        return self.loop or Loop(
            stack="", network=self, split=_keep, join=_keep, split_key=_keep
        )


class Loop(NamedTuple):
    """How layers of equal shape are one loop over variables with an axis of layers.

    Such a network compiles in the same time at every depth. Written out, its layers are
    drawn by programs that they share with other layers, and are there to be seen.

    Attributes:
      stack: what the paths of the loop's variables begin with; "" without a loop.
      network: the same network, without the loop.
      split: takes the variables of all layers apart.
      join: puts them together again.
      split_key: makes of a key what the init functions of the network take.
    """

    stack: str
    network: Network
    split: Callable[[Any], Any]
    join: Callable[[Any], Any]
    split_key: Callable[[jax.Array], Any]


def _keep(value: Any) -> Any:
    return value


def list_stacks(tree: Any, stack: str) -> list[tuple[str, Any]]:
    """Lists the leaves by path, first layer to last, each with an axis of layers.

    Args:
      tree: the variables of one network, or a part of them.
      stack: what the paths of leaves begin with that have the axis already; "" if none
        has.
    """
    return [
        (path, leaf if stack and path.startswith(stack) else leaf[None])
        for path, leaf in named(tree)
    ]
