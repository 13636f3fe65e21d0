"""Models that break rules of thumb: raw streams, parameters in place of data."""

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
from flax import nnx


class Feed(nn.Module):
    @nn.compact
    def __call__(self, x):
        h = nn.Dense(48, name="up")(x)
        return nn.Dense(12, name="down")(nn.gelu(h))


class RawStream(nn.Module):
    """The stream is the input itself, and the output."""

    @nn.compact
    def __call__(self, x):
        for i in range(2):
            x = x + Feed(name=f"feed_{i}")(x)
        return x


class Probe(nn.Module):
    """A learned query reads all tokens (the head of a vision transformer)."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(12, name="first")(x)
        probe = self.param("probe", nn.initializers.normal(), (1, 1, 12))
        probe = jnp.tile(probe, (x.shape[0], 1, 1))
        x = nn.MultiHeadDotProductAttention(2, name="attend")(probe, x)
        x = x + Feed(name="feed")(nn.LayerNorm()(x))
        return nn.Dense(3, name="head")(x[:, 0])


class Perceiver(nn.Module):
    """Learned latents are a stream, into which attention to the inputs writes."""

    @nn.compact
    def __call__(self, x):
        latents = self.param("latents", nn.initializers.normal(), (4, 12))
        h = jnp.broadcast_to(latents, (x.shape[0], 4, 12))
        for i in range(2):
            attend = nn.MultiHeadDotProductAttention(2, name=f"attend_{i}")
            h = h + attend(nn.LayerNorm()(h), nn.LayerNorm()(x))
            h = h + Feed(name=f"feed_{i}")(nn.LayerNorm()(h))
        return nn.Dense(3, name="head")(h.mean(1))


class Swin(nn.Module):
    """Attention by cosines with a learned temperature, and norms behind branches."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(12, name="first")(x)
        h = nn.Dense(36, name="qkv")(x).reshape(2, 5, 3, 2, 6)
        q, k, v = h[:, :, 0], h[:, :, 1], h[:, :, 2]
        q, k = (u / jnp.linalg.norm(u, axis=-1, keepdims=True) for u in (q, k))
        heat = self.param("heat", nn.initializers.ones, (2, 1, 1))
        logits = jnp.einsum("bqhd,bkhd->bhqk", q, k) * jnp.exp(jnp.minimum(heat, 4.6))
        y = jnp.einsum("bhqk,bkhd->bqhd", nn.softmax(logits), v).reshape(2, 5, 12)
        x = x + nn.LayerNorm()(nn.Dense(12, name="o")(y))
        return nn.Dense(3, name="head")(x.mean(1))


