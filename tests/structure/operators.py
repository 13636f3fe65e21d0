"""State spaces in chunks, solvers, operators between functions, bent kernels."""

import jax
import jax.numpy as jnp
import numpy as np
from architecture import Architecture, data, make, rms
from attentions import attend
from jax.experimental.ode import odeint


def call_mamba(p, x):
    x = x @ p["stem"]
    Bt, L, D = x.shape
    H, P, N, C = 2, 4, 3, 4
    u = rms(x, p["n"]) @ p["in"]
    z, xs, B, Cc, dt = jnp.split(u, [8, 16, 19, 22], -1)
    xs = jax.lax.conv_general_dilated(
        xs,
        p["conv"],
        (1,),
        [(2, 0)],
        dimension_numbers=("NWC", "WIO", "NWC"),
        feature_group_count=8,
    )
    dt = jax.nn.softplus(dt + p["dtb"])
    a = -jnp.exp(p["A"]) * dt
    xs = jax.nn.silu(xs).reshape(Bt, L // C, C, H, P) * dt.reshape(Bt, L // C, C, H, 1)
    a = a.reshape(Bt, L // C, C, H)
    B = B.reshape(Bt, L // C, C, N)
    Cc = Cc.reshape(Bt, L // C, C, N)
    ac = jnp.cumsum(a, 2)
    Lm = jnp.exp(
        jnp.where(
            np.tril(np.ones((C, C), bool))[None, None, :, :, None],
            ac[:, :, :, None] - ac[:, :, None],
            -jnp.inf,
        )
    )
    s = jnp.einsum("bcin,bcjn->bcij", Cc, B)
    y = jnp.einsum("bcij,bcijh,bcjhp->bcihp", s, Lm, xs)
    st = jnp.einsum("bcjn,bcjh,bcjhp->bchpn", B, jnp.exp(ac[:, :, -1:] - ac), xs)

    def step(h, t):
        s, d = t
        return h * jnp.exp(d)[..., None, None] + s, h

    _, hs = jax.lax.scan(
        step, jnp.zeros((Bt, H, P, N)), (st.swapaxes(0, 1), ac[:, :, -1].swapaxes(0, 1))
    )
    y = y + jnp.einsum("bcin,bchpn,bcih->bcihp", Cc, hs.swapaxes(0, 1), jnp.exp(ac))
    y = y + xs * p["D"][:, None]
    y = rms(y.reshape(Bt, L, 8) * jax.nn.silu(z), p["gn"])
    return (x + y @ p["out"]) @ p["head"]


def call_slstm(p, x):
    x = x @ p["stem"]

    def step(c, u):
        cc, n, m, h = c
        r = jnp.einsum("bhk,ghkj->bghj", h, p["R"])
        i, f, z, o = (u + r.reshape(2, 4, 8)).transpose(1, 0, 2)
        m2 = jnp.maximum(f + m, i.reshape(2, 8))
        i = jnp.exp(i - m2)
        f = jnp.exp(f + m - m2)
        cc = f * cc + i * jnp.tanh(z)
        n = f * n + i
        h = jax.nn.sigmoid(o) * cc / n
        return (cc, n, m2, h.reshape(2, 2, 4)), h

    u = (x @ p["W"] + p["b"]).reshape(2, 8, 4, 8).swapaxes(0, 1)
    z = jnp.zeros((2, 8))
    _, h = jax.lax.scan(step, (z, z, z, jnp.zeros((2, 2, 4))), u)
    return h[-1] @ p["head"]


def call_linformer(p, x):
    x = x @ p["stem"] + p["pos"]
    q, k, v = ((x @ p[c]).reshape(2, 8, 2, 4) for c in "qkv")
    k, v = (
        jnp.einsum("blhd,lm->bmhd", k, p["E"]),
        jnp.einsum("blhd,lm->bmhd", v, p["F"]),
    )
    return (x + attend(q, k, v).reshape(2, 8, 8) @ p["o"]).mean(1) @ p["head"]


def call_operator(p, u, y):
    b = jnp.tanh(u @ p["b0"]) @ p["b1"]
    t = jnp.tanh(jnp.tanh(y @ p["t0"]) @ p["t1"])
    return jnp.einsum("bp,np->bn", b, t) + p["bias"]


def call_orthogonal(p, x):
    s = p["w"] - p["w"].T
    q = jnp.linalg.solve(jnp.eye(6) + s, jnp.eye(6) - s)
    e = jax.scipy.linalg.expm(p["v"] - p["v"].T)
    return jnp.tanh(x @ q) @ e @ p["head"]


def call_rounded(p, x):
    def q(w):
        s = jnp.abs(w).max(0, keepdims=True) / 127
        return w + jax.lax.stop_gradient(jnp.clip(jnp.round(w / s), -127, 127) * s - w)

    return jax.nn.relu(x @ q(p["w"])) @ q(p["v"])


def call_ode(p, x):
    x = x @ p["stem"]

    def f(y, t):
        return jnp.tanh(y @ p["a"] + p["ab"] + t * p["t"]) @ p["b"]

    return odeint(f, x, jnp.array([0.0, 1.0]))[-1] @ p["head"]


OPERATORS = {
    # In chunks it is attention: outputs read as queries, inputs as keys.
    "Mamba-2 in chunks": Architecture(
        (
            make(
                stem=(6, 8),
                n=(8,),
                **{"in": (8, 24)},
                conv=(3, 1, 8),
                dtb=(2,),
                A=(2,),
                D=(2,),
                gn=(8,),
                out=(8, 8),
                head=(8, 3),
            ),
            call_mamba,
        ),
        (data(2, 8, 6),),
        {
            "stem": ("input", (6, 8)),
            "n": "gain",
            "in": ("query+key+value", (8, 24)),
            "conv": ("value", (3, 3)),
            "dtb": "bias",
            "A": "state",
            "D": "gain",
            "gn": "gain",
            "out": ("residual", (8, 8)),
            "head": ("readout", (8, 3)),
        },
        branches=1,
    ),
    "sLSTM, heads, four gates in one": Architecture(
        (
            make(stem=(6, 8), R=(4, 2, 4, 4), W=(8, 32), b=(32,), head=(8, 3)),
            call_slstm,
        ),
        (data(2, 8, 6),),
        {
            "stem": ("input", (6, 8)),
            "R": ("recurrent", (4, 4)),
            "W": ("hidden", (8, 8)),
            "b": "bias",
            "head": ("readout", (8, 3)),
        },
    ),
    # The last products before the attention are those over positions.
    "Linformer": Architecture(
        (
            make(
                stem=(6, 8),
                pos=(8, 8),
                q=(8, 8),
                k=(8, 8),
                v=(8, 8),
                E=(8, 3),
                F=(8, 3),
                o=(8, 8),
                head=(8, 3),
            ),
            call_linformer,
        ),
        (data(2, 8, 6),),
        {
            "stem": ("input", (6, 8)),
            "pos": "table",
            "q": ("query", (8, 8)),
            "k": ("hidden", (8, 8)),
            "v": ("hidden", (8, 8)),
            "E": ("key", (8, 3)),
            "F": ("value", (8, 3)),
            "o": ("residual", (8, 8)),
            "head": ("readout", (8, 3)),
        },
        branches=1,
    ),
    "DeepONet": Architecture(
        (make(b0=(9, 8), b1=(8, 5), t0=(2, 8), t1=(8, 5), bias=()), call_operator),
        (data(3, 9), data(7, 2)),
        {
            "b0": ("input", (9, 8)),
            "t0": ("input", (2, 8)),
            "b1": ("readout", (8, 5)),
            "t1": ("readout", (8, 5)),
            "bias": "offset",
        },
    ),
    # The axes are lost in solvers: it is said.
    "orthogonal by Cayley and expm": Architecture(
        (make(w=(6, 6), v=(6, 6), head=(6, 3)), call_orthogonal),
        (data(2, 6),),
        {"w": "other", "v": "other", "head": ("readout", (6, 3))},
    ),
    "kernels rounded, straight-through": Architecture(
        (make(w=(8, 16), v=(16, 3)), call_rounded),
        (data(2, 8),),
        {"w": ("input", (8, 16)), "v": ("readout", (16, 3))},
    ),
    # The solver looks ahead for its first step, and adds slopes to slopes.
    "neural ODE, odeint": Architecture(
        (
            make(stem=(6, 8), a=(8, 16), ab=(16,), t=(16,), b=(16, 8), head=(8, 3)),
            call_ode,
        ),
        (data(2, 6),),
        {
            "stem": ("input", (6, 8)),
            "a": ("recurrent+hidden", (8, 16)),
            "ab": "bias",
            "t": "bias+gain",
            "b": ("residual", (16, 8)),
            "head": ("readout", (8, 3)),
        },
        branches=10,
    ),
}
