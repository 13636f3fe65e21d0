"""Networks that are sick: what is wrong with each, where it begins, what cures it."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import nets
from healthy import (
    IMAGES,
    LONG,
    NODES,
    NOISED,
    SERIES,
    TEXT,
    TOKENS,
    X,
    cross_entropy,
)

import jaxinit as ji

PIXELS = 255 * jax.random.uniform(jax.random.key(1), IMAGES.shape)


class Sick(NamedTuple):
    """A sick network; the attributes that it shares with `Net` are explained there.

    Attributes:
      condition: the verdict.
      layer: a pattern of the first layer that it names.
      cure: a pattern of its cure.
    """

    kind: str
    framework: str
    model: Any
    x: Any
    condition: str
    layer: str = ""
    cure: str = ""
    loss: Any = None


def large(fan_in_gain=8.0):
    return ji.variance_scaling(fan_in_gain**2, "fan_in", "normal")


def small(gain=0.02):
    return ji.variance_scaling(gain**2, "fan_in", "normal")


SICK = {
    # Perceptrons.
    "relu, gain 1 at depth": Sick(
        "perceptron",
        "linen",
        nets.Perceptron(nets.LECUN),
        X,
        "vanishing",
    ),
    "relu, normal(1)": Sick(
        "perceptron",
        "linen",
        nets.Perceptron(ji.normal(1.0)),
        X,
        "exploding",
    ),
    "zeros": Sick(
        "perceptron",
        "linen",
        nets.Perceptron(ji.zeros),
        X,
        "symmetric",
    ),
    "constant": Sick(
        "perceptron",
        "linen",
        nets.Perceptron(ji.constant(0.05)),
        X,
        "symmetric",
    ),
    "dead by biases": Sick(
        "perceptron",
        "linen",
        nets.Perceptron(bias=ji.constant(-30.0)),
        X,
        "dead",
    ),
    "tanh, chaotic": Sick(
        "perceptron",
        "linen",
        nets.Perceptron(large(2.5), nn.tanh, 60),
        X,
        "exploding gradient",
    ),
    "tanh, saturated": Sick(
        "perceptron",
        "linen",
        nets.Perceptron(ji.normal(1.0), nn.tanh),
        X,
        "saturated",
    ),
    "norms with gain zero": Sick(
        "perceptron",
        "linen",
        nets.Perceptron(norm=True, gain=ji.zeros),
        X,
        "vanishing",
    ),
    "mean 100": Sick(
        "perceptron",
        "linen",
        nets.Perceptron(depth=10),
        100 + X,
        "collapsed",
    ),
    "equinox's default at depth": Sick(
        "perceptron",
        "equinox",
        nets.equinox_perceptron(),
        X,
        "vanishing gradient",
    ),
    "equinox, large": Sick(
        "perceptron",
        "equinox",
        nets.equinox_perceptron([("weight", ji.normal(1.0))]),
        X,
        "exploding",
    ),
    "equinox, zeros": Sick(
        "perceptron",
        "equinox",
        nets.equinox_perceptron([("*", ji.zeros())]),
        X,
        "symmetric",
    ),
    "haiku, small": Sick(
        "perceptron",
        "haiku",
        nets.haiku_perceptron(small()),
        X,
        "vanishing",
    ),
    "haiku, sigmoid": Sick(
        "perceptron",
        "haiku",
        nets.haiku_perceptron(nets.LECUN, act=jax.nn.sigmoid),
        X,
        "vanishing gradient",
    ),
    "haiku, dead by biases": Sick(
        "perceptron",
        "haiku",
        nets.haiku_perceptron(b_init=ji.constant(-30.0)),
        X,
        "dead",
    ),
    "adapters, both halves zero": Sick(
        "adapter",
        "functions",
        nets.adapted(ji.zeros(), ji.zeros()),
        X,
        "symmetric",
    ),
    "adapters, large": Sick(
        "adapter",
        "functions",
        nets.adapted(b=ji.normal(10.0), a=ji.normal(10.0)),
        X,
        "exploding",
    ),
    # Convolutions.
    "convolutions, large": Sick(
        "convolutional",
        "haiku",
        nets.haiku_convolutions(large()),
        IMAGES,
        "exploding",
    ),
    "convolutions, small": Sick(
        "convolutional",
        "haiku",
        nets.haiku_convolutions(small()),
        IMAGES,
        "vanishing",
    ),
    "convolutions, zeros": Sick(
        "convolutional",
        "haiku",
        nets.haiku_convolutions(ji.zeros()),
        IMAGES,
        "symmetric",
    ),
    "convolutions, tanh, pixels": Sick(
        "convolutional",
        "haiku",
        nets.haiku_convolutions(nets.LECUN, jnp.tanh),
        PIXELS,
        "saturated",
        "",
        "standardize the input",
    ),
    "convolutions, relu, pixels": Sick(
        "convolutional",
        "haiku",
        nets.haiku_convolutions(),
        PIXELS,
        "loss above chance",
        "",
        "standardize the input",
        cross_entropy,
    ),
    "ResNet, all gains zero": Sick(
        "convolutional",
        "linen",
        nets.ResNet(gain=ji.zeros, last=ji.zeros),
        IMAGES,
        "vanishing",
    ),
    "ResNet, zeros": Sick(
        "convolutional",
        "linen",
        nets.ResNet(ji.zeros),
        IMAGES,
        "symmetric",
    ),
    # Transformers.
    "pre-norm, normal(1)": Sick(
        "transformer",
        "linen",
        nets.PreNorm(ji.normal(1.0)),
        TEXT,
        "saturated attention",
    ),
    "pre-norm, gains zero": Sick(
        "transformer",
        "linen",
        nets.PreNorm(gain=ji.zeros),
        TEXT,
        "vanishing",
    ),
    "pre-norm, tied, embedding normal(1)": Sick(
        "transformer",
        "linen",
        nets.PreNorm(tied=True, embedding_init=ji.normal(1.0)),
        TEXT,
        "loss above chance",
        "embed",
    ),
    "pre-norm, zeros": Sick(
        "transformer",
        "linen",
        nets.PreNorm(ji.zeros),
        TEXT,
        "symmetric",
    ),
    "pre-norm, tiny": Sick(
        "transformer",
        "linen",
        nets.PreNorm(small(1e-4)),
        TEXT,
        "vanishing",
        r"blocks/attention/query\[0\]",
    ),
    "pre-norm, large head": Sick(
        "transformer",
        "linen",
        nets.PreNorm(head=ji.normal(1.0)),
        TEXT,
        "loss above chance",
        "head",
    ),
    "post-norm, normal(1)": Sick(
        "transformer",
        "nnx",
        nets.post_norm(ji.normal(1.0)),
        SERIES,
        "saturated attention",
    ),
    "post-norm, gains zero": Sick(
        "transformer",
        "nnx",
        nets.post_norm(gain=ji.zeros),
        SERIES,
        "vanishing",
    ),
    "post-norm, zeros": Sick(
        "transformer",
        "nnx",
        nets.post_norm(ji.zeros),
        SERIES,
        "symmetric",
    ),
    "llama, normal(1)": Sick(
        "gated",
        "functions",
        nets.llama(ji.normal(1.0)),
        TOKENS,
        "saturated attention",
    ),
    "llama, gated projections zero": Sick(
        "gated",
        "functions",
        nets.llama(gated=ji.zeros()),
        TOKENS,
        "symmetric",
        "blocks/0/gate|blocks/0/up",
    ),
    "llama, tiny": Sick(
        "gated",
        "functions",
        nets.llama(small(1e-4)),
        TOKENS,
        "vanishing",
        "blocks/0/q",
    ),
    "llama, gains zero": Sick(
        "gated",
        "functions",
        nets.llama(gain=ji.zeros()),
        TOKENS,
        "vanishing",
    ),
    "attention without norms, unscaled features": Sick(
        "transformer",
        "functions",
        nets.vision(),
        30 * SERIES,
        "saturated attention",
        "",
        "standardize the input",
    ),
    "attention without norms, large": Sick(
        "transformer",
        "functions",
        nets.vision(large()),
        SERIES,
        "exploding",
        "blocks/0|blocks/1/q",
    ),
    "DiT, normal(1)": Sick(
        "diffusion",
        "linen",
        nets.DiT(ji.normal(1.0), head=nets.LECUN),
        NOISED,
        "saturated attention",
        "attention_0/query",
    ),
    "DiT, zeros": Sick(
        "diffusion",
        "linen",
        nets.DiT(ji.zeros),
        NOISED,
        "symmetric",
    ),
    # Recurrent networks and state spaces.
    "vanilla, radius 2": Sick(
        "recurrent",
        "functions",
        nets.vanilla(ji.orthogonal(2.0)),
        LONG,
        "exploding gradient",
    ),
    "vanilla, radius 0.3": Sick(
        "recurrent",
        "functions",
        nets.vanilla(ji.orthogonal(0.3)),
        LONG,
        "vanishing gradient",
    ),
    "vanilla, relu, radius 3": Sick(
        "recurrent",
        "functions",
        nets.vanilla(ji.normal(3 * 32**-0.5), act=jax.nn.relu),
        SERIES,
        "exploding",
    ),
    "GRU, large": Sick(
        "recurrent",
        "linen",
        nets.Recurrent(large(), large()),
        SERIES,
        "saturated",
    ),
    "LSTM, large": Sick(
        "recurrent",
        "linen",
        nets.Recurrent(large(), large(), cell=nn.OptimizedLSTMCell),
        SERIES,
        "saturated",
    ),
    "LSTM, zeros": Sick(
        "recurrent",
        "linen",
        nets.Recurrent(ji.zeros, ji.zeros, cell=nn.OptimizedLSTMCell),
        SERIES,
        "symmetric",
    ),
    "Haiku's LSTM, large": Sick(
        "recurrent",
        "haiku",
        nets.haiku_lstm(large()),
        SERIES,
        "saturated",
    ),
    "Equinox's GRU, large": Sick(
        "recurrent",
        "equinox",
        nets.equinox_gru([("weight_*", ji.normal(5.0))]),
        SERIES,
        "saturated",
    ),
    "state space, growing": Sick(
        "state space",
        "functions",
        nets.state_space(rate=-0.5),
        SERIES,
        "exploding",
    ),
    "state space, Euler steps too large": Sick(
        "state space",
        "functions",
        nets.state_space(step=6.0, euler=True),
        SERIES,
        "exploding",
    ),
    "state space, steps too small": Sick(
        "state space",
        "functions",
        nets.state_space(step=1e-4),
        SERIES,
        "vanishing",
    ),
    "mamba, steps too small": Sick(
        "state space",
        "functions",
        nets.mamba(bias=-20.0),
        SERIES,
        "saturated",
        "step",
    ),
    "mamba, zeros": Sick(
        "state space",
        "functions",
        nets.mamba(ji.zeros()),
        SERIES,
        "symmetric",
    ),
    "mamba, large": Sick(
        "state space",
        "functions",
        nets.mamba(large(30.0)),
        SERIES,
        "exploding",
    ),
    # Autoencoders and graphs.
    "autoencoder, small": Sick(
        "autoencoder",
        "nnx",
        nets.autoencoder(small(0.1)),
        X,
        "vanishing",
    ),
    "autoencoder, large": Sick(
        "autoencoder",
        "nnx",
        nets.autoencoder(large()),
        X,
        "saturated",
    ),
    "autoencoder, large biases": Sick(
        "autoencoder",
        "nnx",
        nets.autoencoder(bias=ji.normal(10.0)),
        X,
        "saturated",
        "",
        "biases",
    ),
    "VAE, large log-variance": Sick(
        "autoencoder",
        "haiku",
        nets.haiku_vae(spread=ji.normal(50.0)),
        NODES,
        "non-finite",
    ),
    "U-Net, large": Sick(
        "autoencoder",
        "linen",
        nets.UNet(large()),
        IMAGES,
        "exploding",
    ),
    "U-Net, small": Sick(
        "autoencoder",
        "linen",
        nets.UNet(small()),
        IMAGES,
        "vanishing",
    ),
    "graph, sums": Sick(
        "graph",
        "functions",
        nets.graph(depth=8, mean=False),
        NODES,
        "exploding",
    ),
    "graph, small": Sick(
        "graph",
        "functions",
        nets.graph(small()),
        NODES,
        "vanishing",
    ),
    "graph, smoothed": Sick(
        "graph",
        "functions",
        nets.graph(depth=24),
        NODES,
        "collapsed",
    ),
    "100 blocks, unscaled": Sick(
        "residual",
        "functions",
        nets.residual(),
        X,
        "exploding",
    ),
    "100 blocks, zeros": Sick(
        "residual",
        "functions",
        nets.residual(w=ji.zeros()),
        X,
        "symmetric",
    ),
}
