"""Absorbed or applied by the model, factors give one training, to rounding."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxinit
from jaxinit import scaling

pytestmark = pytest.mark.usefixtures("quick_compiler", "x64")
TOKENS = np.arange(15).reshape(3, 5) % 11
SMALL, LARGE = (8, 4, 2), (32, 16, 4)  # width, size of a head, blocks


def make(width, size, blocks, logits=1.0, branch=1.0, scores=1.0):
    """Returns a transformer of two heads that applies three factors."""
    shapes = {"table": (11, width), "head": (width, 11), "head_b": (11,)}
    for i in range(blocks):
        shapes |= {f"{name}_{i}": (width, 2, size) for name in "qkv"}
        shapes |= {
            f"qb_{i}": (2, size),
            f"o_{i}": (2, size, width),
            f"gain_{i}": (width,),
        }
        shapes |= {f"up_{i}": (width, 3 * width), f"up_b_{i}": (3 * width,)}
        shapes |= {f"down_{i}": (3 * width, width), f"down_b_{i}": (width,)}

    def init(key):
        return {name: jnp.zeros(shape, jnp.float64) for name, shape in shapes.items()}

    def apply(p, tokens):
        x = p["table"][tokens]
        for i in range(blocks):
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
def read(applied, alpha):
    """Returns the scale by which a small transformer becomes a large one."""
    how = functools.partial(scaling.completep, alpha=alpha)
    small, large = (jaxinit.structure(make(*x), TOKENS) for x in (SMALL, LARGE))
    return how(small, large, forward=applied)


def train(apply, scale, optimizer, steps=3):
    """Trains a model whose weights, rates, ε and decay are scaled; returns outputs."""
    rng = np.random.default_rng(0)
    eps = {
        path: 1e-3 * row.eps for path, row in scale.items()
    }  # large, so that it counts
    lr = {path: 0.05 * row.lr[optimizer] for path, row in scale.items()}
    decay = {path: 0.1 * row.decay for path, row in scale.items()}
    params = {
        path: jnp.asarray(0.3 * rng.normal(size=row.traced.shape) * row.std)
        for path, row in scale.items()
    }
    wanted = jnp.asarray(rng.normal(size=(3, 5, 11)))
    slope = jax.jit(jax.grad(lambda p: ((apply(p, TOKENS) - wanted) ** 2).mean()))
    mean, square = ({path: 0.0 for path in params} for _ in range(2))
    for step in range(1, steps + 1):
        grads = slope(params)
        for path, g in grads.items():
            w = params[path]
            if optimizer == "sgd":
                params[path] = w - lr[path] * g
                continue
            mean[path] = 0.9 * mean[path] + 0.1 * g
            square[path] = 0.99 * square[path] + 0.01 * g**2
            root = jnp.sqrt(square[path] / (1 - 0.99**step))
            update = mean[path] / (1 - 0.9**step) / (root + eps[path])
            params[path] = w - lr[path] * (update + decay[path] * w)
    return np.asarray(apply(params, TOKENS))


@pytest.mark.parametrize(
    ("optimizer", "alpha"),
    [("adam", 1.0), pytest.param("sgd", 0.5, marks=pytest.mark.slow)],
)
def test_both_ways_train_alike(optimizer, alpha):
    absorbed, model = (read(applied, alpha) for applied in ("absorbed", "model"))
    factors = {each.what: each.theta for each in model.forward.multipliers}
    assert factors == {"readout": 1 / 4, "branch": 2**-alpha, "attention": 0.5}
    assert not absorbed.forward
    logits, branch, scores = (factors[n] for n in ("readout", "branch", "attention"))
    multiplied = make(*LARGE, logits, branch, scores)[1]
    expected = train(multiplied, model, optimizer)
    found = train(make(*LARGE)[1], absorbed, optimizer)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    # It could differ: training without the factors does.
    assert not np.allclose(train(make(*LARGE)[1], model, optimizer), expected, 1e-3)
