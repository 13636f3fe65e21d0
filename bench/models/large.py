"""Large models: in Flax, and as torch would build them."""

from collections.abc import Callable
from typing import Any, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

Init = Callable[..., jax.Array]
T = TypeVar("T")


class Block(nn.Module):
    """A pre-norm transformer block with causal attention."""

    width: int
    heads: int
    kernel: Init
    residual: Init

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies attention and a feed-forward layer."""
        length, size = x.shape[-2], self.width // self.heads
        h = nn.LayerNorm(name="ln_1")(x)
        h = nn.Dense(3 * self.width, kernel_init=self.kernel, name="c_attn")(h)
        q, k, v = (
            part.reshape(*x.shape[:-1], self.heads, size)
            for part in jnp.split(h, 3, axis=-1)
        )
        mask = jnp.tril(jnp.ones((length, length), bool))
        h = nn.dot_product_attention(q, k, v, mask=mask).reshape(x.shape)
        x = x + nn.Dense(self.width, kernel_init=self.residual, name="c_proj")(h)
        h = nn.LayerNorm(name="ln_2")(x)
        h = nn.gelu(nn.Dense(4 * self.width, kernel_init=self.kernel, name="c_fc")(h))
        return x + nn.Dense(self.width, kernel_init=self.residual, name="mlp_out")(h)


class GPT(nn.Module):
    """GPT-2 with a head of its own: 163 million parameters by default."""

    layers: int = 12
    width: int = 768
    heads: int = 12
    vocabulary: int = 50257
    context: int = 1024
    kernel: Init = nn.initializers.lecun_normal()
    residual: Init = nn.initializers.lecun_normal()
    embedding: Init = nn.initializers.normal(0.02)

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Computes the logits of the next token."""
        places = jnp.arange(tokens.shape[-1])

        def table(size: int, name: str) -> nn.Embed:
            return nn.Embed(size, self.width, embedding_init=self.embedding, name=name)

        x = table(self.vocabulary, "wte")(tokens) + table(self.context, "wpe")(places)
        for i in range(self.layers):
            sizes = self.width, self.heads
            x = Block(*sizes, self.kernel, self.residual, name=f"h_{i}")(x)
        x = nn.LayerNorm(name="ln_f")(x)
        dense = nn.Dense(self.vocabulary, use_bias=False, kernel_init=self.kernel)
        return dense(x)


class Layers:
    """Makes layers of NNX: from one stream of keys, with the same initializers.

    Attributes:
      rngs: the stream.
      laws: initializers by ``kernel_init``, ``bias_init`` and ``scale_init``; Flax has
        its own for those that are not there.
    """

    def __init__(self, rngs: nnx.Rngs, laws: dict[str, Any]):
        """Stores the initializers for layers with kernels, and those for norms."""
        self.rngs = rngs
        self._dense = {k: law for k, law in laws.items() if k != "scale_init"}
        self._norm = {k: law for k, law in laws.items() if k != "kernel_init"}

    def dense(self, layer: Callable[..., T], *sizes: Any, **more: Any) -> T:
        """Makes a layer that has a kernel."""
        return layer(*sizes, **more, **self._dense, rngs=self.rngs)

    def norm(self, layer: Callable[..., T], width: int) -> T:
        """Makes a norm."""
        return layer(width, **self._norm, rngs=self.rngs)


class Bottleneck(nnx.Module):
    """A block of ResNet-50."""

    def __init__(self, inputs: int, width: int, stride: int, layers: Layers):
        """Makes the layers."""
        outputs = 4 * width
        self.conv1 = _conv(inputs, width, 1, 1, layers)
        self.bn1 = layers.norm(nnx.BatchNorm, width)
        self.conv2 = _conv(width, width, 3, stride, layers)
        self.bn2 = layers.norm(nnx.BatchNorm, width)
        self.conv3 = _conv(width, outputs, 1, 1, layers)
        self.bn3 = layers.norm(nnx.BatchNorm, outputs)
        self.narrows = stride > 1 or inputs != outputs
        if self.narrows:
            self.skip = _conv(inputs, outputs, 1, stride, layers)
            self.skip_bn = layers.norm(nnx.BatchNorm, outputs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the block."""
        h = nnx.relu(self.bn1(self.conv1(x)))
        h = nnx.relu(self.bn2(self.conv2(h)))
        h = self.bn3(self.conv3(h))
        return nnx.relu(h + (self.skip_bn(self.skip(x)) if self.narrows else x))


def _conv(inputs: int, outputs: int, size: int, stride: int, layers: Layers) -> Any:
    sizes = inputs, outputs, (size, size)
    return layers.dense(nnx.Conv, *sizes, strides=stride, use_bias=False)


class ResNet(nnx.Module):
    """ResNet-50 by default: 25.6 million parameters."""

    def __init__(
        self,
        rngs: nnx.Rngs,
        stages: tuple[int, ...] = (3, 4, 6, 3),
        width: int = 64,
        classes: int = 1000,
        **laws: Any,
    ):
        """Makes the layers, with initializers as `Layers` takes them."""
        layers = Layers(rngs, laws)
        self.stem = _conv(3, width, 7, 2, layers)
        self.norm = layers.norm(nnx.BatchNorm, width)
        blocks, inputs = [], width
        for stage, count in enumerate(stages):
            for place in range(count):
                stride = 2 if stage and not place else 1
                blocks.append(Bottleneck(inputs, width * 2**stage, stride, layers))
                inputs = 4 * width * 2**stage
        self.blocks = nnx.List(blocks)
        self.head = layers.dense(nnx.Linear, inputs, classes)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Computes logits of images, (examples, height, width, 3)."""
        x = nnx.relu(self.norm(self.stem(x)))
        x = jax.lax.reduce_window(
            x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME"
        )
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((1, 2)))


