"""Models whose health people ask for: the initializer of all kernels is an argument."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class Perceptron(nn.Module):
    """Dense layers with relu, and layer norm if asked for; the readout comes on top."""

    depth: int
    kernel_init: Any
    norm: bool = False
    width: int = 200
    outputs: int = 7

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies all layers."""
        for _ in range(self.depth):
            x = nn.Dense(self.width, kernel_init=self.kernel_init)(x)
            x = nn.relu(nn.LayerNorm()(x) if self.norm else x)
        return nn.Dense(self.outputs, kernel_init=self.kernel_init)(x)


class Autoencoder(nn.Module):
    """A variational autoencoder of dense layers."""

    kernel_init: Any
    width: int = 256

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, ...]:
        """Returns the reconstruction, and mean and log variance of the code."""
        dense = functools.partial(nn.Dense, kernel_init=self.kernel_init)
        h = nn.relu(dense(self.width // 2)(nn.relu(dense(self.width)(x))))
        mean, spread = dense(16)(h), dense(16)(h)
        noise = jax.random.normal(self.make_rng("dropout"), mean.shape)
        h = nn.relu(dense(self.width // 2)(mean + jnp.exp(spread / 2) * noise))
        return dense(x.shape[-1])(nn.relu(dense(self.width)(h))), mean, spread


class Transformer(nn.Module):
    """Pre-norm blocks over tokens."""

    kernel_init: Any
    blocks: int = 2
    width: int = 64
    tokens: int = 100

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Returns the logits of each place."""
        kernel_init: Any = self.kernel_init
        places = (tokens.shape[-1], self.width)
        x = nn.Embed(self.tokens, self.width)(tokens)
        x = x + self.param("positions", nn.initializers.normal(0.02), places)
        for _ in range(self.blocks):
            h = nn.LayerNorm()(x)
            x = x + nn.MultiHeadDotProductAttention(4, kernel_init=kernel_init)(h, h)
            h = nn.Dense(4 * self.width, kernel_init=kernel_init)(nn.LayerNorm()(x))
            x = x + nn.Dense(self.width, kernel_init=kernel_init)(nn.gelu(h))
        return nn.Dense(self.tokens, kernel_init=kernel_init)(nn.LayerNorm()(x))


class ResNet18(nn.Module):
    """Residual blocks of two convolutions, for small images."""

    kernel_init: Any
    width: int = 64

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the logits."""
        conv = functools.partial(nn.Conv, use_bias=False, kernel_init=self.kernel_init)
        norm = functools.partial(nn.BatchNorm, use_running_average=False)
        x = nn.relu(norm()(conv(self.width, (3, 3))(x)))
        for stage in range(4):
            for block in range(2):
                size, stride = self.width * 2**stage, 2 if stage and not block else 1
                h = nn.relu(norm()(conv(size, (3, 3), stride)(x)))
                h = norm()(conv(size, (3, 3))(h))
                if x.shape != h.shape:
                    x = norm()(conv(size, (1, 1), stride)(x))
                x = nn.relu(x + h)
        return nn.Dense(10, kernel_init=self.kernel_init)(x.mean((1, 2)))


class LSTM(nn.Module):
    """A recurrent layer, and a dense one behind its last state."""

    kernel_init: Any
    width: int = 64

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the outputs after the last step."""
        cell = nn.OptimizedLSTMCell(self.width, kernel_init=self.kernel_init)
        states: Any = nn.RNN(cell)(x)
        return nn.Dense(10, kernel_init=self.kernel_init)(states[:, -1])
