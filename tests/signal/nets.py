"""Small networks of ten kinds, in five frameworks; their laws and scales are arguments.

Sick networks and healthy ones differ in numbers alone, so that both run the same
compiled program. Depth is a loop, where the framework has one.
"""

import functools

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
from flax import nnx

import jaxinit as ji

LECUN = ji.lecun_normal()
HE = ji.he_normal()
ONES, ZEROS, ORTHOGONAL, SMALL = ji.ones(), ji.zeros(), ji.orthogonal(), ji.normal(0.02)
HE_ROWS = ji.he_normal(in_axis=1, out_axis=0)  # as Equinox stores weights


def of_haiku(init):
    """Adapts an initializer to Haiku, which passes no key, unless that was done."""
    return ji.haiku(init) if isinstance(init, ji.Initializer) else init


# Perceptrons.


class Step(nn.Module):
    kernel: object
    act: object
    bias: object
    norm: bool
    gain: object

    @nn.compact
    def __call__(self, x, _=None):
        x = nn.Dense(x.shape[-1], kernel_init=self.kernel, bias_init=self.bias)(x)
        return self.act(nn.LayerNorm(scale_init=self.gain)(x) if self.norm else x), None


class Perceptron(nn.Module):
    """Linen: equal layers in a loop, and a head."""

    kernel_init: object = HE
    act: object = nn.relu
    depth: int = 30
    bias: object = ji.zeros
    norm: bool = False
    gain: object = ji.ones
    head: object = LECUN

    @nn.compact
    def __call__(self, x):
        loop = nn.scan(
            Step,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=self.depth,
        )
        own = self.kernel_init, self.act, self.bias, self.norm, self.gain
        x, _ = loop(*own, name="steps")(x, None)
        return nn.Dense(10, kernel_init=self.head, name="head")(x)


def equinox_perceptron(rules=(), depth=12, act=jax.nn.relu):
    """Equinox's own, whose weights are drawn anew by rules."""

    def make(key):
        model = eqx.nn.MLP(64, 10, 64, depth, activation=act, key=key)
        return ji.reinit(key, model, rules) if rules else model

    return make


def haiku_perceptron(w_init=HE, depth=12, act=jax.nn.relu, b_init=None):
    def call(x):
        own = {"w_init": of_haiku(w_init), "b_init": of_haiku(b_init)}
        return hk.nets.MLP([64] * depth + [10], activation=act, **own)(x)

    return hk.transform(call)


# Convolutions.


class Residual(nn.Module):
    kernel: object
    gain: object
    last: object

    @nn.compact
    def __call__(self, x, _=None):
        y = x
        for scale, act in ((self.gain, nn.relu), (self.last, lambda y: y)):
            y = nn.Conv(8, (3, 3), use_bias=False, kernel_init=self.kernel)(y)
            y = act(nn.BatchNorm(use_running_average=False, scale_init=scale)(y))
        return nn.relu(x + y), None


class ResNet(nn.Module):
    """Linen: batch norms, and the last gain of each branch at will."""

    kernel_init: object = HE
    gain: object = ji.ones
    last: object = ji.ones

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(8, (3, 3), kernel_init=self.kernel_init)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=False, scale_init=self.gain)(x))
        loop = nn.scan(
            Residual,
            variable_axes={"params": 0, "batch_stats": 0},
            split_rngs={"params": True},
            length=4,
        )
        x, _ = loop(self.kernel_init, self.gain, self.last, name="blocks")(x, None)
        return nn.Dense(10)(x.mean((1, 2)))


def haiku_convolutions(w_init=HE, act=jax.nn.relu, depth=6):
    """Haiku: convolutions without norms."""

    def call(x):
        for _ in range(depth):
            x = act(hk.Conv2D(8, 3, w_init=of_haiku(w_init))(x))
        return hk.Linear(10)(x.mean((1, 2)))

    return hk.transform(call)


# Transformers.


class Block(nn.Module):
    kernel: object
    gain: object
    heads: int = 4

    @nn.compact
    def __call__(self, x, _=None):
        h = nn.LayerNorm(scale_init=self.gain, name="before_attention")(x)
        attention = nn.MultiHeadDotProductAttention(
            self.heads, kernel_init=self.kernel, name="attention"
        )
        x = x + attention(h, h)
        h = nn.LayerNorm(scale_init=self.gain, name="before_mlp")(x)
        width = x.shape[-1]
        h = nn.gelu(nn.Dense(2 * width, kernel_init=self.kernel, name="up")(h))
        return x + nn.Dense(width, kernel_init=self.kernel, name="down")(h), None