class ConvNext(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.LayerNorm()(nn.Conv(12, (4, 4), (4, 4), name="stem")(x))
        for i in range(2):
            y = nn.Conv(12, (7, 7), feature_group_count=12, name=f"deep_{i}")(x)
            y = Feed(name=f"feed_{i}")(nn.LayerNorm()(y))
            x = x + self.param(f"gamma_{i}", nn.initializers.ones, (12,)) * y
        x = nn.Conv(24, (2, 2), (2, 2), name="narrow")(nn.LayerNorm()(x))
        return nn.Dense(5, name="head")(nn.LayerNorm()(x.mean((1, 2))))


class Inverted(nn.Module):
    """Inverted bottlenecks with gates of channels, of EfficientNet."""

    @nn.compact
    def __call__(self, x):
        def normed(features, window, name, groups=1):
            conv = nn.Conv(
                features,
                window,
                use_bias=False,
                feature_group_count=groups,
                name=name,
            )
            return lambda x: nn.BatchNorm(False)(conv(x))

        x = nn.silu(normed(8, (3, 3), "stem")(x))
        for i in range(2):
            y = nn.silu(normed(32, (1, 1), f"expand_{i}")(x))
            y = nn.silu(normed(32, (3, 3), f"deep_{i}", 32)(y))
            s = nn.Conv(4, (1, 1), name=f"squeeze_{i}")(y.mean((1, 2), keepdims=True))
            y = y * nn.sigmoid(nn.Conv(32, (1, 1), name=f"excite_{i}")(nn.silu(s)))
            x = x + normed(8, (1, 1), f"project_{i}")(y)
        return nn.Dense(5, name="head")(x.mean((1, 2)))


def call_quantized(p, x):
    """A code is replaced by the nearest row of a book, and gradients pass by."""
    z = jax.nn.relu(x @ p["encode"]) @ p["code"]
    far = ((z[:, None] - p["book"][None]) ** 2).sum(-1)
    nearest = p["book"][far.argmin(-1)]
    q = z + jax.lax.stop_gradient(nearest - z)
    return jax.nn.relu(q @ p["decode"]) @ p["pixels"], far


def call_hyper(p, x):
    """The weights of a layer are made by a network from a learned vector."""
    h = jax.nn.relu(p["z"] @ p["w"] + p["b"])
    return jax.nn.relu(x @ (h @ p["make"]).reshape(8, 16)) @ p["head"]


def call_vector(p, x):
    return jnp.tanh(x @ p["w"] + p["b"]) @ p["v"]


def call_scaled(p, x, kind):
    """ReZero scales branches; ResScale the stream."""
    x = x @ p["first"]
    for i in "01":
        y = jax.nn.gelu(x @ p["up" + i]) @ p["down" + i]
        x = x + p["scale" + i] * y if kind == "branch" else p["scale" + i] * x + y
    return x @ p["last"]


def call_highway(p, x):
    x = x @ p["first"]
    for i in "01":
        gate = jax.nn.sigmoid(x @ p["gate" + i] + p["bias" + i])
        x = gate * jax.nn.relu(x @ p["main" + i]) + (1 - gate) * x
    return x @ p["last"]


def call_rwkv(p, x):
    """Mixes neighbors, and averages values with weights that decay, in a loop."""
    x = x @ p["stem"]
    before = jnp.pad(x, ((0, 0), (1, 0), (0, 0)))[:, :-1]

    def mix(share):
        return x * p[share] + before * (1 - p[share])

    r, k, v = jax.nn.sigmoid(mix("mr") @ p["r"]), mix("mk") @ p["k"], mix("mv") @ p["v"]
    decay = jnp.exp(-jnp.exp(p["decay"]))

    def step(carry, kv):
        (total, weight), (k, v) = carry, kv
        now = jnp.exp(p["bonus"] + k)
        out = (total + now * v) / (weight + now)
        return (decay * total + jnp.exp(k) * v, decay * weight + jnp.exp(k)), out

    start = jnp.zeros((2, 8)), jnp.zeros((2, 8))
    _, y = jax.lax.scan(step, start, (k.swapaxes(0, 1), v.swapaxes(0, 1)))
    x = x + (r * y.swapaxes(0, 1)) @ p["o"]
    h = jnp.square(jax.nn.relu(x @ p["up"]))
    x = x + jax.nn.sigmoid(x @ p["gate"]) * (h @ p["down"])
    return x @ p["head"]


def call_long_filter(p, x):
    x = x @ p["stem"]
    y = jnp.fft.rfft(x.swapaxes(1, 2), 14) * jnp.fft.rfft(p["filter"], 14)
    y = jnp.fft.irfft(y, 14)[..., :7].swapaxes(1, 2)
    return (x + jax.nn.gelu(y) @ p["o"]) @ p["head"]


def call_decoder(p, x):
    """Reads its own words: each step looks up what the last one chose."""

    def step(carry, _):
        h, token = carry
        h = jnp.tanh(h @ p["u"] + p["table"][token])
        logits = h @ p["out"]
        return (h, logits.argmax(-1)), logits

    start = x @ p["first"], jnp.zeros(2, int)
    return jax.lax.scan(step, start, None, length=5)[1]


class StackedNnx(nnx.Module):
    def __init__(self, rngs):
        @nnx.split_rngs(splits=4)
        @nnx.vmap
        def stack(rngs):
            return nnx.Linear(8, 8, rngs=rngs)

        self.layers = stack(rngs)
        self.out = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x):
        @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
        def run(layer, x):
            return x + nnx.relu(layer(x))

        return self.out(run(self.layers, x))


def call_stacked_haiku(x):
    def block(x):
        h = jax.nn.relu(hk.Linear(16)(x))
        return x + hk.Linear(8)(h)

    x = hk.experimental.layer_stack(3)(block)(hk.Linear(8)(x))
    return hk.Linear(3)(x)


def call_film(p, x, c):
    """A condition scales and shifts features."""
    h = jax.nn.relu(x @ p["one"])
    h = jax.nn.relu((c @ p["scale"]) * (h @ p["two"]) + c @ p["shift"])
    return h @ p["head"]


def call_towers(p, x, y):
    """Two networks, whose outputs are compared, with a learned temperature."""
    a = jax.nn.relu(x @ p["a0"]) @ p["a1"]
    b = jax.nn.relu(y @ p["b0"]) @ p["b1"]
    a, b = (u / jnp.linalg.norm(u, axis=-1, keepdims=True) for u in (a, b))
    return jnp.exp(p["heat"]) * a @ b.T


class EquinoxTransformer(eqx.Module):
    table: eqx.nn.Embedding
    places: jax.Array
    attend: eqx.nn.MultiheadAttention
    norms: list
    near: eqx.nn.Conv1d
    feed: eqx.nn.MLP
    head: eqx.nn.Linear

    def __init__(self, key):
        self.table = eqx.nn.Embedding(20, 12, key=key)
        self.places = jax.random.normal(key, (5, 12))
        self.attend = eqx.nn.MultiheadAttention(2, 12, key=key)
        self.norms = [eqx.nn.LayerNorm(12), eqx.nn.RMSNorm(12)]
        self.near = eqx.nn.Conv1d(12, 12, 3, padding=1, key=key)
        self.feed = eqx.nn.MLP(12, 12, 48, 1, key=key)
        self.head = eqx.nn.Linear(12, 20, key=key)

    def __call__(self, tokens):
        x = jax.vmap(self.table)(tokens) + self.places
        h = jax.vmap(self.norms[0])(x)
        x = x + self.attend(h, h, h)
        x = x + self.near(x.T).T
        x = x + jax.vmap(self.feed)(jax.vmap(self.norms[1])(x))
        return jax.vmap(self.head)(x)
