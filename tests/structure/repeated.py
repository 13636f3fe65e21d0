"""Layers in loops: stacked by hand or by Flax, mapped, computed twice."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from architecture import Architecture, data, make


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        h = nn.LayerNorm(name="norm")(x)
        h = nn.gelu(nn.Dense(32, name="up")(h))
        return x + nn.Dense(8, name="down")(h)


class Scanned(nn.Module):
    remat: bool = False

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(8, name="first")(x)
        block = nn.remat(Block) if self.remat else Block
        body = nn.scan(
            lambda block, x, _: (block(x), None),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=5,
        )
        x, _ = body(block(name="block"), x, None)
        return nn.Dense(4, name="last")(x)


class Remat(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Dense(8, name="first")(x)
        for i in range(2):
            x = nn.remat(Block)(name=f"block_{i}")(x)
        return nn.Dense(4, name="last")(x)


class Ensemble(nn.Module):
    """Five perceptrons of the same input, whose outputs are averaged."""

    @nn.compact
    def __call__(self, x):
        def one(module, x):
            h = nn.relu(nn.Dense(16, name="first")(x))
            h = nn.relu(nn.Dense(16, name="second")(h))
            return nn.Dense(4, name="third")(h)

        return nn.vmap(
            one,
            in_axes=None,
            axis_size=5,
            variable_axes={"params": 0},
            split_rngs={"params": True},
        )(self, x).mean(0)


class EquinoxScan(eqx.Module):
    """Layers of Equinox, stacked by `filter_vmap`, in a `lax.scan`."""

    first: eqx.nn.Linear
    layers: eqx.nn.Linear
    last: eqx.nn.Linear

    def __init__(self, key):
        keys = jax.random.split(key, 5)
        self.layers = eqx.filter_vmap(lambda key: eqx.nn.Linear(8, 8, key=key))(keys)
        self.first = eqx.nn.Linear(6, 8, key=key)
        self.last = eqx.nn.Linear(8, 4, key=key)

    def __call__(self, x):
        arrays, rest = eqx.partition(self.layers, eqx.is_array)

        def step(x, layer):
            return jnp.tanh(eqx.combine(layer, rest)(x)), None

        return self.last(jax.lax.scan(step, self.first(x), arrays)[0])


def call_fori(p, x):
    """Weights that are chosen by the number of the step."""

    def step(i, x):
        h = jax.nn.relu(x @ p["up"][i] + p["bias"][i])
        return x + h @ p["down"][i]

    return jax.lax.fori_loop(0, 5, step, x @ p["first"]) @ p["last"]


def call_while(p, x):
    """A loop that ends when the data say so, with one weight for all steps."""

    def step(state):
        x, count = state
        return jnp.tanh(x @ p["w"] + p["b"]), count + 1

    def goes_on(state):
        return (state[0].sum() > 0) & (state[1] < 9)

    x, _ = jax.lax.while_loop(goes_on, step, (x @ p["first"], 0))
    return x @ p["last"]


def call_by_hand(p, x):
    x = x @ p["first"]
    for i in range(5):
        h = jax.nn.relu(x @ p["up"][i] + p["bias"][i])
        x = x + h @ p["down"][i]
    return x @ p["last"]


def call_cond(p, x, flag):
    """One of two layers, by an input."""
    h = jax.lax.cond(
        flag > 0, lambda h: h @ p["one"], lambda h: jnp.tanh(h @ p["two"]), x @ p["in"]
    )
    return h @ p["out"]


def call_one_step(p, x):
    """A pipeline of two stages, whose weights are an axis of one array."""
    x = x @ p["first"]
    stages = jax.vmap(lambda w, x: jax.nn.relu(x @ w))
    x = stages(p["stages"], jnp.stack([x, 2 * x]))
    return jnp.concatenate(list(x), -1) @ p["last"]


ENDS = {"*/first/kernel": ("input", (6, 8)), "*/last/kernel": ("readout", (8, 4))}
PLAIN = {"first": ("input", (6, 8)), "last": ("readout", (8, 4))}
BLOCK = {
    "*/up/kernel": ("hidden", (8, 32)),
    "*/down/kernel": ("residual", (32, 8)),
    "*/norm/scale": "gain",
    "*/norm/bias": "offset",
}
STACKED = make(first=(6, 8), up=(5, 8, 32), bias=(5, 32), down=(5, 32, 8), last=(8, 4))
STACK = {
    **PLAIN,
    "up": ("hidden", (8, 32)),
    "down": ("residual", (32, 8)),
    "bias": "bias",
}
X = (data(3, 6),)

REPEATED = {
    "blocks by nn.scan": Architecture(
        Scanned(), X, ENDS | BLOCK | {"*/bias": "bias"}, branches=5
    ),
    "blocks by nn.scan and nn.remat": Architecture(
        Scanned(remat=True), X, ENDS | BLOCK | {"*/bias": "bias"}, branches=5
    ),
    "blocks by nn.remat": Architecture(
        Remat(), X, ENDS | BLOCK | {"*/bias": "bias"}, branches=2
    ),
    "perceptrons by nn.vmap": Architecture(
        Ensemble(),
        X,
        {
            "*/first/kernel": ("input", (6, 16)),
            "*/second/kernel": ("hidden", (16, 16)),
            "*/third/kernel": ("readout", (16, 4)),
            "*/bias": "bias",
        },
    ),
    "layers by scan, Equinox": Architecture(
        EquinoxScan,
        X,
        {
            "first/weight": ("input", (6, 8)),
            "first/bias": "bias",
            "layers/weight": ("hidden", (8, 8)),
            "layers/bias": "bias",
            "last/weight": ("readout", (8, 4)),
            "last/bias": "bias",
        },
    ),
    "blocks by fori_loop": Architecture((STACKED, call_fori), X, STACK, branches=5),
    "a layer by while_loop": Architecture(
        (make(first=(6, 8), w=(8, 8), b=(8,), last=(8, 4)), call_while),
        X,
        {**PLAIN, "w": ("recurrent", (8, 8)), "b": "bias"},
    ),
    "blocks stacked by hand": Architecture(
        (STACKED, call_by_hand), X, STACK, branches=5
    ),
    "layers by cond": Architecture(
        (
            make(**{"in": (6, 8), "one": (8, 8), "two": (8, 8), "out": (8, 4)}),
            call_cond,
        ),
        (data(3, 6), np.int32(1)),
        {
            "in": ("input", (6, 8)),
            "one": ("hidden", (8, 8)),
            "two": ("hidden", (8, 8)),
            "out": ("readout", (8, 4)),
        },
    ),
    "stages by vmap": Architecture(
        (make(first=(6, 8), stages=(2, 8, 8), last=(16, 4)), call_one_step),
        X,
        {
            "first": ("input", (6, 8)),
            "stages": ("hidden", (8, 8)),
            "last": ("readout", (16, 4)),
        },
    ),
}
