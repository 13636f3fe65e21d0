"""Attention in many spellings; widths differ, so that no axes can be mixed up."""

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
from architecture import Architecture, data, make
from flax import nnx

# 12 features; 2 heads of 4 for queries and keys; 2 of 4 for values.
TOKENS = (data(3, 5, 12),)


class NnxAttention(nnx.Module):
    def __init__(self, rngs):
        self.inner = nnx.MultiHeadAttention(
            2, 12, qkv_features=8, out_features=12, decode=False, rngs=rngs
        )

    def __call__(self, x):
        return self.inner(x)


class EquinoxAttention(eqx.Module):
    inner: eqx.nn.MultiheadAttention

    def __init__(self, key):
        self.inner = eqx.nn.MultiheadAttention(
            2, 12, qk_size=4, vo_size=4, output_size=12, use_query_bias=True, key=key
        )

    def __call__(self, x):
        return self.inner(x, x, x)


def call_haiku(x):
    init = hk.initializers.VarianceScaling()
    return hk.MultiHeadAttention(2, 4, w_init=init, model_size=12)(x, x, x)


def attend(q, k, v):
    """Attends over heads, which are the third axis."""
    logits = jnp.einsum("bqhk,bshk->bhqs", q, k) / jnp.sqrt(4.0)
    logits = jnp.where(jnp.tril(jnp.ones(logits.shape[-2:], bool)), logits, -1e9)
    return jnp.einsum("bhqs,bshk->bqhk", jax.nn.softmax(logits), v)


def call_fused(p, x):
    q, k, v = jnp.moveaxis(jnp.einsum("bld,dchk->bclhk", x, p["qkv"]), 1, 0)
    return jnp.einsum("bqhk,hkd->bqd", attend(q, k, v), p["out"])


def call_side_by_side(p, x):
    """Queries, keys and values in one product, side by side, and cut."""
    q, k, v = jnp.split(x @ p["qkv"] + p["b"], 3, -1)
    q, k, v = (part.reshape(3, 5, 2, 4) for part in (q, k, v))
    return attend(q, k, v).reshape(3, 5, 8) @ p["out"]


def call_functions(p, x):
    """Heads before positions; kernels as (outputs, inputs); softmax by hand."""

    def heads(w, b):
        return (x @ w.T + b).reshape(3, 5, 2, 4).transpose(0, 2, 1, 3)

    q, k, v = heads(p["a"], p["b"]), heads(p["c"], p["d"]), heads(p["e"], p["f"])
    scores = (q @ k.swapaxes(-1, -2)) * 0.5
    weights = jnp.exp(scores - scores.max(-1, keepdims=True))
    weights = weights / weights.sum(-1, keepdims=True)
    mixed = (weights @ v).transpose(0, 2, 1, 3).reshape(3, 5, 8)
    return mixed @ p["g"].T + p["h"]


def call_dot_product_attention(p, x):
    q, k, v = (jnp.einsum("bld,dhk->blhk", x, p[n]) for n in "qkv")
    y = jax.nn.dot_product_attention(q, k, v, is_causal=True)
    return jnp.einsum("bqhk,hkd->bqd", y, p["out"])


def call_repeated(p, x):
    """Four heads of queries share two of keys and values, which are repeated."""
    q = jnp.einsum("bld,dhk->blhk", x, p["q"])
    k, v = (
        jnp.repeat(jnp.einsum("bld,dhk->blhk", x, p[n]), 2, axis=2) for n in ("k", "v")
    )
    return attend(q, k, v).reshape(3, 5, 16) @ p["out"]


def call_broadcast(p, x):
    """The same, with groups of queries as an axis; multi-query if one head is left."""
    q = jnp.einsum("bld,dhk->blhk", x, p["q"]).reshape(3, 5, 2, 2, 4)
    k, v = (jnp.einsum("bld,dhk->blhk", x, p[n]) for n in ("k", "v"))
    weights = jax.nn.softmax(jnp.einsum("bqgrk,bsgk->bgrqs", q, k))
    return jnp.einsum("bgrqs,bsgk->bqgrk", weights, v).reshape(3, 5, 16) @ p["out"]


@jax.custom_vjp
def flash(q, k, v):
    return _forward(q, k, v)[0]


def _forward(q, k, v):
    """Attends to blocks of two keys at a time, with a running softmax."""
    blocks = [jnp.moveaxis(x.reshape(3, 2, 3, 4, 4), 2, 0) for x in (k, v)]

    def step(carry, block):
        out, top, total = carry
        logits = jnp.einsum("bhqk,bhsk->bhqs", q, block[0])
        new = jnp.maximum(top, logits.max(-1))
        weights = jnp.exp(logits - new[..., None])
        fix = jnp.exp(top - new)
        out = out * fix[..., None] + jnp.einsum("bhqs,bhsk->bhqk", weights, block[1])
        return (out, new, total * fix + weights.sum(-1)), None

    start = jnp.zeros(q.shape), jnp.full(q.shape[:3], -jnp.inf), jnp.zeros(q.shape[:3])
    (out, _, total), _ = jax.lax.scan(step, start, blocks)
    return out / total[..., None], (q, k, v)


def _backward(saved, grad):
    return grad, grad, grad


flash.defvjp(_forward, _backward)


def call_flash(p, x):
    q, k, v = (jnp.einsum("bld,dhk->bhlk", x, p[n]) for n in "qkv")
    return jnp.einsum("bhqk,hkd->bqd", flash(q, k, v), p["out"])


