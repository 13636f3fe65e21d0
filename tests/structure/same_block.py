"""One transformer block, with two heads of 6 over 12 features, in every framework."""

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
from architecture import data, make
from flax import nnx

X = (data(3, 5, 12),)


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Dense(12)(x)
        x = x + nn.MultiHeadDotProductAttention(2)(nn.LayerNorm()(x))
        x = x + nn.Dense(12)(nn.relu(nn.Dense(48)(nn.LayerNorm()(x))))
        return nn.Dense(4)(nn.LayerNorm()(x))


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(12, 12, rngs=rngs)
        self.a, self.b, self.c = (nnx.LayerNorm(12, rngs=rngs) for _ in range(3))
        self.attend = nnx.MultiHeadAttention(2, 12, decode=False, rngs=rngs)
        self.up = nnx.Linear(12, 48, rngs=rngs)
        self.down = nnx.Linear(48, 12, rngs=rngs)
        self.last = nnx.Linear(12, 4, rngs=rngs)

    def __call__(self, x):
        x = self.first(x)
        x = x + self.attend(self.a(x))
        x = x + self.down(nnx.relu(self.up(self.b(x))))
        return self.last(self.c(x))


class Equinox(eqx.Module):
    first: eqx.nn.Linear
    norms: list
    attend: eqx.nn.MultiheadAttention
    feed: eqx.nn.MLP
    last: eqx.nn.Linear

    def __init__(self, key):
        biases = {f"use_{n}_bias": True for n in ("query", "key", "value", "output")}
        self.first = eqx.nn.Linear(12, 12, key=key)
        self.norms = [eqx.nn.LayerNorm(12) for _ in range(3)]
        self.attend = eqx.nn.MultiheadAttention(2, 12, **biases, key=key)
        self.feed = eqx.nn.MLP(12, 12, 48, 1, key=key)
        self.last = eqx.nn.Linear(12, 4, key=key)

    def __call__(self, x):
        x = jax.vmap(self.first)(x)
        h = jax.vmap(self.norms[0])(x)
        x = x + self.attend(h, h, h)
        x = x + jax.vmap(self.feed)(jax.vmap(self.norms[1])(x))
        return jax.vmap(self.last)(jax.vmap(self.norms[2])(x))


def call_haiku(x):
    init = hk.initializers.VarianceScaling()
    x = hk.Linear(12)(x)
    h = hk.LayerNorm(-1, True, True)(x)
    x = x + hk.MultiHeadAttention(2, 6, w_init=init)(h, h, h)
    h = hk.Linear(48)(hk.LayerNorm(-1, True, True)(x))
    x = x + hk.Linear(12)(jax.nn.relu(h))
    x = hk.LayerNorm(-1, True, True)(x)
    return hk.Linear(4)(x)


KERNELS = {
    "first": (12, 12),
    "query": (12, 12),
    "key": (12, 12),
    "value": (12, 12),
    "out": (12, 12),
    "up": (12, 48),
    "down": (48, 12),
    "last": (12, 4),
}


def build_functions(names, is_transposed):
    """Returns a pair of functions, with other names and layouts of parameters.

    Args:
      names: of the parameters, by their names here: those of kernels, and of their
        biases with "_b", gains and offsets of three norms "gain_0", "offset_0".
      is_transposed: by the name of a kernel, whether it is stored as (outputs, inputs).
    """
    shapes = {n: s[::-1] if is_transposed[n] else s for n, s in KERNELS.items()}
    shapes |= {f"{n}_b": size[1:] for n, size in KERNELS.items()}
    shapes |= {f"{n}_{i}": (12,) for n in ("gain", "offset") for i in range(3)}

    def apply(params, x):
        p = {name: params[names[name]] for name in shapes}

        def dense(name, x):
            kernel = p[name].T if is_transposed[name] else p[name]
            return x @ kernel + p[f"{name}_b"]

        def norm(i, x):
            x = x - x.mean(-1, keepdims=True)
            x = x * jax.lax.rsqrt(x.var(-1, keepdims=True) + 1e-6)
            return x * p[f"gain_{i}"] + p[f"offset_{i}"]

        x = dense("first", x)
        h = norm(0, x)
        q, k, v = (
            dense(n, h).reshape(3, 5, 2, 6).swapaxes(1, 2)
            for n in ("query", "key", "value")
        )
        weights = jax.nn.softmax(q @ k.swapaxes(-1, -2) / jnp.sqrt(6.0))
        x = x + dense("out", (weights @ v).swapaxes(1, 2).reshape(3, 5, 12))
        x = x + dense("down", jax.nn.relu(dense("up", norm(1, x))))
        return dense("last", norm(2, x))

    return make(**{names[name]: shape for name, shape in shapes.items()}), apply


NAMES = [*KERNELS, *(f"{n}_b" for n in KERNELS)]
NAMES += [f"{n}_{i}" for n in ("gain", "offset") for i in range(3)]
PLAIN = build_functions({n: n for n in NAMES}, dict.fromkeys(KERNELS, False))
MODELS = {
    "Linen": Linen(),
    "NNX": Nnx,
    "Equinox": Equinox,
    "Haiku": hk.without_apply_rng(hk.transform(call_haiku)),
    "functions": PLAIN,
}