class PreNorm(nn.Module):
    """Linen: a language model, its embedding tied to the readout or not."""

    kernel_init: object = LECUN
    embedding_init: object = ji.normal(0.02)
    gain: object = ji.ones
    tied: bool = False
    depth: int = 6
    head: object = LECUN

    @nn.compact
    def __call__(self, tokens):
        table = nn.Embed(100, 64, embedding_init=self.embedding_init, name="embed")
        loop = nn.scan(
            Block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=self.depth,
        )
        x, _ = loop(self.kernel_init, self.gain, name="blocks")(table(tokens), None)
        x = nn.LayerNorm(scale_init=self.gain, name="last_norm")(x)
        if self.tied:
            return table.attend(x)
        return nn.Dense(100, kernel_init=self.head, name="head")(x)


class PostNorm(nnx.Module):
    """NNX: the norms are on the only path."""

    def __init__(self, kernel_init=LECUN, gain=None, depth=2, *, rngs):
        given = {"kernel_init": kernel_init, "rngs": rngs}
        gain = {"scale_init": gain or ji.ones, "rngs": rngs}
        self.enter = nnx.Linear(16, 32, rngs=rngs)
        self.blocks = nnx.List(
            nnx.Dict(
                attention=nnx.MultiHeadAttention(4, 32, decode=False, **given),
                one=nnx.LayerNorm(32, **gain),
                up=nnx.Linear(32, 64, **given),
                down=nnx.Linear(64, 32, **given),
                two=nnx.LayerNorm(32, **gain),
            )
            for _ in range(depth)
        )
        self.head = nnx.Linear(32, 10, rngs=rngs)

    def __call__(self, x):
        x = self.enter(x)
        for block in self.blocks:
            x = block["one"](x + block["attention"](x))
            x = block["two"](x + block["down"](nnx.gelu(block["up"](x))))
        return self.head(x.mean(1))


def draw(key, shapes):
    """Draws a parameter for each pair (law, shape), by name."""
    keys = jax.random.split(key, len(shapes))
    return {
        name: law(k, shape)
        for k, (name, (law, shape)) in zip(keys, shapes.items(), strict=True)
    }


def rms_norm(x, gain):
    return gain * x * jax.lax.rsqrt((x**2).mean(-1, keepdims=True) + 1e-6)


def llama(w=LECUN, gated=None, gain=ONES, embedding=SMALL, depth=3):
    """Functions: RMS norms, a gated MLP, untied."""
    gated = gated or w

    def init(key):
        table, head, *keys = jax.random.split(key, depth + 2)
        blocks = [
            draw(
                k,
                {
                    **{name: (w, (32, 32)) for name in ("q", "k", "v", "o")},
                    **{name: (gated, (32, 64)) for name in ("gate", "up")},
                    "down": (gated, (64, 32)),
                    **{name: (gain, (32,)) for name in ("norm", "norm_mlp")},
                },
            )
            for k in keys
        ]
        ends = draw(table, {"embed": (embedding, (50, 32)), "norm": (gain, (32,))})
        return ends | {"blocks": blocks, "head": LECUN(head, (32, 50))}

    def apply(params, tokens):
        x = params["embed"][tokens]
        for p in params["blocks"]:
            h = rms_norm(x, p["norm"])
            q, k, v = (
                (h @ p[name]).reshape(*h.shape[:2], 4, 8) for name in ("q", "k", "v")
            )
            y = jax.nn.dot_product_attention(q, k, v, is_causal=True)
            x = x + y.reshape(x.shape) @ p["o"]
            h = rms_norm(x, p["norm_mlp"])
            x = x + (jax.nn.silu(h @ p["gate"]) * (h @ p["up"])) @ p["down"]
        return rms_norm(x, params["norm"]) @ params["head"]

    return init, apply


