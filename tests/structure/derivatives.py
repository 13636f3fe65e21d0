"""Networks whose derivatives are part of the model."""

import jax
import jax.numpy as jnp
from architecture import Architecture, data, make


def call_forces(p, x):
    def energy(x):
        return (jnp.tanh(jnp.tanh(x @ p["a"] + p["ab"]) @ p["b"]) @ p["c"]).sum()

    return -jax.grad(energy)(x)


def call_residuals(p, x):
    def u(t):
        return (jnp.tanh(jnp.tanh(t @ p["a"] + p["ab"]) @ p["b"] + p["bb"]) @ p["c"])[0]

    def res(t):
        g = jax.grad(u)(t)
        h = jax.hessian(u)(t)
        return u(t), g[0] - h[1, 1] + u(t) * g[1]

    return jax.vmap(res)(x)


def call_tangents(p, x):
    def f(t):
        return jnp.tanh(t @ p["a"] + p["ab"]) @ p["b"]

    y, d = jax.jvp(f, (x,), (jnp.ones_like(x),))
    return y, d


def call_adapted(p, x, y, xq):
    def f(p, x):
        return jax.nn.relu(x @ p["a"] + p["ab"]) @ p["b"]

    g = jax.grad(lambda p: ((f(p, x) - y) ** 2).mean())(p)
    return f(jax.tree.map(lambda w, g: w - 0.1 * g, p, g), xq)


def call_runge_kutta(p, x):
    x = x @ p["stem"]

    def f(y):
        return jnp.tanh(y @ p["a"] + p["ab"]) @ p["b"]

    def step(y, _):
        k1 = f(y)
        k2 = f(y + 0.05 * k1)
        k3 = f(y + 0.05 * k2)
        k4 = f(y + 0.1 * k3)
        return y + 0.1 / 6 * (k1 + 2 * k2 + 2 * k3 + k4), None

    return jax.lax.scan(step, x, None, length=10)[0] @ p["head"]


DERIVATIVES = {
    # What goes back through the layers is no further use of them.
    "forces by jax.grad": Architecture(
        (make(a=(6, 8), ab=(8,), b=(8, 7), c=(7, 1)), call_forces),
        (data(2, 6),),
        {
            "a": ("input", (6, 8)),
            "ab": "bias",
            "b": ("hidden", (8, 7)),
            "c": ("readout", (7, 1)),
        },
    ),
    "PINN, gradient and Hessian": Architecture(
        (make(a=(2, 8), ab=(8,), b=(8, 7), bb=(7,), c=(7, 1)), call_residuals),
        (data(5, 2),),
        {
            "a": ("input", (2, 8)),
            "[ab]b": "bias",
            "b": ("hidden", (8, 7)),
            "c": ("readout", (7, 1)),
        },
    ),
    "tangents of ones": Architecture(
        (make(a=(6, 8), ab=(8,), b=(8, 7)), call_tangents),
        (data(5, 6),),
        {"a": ("input", (6, 8)), "ab": "bias", "b": ("readout", (8, 7))},
    ),
    # A weight that a gradient changed is still that weight.
    "MAML": Architecture(
        (make(a=(6, 8), ab=(8,), b=(8, 3)), call_adapted),
        (data(5, 6), data(5, 3), data(4, 6)),
        {"a": ("input", (6, 8)), "ab": "bias", "b": ("readout+hidden", (8, 3))},
    ),
    # Slopes are added to slopes, too: seven sums at each step.
    "neural ODE, Runge-Kutta by scan": Architecture(
        (
            make(stem=(6, 8), a=(8, 16), ab=(16,), b=(16, 8), head=(8, 3)),
            call_runge_kutta,
        ),
        (data(2, 6),),
        {
            "stem": ("input", (6, 8)),
            "a": ("recurrent", (8, 16)),
            "ab": "bias",
            "b": ("residual", (16, 8)),
            "head": ("readout", (8, 3)),
        },
        branches=70,
    ),
}
