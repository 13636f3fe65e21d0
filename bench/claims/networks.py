"""The networks that claims are about, small and in the form that `jaxinit.check` reads.

Layers of equal shape are scanned, so that a hundred of them compile as one; a layer is
a module of its own, so that `check` tells what is behind its activation too.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np

import jaxinit

KEY = 0  # the seed of all that claims measure

Activation = Callable[[jax.Array], jax.Array]


class Layer(nn.Module):
    """A dense layer and its activation, in the form that `nn.scan` takes."""

    width: int
    activation: Activation
    kernel_init: Any
    bias_init: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, None]:
        """Maps a signal to the next one; the None is for the scan."""
        dense = nn.Dense(
            self.width, kernel_init=self.kernel_init, bias_init=self.bias_init
        )
        return self.activation(dense(x)), None


class Perceptron(nn.Module):
    """Dense layers of equal width, each with the activation behind it."""

    depth: int
    width: int
    activation: Activation
    kernel_init: Any
    bias_init: Any = jaxinit.zeros()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps inputs of that width to what is behind the last activation."""
        layers = nn.scan(
            Layer,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=self.depth,
        )
        x, _ = layers(self.width, self.activation, self.kernel_init, self.bias_init)(x)
        return x


class Stack(nn.Module):
    """Convolutions of 3×3 and their relu, with a maximum over 2×2 behind each pair."""

    channels: tuple[int, ...]
    kernel_init: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images to what is behind the last relu."""
        pool: Any = nn.max_pool  # which has no types
        for i, channels in enumerate(self.channels):
            x = nn.relu(nn.Conv(channels, (3, 3), kernel_init=self.kernel_init)(x))
            if i % 2 and i + 1 < len(self.channels):
                x = pool(x, (2, 2), (2, 2))
        return x


def draw_inputs(*shape: int, scale: float = 1.0) -> jax.Array:
    """Draws standard normal inputs, times a scale."""
    return jax.random.normal(jax.random.key(KEY + 1), shape) * scale


def check(model: Any, x: Any, seeds: int, jacobian: int = 0, key: int = KEY) -> Any:
    """Measures a model at initialization, by `jaxinit.check`."""
    return jaxinit.check(
        model, x, key=jax.random.key(key), seeds=seeds, jacobian=jacobian
    )


def read(report: Any, name: str, kind: str = "dense") -> np.ndarray:
    """Reads a statistic of all layers of a kind.

    # [layers, seeds]
    """
    layers = [layer for layer in report.layers if layer.kind == kind]
    return np.stack([x.values(name) for x in layers if x.path != "(output)"])
