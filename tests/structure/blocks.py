"""Transformers: where norms stand, what branches are, where positions come from."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from architecture import Architecture, data, ids
from flax import nnx

IDS = (ids(3, 5),)


def norm(name=None):
    return nn.LayerNorm(name=name)


class Attend(nn.Module):
    """Two heads of 6 over 12 features, with a norm of queries and keys if asked for."""

    norm: bool = False
    rotate: bool = False

    @nn.compact
    def __call__(self, x):
        q, k, v = (
            nn.DenseGeneral((2, 6), use_bias=False, name=n)(x) for n in ("q", "k", "v")
        )
        if self.norm:
            q, k = nn.RMSNorm(name="norm_q")(q), nn.RMSNorm(name="norm_k")(k)
        if self.rotate:
            q, k = rotate(q), rotate(k)
        y = nn.dot_product_attention(q, k, v)
        return nn.DenseGeneral(12, (-2, -1), use_bias=False, name="o")(y)


def rotate(x):
    """Turns pairs of features by angles that grow with the position."""
    angles = jnp.arange(x.shape[1])[:, None, None] * jnp.arange(3) / 10
    one, two = jnp.split(x, 2, -1)
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    return jnp.concatenate([one * cos - two * sin, two * cos + one * sin], -1)


class Feed(nn.Module):
    gated: bool = False

    @nn.compact
    def __call__(self, x):
        h = nn.Dense(48, use_bias=False, name="up")(x)
        if self.gated:
            h = nn.silu(nn.Dense(48, use_bias=False, name="gate")(x)) * h
        else:
            h = nn.gelu(h)
        return nn.Dense(12, use_bias=False, name="down")(h)


class PreNorm(nn.Module):
    """Learned positions as a parameter; the head is the table of tokens, used again."""

    @nn.compact
    def __call__(self, tokens):
        table = nn.Embed(20, 12, name="table")
        places = self.param("places", nn.initializers.normal(), (1, 7, 12))
        x = table(tokens) + places[:, : tokens.shape[1]]
        for i in range(2):
            x = x + Attend(name=f"attend_{i}")(norm()(x))
            x = x + Feed(name=f"feed_{i}")(norm()(x))
        return table.attend(norm()(x))


class PostNorm(nn.Module):
    """Positions looked up by constants, kinds of tokens by data; a head of its own."""

    scale: float = 1.0

    @nn.compact
    def __call__(self, tokens, kinds):
        x = nn.Embed(20, 12, name="table")(tokens) + nn.Embed(2, 12, name="kind")(kinds)
        x = norm()(x + nn.Embed(7, 12, name="places")(jnp.arange(5))[None])
        for i in range(2):
            x = norm()(self.scale * x + Attend(name=f"attend_{i}")(x))
            x = norm()(self.scale * x + Feed(name=f"feed_{i}")(x))
        return nn.Dense(20, name="head")(x)


class Parallel(nn.Module):
    """Attention and feed-forward layers read one norm and are added at once (GPT-J)."""

    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(20, 12, name="table")(tokens)
        for i in range(2):
            h = norm()(x)
            attended = Attend(rotate=True, name=f"attend_{i}")(h)
            x = attended + Feed(name=f"feed_{i}")(h) + x
        return nn.Dense(20, name="head")(norm()(x))


class Llama(nn.Module):
    """RMSNorm, SwiGLU, rotations, norms of queries and keys, two norms by branch."""

    @nn.compact
    def __call__(self, tokens):
        table = self.param("table", nn.initializers.normal(), (20, 12))
        x = table[tokens] * jnp.sqrt(12.0)
        for i in range(2):
            y = Attend(norm=True, rotate=True, name=f"attend_{i}")(nn.RMSNorm()(x))
            x = x + nn.RMSNorm()(y)
            y = Feed(gated=True, name=f"feed_{i}")(nn.RMSNorm()(x))
            x = x + nn.RMSNorm()(y)
        logits = nn.RMSNorm()(x) @ table.T
        return 30 * jnp.tanh(logits / 30)


class Vision(nn.Module):
    """Patches, a class token, learned positions, LayerScale, stochastic depth."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(12, (4, 4), (4, 4), padding="VALID", name="patches")(x)
        x = x.reshape(3, 4, 12)
        token = self.param("token", nn.initializers.zeros, (1, 1, 12))
        x = jnp.concatenate([jnp.tile(token, (3, 1, 1)), x], 1)
        x = x + self.param("places", nn.initializers.normal(), (1, 5, 12))
        for i in range(2):
            for kind in (Attend, Feed):
                name = f"{kind.__name__.lower()}_{i}"
                scale = self.param(f"scale_{name}", nn.initializers.ones, (12,))
                y = scale * kind(name=name)(norm()(x))
                x = x + nn.Dropout(0.1, broadcast_dims=(1, 2), deterministic=False)(y)
        return nn.Dense(5, name="head")(norm()(x)[:, 0])