def vision(w=LECUN, embedding=LECUN, depth=2):
    """Functions: a transformer without norms on features, as on unscaled tokens."""

    def init(key):
        enter, head, *keys = jax.random.split(key, depth + 2)
        names = "q", "k", "v", "o"
        blocks = [draw(k, {name: (w, (16, 16)) for name in names}) for k in keys]
        return {"blocks": blocks, "head": LECUN(head, (16, 10))}

    def apply(params, x):
        for p in params["blocks"]:
            q, k, v = (x @ p[name] for name in ("q", "k", "v"))
            weights = jax.nn.softmax(jnp.einsum("btd,bsd->bts", q, k) / 4)
            x = x + weights @ v @ p["o"]
        return x.mean(1) @ params["head"]

    return init, apply


class DiT(nn.Module):
    """Linen: a diffusion transformer, whose conditioning opens its branches."""

    kernel_init: object = LECUN
    modulation: object = ji.zeros
    head: object = ji.zeros
    depth: int = 2

    @nn.compact
    def __call__(self, x, t):
        c = nn.silu(nn.Dense(32, name="time")(jnp.sin(t[:, None] * jnp.arange(1, 9.0))))
        x = nn.Dense(32, name="patch")(x)

        def modulate(parts, name):
            dense = nn.Dense(parts * 32, kernel_init=self.modulation, name=name)
            return jnp.split(dense(c)[:, None], parts, -1)

        def norm(x, shift, scale):
            return (
                nn.LayerNorm(use_scale=False, use_bias=False)(x) * (1 + scale) + shift
            )

        for i in range(self.depth):
            a, b, one, d, e, two = modulate(6, f"modulation_{i}")
            attention = nn.MultiHeadDotProductAttention(
                4, kernel_init=self.kernel_init, name=f"attention_{i}"
            )
            h = norm(x, a, b)
            x = x + one * attention(h, h)
            h = nn.Dense(64, kernel_init=self.kernel_init, name=f"up_{i}")(
                norm(x, d, e)
            )
            h = nn.Dense(32, kernel_init=self.kernel_init, name=f"down_{i}")(nn.gelu(h))
            x = x + two * h
        x = norm(x, *modulate(2, "modulation_last"))
        return nn.Dense(16, kernel_init=self.head, name="head")(x)


# Recurrent networks and state spaces.


class Recurrent(nn.Module):
    """Linen: a cell over a sequence; all its outputs, or the last, are read."""

    kernel_init: object = LECUN
    recurrent: object = ji.orthogonal()
    cell: type = nn.GRUCell
    whole: bool = True

    @nn.compact
    def __call__(self, x):
        cell = self.cell(
            16,
            kernel_init=self.kernel_init,
            recurrent_kernel_init=self.recurrent,
            name="cell",
        )
        y = nn.RNN(cell, name="rnn")(x)
        return nn.Dense(10, name="head")(y if self.whole else y[:, -1])


def haiku_lstm(w_init=None):
    def call(x):
        core = hk.LSTM(32)
        if w_init is not None:
            core = _Lstm(w_init)
        y, _ = hk.dynamic_unroll(core, x, core.initial_state(len(x)), time_major=False)
        return hk.Linear(10)(y)

    return hk.transform(call)


class _Lstm(hk.RNNCore):
    """Haiku's, which has no argument for its weights."""

    def __init__(self, w_init):
        super().__init__()
        self.w_init = w_init

    def __call__(self, x, state):
        hidden, cell = state
        z = jnp.concatenate([x, hidden], -1)
        i, g, f, o = jnp.split(hk.Linear(128, w_init=of_haiku(self.w_init))(z), 4, -1)
        cell = jax.nn.sigmoid(f + 1) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
        hidden = jax.nn.sigmoid(o) * jnp.tanh(cell)
        return hidden, (hidden, cell)

    def initial_state(self, size):
        return jnp.zeros((size, 32)), jnp.zeros((size, 32))


class EquinoxGru(eqx.Module):
    cell: eqx.nn.GRUCell
    head: eqx.nn.Linear

    def __init__(self, key):
        one, two = jax.random.split(key)
        self.cell = eqx.nn.GRUCell(16, 16, key=one)
        self.head = eqx.nn.Linear(16, 10, key=two)

    def __call__(self, x):
        def step(hidden, each):
            return (hidden := self.cell(each, hidden)), hidden

        _, y = jax.lax.scan(step, jnp.zeros(16), x)
        return jax.vmap(self.head)(y)


def equinox_gru(rules=()):
    def make(key):
        model = EquinoxGru(key)
        return ji.reinit(key, model, rules) if rules else model

    return make


