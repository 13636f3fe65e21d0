"""Absorbed or applied by the model, factors give one training, to rounding."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import slow_but

import jaxinit
from jaxinit import scaling

pytestmark = pytest.mark.usefixtures("quick_compiler", "x64")
TOKENS = np.arange(15).reshape(3, 5) % 11
# Width, size of a head, and blocks, of a small and a large model.
MODELS = {"mlp": ((8, 0, 1), (32, 0, 2)), "attention": ((8, 4, 1), (32, 16, 2))}


def make(width, size, blocks, logits=1.0, branch=1.0, scores=1.0):
    """Returns residual blocks that apply three factors, with attention of two heads.

    There is none if the size of a head is 0.
    """
    shapes = {"table": (11, width), "head": (width, 11), "head_b": (11,)}
    for i in range(blocks):
        if size:
            shapes |= {f"{name}_{i}": (width, 2, size) for name in "qkv"}
            shapes |= {f"qb_{i}": (2, size), f"o_{i}": (2, size, width)}
        shapes |= {f"gain_{i}": (width,)}
        shapes |= {f"up_{i}": (width, 3 * width), f"up_b_{i}": (3 * width,)}
        shapes |= {f"down_{i}": (3 * width, width), f"down_b_{i}": (width,)}

    def init(key):
        return {name: jnp.zeros(shape, jnp.float64) for name, shape in shapes.items()}

    def apply(p, tokens):
        x = p["table"][tokens]
        for i in range(blocks):
            if size:
                q = jnp.einsum("bld,dhk->blhk", x, p[f"q_{i}"]) + p[f"qb_{i}"]
                k, v = (jnp.einsum("bld,dhk->blhk", x, p[f"{n}_{i}"]) for n in "kv")
                s = jnp.einsum("bqhk,bshk->bhqs", q, k) / size**0.5 * scores
                y = jnp.einsum("bhqs,bshk->bqhk", jax.nn.softmax(s), v)
                x = x + jnp.einsum("bqhk,hkd->bqd", y, p[f"o_{i}"]) * branch
            h = x * jax.lax.rsqrt((x**2).mean(-1, keepdims=True) + 1e-6)
            h = jnp.tanh(h * p[f"gain_{i}"] @ p[f"up_{i}"] + p[f"up_b_{i}"])
            x = x + (h @ p[f"down_{i}"] + p[f"down_b_{i}"]) * branch
        return x @ p["head"] * logits + p["head_b"]

    return init, apply


@functools.cache
def read(name, applied, alpha):
    """Returns the scale by which a small model becomes a large one."""
    small, large = (jaxinit.structure(make(*x), TOKENS) for x in MODELS[name])
    return scaling.completep(small, large, forward=applied, alpha=alpha)


@functools.partial(jax.jit, static_argnums=(0, 1))
def run(name, optimizer, params, settings, factors, wanted):
    """Trains a model for three steps, with settings by parameter; returns outputs."""

    def lose(params):
        outputs = make(*MODELS[name][1], **factors)[1](params, TOKENS)
        return ((outputs - wanted) ** 2).mean(), outputs

    def step(count, state):
        params, mean, square, _ = state
        slope, outputs = jax.grad(lose, has_aux=True)(params)
        for path, g in slope.items():
            lr, eps, decay = settings[path]
            mean[path] = 0.9 * mean[path] + 0.1 * g
            square[path] = 0.99 * square[path] + 0.01 * g**2
            root = jnp.sqrt(square[path] / (1 - 0.99**count))
            update = mean[path] / (1 - 0.9**count) / (root + eps)
            update = g if optimizer == "sgd" else update + decay * params[path]
            params[path] = params[path] - lr * update
        return params, mean, square, outputs

    still = jax.tree.map(jnp.zeros_like, params)
    start = params, still, dict(still), jnp.zeros_like(wanted)
    return jax.lax.fori_loop(1, 5, lambda i, x: step(1.0 * i, x), start)[-1]


def train(name, scale, optimizer, factors):
    """Trains the large model with what a scale says, where the model has factors."""
    rng = np.random.default_rng(0)
    settings, params = {}, {}
    for path, row in scale.items():
        # ε is large, so that it counts.
        each = 0.05 * row.lr[optimizer], 1e-3 * row.eps, 0.1 * row.decay
        settings[path] = tuple(map(jnp.float64, each))
        params[path] = jnp.asarray(0.3 * rng.normal(size=row.traced.shape) * row.std)
    wanted = jnp.asarray(rng.normal(size=(3, 5, 11)))
    factors = {name: jnp.float64(theta) for name, theta in factors.items()}
    return np.asarray(run(name, optimizer, params, settings, factors, wanted))


@pytest.mark.parametrize(
    ("name", "optimizer", "alpha"),
    slow_but(
        [("mlp", "adam", 1.0)],
        [("mlp", "adam", 1.0), ("attention", "adam", 1.0), ("attention", "sgd", 0.5)],
        rows=True,
    ),
)
def test_both_ways_train_alike(name, optimizer, alpha):
    absorbed, model = (read(name, applied, alpha) for applied in ("absorbed", "model"))
    thetas = {"logits": 1 / 4, "branch": 2**-alpha, "scores": 0.5}
    found = {each.what: each.theta for each in model.forward.multipliers}
    expected = dict(
        zip(("readout", "branch", "attention"), thetas.values(), strict=True)
    )
    assert found == {what: expected[what] for what in found} and len(found) > 1
    assert ("attention" in found) == (name == "attention") and not absorbed.forward
    without = dict.fromkeys(thetas, 1.0)
    applied = train(name, model, optimizer, thetas)
    np.testing.assert_allclose(train(name, absorbed, optimizer, without), applied, 1e-9)
    # It could differ: training without the factors does.
    assert not np.allclose(train(name, model, optimizer, without), applied, 1e-3)
