"""Networks that are healthy, some of them by design where a check could go astray."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import nets
import optax
from inputs import draw_normal, draw_tokens

import jaxinit as ji

X = draw_normal(16, 64)
NODES = draw_normal(32, 16)
IMAGES = draw_normal(8, 8, 8, 3)
SERIES = draw_normal(4, 16, 16)
LONG = draw_normal(4, 64, 16)
TOKENS = draw_tokens(4, 8) % 50
TEXT = draw_tokens(4, 16)
NOISED = (SERIES, jnp.linspace(0.1, 3, 4))
LABELS = jnp.arange(8)


class Net(NamedTuple):
    """A network.

    Attributes:
      kind: what it is.
      framework: how it is written.
      model: as `check` takes it.
      x: its inputs.
      loss: that of the check, if it has one.
    """

    kind: str
    framework: str
    model: Any
    x: Any
    loss: Any = None


def cross_entropy(z):
    return optax.softmax_cross_entropy_with_integer_labels(z, LABELS).mean()


def next_token(z):
    return optax.softmax_cross_entropy_with_integer_labels(z, TOKENS).mean()


HEALTHY = {
    "relu, he": Net("perceptron", "linen", nets.Perceptron(), X),
    "tanh, orthogonal": Net(
        "perceptron", "linen", nets.Perceptron(ji.orthogonal(), nn.tanh), X
    ),
    "relu, normed": Net("perceptron", "linen", nets.Perceptron(norm=True), X),
    "zero readout": Net("perceptron", "linen", nets.Perceptron(head=ji.zeros), X),
    "equinox's default": Net(
        "perceptron", "equinox", nets.equinox_perceptron(depth=2), X
    ),
    "equinox, he": Net(
        "perceptron", "equinox", nets.equinox_perceptron([("weight", nets.HE_ROWS)]), X
    ),
    "haiku, he": Net("perceptron", "haiku", nets.haiku_perceptron(), X),
    "adapters": Net("adapter", "functions", nets.adapted(), X),
    "adapters, the other half": Net(
        "adapter", "functions", nets.adapted(ji.zeros(), nets.HE), X
    ),
    "ResNet": Net("convolutional", "linen", nets.ResNet(), IMAGES),
    "ResNet, last gains zero": Net(
        "convolutional", "linen", nets.ResNet(last=ji.zeros), IMAGES
    ),
    "convolutions, he": Net(
        "convolutional", "haiku", nets.haiku_convolutions(), IMAGES
    ),
    "convolutions, cross-entropy": Net(
        "convolutional", "haiku", nets.haiku_convolutions(), IMAGES, cross_entropy
    ),
    "pre-norm": Net("transformer", "linen", nets.PreNorm(), TEXT),
    "pre-norm, tied": Net("transformer", "linen", nets.PreNorm(tied=True), TEXT),
    "pre-norm, small weights as in GPT-2": Net(
        "transformer", "linen", nets.PreNorm(ji.normal(0.02)), TEXT
    ),
    "post-norm": Net("transformer", "nnx", nets.post_norm(), SERIES),
    "llama": Net("gated", "functions", nets.llama(), TOKENS),
    "llama, cross-entropy": Net("gated", "functions", nets.llama(), TOKENS, next_token),
    "llama, normal(0.02)": Net(
        "gated", "functions", nets.llama(ji.normal(0.02)), TOKENS
    ),
    "attention without norms": Net("transformer", "functions", nets.vision(), SERIES),
    "DiT, zero conditioning": Net("diffusion", "linen", nets.DiT(), NOISED),
    "DiT, open": Net(
        "diffusion",
        "linen",
        nets.DiT(modulation=ji.normal(0.02), head=nets.LECUN),
        NOISED,
    ),
    "DiT, zero conditioning, open head": Net(
        "diffusion", "linen", nets.DiT(head=nets.LECUN), NOISED
    ),
    "GRU": Net("recurrent", "linen", nets.Recurrent(), SERIES),
    "LSTM": Net(
        "recurrent", "linen", nets.Recurrent(cell=nn.OptimizedLSTMCell), SERIES
    ),
    "Haiku's LSTM": Net("recurrent", "haiku", nets.haiku_lstm(), SERIES),
    "Equinox's GRU": Net("recurrent", "equinox", nets.equinox_gru(), SERIES),
    "vanilla, orthogonal": Net(
        "recurrent", "functions", nets.vanilla(u=ji.normal(0.02)), LONG
    ),
    "state space": Net("state space", "functions", nets.state_space(), SERIES),
    "mamba": Net("state space", "functions", nets.mamba(), SERIES),
    "VAE": Net("autoencoder", "haiku", nets.haiku_vae(), NODES),
    "autoencoder": Net("autoencoder", "nnx", nets.autoencoder(), X),
    "U-Net": Net("autoencoder", "linen", nets.UNet(), IMAGES),
    "U-Net, zero head": Net("autoencoder", "linen", nets.UNet(head=ji.zeros), IMAGES),
    "graph": Net("graph", "functions", nets.graph(), NODES),
    "graph, residual": Net("graph", "functions", nets.graph(residual=True), NODES),
    "100 blocks, scaled": Net("residual", "functions", nets.residual(100**-0.5), X),
    "100 blocks, ReZero": Net("residual", "functions", nets.residual(0.0), X),
    "100 blocks, ReZero from the input on": Net(
        "residual", "functions", nets.residual(0.0, stem=False), X
    ),
}
