"""Weights between weights: latent attention, modulated kernels, factors."""

import jax
import jax.numpy as jnp
from architecture import Architecture, data, ids, make
from attentions import attend


def call_latent(p, x):
    """Keys and values are made from few latent features (DeepSeek)."""
    x = x @ p["stem"]
    q = jnp.einsum("bld,dhk->blhk", x, p["q"])
    c = x @ p["down"]
    k, v = (jnp.einsum("blc,chk->blhk", c, p[name]) for name in ("k", "v"))
    return (x + jnp.einsum("bqhk,hkd->bqd", attend(q, k, v), p["o"])) @ p["head"]


def call_relative(p, x):
    """Logits of contents and of distances, each with a bias of queries (XL)."""
    x = x @ p["stem"]
    q, k, v = ((x @ p[name]).reshape(3, 5, 2, 4) for name in "qkv")
    waves = jnp.sin(jnp.arange(5.0)[:, None] * jnp.arange(8.0))
    far = (waves @ p["far"]).reshape(5, 2, 4)
    logits = jnp.einsum("bqhk,bshk->bhqs", q + p["one"], k)
    logits = logits + jnp.einsum("bqhk,shk->bhqs", q + p["two"], far)
    y = jnp.einsum("bhqs,bshk->bqhk", jax.nn.softmax(logits), v)
    return (x + y.reshape(3, 5, 8) @ p["o"]) @ p["head"]


def call_style(p, x, style):
    """A style scales a kernel, once for each example (StyleGAN 2)."""
    x = x @ p["stem"]
    w = p["w"][None] * (style @ p["affine"] + 1)[:, None, None, :, None]
    w = w * jax.lax.rsqrt((w**2).sum((1, 2, 3), keepdims=True) + 1e-8)

    def convolve(x, w):
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x[None], w, (1, 1), "SAME", dimension_numbers=numbers
        )[0]

    return jax.nn.leaky_relu(jax.vmap(convolve)(x, w)) @ p["head"]


def call_blocks_of_heads(p, x):
    """A recurrence of heads, each with a weight of its own (xLSTM)."""
    x = x @ p["stem"]

    def step(h, x):
        back = jnp.einsum("bhk,hkj->bhj", h.reshape(3, 2, 4), p["back"])
        h = jnp.tanh(x @ p["w"] + back.reshape(3, 8) + p["b"])
        return h, h

    _, y = jax.lax.scan(step, jnp.zeros((3, 8)), x.swapaxes(0, 1))
    return y @ p["head"]


def call_siamese(p, x, y):
    a, b = (jax.nn.relu(u @ p["one"]) @ p["two"] for u in (x, y))
    return jnp.abs(a - b) @ p["head"]


def call_factors(p, user, item):
    """A matrix in factors: two tables, and a bias for each row."""
    product = (p["user"][user] * p["item"][item]).sum(-1)
    return product + p["bias"][user] + p["mean"]


def call_text(p, tokens):
    """Convolutions of two widths over words, and the largest of each feature."""
    x, numbers = p["table"][tokens], ("NWC", "WIO", "NWC")
    rows = []
    for n in "23":
        y = jax.lax.conv_general_dilated(
            x, p["k" + n], (1,), "VALID", dimension_numbers=numbers
        )
        rows.append(jax.nn.relu(y + p["b" + n]).max(1))
    return jnp.concatenate(rows, -1) @ p["head"]


LATENT = {
    "attention, latent": Architecture(
        (
            make(
                stem=(6, 12),
                q=(12, 2, 4),
                down=(12, 5),
                k=(5, 2, 4),
                v=(5, 2, 4),
                o=(2, 4, 12),
                head=(12, 3),
            ),
            call_latent,
        ),
        (data(3, 5, 6),),
        {
            "stem": ("input", (6, 12)),
            "q": ("query", (12, 8)),
            "down": ("hidden", (12, 5)),
            "k": ("key", (5, 8)),
            "v": ("value", (5, 8)),
            "o": ("residual", (8, 12)),
            "head": ("readout", (12, 3)),
        },
        branches=1,
    ),
    # What is applied to constants has no data to tell its inputs by.
    "attention, by distance": Architecture(
        (
            make(
                stem=(6, 12),
                q=(12, 8),
                k=(12, 8),
                v=(12, 8),
                far=(8, 8),
                one=(2, 4),
                two=(2, 4),
                o=(8, 12),
                head=(12, 3),
            ),
            call_relative,
        ),
        (data(3, 5, 6),),
        {
            "stem": ("input", (6, 12)),
            "q": ("query", (12, 8)),
            "k": ("key", (12, 8)),
            "v": ("value", (12, 8)),
            "far": "other",
            "one": "bias",
            "two": "bias",
            "o": ("residual", (8, 12)),
            "head": ("readout", (12, 3)),
        },
        branches=1,
    ),
    # The kernel is data when it meets data.
    "a kernel that is modulated": Architecture(
        (
            make(stem=(3, 6), affine=(5, 6), w=(3, 3, 6, 8), head=(8, 3)),
            call_style,
        ),
        (data(2, 4, 4, 3), data(2, 5)),
        {
            "stem": ("input", (3, 6)),
            "affine": ("input", (5, 6)),
            "w": "other",
            "head": ("readout", (8, 3)),
        },
    ),
    "a recurrence of heads": Architecture(
        (
            make(stem=(6, 8), w=(8, 8), back=(2, 4, 4), b=(8,), head=(8, 3)),
            call_blocks_of_heads,
        ),
        (data(3, 5, 6),),
        {
            "stem": ("input", (6, 8)),
            "w": ("hidden", (8, 8)),
            "back": ("recurrent", (4, 4)),
            "b": "bias",
            "head": ("readout", (8, 3)),
        },
    ),
    "siamese networks": Architecture(
        (make(one=(6, 8), two=(8, 4), head=(4, 1)), call_siamese),
        (data(2, 6), data(2, 6)),
        {
            "one": ("input", (6, 8)),
            "two": ("hidden", (8, 4)),
            "head": ("readout", (4, 1)),
        },
    ),
    # A row of one entry is looked up too; its table has no outputs, hence no fans.
    "matrix factorization": Architecture(
        (make(user=(9, 6), item=(7, 6), bias=(9,), mean=()), call_factors),
        (ids(4), ids(4)),
        {
            "user": ("embedding", (1, 6)),
            "item": ("embedding", (1, 6)),
            "bias": "embedding",
            "mean": "offset",
        },
    ),
    "convolutions over words": Architecture(
        (
            make(
                table=(20, 6), k2=(2, 6, 4), k3=(3, 6, 4), b2=(4,), b3=(4,), head=(8, 3)
            ),
            call_text,
        ),
        (ids(2, 7),),
        {
            "table": ("embedding", (1, 6)),
            "k2": ("hidden", (12, 8)),
            "k3": ("hidden", (18, 12)),
            "b?": "bias",
            "head": ("readout", (8, 3)),
        },
    ),
}
