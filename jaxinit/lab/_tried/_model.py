"""The lab's default network: a deep multilayer perceptron that exposes its signals."""

from collections.abc import Callable
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core.scope import CollectionFilter
from flax.typing import InOutScanAxis

from jaxinit.initializers import zeros

Norm = Literal["none", "layer", "batch"]
NORMS = get_args(Norm)


class Block(nn.Module):
    """A dense layer with its norm; ``z`` is its output before the activation.

    ``z`` is sown, so that its variance can be read, and perturbed, so that the gradient
    with respect to it can be read, too.
    """

    features: int
    kernel_init: Any
    norm: Norm
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Returns the layer's output, normalized if the block has a norm."""
        dtype = self.dtype
        dense = nn.Dense(self.features, kernel_init=self.kernel_init, dtype=dtype)
        z: jax.Array = dense(x)
        z = self.perturb("z", z)
        self.sow("intermediates", "z", z)
        if self.norm == "layer":
            z = nn.LayerNorm(dtype=dtype)(z)
        elif self.norm == "batch":
            norm = nn.BatchNorm(not train, momentum=0.9, dtype=dtype)
            z = norm(z)
        return z


class Hidden(nn.Module):
    """An activation and a block, in the form that `nn.scan` takes."""

    features: int
    activation: Callable[[Any], Any]
    kernel_init: Any
    norm: Norm
    dropout: float = 0.0
    dtype: Any = None

    @nn.compact
    def __call__(self, z: jax.Array, train: bool) -> tuple[jax.Array, None]:
        """Maps the output of one block to the next one's; the None is for the scan."""
        block = Block(
            features=self.features,
            kernel_init=self.kernel_init,
            norm=self.norm,
            dtype=self.dtype,
            name="block",
        )
        return block(drop_units(self, self.activation(z), train), train), None


def drop_units(module: Any, z: jax.Array, train: bool) -> jax.Array:
    """Drops units at the module's rate, in training and if it has a key for dropout."""
    if not (module.dropout and train and module.has_rng("dropout")):
        return z
    thinned: jax.Array = nn.Dropout(module.dropout, deterministic=False)(z)
    return thinned


_STACKED: dict[CollectionFilter, InOutScanAxis] = dict.fromkeys(
    ("params", "batch_stats", "intermediates", "perturbations"), 0
)


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
      dtype: the dtype of the computation, whatever that of the parameters; None for
        theirs. 16-bit outputs are returned in float32.
    """

    depth: int
    width: int
    outputs: int
    activation: Callable[[Any], Any]
    norm: Norm
    kernel_init: Any = zeros
    unroll: int = 1
    dropout: float = 0.0
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps inputs to logits or predictions.

        # [rows, features] -> [rows, outputs]
        """
        first = Block(self.width, self.kernel_init, self.norm, self.dtype, name="first")
        z = first(x, train)
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
                dtype=self.dtype,
                name="hidden",
            )
            z, _ = hidden(z, train)
        last = Block(self.outputs, self.kernel_init, "none", self.dtype, name="last")
        return widen(last(drop_units(self, self.activation(z), train), train))


def widen(x: jax.Array) -> jax.Array:
    """Converts 16-bit numbers to float32, and leaves others as they are."""
    return x.astype("float32") if x.dtype.itemsize == 2 else x


def stack_layers(collection: Any, read: Callable[[Any], jax.Array]) -> jax.Array:
    """Stacks an array from each block of a collection, first layer to last.

    Args:
      collection: a collection of `MLP` variables, such as the parameters.
      read: maps a block's entry, whose arrays have a leading axis of layers, to an
        array that keeps that axis.

    Returns:
      One array with a leading axis of ``depth`` layers.
    """
    one = [
        read(jax.tree.map(lambda a: a[None], collection[name]))
        for name in ("first", "last")
    ]
    hidden = [read(collection["hidden"]["block"])] if "hidden" in collection else []
    return jnp.concatenate([one[0], *hidden, one[1]])
