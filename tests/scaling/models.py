"""Models of any width and depth, of which a small one and a large one are compared."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

X = np.zeros((3, 6), np.float32)
STEPS = np.zeros((2, 5, 6), np.float32)
IMAGES = np.zeros((2, 8, 8, 3), np.float32)
IDS = np.zeros((2, 5), np.int32)
NORMAL = nn.initializers.normal()


class Perceptron(nn.Module):
    """Layers of one width, between features and classes."""

    width: int
    hidden: int = 1
    features: int = 6
    classes: int = 4

    @nn.compact
    def __call__(self, x):
        for _ in range(self.hidden + 1):
            x = nn.relu(nn.Dense(self.width)(x))
        return nn.Dense(self.classes)(x)


def make_nnx(width, hidden=1):
    """Returns a model of NNX with the layers of `Perceptron`."""

    class Model(nnx.Module):
        def __init__(self, rngs):
            sizes = [6, *[width] * (hidden + 1), 4]
            pairs = zip(sizes[:-1], sizes[1:], strict=True)
            self.layers = nnx.List([nnx.Linear(*pair, rngs=rngs) for pair in pairs])

        def __call__(self, x):
            for layer in self.layers[:-1]:
                x = nnx.relu(layer(x))
            return self.layers[-1](x)

    return Model


def make_equinox(width, hidden=1):
    """Returns a model of Equinox with the layers of `Perceptron`."""
    return lambda key: eqx.nn.MLP(6, 4, width, hidden + 1, key=key)


class Attention(nn.Module):
    """Attention whose queries may share keys, with norms of both if asked for."""

    heads: int
    size: int
    shared: int = 1
    normed: bool = False
    flat: bool = False

    @nn.compact
    def __call__(self, x):
        def make(name, heads):
            if self.flat:
                y = nn.Dense(heads * self.size, use_bias=False, name=name)(x)
                return y.reshape(*x.shape[:-1], heads, self.size)
            return nn.DenseGeneral((heads, self.size), name=name)(x)

        q = make("q", self.heads)
        k, v = (make(name, self.heads // self.shared) for name in ("k", "v"))
        if self.normed:
            q, k = nn.RMSNorm(name="norm_q")(q), nn.RMSNorm(name="norm_k")(k)
        k, v = (jnp.repeat(each, self.shared, 2) for each in (k, v))
        y = nn.dot_product_attention(q, k, v)
        return nn.DenseGeneral(x.shape[-1], (-2, -1), name="o")(y)


class Experts(nn.Module):
    """All tokens by all experts, weighted by a router."""

    experts: int

    @nn.compact
    def __call__(self, x):
        d = x.shape[-1]
        weights = nn.softmax(nn.Dense(self.experts, use_bias=False, name="router")(x))
        up = self.param("up", NORMAL, (self.experts, d, 2 * d))
        down = self.param("down", NORMAL, (self.experts, 2 * d, d))
        y = nn.gelu(jnp.einsum("bld,edf->blef", x, up))
        y = jnp.einsum("blef,efd->bled", y, down)
        return jnp.einsum("bled,ble->bld", y, weights)


class Block(nn.Module):
    """Attention and a feed-forward layer, gated or of experts."""

    attention: nn.Module
    wide: int = 4
    experts: int = 0
    behind: bool = False

    @nn.compact
    def __call__(self, x):
        def norm(y):
            return nn.RMSNorm()(y) if self.behind else y

        x = x + norm(self.attention.copy(name="attend")(nn.RMSNorm()(x)))
        h = nn.RMSNorm()(x)
        if self.experts:
            return x + norm(Experts(self.experts, name="experts")(h))
        gate, up = (nn.Dense(self.wide * x.shape[-1])(h) for _ in range(2))
        return x + norm(nn.Dense(x.shape[-1], name="down")(nn.silu(gate) * up))


class Transformer(nn.Module):
    """Blocks between a table of tokens and a readout, which may be one."""

    width: int
    attention: nn.Module
    blocks: int = 2
    tied: bool = False
    options: tuple = ()
    vocabulary: int = 20

    @nn.compact
    def __call__(self, tokens):
        table = nn.Embed(self.vocabulary, self.width, name="table")
        places = self.param("places", NORMAL, (tokens.shape[1], self.width))
        x = table(tokens) + places
        for i in range(self.blocks):
            options = dict(self.options)
            x = Block(self.attention, name=f"block_{i}", **options)(x)
        x = nn.RMSNorm(name="last")(x)
        if self.tied:
            return table.attend(x)
        return nn.Dense(self.vocabulary, use_bias=False, name="head")(x)


def transformer(m=1, *, grows="heads", blocks=1, tied=False, shared=1, **options):
    """Returns a transformer m times as wide as 8 features, of two heads of 4.

    Args:
      m: how much wider it is.
      grows: "heads", their number; or "size", the size of each.
      blocks: the number of blocks.
      tied: whether the table is the readout too.
      shared: how many queries share keys and values.
      **options: "normed" and "flat" of the attention, and those of the block.
    """
    sizes = {"heads": (2 * m, 4), "size": (2, 4 * m)}[grows]
    mine = {name: options.pop(name) for name in ("normed", "flat") if name in options}
    attention = Attention(*sizes, shared, **mine)
    return Transformer(8 * m, attention, blocks, tied, tuple(options.items()))


class Scanned(nn.Module):
    """Residual blocks, stacked by `nn.scan`."""

    width: int
    blocks: int

    @nn.compact
    def __call__(self, x):
        class Body(nn.Module):
            @nn.compact
            def __call__(self, x, _):
                h = nn.gelu(nn.Dense(2 * x.shape[-1], name="up")(nn.LayerNorm()(x)))
                return x + nn.Dense(x.shape[-1], name="down")(h), None

        stack = nn.scan(
            Body,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=self.blocks,
        )
        x, _ = stack(name="stack")(nn.Dense(self.width, name="first")(x), None)
        return nn.Dense(4, name="final")(x)


class ResNet(nn.Module):
    """Two stages of blocks by stage, the second twice as wide."""

    width: int
    sizes: tuple = (1, 1)

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(self.width, (3, 3), use_bias=False, name="stem")(x)
        for stage, count in enumerate(self.sizes):
            for i in range(count):
                x = ConvBlock(2**stage * self.width, name=f"stage_{stage}_{i}")(x)
        return nn.Dense(4, name="head")(x.mean((1, 2)))


class ConvBlock(nn.Module):
    """Two convolutions behind norms, and a projection where the width changes."""

    width: int

    @nn.compact
    def __call__(self, x):
        h = nn.relu(nn.GroupNorm(1)(x))
        if x.shape[-1] != self.width:
            x = nn.Conv(self.width, (1, 1), use_bias=False, name="skip")(x)
        h = nn.Conv(self.width, (3, 3), use_bias=False, name="one")(h)
        h = nn.relu(nn.GroupNorm(1)(h))
        return x + nn.Conv(self.width, (3, 3), use_bias=False, name="two")(h)


class Lstm(nn.Module):
    """An LSTM, whose last output is read."""

    width: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(4, name="head")(nn.RNN(nn.LSTMCell(self.width))(x)[:, -1])


class StateSpace(nn.Module):
    """A diagonal state space of each channel, in a residual branch."""

    width: int

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(self.width, name="stem")(x)
        rate = jnp.exp(-jnp.exp(self.param("rate", NORMAL, (self.width, 3))))
        read = self.param("read", NORMAL, (self.width, 3))

        def step(state, u):
            state = rate * state + u[..., None]
            return state, (state * read).sum(-1)

        h = nn.LayerNorm(name="norm")(x)
        start = jnp.zeros((x.shape[0], self.width, 3))
        _, y = jax.lax.scan(step, start, h.swapaxes(0, 1))
        y = nn.Dense(self.width, name="out")(nn.gelu(y.swapaxes(0, 1)))
        return nn.Dense(4, name="head")(x + y)


class LinenBlock(nn.Module):
    """A block with two heads between two products; the same as in two frameworks."""

    width: int

    @nn.compact
    def __call__(self, x):
        d = self.width
        x = nn.Dense(d)(x)
        x = x + nn.MultiHeadDotProductAttention(2)(nn.LayerNorm()(x))
        x = x + nn.Dense(d)(nn.relu(nn.Dense(4 * d)(nn.LayerNorm()(x))))
        return nn.Dense(4)(nn.LayerNorm()(x))


def make_nnx_block(d):
    """Returns the block of NNX."""

    class Model(nnx.Module):
        def __init__(self, rngs):
            sizes = {
                "first": (6, d),
                "up": (d, 4 * d),
                "down": (4 * d, d),
                "last": (d, 4),
            }
            for name, pair in sizes.items():
                setattr(self, name, nnx.Linear(*pair, rngs=rngs))
            self.a, self.b, self.c = (nnx.LayerNorm(d, rngs=rngs) for _ in range(3))
            self.attend = nnx.MultiHeadAttention(2, d, decode=False, rngs=rngs)

        def __call__(self, x):
            x = self.first(x)
            x = x + self.attend(self.a(x))
            x = x + self.down(nnx.relu(self.up(self.b(x))))
            return self.last(self.c(x))

    return Model


class EquinoxBlock(eqx.Module):
    """The block of Equinox."""

    first: eqx.nn.Linear
    norms: list
    attend: eqx.nn.MultiheadAttention
    feed: eqx.nn.MLP
    last: eqx.nn.Linear

    def __init__(self, d, key):
        biases = {f"use_{n}_bias": True for n in ("query", "key", "value", "output")}
        self.first = eqx.nn.Linear(6, d, key=key)
        self.norms = [eqx.nn.LayerNorm(d) for _ in range(3)]
        self.attend = eqx.nn.MultiheadAttention(2, d, **biases, key=key)
        self.feed = eqx.nn.MLP(d, d, 4 * d, 1, key=key)
        self.last = eqx.nn.Linear(d, 4, key=key)

    def __call__(self, x):
        x = jax.vmap(self.first)(x)
        h = jax.vmap(self.norms[0])(x)
        x = x + self.attend(h, h, h)
        x = x + jax.vmap(self.feed)(jax.vmap(self.norms[1])(x))
        return jax.vmap(self.last)(jax.vmap(self.norms[2])(x))
