"""Kernels that are made of several parameters, or chosen and mixed by data."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from architecture import Architecture, data, ids, make, rms


def rope(x, pos):
    f = 10000.0 ** -(jnp.arange(x.shape[-1] // 2) / (x.shape[-1] // 2))
    a = pos[..., None, None] * f
    x1, x2 = jnp.split(x, 2, -1)
    return jnp.concatenate(
        [x1 * jnp.cos(a) - x2 * jnp.sin(a), x2 * jnp.cos(a) + x1 * jnp.sin(a)], -1
    ).astype(x.dtype)


def call_mixed(p, x):
    r = jax.nn.sigmoid(x.mean((1, 2)) @ p["r"])
    w = jnp.einsum("be,ehwio->bhwio", r, p["w"])
    y = jax.vmap(
        lambda x, w: jax.lax.conv_general_dilated(
            x[None], w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )[0]
    )(x, w)
    return jax.nn.relu(y).mean((1, 2)) @ p["head"]


def call_merged(p, x):
    r = jax.nn.softmax(x.mean(1) @ p["r"])
    w, v = jnp.einsum("be,eio->bio", r, p["w"]), jnp.einsum("be,eio->bio", r, p["v"])
    h = jax.nn.relu(jnp.einsum("bti,bio->bto", x, w))
    return jnp.einsum("bti,bio->bto", h, v) @ p["head"]


def call_one_query(p, x):
    q, k, v = jnp.einsum("bd,dhk->bhk", x[:, -1], p["q"]), x @ p["k"], x @ p["v"]
    w = jax.nn.softmax(jnp.einsum("bhk,bsk->bhs", q, k))
    return jnp.einsum("bhs,bsk->bhk", w, v).reshape(2, -1) @ p["o"]


def call_deepseek(p, tokens):
    x = p["emb"][tokens]
    B, L, D = x.shape
    pos = jnp.broadcast_to(jnp.arange(L), (B, L))
    h = rms(x, p["n1"])
    cq = rms(h @ p["dq"], p["nq"])
    q = (cq @ p["uq"]).reshape(B, L, 4, 6 + 2)
    qn, qr = q[..., :6], rope(q[..., 6:], pos)
    ckv = h @ p["dkv"]
    c, kr = ckv[..., :5], rope(ckv[..., None, 5:], pos)
    c = rms(c, p["nkv"])
    kv = (c @ p["ukv"]).reshape(B, L, 4, 6 + 7)
    kn, v = kv[..., :6], kv[..., 6:]
    k = jnp.concatenate([kn, jnp.broadcast_to(kr, (B, L, 4, 2))], -1)
    q = jnp.concatenate([qn, qr], -1)
    s = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) / 8**0.5)
    y = jnp.einsum("bhqk,bkhd->bqhd", s, v).reshape(B, L, 28)
    x = x + y @ p["o"]
    h = rms(x, p["n2"])
    shared = (jax.nn.silu(h @ p["sg"]) * (h @ p["su"])) @ p["sd"]
    score = jax.nn.sigmoid(h @ p["router"])
    _, idx = jax.lax.top_k(jax.lax.stop_gradient(score) + p["rbias"], 2)
    w = jnp.take_along_axis(score, idx, -1)
    w = w / w.sum(-1, keepdims=True)
    comb = (jax.nn.one_hot(idx, 4) * w[..., None]).sum(-2)
    e = jax.nn.silu(jnp.einsum("bld,edf->blef", h, p["eg"])) * jnp.einsum(
        "bld,edf->blef", h, p["eu"]
    )
    e = jnp.einsum("blef,efd->bled", e, p["ed"])
    x = x + shared + jnp.einsum("bled,ble->bld", e, comb)
    return rms(x, p["n3"]) @ p["head"]


def call_quantized_blocks(p, x):
    w = p["w"].reshape(2, 4, 16) * p["s"][:, None]
    h = jax.nn.relu(x @ w.reshape(8, 16))
    w2 = p["w2"] * p["s2"]
    return h @ w2.astype(h.dtype)


def call_basis(p, x):
    basis = np.ones((4, 3, 3), np.float32)
    k = jnp.einsum("iob,bxy->xyio", p["w"], basis)
    h = jax.nn.relu(
        jax.lax.conv_general_dilated(
            x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
    )
    return h.mean((1, 2)) @ (p["v"] @ np.ones((5, 3), np.float32))


def call_kronecker(p, x):
    w = (p["a"][:, None, :, None] * p["b"][None, :, None, :]).reshape(8, 16)
    return jax.nn.relu(x @ w) @ p["head"]


def call_glow(p, x):
    x = (x + p["ab"]) * jnp.exp(p["as"])
    Pm = np.eye(4)[[2, 0, 3, 1]].astype(np.float32)
    low = jnp.tril(p["l"], -1) + jnp.eye(4)
    u = jnp.triu(p["u"], 1) + jnp.diag(jnp.exp(p["logs"]))
    x = x @ (Pm @ low @ u)
    a, b = jnp.split(x, 2, -1)
    h = jax.nn.relu(
        jax.lax.conv_general_dilated(
            a, p["k"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
    )
    st = jax.lax.conv_general_dilated(
        h, p["k2"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    s, t = st[..., ::2], st[..., 1::2]
    return jnp.concatenate([a, (b + t) * jax.nn.sigmoid(s + 2)], -1)


def call_dora(p, x):
    w = p["w"] + p["a"] @ p["b"]
    w = p["m"] * w / jnp.linalg.norm(w, axis=0, keepdims=True)
    return jax.nn.relu(x @ w) @ p["head"]


def call_bayesian(p, x):
    key = jax.random.key(1)
    for i, act in (("0", jax.nn.relu), ("1", lambda v: v)):
        key, sub = jax.random.split(key)
        w = p["mu" + i] + jax.nn.softplus(p["rho" + i]) * jax.random.normal(
            sub, p["mu" + i].shape
        )
        x = act(x @ w + p["b" + i])
    kl = sum((p["mu" + i] ** 2).sum() for i in "01")
    return x, kl


class EquinoxEnsemble(eqx.Module):
    nets: eqx.nn.MLP
    w: jax.Array

    def __init__(self, key):
        self.nets = eqx.filter_vmap(lambda k: eqx.nn.MLP(6, 3, 8, 1, key=k))(
            jax.random.split(key, 4)
        )
        self.w = jnp.zeros(4)

    def __call__(self, x):
        y = eqx.filter_vmap(lambda n, x: n(x), in_axes=(eqx.if_array(0), None))(
            self.nets, x
        )
        return (jax.nn.softmax(self.w)[:, None] * y).sum(0)


def call_grids(p, x):
    fs = []
    for level in range(2):
        r = 4 * 2**level
        y = x * r
        i = jnp.floor(y).astype(jnp.int32)
        w = y - i
        acc = 0.0
        for a in (0, 1):
            for b in (0, 1):
                idx = ((i[:, 0] + a) * 1 ^ (i[:, 1] + b) * 2654435) % 64
                wt = jnp.where(a, w[:, 0], 1 - w[:, 0]) * jnp.where(
                    b, w[:, 1], 1 - w[:, 1]
                )
                acc = acc + wt[:, None] * p["grid"][level][idx]
        fs.append(acc)
    return jax.nn.relu(jnp.concatenate(fs, -1) @ p["w"]) @ p["v"]


def call_capsules(p, x):
    u = x.reshape(x.shape[0], 6, 4)
    uh = jnp.einsum("bik,ijkd->bijd", u, p["w"])

    def sq(s):
        n = (s**2).sum(-1, keepdims=True)
        return n / (1 + n) * s / jnp.sqrt(n + 1e-8)

    def step(_, b):
        c = jax.nn.softmax(b, 2)
        v = sq(jnp.einsum("bij,bijd->bjd", c, jax.lax.stop_gradient(uh)))
        return b + jnp.einsum("bijd,bjd->bij", jax.lax.stop_gradient(uh), v)

    b = jax.lax.fori_loop(0, 2, step, jnp.zeros((x.shape[0], 6, 3)))
    v = sq(jnp.einsum("bij,bijd->bjd", jax.nn.softmax(b, 2), uh))
    return jnp.linalg.norm(v, axis=-1)


MIXTURES = {
    # Data choose the mixture; its fans are those of one kernel.
    "kernels mixed by data": Architecture(
        (make(r=(3, 4), w=(4, 3, 3, 3, 8), head=(8, 3)), call_mixed),
        (data(2, 6, 6, 3),),
        {
            "r": ("input", (3, 4)),
            "w": ("hidden", (27, 72)),
            "head": ("readout", (8, 3)),
        },
    ),
    "experts merged by a router": Architecture(
        (make(r=(6, 4), w=(4, 6, 8), v=(4, 8, 5), head=(5, 3)), call_merged),
        (data(2, 7, 6),),
        {
            "r": ("input", (6, 4)),
            "w": ("hidden", (6, 8)),
            "v": ("hidden", (8, 5)),
            "head": ("readout", (5, 3)),
        },
    ),
    "one query, heads that share keys": Architecture(
        (make(q=(6, 2, 4), k=(6, 4), v=(6, 4), o=(8, 3)), call_one_query),
        (data(2, 7, 6),),
        {
            "q": ("query", (6, 8)),
            "k": ("key", (6, 4)),
            "v": ("value", (6, 4)),
            "o": ("readout", (8, 3)),
        },
    ),
    "DeepSeek, latent attention, decoupled rope, shared expert": Architecture(
        (
            make(
                emb=(50, 16),
                n1=(16,),
                dq=(16, 9),
                nq=(9,),
                uq=(9, 32),
                dkv=(16, 7),
                nkv=(5,),
                ukv=(5, 52),
                o=(28, 16),
                n2=(16,),
                sg=(16, 20),
                su=(16, 20),
                sd=(20, 16),
                router=(16, 4),
                rbias=(4,),
                eg=(4, 16, 12),
                eu=(4, 16, 12),
                ed=(4, 12, 16),
                n3=(16,),
                head=(16, 50),
            ),
            call_deepseek,
        ),
        (ids(2, 5),),
        {
            "emb": ("embedding", (1, 16)),
            "n*": "gain",
            "dq": ("hidden", (16, 9)),
            "uq": ("query", (9, 32)),
            "dkv": ("key", (16, 7)),
            "ukv": ("key+value", (5, 52)),
            "o": ("residual", (28, 16)),
            "s[gu]": ("hidden", (16, 20)),
            "sd": ("residual", (20, 16)),
            "router": ("hidden", (16, 4)),
            "rbias": "offset",
            "e[gu]": ("hidden", (16, 12)),
            "ed": ("residual", (12, 16)),
            "head": ("readout", (16, 50)),
        },
        branches=2,
    ),
    "quantized kernels, scales of blocks": Architecture(
        (make(w=(8, 16), s=(2, 16), w2=(16, 3), s2=(1, 3)), call_quantized_blocks),
        (data(2, 8),),
        {
            "w": ("input", (8, 16)),
            "s": "gain",
            "w2": ("readout", (16, 3)),
            "s2": "gain",
        },
    ),
    "kernels in a basis": Architecture(
        (make(w=(2, 8, 4), v=(8, 5)), call_basis),
        (data(2, 6, 6, 2),),
        {"w": ("input", (8, 32)), "v": ("readout", (8, 5))},
    ),
    "Kronecker product": Architecture(
        (make(a=(2, 4), b=(4, 4), head=(16, 3)), call_kronecker),
        (data(2, 8),),
        {"a": ("input", (2, 4)), "b": ("input", (4, 4)), "head": ("readout", (16, 3))},
    ),
    # The factor in the middle has neither inputs nor outputs left.
    "Glow, LU of a kernel": Architecture(
        (
            make(
                ab=(4,),
                **{"as": (4,)},
                l=(4, 4),
                u=(4, 4),
                logs=(4,),
                k=(3, 3, 2, 8),
                k2=(3, 3, 8, 4),
            ),
            call_glow,
        ),
        (data(2, 4, 4, 4),),
        {
            "ab": "offset",
            "as": "state",
            "l": "other",
            "u": ("input", (4, 4)),
            "logs": "gain",
            "k": ("hidden", (18, 72)),
            "k2": ("readout", (72, 36)),
        },
    ),
    "DoRA": Architecture(
        (make(w=(8, 16), a=(8, 2), b=(2, 16), m=(16,), head=(16, 3)), call_dora),
        (data(2, 8),),
        {
            "w": ("input", (8, 16)),
            "a": ("input", (8, 2)),
            "b": ("input", (2, 16)),
            "m": "gain",
            "head": ("readout", (16, 3)),
        },
    ),
    "Bayesian layers": Architecture(
        (
            make(mu0=(6, 8), rho0=(6, 8), b0=(8,), mu1=(8, 3), rho1=(8, 3), b1=(3,)),
            call_bayesian,
        ),
        (data(2, 6),),
        {"[mr]*0": ("input", (6, 8)), "[mr]*1": ("readout", (8, 3)), "b?": "bias"},
    ),
    "ensemble, Equinox": Architecture(
        EquinoxEnsemble,
        (data(2, 6),),
        {
            "nets/layers/0/weight": ("input", (6, 8)),
            "nets/layers/1/weight": ("hidden", (8, 3)),
            "*bias": "bias",
            "w": ("readout", (4, 1)),
        },
    ),
    "hash grids": Architecture(
        (make(grid=(2, 64, 3), w=(6, 8), v=(8, 3)), call_grids),
        (data(5, 2),),
        {
            "grid": ("embedding", (1, 3)),
            "w": ("hidden", (6, 8)),
            "v": ("readout", (8, 3)),
        },
    ),
    # Routing by agreement is attention of a layer's outputs to themselves.
    "capsules": Architecture(
        (make(w=(6, 3, 4, 5)), call_capsules),
        (data(2, 24),),
        {"w": ("query+key+value", (4, 15))},
    ),
}