class Diffusion(nn.Module):
    """Blocks whose norms and branches are scaled and shifted by a condition (DiT)."""

    @nn.compact
    def __call__(self, x, time, label):
        waves = time[:, None] * jnp.exp(-jnp.arange(8.0))
        waves = jnp.concatenate([jnp.cos(waves), jnp.sin(waves)], -1)
        c = nn.Dense(12, name="time_1")(nn.silu(nn.Dense(12, name="time_0")(waves)))
        c = nn.silu(c + nn.Embed(10, 12, name="labels")(label))
        x = nn.Conv(12, (2, 2), (2, 2), name="patches")(x).reshape(3, 16, 12)
        places = self.param("places", nn.initializers.normal(), (16, 12))
        x = x + places[None]

        def modulate(x, shift, scale):
            x = nn.LayerNorm(use_bias=False, use_scale=False)(x)
            return x * (1 + scale[:, None]) + shift[:, None]

        for i in range(2):
            m = jnp.split(nn.Dense(72, name=f"modulate_{i}")(c), 6, -1)
            y = Attend(name=f"attend_{i}")(modulate(x, m[0], m[1]))
            x = x + m[2][:, None] * y
            y = Feed(name=f"feed_{i}")(modulate(x, m[3], m[4]))
            x = x + m[5][:, None] * y
        shift, scale = jnp.split(nn.Dense(24, name="modulate_head")(c), 2, -1)
        return nn.Dense(12, name="head")(modulate(x, shift, scale))


class EncoderDecoder(nn.Module):
    """An encoder that a decoder attends to; one-hot rows in place of a lookup."""

    @nn.compact
    def __call__(self, source, target):
        table = self.param("table", nn.initializers.normal(), (20, 12))
        attention = nn.MultiHeadDotProductAttention
        x = jax.nn.one_hot(source, 20) @ table
        h = norm()(x)
        x = x + attention(2, name="encode")(h)
        x = x + Feed(name="feed_0")(norm()(x))
        memory = norm()(x)
        y = jax.nn.one_hot(target, 20) @ table
        y = y + attention(2, name="decode")(norm()(y), memory)
        y = y + Feed(name="feed_1")(norm()(y))
        return nn.Dense(20, name="head")(norm()(y))


class NnxBlock(nnx.Module):
    """A pre-norm block of NNX, with a bias of positions that T5 has."""

    def __init__(self, rngs):
        self.table = nnx.Embed(20, 12, rngs=rngs)
        self.before = nnx.LayerNorm(12, rngs=rngs)
        self.q = nnx.LinearGeneral(12, (2, 6), rngs=rngs)
        self.k = nnx.LinearGeneral(12, (2, 6), rngs=rngs)
        self.v = nnx.LinearGeneral(12, (2, 6), rngs=rngs)
        self.o = nnx.LinearGeneral((2, 6), 12, axis=(-2, -1), rngs=rngs)
        self.near = nnx.Param(jnp.zeros((2, 9)))
        self.head = nnx.Linear(12, 20, rngs=rngs)

    def __call__(self, tokens):
        x = self.table(tokens)
        h = self.before(x)
        steps = jnp.arange(5)[:, None] - jnp.arange(5)[None]
        logits = jnp.einsum("bqhk,bshk->bhqs", self.q(h), self.k(h))
        weights = jax.nn.softmax(logits + self.near[...][:, steps + 4][None])
        x = x + self.o(jnp.einsum("bhqs,bshk->bqhk", weights, self.v(h)))
        return self.head(x)