class Encoder(nnx.Module):
    """A block of a vision transformer."""

    def __init__(self, width: int, heads: int, layers: Layers):
        """Makes the layers."""
        self.ln_1 = layers.norm(nnx.LayerNorm, width)
        attention = nnx.MultiHeadAttention
        self.attention = layers.dense(attention, heads, width, decode=False)
        self.ln_2 = layers.norm(nnx.LayerNorm, width)
        self.mlp_in = layers.dense(nnx.Linear, width, 4 * width)
        self.mlp_out = layers.dense(nnx.Linear, 4 * width, width)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the block."""
        x = x + self.attention(self.ln_1(x))
        return x + self.mlp_out(nnx.gelu(self.mlp_in(self.ln_2(x))))


class ViT(nnx.Module):
    """A vision transformer, ViT-B/16 by default: 86.6 million parameters."""

    def __init__(
        self,
        rngs: nnx.Rngs,
        layers: int = 12,
        width: int = 768,
        heads: int = 12,
        patch: int = 16,
        image: int = 224,
        classes: int = 1000,
        **laws: Any,
    ):
        """Makes the layers, with initializers as `Layers` takes them."""
        made = Layers(rngs, laws)
        places = (image // patch) ** 2 + 1
        normal = nnx.initializers.normal(0.02)
        sizes = 3, width, (patch, patch)
        self.patches = made.dense(nnx.Conv, *sizes, strides=patch, padding="VALID")
        self.cls = nnx.Param(jnp.zeros((1, 1, width)))
        self.pos = nnx.Param(normal(rngs.params(), (1, places, width)))
        self.blocks = nnx.List([Encoder(width, heads, made) for _ in range(layers)])
        self.norm = made.norm(nnx.LayerNorm, width)
        self.head = made.dense(nnx.Linear, width, classes)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Computes logits of images, (examples, height, width, 3)."""
        x = self.patches(x)
        x = x.reshape(len(x), -1, x.shape[-1])
        first = jnp.broadcast_to(self.cls[...], (len(x), 1, x.shape[-1]))
        x = jnp.concatenate([first, x], axis=1) + self.pos[...]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


def build_torch_gpt(layers: int, width: int, vocabulary: int, context: int) -> Any:
    """Builds the layers of `GPT` in torch."""
    from torch import nn as torch

    blocks = [
        part
        for _ in range(layers)
        for part in (
            torch.LayerNorm(width),
            torch.Linear(width, 3 * width),
            torch.Linear(width, width),
            torch.LayerNorm(width),
            torch.Linear(width, 4 * width),
            torch.Linear(4 * width, width),
        )
    ]
    return torch.ModuleList(
        [
            torch.Embedding(vocabulary, width),
            torch.Embedding(context, width),
            *blocks,
            torch.LayerNorm(width),
            torch.Linear(width, vocabulary, bias=False),
        ]
    )


def build_torch_resnet(stages: tuple[int, ...], width: int, classes: int) -> Any:
    """Builds the layers of `ResNet` in torch."""
    from torch import nn as torch

    def conv(inputs: int, outputs: int, size: int) -> list[Any]:
        kernel = torch.Conv2d(inputs, outputs, size, bias=False)
        return [kernel, torch.BatchNorm2d(outputs)]

    parts, inputs = conv(3, width, 7), width
    for stage, count in enumerate(stages):
        middle, outputs = width * 2**stage, 4 * width * 2**stage
        for _ in range(count):
            parts += conv(inputs, middle, 1) + conv(middle, middle, 3)
            parts += conv(middle, outputs, 1)
            parts += conv(inputs, outputs, 1) if inputs != outputs else []
            inputs = outputs
    return torch.ModuleList([*parts, torch.Linear(inputs, classes)])


def build_torch_vit(
    layers: int, width: int, heads: int, patch: int, classes: int
) -> Any:
    """Builds the layers of `ViT` in torch."""
    from torch import nn as torch

    blocks = [
        part
        for _ in range(layers)
        for part in (
            torch.LayerNorm(width),
            torch.MultiheadAttention(width, heads),
            torch.LayerNorm(width),
            torch.Linear(width, 4 * width),
            torch.Linear(4 * width, width),
        )
    ]
    return torch.ModuleList(
        [
            torch.Conv2d(3, width, patch),
            *blocks,
            torch.LayerNorm(width),
            torch.Linear(width, classes),
        ]
    )
