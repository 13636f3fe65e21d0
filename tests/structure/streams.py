"""Streams and what bypasses what: parallel branches, loops, sums that are none."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from architecture import Architecture, data, ids, make, rms


def call_evoformer(p, m, z):
    m = m @ p["ms"]
    z = z @ p["zs"]
    B, L, D = m.shape
    h = rms(m, p["n1"])
    q, k, v = ((h @ p[c]).reshape(B, L, 2, 4) for c in "qkv")
    b = rms(z, p["n2"]) @ p["pb"]
    s = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) + b.transpose(0, 3, 1, 2))
    y = jnp.einsum("bhqk,bkhd->bqhd", s, v) * jax.nn.sigmoid(
        (h @ p["g"]).reshape(B, L, 2, 4)
    )
    m = m + y.reshape(B, L, 8) @ p["o"]
    zn = rms(z, p["n3"])
    a, c = (
        zn @ p["ta"] * jax.nn.sigmoid(zn @ p["tga"]),
        zn @ p["tb"] * jax.nn.sigmoid(zn @ p["tgb"]),
    )
    t = jnp.einsum("bikc,bjkc->bijc", a, c)
    z = z + jax.nn.sigmoid(zn @ p["tg"]) * (rms(t, p["n4"]) @ p["to"])
    left, right = m @ p["ol"], m @ p["or"]
    z = z + jnp.einsum("bic,bjd->bijcd", left, right).reshape(B, L, L, 9) @ p["oo"]
    return z @ p["head"], m @ p["head2"]


def call_pooled(p, x):
    h = jax.nn.relu(x @ p["a"]).mean(1)
    for i in "01":
        h = h + jax.nn.relu(h @ p["u" + i]) @ p["d" + i]
    return h @ p["head"]


def call_context(p, x):
    x = jax.nn.relu(x @ p["stem"])
    c = (x * jax.nn.softmax(x @ p["k"], 1)).sum(1, keepdims=True)
    x = x + jax.nn.relu(c @ p["u"]) @ p["d"]
    return x.mean(1) @ p["head"]


def call_coupling(p, x):
    a, b = x[:, :3], x[:, 3:]
    ld = 0.0
    for i in "01":
        h = jax.nn.relu(a @ p["w" + i] + p["b" + i])
        s, t = jnp.split(h @ p["o" + i] + p["c" + i], 2, -1)
        b = b * jnp.exp(jnp.tanh(s)) + t
        ld = ld + s.sum(-1)
        a, b = b, a
    return jnp.concatenate([a, b], -1), ld


def call_mapped(p, x):
    def one(x):
        x = jax.nn.relu(x @ p["a"] + p["b"])
        return x + jax.nn.relu(x @ p["u"]) @ p["d"]

    return jax.lax.map(one, x).mean(1) @ p["head"]


class T5Layer(nn.Module):
    @nn.compact
    def __call__(self, carry, _):
        x, bias = carry
        init = nn.with_logical_partitioning(
            nn.initializers.lecun_normal(), ("embed", "heads")
        )
        h = nn.RMSNorm(name="n1")(x)
        q = nn.DenseGeneral((3, 4), use_bias=False, kernel_init=init, name="q")(h)
        k = nn.DenseGeneral((3, 4), use_bias=False, name="k")(h)
        v = nn.DenseGeneral((3, 4), use_bias=False, name="v")(h)
        s = jnp.einsum("bqhd,bkhd->bhqk", q, k) + bias
        y = jnp.einsum("bhqk,bkhd->bqhd", nn.softmax(s), v)
        x = x + nn.Dropout(0.1, deterministic=False)(
            nn.DenseGeneral(10, axis=(-2, -1), use_bias=False, name="o")(y)
        )
        x = nn.with_logical_constraint(x, ("batch", "length", "embed"))
        h = nn.RMSNorm(name="n2")(x)
        h = nn.gelu(nn.Dense(24, use_bias=False, name="wi0")(h)) * nn.Dense(
            24, use_bias=False, name="wi1"
        )(h)
        x = x + nn.Dense(10, use_bias=False, name="wo")(
            nn.Dropout(0.1, deterministic=False)(h)
        )
        return (x, bias), None


class T5(nn.Module):
    @nn.compact
    def __call__(self, ids):
        x = nn.Embed(20, 10, name="emb")(ids)
        L = ids.shape[1]
        rel = jnp.clip(jnp.arange(L)[None] - jnp.arange(L)[:, None] + 4, 0, 7)
        bias = nn.Embed(8, 3, name="rel")(rel).transpose(2, 0, 1)[None]
        Ls = nn.scan(
            nn.remat(T5Layer, prevent_cse=False),
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            length=3,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        (x, _), _ = Ls(name="layers")((x, bias), None)
        return nn.Dense(20, use_bias=False, name="head")(nn.RMSNorm(name="nf")(x))


def call_gru_d(p, x, m, dt):
    mean = x.mean((0, 1))

    def step(c, t):
        h, last = c
        x, m, d = t
        gx = jnp.exp(-jax.nn.relu(p["dx"] * d + p["dxb"]))
        gh = jnp.exp(-jax.nn.relu(d @ p["dh"] + p["dhb"]))
        xh = m * x + (1 - m) * (gx * last + (1 - gx) * mean)
        h = gh * h
        z = jax.nn.sigmoid(xh @ p["wz"] + h @ p["uz"] + m @ p["vz"] + p["bz"])
        r = jax.nn.sigmoid(xh @ p["wr"] + h @ p["ur"] + m @ p["vr"] + p["br"])
        n = jnp.tanh(xh @ p["wn"] + (r * h) @ p["un"] + m @ p["vn"] + p["bn"])
        h = (1 - z) * h + z * n
        return (h, m * x + (1 - m) * last), None

    (h, _), _ = jax.lax.scan(
        step,
        (jnp.zeros((2, 8)), jnp.zeros((2, 6))),
        jax.tree.map(lambda a: a.swapaxes(0, 1), (x, m, dt)),
    )
    return h @ p["head"]


class Detr(nn.Module):
    @nn.compact
    def __call__(self, img):
        f = nn.Conv(12, (4, 4), (4, 4), name="backbone")(img)
        B = f.shape[0]
        src = f.reshape(B, -1, 12)
        pos = self.param("pos", nn.initializers.normal(), (src.shape[1], 12))

        def att(name):
            return nn.MultiHeadDotProductAttention(3, name=name)

        x = src
        x = nn.LayerNorm(name="en")(x + att("eatt")(x + pos, x + pos, x))
        x = nn.LayerNorm(name="en2")(
            x + nn.Dense(12, name="ed")(nn.relu(nn.Dense(24, name="eu")(x)))
        )
        qe = jnp.broadcast_to(
            nn.Embed(5, 12, name="queries")(jnp.arange(5)), (B, 5, 12)
        )
        t = jnp.zeros_like(qe)
        for i in range(2):
            t = nn.LayerNorm(name=f"dn{i}")(t + att(f"self{i}")(t + qe, t + qe, t))
            t = nn.LayerNorm(name=f"dm{i}")(t + att(f"cross{i}")(t + qe, x + pos, x))
            t = nn.LayerNorm(name=f"do{i}")(
                t + nn.Dense(12, name=f"dd{i}")(nn.relu(nn.Dense(24, name=f"du{i}")(t)))
            )
        return nn.Dense(4, name="cls")(t), nn.Dense(4, name="b1")(
            nn.relu(nn.Dense(12, name="b0")(t))
        )


def call_actor(p, x):
    h = jnp.tanh(x @ p["a"])
    return h @ p["mu"], jnp.broadcast_to(p["log_std"], (2, 3)), h @ p["v"]


STREAMS = {
    # The outer products do not read what the triangles added: both are one branch.
    "Evoformer: pair bias, triangles, outer products": Architecture(
        (
            make(
                ms=(6, 8),
                zs=(5, 7),
                n1=(8,),
                n2=(7,),
                n3=(7,),
                n4=(4,),
                q=(8, 8),
                k=(8, 8),
                v=(8, 8),
                g=(8, 8),
                o=(8, 8),
                pb=(7, 2),
                ta=(7, 4),
                tga=(7, 4),
                tb=(7, 4),
                tgb=(7, 4),
                tg=(7, 7),
                to=(4, 7),
                ol=(8, 3),
                **{"or": (8, 3)},
                oo=(9, 7),
                head=(7, 2),
                head2=(8, 2),
            ),
            call_evoformer,
        ),
        (data(2, 5, 6), data(2, 5, 5, 5)),
        {
            "ms": ("input", (6, 8)),
            "zs": ("input", (5, 7)),
            "n?": "gain",
            "q": ("query", (8, 8)),
            "k": ("key", (8, 8)),
            "v": ("value", (8, 8)),
            "g": ("hidden", (8, 8)),
            "o": ("residual", (8, 8)),
            "pb": ("hidden", (7, 2)),
            "t[ab]": ("hidden", (7, 4)),
            "tg[ab]": ("hidden", (7, 4)),
            "tg": ("hidden", (7, 7)),
            "to": ("residual", (4, 7)),
            "o[lr]": ("hidden", (8, 3)),
            "oo": ("residual", (9, 7)),
            "head": ("readout", (7, 2)),
            "head2": ("readout", (8, 2)),
        },
        branches=2,
    ),
    "residual blocks behind a mean": Architecture(
        (
            make(a=(6, 8), u0=(8, 16), d0=(16, 8), u1=(8, 16), d1=(16, 8), head=(8, 3)),
            call_pooled,
        ),
        (data(2, 5, 6),),
        {
            "a": ("input", (6, 8)),
            "u?": ("hidden", (8, 16)),
            "d?": ("residual", (16, 8)),
            "head": ("readout", (8, 3)),
        },
        branches=2,
    ),
    "global context": Architecture(
        (make(stem=(6, 8), k=(8, 1), u=(8, 4), d=(4, 8), head=(8, 3)), call_context),
        (data(2, 5, 6),),
        {
            "stem": ("input", (6, 8)),
            "k": ("hidden", (8, 1)),
            "u": ("hidden", (8, 4)),
            "d": ("residual", (4, 8)),
            "head": ("readout", (8, 3)),
        },
        branches=1,
    ),
    # The sum of log determinants bypasses nothing.
    "coupling flow": Architecture(
        (
            make(
                w0=(3, 8),
                w1=(3, 8),
                b0=(8,),
                b1=(8,),
                o0=(8, 6),
                o1=(8, 6),
                c0=(6,),
                c1=(6,),
            ),
            call_coupling,
        ),
        (data(2, 6),),
        {
            "w0": ("input", (3, 8)),
            "w1": ("hidden", (3, 8)),
            "b?": "bias",
            "o0": ("hidden", (8, 3)),
            "o1": ("readout", (8, 3)),
            "c?": "bias",
        },
    ),
    "examples by lax.map": Architecture(
        (make(a=(6, 8), b=(8,), u=(8, 16), d=(16, 8), head=(8, 3)), call_mapped),
        (data(2, 7, 6),),
        {
            "a": ("input", (6, 8)),
            "b": "bias",
            "u": ("hidden", (8, 16)),
            "d": ("residual", (16, 8)),
            "head": ("readout", (8, 3)),
        },
        branches=1,
    ),
    "T5X, scanned, remat, logical axes": Architecture(
        T5(),
        (ids(2, 5),),
        {
            "emb/embedding": ("embedding", (1, 10)),
            "rel/embedding": "table",
            "*/scale": "gain",
            "layers/q/kernel*": ("query", (10, 12)),
            "layers/k/kernel": ("key", (10, 12)),
            "layers/v/kernel": ("value", (10, 12)),
            "layers/o/kernel": ("residual", (12, 10)),
            "layers/wi?/kernel": ("hidden", (10, 24)),
            "layers/wo/kernel": ("residual", (24, 10)),
            "head/kernel": ("readout", (10, 20)),
        },
        branches=6,
    ),
    "GRU-D": Architecture(
        (
            make(
                dx=(6,),
                dxb=(6,),
                dh=(6, 8),
                dhb=(8,),
                head=(8, 3),
                **{c + g: (8 if c == "u" else 6, 8) for c in "uvw" for g in "zrn"},
                **{"b" + g: (8,) for g in "zrn"},
            ),
            call_gru_d,
        ),
        (data(2, 7, 6), data(2, 7, 6), data(2, 7, 6)),
        {
            "dx": "gain",
            "dxb": "offset",
            "dh": ("input", (6, 8)),
            "dhb": "bias",
            "w?": ("input", (6, 8)),
            "v?": ("input", (6, 8)),
            "u?": ("recurrent", (8, 8)),
            "b?": "bias",
            "head": ("readout", (8, 3)),
        },
    ),
    # The first values are made of zeros; tables are added at each layer.
    "DETR": Architecture(
        Detr(),
        (data(2, 8, 8, 3),),
        {
            "self0/value/*": "other",
            "self0/query/kernel": ("hidden", (12, 12)),
            "self0/key/kernel": ("hidden", (12, 12)),
            "*/scale": "gain",
            "[ed]*n/bias": "offset",
            "e*2/bias": "offset",
            "d[nmo]?/bias": "offset",
            "*/bias": "bias",
            "backbone/kernel": ("input", (48, 192)),
            "*/out/kernel": ("residual", (12, 12)),
            "*/query/kernel": ("query", (12, 12)),
            "*/key/kernel": ("key", (12, 12)),
            "*/value/kernel": ("value", (12, 12)),
            "eu/kernel": ("hidden", (12, 24)),
            "ed/kernel": ("residual", (24, 12)),
            "du?/kernel": ("hidden", (12, 24)),
            "dd?/kernel": ("residual", (24, 12)),
            "pos": "table",
            "queries/embedding": "table",
            "cls/kernel": ("readout", (12, 4)),
            "b0/kernel": ("hidden", (12, 12)),
            "b1/kernel": ("readout", (12, 4)),
        },
        branches=8,
    ),
    "a log deviation that is returned": Architecture(
        (make(a=(6, 8), mu=(8, 3), log_std=(3,), v=(8, 1)), call_actor),
        (data(2, 6),),
        {
            "a": ("input", (6, 8)),
            "mu": ("readout", (8, 3)),
            "v": ("readout", (8, 1)),
            "log_std": "other",
        },
    ),
}
