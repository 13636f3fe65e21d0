"""The lab's default network: a deep multilayer perceptron."""

from collections.abc import Callable
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
from flax.core.scope import CollectionFilter
from flax.typing import InOutScanAxis

from jaxinit.initializers import zeros

Norm = Literal["none", "layer", "batch"]
NORMS = get_args(Norm)


class Block(nn.Module):
    """A dense layer with its norm."""

    features: int
    kernel_init: Any
    norm: Norm

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Returns the layer's output, normalized if the block has a norm."""
        z: jax.Array = nn.Dense(self.features, kernel_init=self.kernel_init)(x)
        if self.norm == "layer":
            z = nn.LayerNorm()(z)
        elif self.norm == "batch":
            z = nn.BatchNorm(not train, momentum=0.9)(z)
        return z


class Hidden(nn.Module):
    """An activation and a block, in the form that `nn.scan` takes."""

    features: int
    activation: Callable[[Any], Any]
    kernel_init: Any
    norm: Norm
    dropout: float = 0.0

    @nn.compact
    def __call__(self, z: jax.Array, train: bool) -> tuple[jax.Array, None]:
        """Maps the output of one block to the next one's; the None is for the scan."""
        block = Block(
            features=self.features,
            kernel_init=self.kernel_init,
            norm=self.norm,
            name="block",
        )
        return block(drop_units(self, self.activation(z), train), train), None


def drop_units(module: Any, z: jax.Array, train: bool) -> jax.Array:
    """Drops units at the module's rate, in training and if it has a key for dropout."""
    if not (module.dropout and train and module.has_rng("dropout")):
        return z
    thinned: jax.Array = nn.Dropout(module.dropout, deterministic=False)(z)
    return thinned


_STACKED: dict[CollectionFilter, InOutScanAxis] = {"params": 0, "batch_stats": 0}


class MLP(nn.Module):
    """A perceptron of ``depth`` dense layers; all kernels come from one initializer.

    The hidden layers of equal shape are one scanned layer with stacked parameters, so
    that tracing and compiling take the same time at every depth.

    Attributes:
      depth: number of dense layers, 2 or more.
      width: outputs of each layer but the last.
      outputs: outputs of the last layer.
      activation: an elementwise function.
      norm: the norm between each hidden layer and its activation.
      dropout: share of the hidden units that training drops, after the activation.
      kernel_init: initializer of every kernel. Biases start at zero.
      unroll: hidden layers written out per round of the scan; it changes speed only.
    """

    depth: int
    width: int
    outputs: int
    activation: Callable[[Any], Any]
    norm: Norm
    kernel_init: Any = zeros
    unroll: int = 1
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps inputs to logits or predictions.

        # [rows, features] -> [rows, outputs]
        """
        z = Block(self.width, self.kernel_init, self.norm, name="first")(x, train)
        if self.depth > 2:
            stack = nn.scan(
                Hidden,
                variable_axes=_STACKED,
                split_rngs={"params": True, "dropout": True},
                in_axes=nn.broadcast,
                length=self.depth - 2,
                unroll=min(self.depth - 2, self.unroll),
            )
            hidden = stack(
                features=self.width,
                activation=self.activation,
                kernel_init=self.kernel_init,
                norm=self.norm,
                dropout=self.dropout,
                name="hidden",
            )
            z, _ = hidden(z, train)
        last = Block(self.outputs, self.kernel_init, "none", name="last")
        return last(drop_units(self, self.activation(z), train), train)