def vanilla(recurrent=ORTHOGONAL, u=LECUN, act=jnp.tanh):
    """Functions: h = act(W h + U x), read at the end."""

    def init(key):
        shapes = {
            "w": (recurrent, (32, 32)),
            "u": (u, (16, 32)),
            "v": (LECUN, (32, 10)),
        }
        return draw(key, shapes)

    def apply(p, x):
        def step(hidden, drive):
            return act(hidden @ p["w"] + drive), None

        drive = jnp.moveaxis(x @ p["u"], 1, 0)
        hidden, _ = jax.lax.scan(step, jnp.zeros((len(x), 32)), drive)
        return hidden @ p["v"]

    return init, apply


def state_space(w=LECUN, rate=0.5, step=1.0, depth=2, euler=False):
    """Functions: diagonal state spaces x' = -rate x + u, in steps, with a gelu."""

    def init(key):
        head, *keys = jax.random.split(key, depth + 1)
        layers = []
        for k in keys:
            shapes = {"b": (w, (16, 64)), "c": (w, (64, 16))}
            layers.append(draw(k, shapes) | {"rate": jnp.full(64, jnp.float32(rate))})
            layers[-1]["step"] = jnp.full(64, jnp.float32(step))
        return {"layers": layers, "head": LECUN(head, (16, 10))}

    def apply(params, x):
        for p in params["layers"]:
            decay = p["rate"] * p["step"]
            keep = 1 - decay if euler else jnp.exp(-decay)
            drive = p["step"] * (x @ p["b"])

            def combine(a, b):
                return a[0] * b[0], b[0] * a[1] + b[1]

            pairs = jnp.broadcast_to(keep, drive.shape), drive
            _, state = jax.lax.associative_scan(combine, pairs, axis=1)
            x = jax.nn.gelu(state @ p["c"])
        return x @ params["head"]

    return init, apply


def mamba(w=LECUN, bias=-2.0, depth=2, out=None):
    """Functions: a selective state space, whose step depends on its input."""

    def init(key):
        head, *keys = jax.random.split(key, depth + 1)
        layers = [
            draw(
                k,
                {
                    "in": (w, (16, 64)),
                    "step": (w, (32, 32)),
                    "read": (w, (32, 8)),
                    "out": (out or w, (32, 16)),
                },
            )
            | {
                "step_bias": jnp.full(32, jnp.float32(bias)),
                "log_rate": jnp.log(jnp.ones((32, 1)) * jnp.arange(1, 5.0)),
                "skip": jnp.ones(32),
                "norm": jnp.ones(16),
            }
            for k in keys
        ]
        return {"layers": layers, "head": LECUN(head, (16, 10))}

    def apply(params, x):
        for p in params["layers"]:
            u, gate = jnp.split(rms_norm(x, p["norm"]) @ p["in"], 2, -1)
            u = jax.nn.silu(u)
            step = jax.nn.softplus(u @ p["step"] + p["step_bias"])[..., None]
            b, c = jnp.split((u @ p["read"])[..., None, :], 2, -1)
            keep, drive = (
                jnp.exp(-step * jnp.exp(p["log_rate"])),
                step * b * u[..., None],
            )

            def combine(a, b):
                return a[0] * b[0], b[0] * a[1] + b[1]

            _, state = jax.lax.associative_scan(combine, (keep, drive), axis=1)
            y = ((state * c).sum(-1) + p["skip"] * u) * jax.nn.silu(gate)
            x = x + y @ p["out"]
        return x @ params["head"]

    return init, apply


# Autoencoders and U-Nets.


def haiku_vae(w_init=None, spread=None):
    """Haiku: encoder, noise, decoder."""

    w_init, spread = of_haiku(w_init), of_haiku(spread)

    def call(x):
        h = jax.nn.relu(hk.Linear(32, w_init=w_init)(x))
        mean = hk.Linear(4, w_init=w_init)(h)
        log_variance = hk.Linear(4, w_init=spread or w_init, name="log_variance")(h)
        noise = jax.random.normal(hk.next_rng_key(), mean.shape)
        z = mean + jnp.exp(log_variance / 2) * noise
        h = jax.nn.relu(hk.Linear(32, w_init=w_init)(z))
        return hk.Linear(16, w_init=w_init)(h), mean, log_variance

    return hk.transform(call)


