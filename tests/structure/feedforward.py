"""Networks without attention and loops, and weights that are made of weights."""

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
from architecture import Architecture, data, ids, make
from flax import nnx

MLP = [("input", (8, 16)), ("hidden", (16, 16)), ("readout", (16, 4))]


class Perceptron(nnx.Module):
    def __init__(self, rngs):
        self.a = nnx.Linear(8, 16, rngs=rngs)
        self.b = nnx.Linear(16, 16, rngs=rngs)
        self.c = nnx.Linear(16, 4, rngs=rngs)

    def __call__(self, x):
        return self.c(nnx.relu(self.b(nnx.relu(self.a(x)))))


def call_perceptron(p, x):
    """Stores kernels as (outputs, inputs)."""
    h = jax.nn.relu(p["q0"] @ x.T + p["q1"][:, None])
    h = jax.nn.relu(p["q2"] @ h + p["q3"][:, None])
    return (p["q4"] @ h + p["q5"][:, None]).T


class Mixer(nn.Module):
    """Blocks of 16 patches and 12 channels, which mix either."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(12, (2, 2), (2, 2), name="stem")(x).reshape(2, 16, 12)
        for _ in range(2):
            y = jnp.swapaxes(nn.LayerNorm()(x), 1, 2)
            y = nn.Dense(16, name=f"tokens_out_{_}")(
                nn.gelu(nn.Dense(24, name=f"tokens_in_{_}")(y))
            )
            x = x + jnp.swapaxes(y, 1, 2)
            y = nn.gelu(nn.Dense(48, name=f"in_{_}")(nn.LayerNorm()(x)))
            x = x + nn.Dense(12, name=f"out_{_}")(y)
        return nn.Dense(5, name="head")(nn.LayerNorm()(x).mean(1))


def call_siren(p, x):
    h = jnp.sin(30 * (x @ p["a"] + p["b"]))
    h = jnp.sin(30 * (h @ p["c"] + p["d"]))
    return h @ p["e"] + p["f"]


def call_nerf(p, place, direction):
    """Density and color of points; the encoded place enters twice."""

    def encode(x, count):
        angles = x[..., None] * 2.0 ** jnp.arange(count)
        waves = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)
        return waves.reshape(*x.shape[:-1], -1)

    x = encode(place, 4)
    h = jax.nn.relu(x @ p["w0"] + p["b0"])
    h = jnp.concatenate([x, h], -1)
    h = jax.nn.relu(h @ p["w1"] + p["b1"])
    density = jax.nn.softplus(h @ p["density"])
    h = jnp.concatenate([h, encode(direction, 2)], -1)
    h = jax.nn.relu(h @ p["w2"])
    return density, jax.nn.sigmoid(h @ p["color"])


class TwoHeads(nn.Module):
    """Returns a mean, a variance, and what was hidden; one parameter is not used."""

    @nn.compact
    def __call__(self, x):
        first = nn.relu(nn.Dense(16, name="first")(x))
        second = nn.relu(nn.Dense(16, name="second")(first))
        self.param("spare", nn.initializers.zeros, (3, 3))
        mean, spread = nn.Dense(2, name="mean")(second), nn.Dense(2, name="var")(second)
        return {"mean": mean, "var": nn.softplus(spread), "hidden": (first, second)}


class Twice(nn.Module):
    """The same block, with the same weights, three times."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(16, name="first")(x)
        up, down = nn.Dense(32, name="up"), nn.Dense(16, name="down")
        for _ in range(3):
            x = x + down(nn.gelu(up(x)))
        return nn.Dense(4, name="last")(x)


def call_lora_beside(p, x):
    h = jax.nn.relu(x @ p["w"] + (x @ p["a"]) @ p["b"])
    h = jax.nn.relu(h @ p["w2"] + 0.5 * ((h @ p["a2"]) @ p["b2"]))
    return h @ p["head"]


def call_lora_merged(p, x):
    h = jax.nn.relu(x @ (p["w"] + p["a"] @ p["b"]))
    h = jax.nn.relu(h @ (p["w2"] + 0.5 * (p["a2"] @ p["b2"])))
    return h @ p["head"]