def call_linear(p, x):
    """Keys meet values first, and queries read what they wrote."""
    q, k, v = (jnp.einsum("bld,dhk->blhk", x, p[n]) for n in "qkv")
    q, k = jax.nn.elu(q) + 1, jax.nn.elu(k) + 1
    memory = jnp.einsum("bshk,bshv->bhkv", k, v)
    total = jnp.einsum("bqhk,bhk->bqh", q, k.sum(1))
    y = jnp.einsum("bqhk,bhkv->bqhv", q, memory) / total[..., None]
    return jnp.einsum("bqhk,hkd->bqd", y, p["out"])


def call_causal_linear(p, x):
    """The same as a recurrence: what keys and values wrote is the carry."""
    q, k, v = (jnp.einsum("bld,dhk->lbhk", x, p[n]) for n in "qkv")

    def step(memory, qkv):
        q, k, v = qkv
        memory = memory + k[..., :, None] * v[..., None, :]
        return memory, jnp.einsum("bhk,bhkv->bhv", q, memory)

    _, y = jax.lax.scan(step, jnp.zeros((3, 2, 4, 4)), (q, k, v))
    return jnp.einsum("lbhk,hkd->bld", y, p["out"])


def _make(**changes):
    shapes = dict(q=(12, 2, 4), k=(12, 2, 4), v=(12, 2, 4), out=(2, 4, 12))
    return make(**{**shapes, **changes})


SIZES = [
    ("query", (12, 8)),
    ("key", (12, 8)),
    ("value", (12, 8)),
    ("readout", (8, 12)),
]
QKV = dict(zip(("q", "k", "v", "out"), SIZES, strict=True))
GROUPED = {
    "q": ("query", (12, 16)),
    "k": ("key", (12, 8)),
    "v": ("value", (12, 8)),
    "out": ("readout", (16, 12)),
}


def _paths(*paths):
    return dict(zip(paths, SIZES, strict=True))


ATTENTIONS = {
    "attention, Linen": Architecture(
        nn.MultiHeadDotProductAttention(2, qkv_features=8),
        TOKENS,
        _paths(*(f"{n}/kernel" for n in ("query", "key", "value", "out")))
        | {"*/bias": "bias"},
    ),
    "attention, NNX": Architecture(
        NnxAttention,
        TOKENS,
        _paths(*(f"inner/{n}/kernel" for n in ("query", "key", "value", "out")))
        | {"*/bias": "bias"},
    ),
    "attention, Equinox": Architecture(
        EquinoxAttention,
        TOKENS,
        _paths(*(f"inner/{n}_proj/weight" for n in ("query", "key", "value", "output")))
        | {"*/bias": "bias"},
    ),
    "attention, Haiku": Architecture(
        hk.without_apply_rng(hk.transform(call_haiku)),
        TOKENS,
        _paths(
            *(
                f"multi_head_attention/{n}/w"
                for n in ("query", "key", "value", "linear")
            )
        )
        | {"*/b": "bias"},
    ),
    "attention, functions": Architecture(
        (
            make(
                a=(8, 12),
                b=(8,),
                c=(8, 12),
                d=(8,),
                e=(8, 12),
                f=(8,),
                g=(12, 8),
                h=(12,),
            ),
            call_functions,
        ),
        TOKENS,
        _paths("a", "c", "e", "g") | {"[bdfh]": "bias"},
    ),
    # Stacked or side by side, queries, keys and values are three blocks of outputs.
    "attention, fused einsum": Architecture(
        (make(qkv=(12, 3, 2, 4), out=(2, 4, 12)), call_fused),
        TOKENS,
        {"qkv": ("query+key+value", (12, 8)), "out": ("readout", (8, 12))},
    ),
    "attention, side by side": Architecture(
        (make(qkv=(12, 24), b=(24,), out=(8, 12)), call_side_by_side),
        TOKENS,
        {"qkv": ("query+key+value", (12, 8)), "out": ("readout", (8, 12)), "b": "bias"},
    ),
    "attention, jax.nn.dot_product_attention": Architecture(
        (_make(), call_dot_product_attention), TOKENS, QKV
    ),
    "attention, shared heads repeated": Architecture(
        (_make(q=(12, 4, 4), out=(16, 12)), call_repeated), TOKENS, GROUPED
    ),
    "attention, shared heads broadcast": Architecture(
        (_make(q=(12, 4, 4), out=(16, 12)), call_broadcast), TOKENS, GROUPED
    ),
    "attention, blocks in a loop with a derivative of its own": Architecture(
        (_make(), call_flash), (data(3, 12, 12),), QKV
    ),
    "attention, linear": Architecture((_make(), call_linear), TOKENS, QKV),
    # Written as a recurrence it is a state space, as Mamba's: nothing tells them apart.
    "attention, linear, as a recurrence": Architecture(
        (_make(), call_causal_linear),
        TOKENS,
        {"[qkv]": ("input", (12, 8)), "out": ("readout", (8, 12))},
    ),
    "attention, to another input": Architecture(
        nn.MultiHeadDotProductAttention(2, qkv_features=8),
        (data(3, 5, 12), data(3, 7, 10)),
        {
            "query/kernel": ("query", (12, 8)),
            "key/kernel": ("key", (10, 8)),
            "value/kernel": ("value", (10, 8)),
            "out/kernel": ("readout", (8, 12)),
            "*/bias": "bias",
        },
    ),
}