class Autoencoder(nnx.Module):
    """NNX: dense layers down to eight units, and up again."""

    def __init__(self, kernel_init=LECUN, bias=None, *, rngs):
        given = {"kernel_init": kernel_init, "bias_init": bias or ji.zeros}
        sizes = 64, 32, 16, 8, 16, 32, 64
        self.layers = nnx.List(
            nnx.Linear(a, b, **given, rngs=rngs)
            for a, b in zip(sizes, sizes[1:], strict=False)
        )

    def __call__(self, x):
        for layer in self.layers[:-1]:
            x = nnx.tanh(layer(x))
        return self.layers[-1](x)


class UNet(nn.Module):
    """Linen: two levels down, two up, joined by concatenation."""

    kernel_init: object = HE
    head: object = LECUN

    @nn.compact
    def __call__(self, x):
        def conv(features, name, strides=1):
            own = {"strides": strides, "kernel_init": self.kernel_init, "name": name}
            return nn.Conv(features, (3, 3), **own)

        one = nn.relu(conv(8, "down_0")(x))
        two = nn.relu(conv(16, "down_1", 2)(one))
        h = nn.relu(conv(16, "middle_0", 2)(two))
        h = nn.relu(conv(16, "middle_1")(h))
        h = jax.image.resize(h, two.shape[:3] + h.shape[3:], "nearest")
        h = nn.relu(conv(16, "up_1")(jnp.concatenate([h, two], -1)))
        h = jax.image.resize(h, one.shape[:3] + h.shape[3:], "nearest")
        h = nn.relu(conv(8, "up_0")(jnp.concatenate([h, one], -1)))
        return nn.Conv(3, (1, 1), kernel_init=self.head, name="head")(h)


# Graphs, adapters, and branches without norms.

EDGES = jax.random.randint(jax.random.key(7), (2, 160), 0, 32)


def graph(w=HE, depth=3, mean=True, residual=False):
    """Functions: convolutions on a graph of 32 nodes, about five edges for each."""
    source, target = EDGES
    counts = jnp.maximum(jnp.bincount(target, length=32), 1)[:, None].astype(
        jnp.float32
    )

    def init(key):
        *keys, head = jax.random.split(key, depth + 1)
        return {"layers": [w(k, (16, 16)) for k in keys], "head": LECUN(head, (16, 4))}

    def apply(params, x):
        for weight in params["layers"]:
            sums = jax.ops.segment_sum((x @ weight)[source], target, 32)
            h = jax.nn.relu(sums / counts if mean else sums)
            x = x + h if residual else h
        return x @ params["head"]

    return init, apply


def adapted(a=HE, b=ZEROS, w=HE, depth=2):
    """Functions: low-rank adapters beside dense layers, as LoRA has them."""

    def init(key):
        *keys, head = jax.random.split(key, depth + 1)
        shapes = {"w": (w, (64, 64)), "a": (a, (64, 4)), "b": (b, (4, 64))}
        return {
            "layers": [draw(k, shapes) for k in keys],
            "head": LECUN(head, (64, 10)),
        }

    def apply(params, x):
        for p in params["layers"]:
            x = jax.nn.relu(x @ p["w"] + x @ p["a"] @ p["b"])
        return x @ params["head"]

    return init, apply


def residual(alpha=1.0, w=HE, depth=100, stem=True):
    """Functions: branches without norms, each times its own alpha."""

    def init(key):
        first, one, two, head = jax.random.split(key, 4)
        start = {"stem": LECUN(first, (64, 64))} if stem else {}
        return start | {
            "one": jax.vmap(lambda k: w(k, (64, 64)))(jax.random.split(one, depth)),
            "two": jax.vmap(lambda k: w(k, (64, 64)))(jax.random.split(two, depth)),
            "alpha": jnp.full(depth, jnp.float32(alpha)),
            "head": LECUN(head, (64, 10)),
        }

    def apply(params, x):
        def block(x, p):
            return x + p["alpha"] * (jax.nn.relu(x @ p["one"]) @ p["two"]), None

        x = x @ params["stem"] if stem else x
        branches = {name: params[name] for name in ("one", "two", "alpha")}
        return jax.lax.scan(block, x, branches)[0] @ params["head"]

    return init, apply


post_norm = functools.partial(functools.partial, PostNorm)
autoencoder = functools.partial(functools.partial, Autoencoder)