ATTENTION = {
    "*/q/kernel": ("query", (12, 12)),
    "*/k/kernel": ("key", (12, 12)),
    "*/v/kernel": ("value", (12, 12)),
    "*/o/kernel": ("residual", (12, 12)),
}
PARTS = ATTENTION | {
    "*/up/kernel": ("hidden", (12, 48)),
    "*/down/kernel": ("residual", (48, 12)),
}
NORMS = {"*Norm_*/scale": "gain", "*Norm_*/bias": "offset"}
TABLE_OF_TOKENS = {"*/table/embedding": ("embedding", (1, 12))}
HEAD = {"*/head/kernel": ("readout", (12, 20)), "*/head/bias": "bias"}
TRANSFORMERS = {
    # A tied table has the fans of the head: its uses are one product, one lookup.
    "transformer, pre-norm, tied by attend": Architecture(
        PreNorm(),
        IDS,
        PARTS
        | NORMS
        | {
            "*/table/embedding": ("embedding+readout", (12, 20)),
            "places": "table",
        },
        branches=4,
    ),
    "transformer, post-norm": Architecture(
        PostNorm(),
        IDS + IDS,
        PARTS
        | NORMS
        | TABLE_OF_TOKENS
        | HEAD
        | {
            "*/kind/embedding": ("embedding", (1, 12)),
            "*/places/embedding": "table",  # no data choose its rows
        },
        branches=4,
    ),
    "transformer, scaled stream of DeepNorm": Architecture(
        PostNorm(scale=1.7),
        IDS + IDS,
        PARTS
        | NORMS
        | TABLE_OF_TOKENS
        | HEAD
        | {
            "*/kind/embedding": ("embedding", (1, 12)),
            "*/places/embedding": "table",
        },
        branches=4,
    ),
    # Both are added at once: one branch of a block.
    "transformer, parallel": Architecture(
        Parallel(), IDS, PARTS | NORMS | TABLE_OF_TOKENS | HEAD, branches=2
    ),
    "transformer, Llama with norms of queries and keys": Architecture(
        Llama(),
        IDS,
        PARTS
        | {
            "*/gate/kernel": ("hidden", (12, 48)),
            "*/norm_?/scale": "gain",
            "*Norm_*/scale": "gain",
            "table": ("embedding+readout", (12, 20)),
        },
        branches=4,
    ),
    "transformer, vision": Architecture(
        Vision(),
        (data(3, 8, 8, 3),),
        PARTS
        | NORMS
        | {
            "*/patches/kernel": ("input", (48, 192)),
            "*/patches/bias": "bias",
            "token": "table",
            "places": "table",
            "scale_*": "gain",
            "*/head/kernel": ("readout", (12, 5)),
            "*/head/bias": "bias",
        },
        branches=4,
    ),
    # Shift, scale and gate of a block are six blocks of outputs side by side. They are
    # factors of a branch that do not see the stream: they do not end it.
    "transformer, DiT": Architecture(
        Diffusion(),
        (data(3, 8, 8, 3), data(3), ids(3)),
        PARTS
        | {
            "*/time_0/kernel": ("input", (16, 12)),
            "*/time_1/kernel": ("hidden", (12, 12)),
            "*/labels/embedding": ("embedding", (1, 12)),
            "*/patches/kernel": ("input", (12, 48)),
            "places": "table",
            "*/modulate_*/kernel": ("hidden", (12, 12)),
            "*/head/kernel": ("readout", (12, 12)),
            "*/bias": "bias",
        },
        branches=4,
    ),
    "transformer, encoder and decoder, one-hot rows": Architecture(
        EncoderDecoder(),
        (ids(3, 5), ids(3, 6)),
        {
            "table": ("embedding", (1, 12)),
            "*/query/kernel": ("query", (12, 12)),
            "*/key/kernel": ("key", (12, 12)),
            "*/value/kernel": ("value", (12, 12)),
            "*/out/kernel": ("residual", (12, 12)),
            "*/up/kernel": ("hidden", (12, 48)),
            "*/down/kernel": ("residual", (48, 12)),
            **HEAD,
            **NORMS,
            "*/bias": "bias",
        },
        branches=4,
    ),
    "transformer, NNX, with a bias of positions": Architecture(
        NnxBlock,
        IDS,
        {
            "table/embedding": ("embedding", (1, 12)),
            **ATTENTION,
            "near": "table",
            **HEAD,
            "before/scale": "gain",
            "before/bias": "offset",
            "*/bias": "bias",
        },
        branches=1,
    ),
}