class Normed(nn.Module):
    """Weight norm and spectral norm by Linen."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.WeightNorm(nn.Dense(16), name="one")(x))
        x = nn.relu(nn.SpectralNorm(nn.Dense(16), name="two")(x, update_stats=True))
        return nn.Dense(4, name="last")(x)


def call_weight_norm(p, x):
    """Weight norm by hand, and kernels that are standardized."""

    def scale(v, g):
        return g * v / jnp.sqrt(jnp.sum(v**2, axis=1, keepdims=True))

    h = jax.nn.relu(x @ scale(p["v0"], p["g0"]).T)
    h = jax.nn.relu(h @ scale(p["v1"], p["g1"]).T)
    mean = p["w"].mean(0, keepdims=True)
    standard = (p["w"] - mean) / jnp.sqrt(p["w"].var(0, keepdims=True) + 1e-6)
    return h @ standard


def call_bilinear(p, x, y):
    return jnp.einsum("bi,ijo,bj->bo", x, p["w"], y) + p["b"]


class Autoencoder(nn.Module):
    """A variational one; mean and log variance are one product."""

    @nn.compact
    def __call__(self, x):
        h = nn.relu(nn.Dense(16, name="encoder")(x))
        mean, spread = jnp.split(nn.Dense(6, name="code")(h), 2, -1)
        noise = jax.random.normal(self.make_rng("dropout"), mean.shape)
        code = mean + jnp.exp(0.5 * spread) * noise
        h = nn.relu(nn.Dense(16, name="decoder")(code))
        return nn.Dense(8, name="pixels")(h), mean, spread


def call_graph(p, x, senders, receivers):
    """A graph convolution, then attention over the edges with a vector."""
    h = jax.ops.segment_sum((x @ p["conv"])[senders], receivers, 5) + p["bias"]
    h = jax.nn.relu(h)
    z = jnp.einsum("nd,dhk->nhk", h, p["w"])
    source, target = (z * p["source"]).sum(-1), (z * p["target"]).sum(-1)
    score = jnp.exp(jax.nn.leaky_relu(source[senders] + target[receivers]))
    total = jax.ops.segment_sum(score, receivers, 5)[receivers]
    weight = score / total
    h = jax.ops.segment_sum(z[senders] * weight[..., None], receivers, 5)
    return jax.nn.elu(h.reshape(5, -1)) @ p["head"]


def _mlp(*paths):
    return dict(zip(paths, MLP, strict=True)) | {"*": "bias"}


FEEDFORWARD = {
    "perceptron, Linen": Architecture(
        nn.Sequential([nn.Dense(16), nn.relu, nn.Dense(16), nn.relu, nn.Dense(4)]),
        (data(2, 8),),
        _mlp(*(f"layers_{i}/kernel" for i in (0, 2, 4))),
    ),
    "perceptron, NNX": Architecture(
        Perceptron, (data(2, 8),), _mlp("a/kernel", "b/kernel", "c/kernel")
    ),
    "perceptron, Equinox": Architecture(
        lambda key: eqx.nn.MLP(8, 4, 16, 2, key=key),
        (data(2, 8),),
        _mlp(*(f"layers/{i}/weight" for i in range(3))),
    ),
    "perceptron, Haiku": Architecture(
        hk.without_apply_rng(hk.transform(lambda x: hk.nets.MLP([16, 16, 4])(x))),
        (data(2, 8),),
        _mlp(*(f"mlp/~/linear_{i}/w" for i in range(3))),
    ),
    "perceptron, functions": Architecture(
        (
            make(q0=(16, 8), q1=(16,), q2=(16, 16), q3=(16,), q4=(4, 16), q5=(4,)),
            call_perceptron,
        ),
        (data(2, 8),),
        _mlp("q0", "q2", "q4"),
    ),
    "mixer": Architecture(
        Mixer(),
        (data(2, 8, 8, 3),),
        {
            "*/stem/kernel": ("input", (12, 48)),
            "*/tokens_in_?/kernel": ("hidden", (16, 24)),
            "*/tokens_out_?/kernel": ("residual", (24, 16)),
            "*/in_?/kernel": ("hidden", (12, 48)),
            "*/out_?/kernel": ("residual", (48, 12)),
            "*/head/kernel": ("readout", (12, 5)),
            "*/LayerNorm_?/scale": "gain",
            "*/LayerNorm_?/bias": "offset",
            "*/bias": "bias",
        },
        branches=4,
    ),
    "SIREN": Architecture(
        (make(a=(2, 32), b=(32,), c=(32, 32), d=(32,), e=(32, 3), f=(3,)), call_siren),
        (data(10, 2),),
        {
            "a": ("input", (2, 32)),
            "c": ("hidden", (32, 32)),
            "e": ("readout", (32, 3)),
            "[bdf]": "bias",
        },
    ),
    "NeRF": Architecture(
        (
            make(
                w0=(24, 32),
                b0=(32,),
                w1=(56, 32),
                b1=(32,),
                density=(32, 1),
                w2=(44, 16),
                color=(16, 3),
            ),
            call_nerf,
        ),
        (data(10, 3), data(10, 3)),
        {
            "w0": ("input", (24, 32)),
            "w1": ("hidden", (56, 32)),
            "w2": ("hidden", (44, 16)),
            "density": ("readout", (32, 1)),
            "color": ("readout", (16, 3)),
            "b?": "bias",
        },
    ),
    "two heads, hidden states, a spare parameter": Architecture(
        TwoHeads(),
        (data(2, 8),),
        {
            "*/first/kernel": ("input", (8, 16)),
            "*/second/kernel": ("hidden", (16, 16)),
            "*/mean/kernel": ("readout", (16, 2)),
            "*/var/kernel": ("readout", (16, 2)),
            "*/spare": "other",
            "*/bias": "bias",
        },
    ),
    "one block three times": Architecture(
        Twice(),
        (data(2, 8),),
        {
            "*/first/kernel": ("input", (8, 16)),
            "*/up/kernel": ("hidden", (16, 32)),
            "*/down/kernel": ("residual", (32, 16)),
            "*/last/kernel": ("readout", (16, 4)),
            "*/bias": "bias",
        },
        branches=3,
    ),
    # The two factors of an update stand where the kernel does: the first reads what it
    # reads, the second writes where it writes.
    "LoRA, beside the product": Architecture(
        (
            make(
                w=(8, 16),
                a=(8, 2),
                b=(2, 16),
                w2=(16, 16),
                a2=(16, 2),
                b2=(2, 16),
                head=(16, 4),
            ),
            call_lora_beside,
        ),
        (data(2, 8),),
        {
            "w": ("input", (8, 16)),
            "a": ("input", (8, 2)),
            "b": ("hidden", (2, 16)),
            "w2": ("hidden", (16, 16)),
            "a2": ("hidden", (16, 2)),
            "b2": ("hidden", (2, 16)),
            "head": ("readout", (16, 4)),
        },
    ),
    # The program sums over both inner axes at once, so both factors read the input.
    "LoRA, merged": Architecture(
        (
            make(
                w=(8, 16),
                a=(8, 2),
                b=(2, 16),
                w2=(16, 16),
                a2=(16, 2),
                b2=(2, 16),
                head=(16, 4),
            ),
            call_lora_merged,
        ),
        (data(2, 8),),
        {
            "w": ("input", (8, 16)),
            "a": ("input", (8, 2)),
            "b": ("input", (2, 16)),
            "w2": ("hidden", (16, 16)),
            "a2": ("hidden", (16, 2)),
            "b2": ("hidden", (2, 16)),
            "head": ("readout", (16, 4)),
        },
    ),
    "weight norm and spectral norm, Linen": Architecture(
        Normed(),
        (data(2, 8),),
        {
            "*one*/kernel/scale": "gain",
            "*/Dense_0/kernel": ("input", (8, 16)),
            "*/Dense_1/kernel": ("hidden", (16, 16)),
            "*/last/kernel": ("readout", (16, 4)),
            "*/bias": "bias",
        },
    ),
    "weight norm by hand, weight standardization": Architecture(
        (
            make(v0=(16, 8), g0=(16, 1), v1=(16, 16), g1=(16, 1), w=(16, 4)),
            call_weight_norm,
        ),
        (data(2, 8),),
        {
            "v0": ("input", (8, 16)),
            "v1": ("hidden", (16, 16)),
            "w": ("readout", (16, 4)),
            "g?": "gain",
        },
    ),
    "bilinear form": Architecture(
        (make(w=(5, 6, 3), b=(3,)), call_bilinear),
        (data(2, 5), data(2, 6)),
        {"w": ("readout", (30, 3)), "b": "bias"},
    ),
    # Mean and log variance stand side by side: two blocks of 3 outputs.
    "variational autoencoder": Architecture(
        Autoencoder(),
        (data(2, 8),),
        {
            "*/encoder/kernel": ("input", (8, 16)),
            "*/code/kernel": ("hidden", (16, 3)),
            "*/decoder/kernel": ("hidden", (3, 16)),
            "*/pixels/kernel": ("readout", (16, 8)),
            "*/bias": "bias",
        },
    ),
    "graph convolution and graph attention": Architecture(
        (
            make(
                conv=(6, 8),
                bias=(8,),
                w=(8, 2, 4),
                source=(2, 4),
                target=(2, 4),
                head=(8, 3),
            ),
            call_graph,
        ),
        (data(5, 6), ids(9), ids(9)),
        {
            "conv": ("input", (6, 8)),
            "bias": "bias",
            "w": ("hidden", (8, 8)),
            # a score of each head: 4 inputs, 1 output
            "source": ("hidden", (4, 1)),
            "target": ("hidden", (4, 1)),
            "head": ("readout", (8, 3)),
        },
    ),
}
