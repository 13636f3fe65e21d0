"""Low-rank adapters: what they add at the start, against factorizations by NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from marks import slow_but

from jaxinit import lora

pytestmark = pytest.mark.usefixtures("quick_compiler")
KEY = jax.random.key(0)
W, SLOPE = (np.asarray(jax.random.normal(jax.random.key(i), (48, 32))) for i in (1, 2))
RANK, ALPHA = 6, 9.0
METHODS = {
    "lora": lambda w: lora.lora(KEY, w, RANK, ALPHA),
    "normal": lambda w: lora.lora(KEY, w, RANK, ALPHA, law="normal"),
    "orthogonal": lambda w: lora.orthogonal(KEY, w, RANK, ALPHA),
    "pissa": lambda w: lora.pissa(w, RANK, ALPHA),
    "randomized": lambda w: lora.pissa(w, RANK, ALPHA, key=KEY, iterations=30),
    "olora": lambda w: lora.olora(w, RANK, ALPHA, rank_stabilized=True),
    "mica": lambda w: lora.mica(w, RANK),
    "lora_ga": lambda w: lora.lora_ga(w, jnp.broadcast_to(SLOPE, w.shape), RANK),
}


@pytest.mark.parametrize("name", METHODS)
def test_the_sum_is_the_weight(name):
    made = METHODS[name](W)
    assert (made.a.shape, made.b.shape) == ((48, RANK), (RANK, 32))
    np.testing.assert_allclose(made.merged, W, atol=2e-5)
    both = METHODS[name](jnp.stack([W, SLOPE]).astype(jnp.bfloat16))
    assert both.w.dtype == jnp.bfloat16 and both.a.dtype == jnp.float32
    assert both.a.shape == (2, 48, RANK) and both.b.shape == (2, RANK, 32)
    scale = {"mica": 1, "lora_ga": 1, "olora": ALPHA / RANK**0.5}
    assert made.scale == pytest.approx(scale.get(name, ALPHA / RANK))


def test_halves_are_those_of_the_papers():
    u, s, vt = np.linalg.svd(W)
    leading = (u[:, :RANK] * s[:RANK]) @ vt[:RANK]
    for name in ("pissa", "randomized"):
        made = METHODS[name](W)
        np.testing.assert_allclose(made.scale * made.a @ made.b, leading, atol=1e-3)
        np.testing.assert_allclose(made.a.T @ made.a, made.b @ made.b.T, atol=1e-3)
    q, r = np.linalg.qr(W.T)
    made = METHODS["olora"](W)
    np.testing.assert_allclose(made.a @ made.b, r[:RANK].T @ q[:, :RANK].T, atol=1e-4)
    minor = METHODS["mica"](W)
    last = vt[31 - RANK + 1 : 32]
    np.testing.assert_allclose(minor.b.T @ minor.b, last.T @ last, atol=1e-5)
    assert not minor.a.any()
    gu, _, gv = np.linalg.svd(SLOPE)
    made, size = METHODS["lora_ga"](W), 32**0.25 / 4
    inputs, outputs = size * gu[:, :RANK], size * gv[RANK : 2 * RANK]
    np.testing.assert_allclose(made.a @ made.a.T, inputs @ inputs.T, atol=1e-4)
    np.testing.assert_allclose(made.b.T @ made.b, outputs.T @ outputs, atol=1e-4)


def test_laws_of_random_halves():
    uniform, normal = METHODS["lora"](W), METHODS["normal"](W)
    assert 0.9 < float(abs(uniform.a).max() * 48**0.5) <= 1
    assert float(normal.a.std() * RANK) == pytest.approx(1, abs=0.15)
    assert not uniform.b.any() and not normal.b.any()
    made = METHODS["orthogonal"](W)
    assert abs(made.a @ made.b).max() < 1e-6 and made.a.any() and made.b.any()


class Model(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.inner = nnx.LoRALinear(16, 24, lora_rank=4, rngs=rngs)
        outer = nnx.Linear(24, 8, rngs=rngs)
        self.outer = nnx.LoRA(24, 4, 8, base_module=outer, rngs=rngs)

    def __call__(self, x):
        return self.outer(nnx.relu(self.inner(x)))


@pytest.mark.parametrize(
    "method",
    slow_but(["lora", "pissa"], ["lora", "orthogonal", "pissa", "olora", "mica"]),
)
def test_pairs_of_a_model_are_filled(method):
    model, x = Model(), jnp.ones((3, 16))
    attached = lora.attach(KEY, model, [("**/kernel", 4)], method)
    assert list(attached.adapters) == ["inner/kernel", "outer/base_module/kernel"]
    np.testing.assert_allclose(attached.params(x), model(x), atol=1e-5)
    pair = attached.adapters["inner/kernel"]
    np.testing.assert_array_equal(attached.params.inner.lora.lora_a[...], pair.a)
    np.testing.assert_array_equal(attached.params.inner.lora.lora_b[...], pair.b)
    np.testing.assert_array_equal(attached.params.inner.kernel[...], pair.w)


@pytest.mark.slow
def test_trees_without_pairs_and_with_gradients():
    params = {"up": {"kernel": W}, "down": {"kernel": W.T}, "free": {"kernel": W}}
    slopes = jax.tree.map(lambda w: SLOPE if w.shape == W.shape else SLOPE.T, params)
    rules = [("free/kernel", 0), ("up/kernel", 3), ("kernel", 2)]
    made = lora.attach(KEY, params, rules, "lora_ga", gradients=slopes, randomized=True)
    ranks = {path: each.a.shape[-1] for path, each in made.adapters.items()}
    assert ranks == {"down/kernel": 2, "up/kernel": 3}
    np.testing.assert_array_equal(made.params["free"]["kernel"], W)
    np.testing.assert_allclose(made.adapters["up/kernel"].merged, W, atol=1e-4)


@pytest.mark.parametrize(
    "wrong, error, said",
    [
        (lambda: lora.pissa(W[0], 2), ValueError, r"lora.pissa\(w=.*must be a matrix"),
        (lambda: lora.pissa(W, 33), ValueError, "rank must lie between 1 and 32"),
        (lambda: lora.pissa(W, 2.5), TypeError, "rank must be an integer"),
        (lambda: lora.pissa(W, 2, -1.0), ValueError, "alpha must be above 0"),
        (lambda: lora.olora(W, 2, 0.0), ValueError, "alpha must not be 0"),
        (lambda: lora.orthogonal(KEY, W, 3), ValueError, "rank must be even"),
        (lambda: lora.lora(KEY, W, 3, law="he"), ValueError, "law must be one of"),
        (lambda: lora.lora_ga(W, W.T, 3), ValueError, "gradient must have the shape"),
        (lambda: lora.lora_ga(W, W, 17), ValueError, "rank must be at most 16"),
        (lambda: lora.pissa(W, 2, key=3), TypeError, "key must be a PRNG key"),
        (lambda: lora.orthogonal(3, W, 2), TypeError, r"lora.orthogonal\(key=3\): key"),
        (lambda: lora.lora(3, W, 2), TypeError, r"lora.lora\(key=3\): key must be"),
        (lambda: lora.pissa([[1.0], []], 1), TypeError, "w must be an array of floats"),
        (lambda: lora.lora_ga(W, None, 2), TypeError, "gradient must be an array of"),
        (lambda: lora.lora_ga(W, W > 0, 2), ValueError, "gradient must hold floats"),
        (lambda: attach([("kernel", 4)], law=1), TypeError, "pissa has no such option"),
        (
            lambda: attach([("kernel", 4)], randomized=3),
            TypeError,
            r"lora.attach\(randomized=3\): randomized must be True or False",
        ),
        (lambda: attach([("x", 1)], tree={}), ValueError, r"lora.attach\(params=...\)"),
        (
            lambda: attach([("w", 1)], tree={"w": W, "b": W[:, 0]}),
            ValueError,
            r"\(48, 32\) has \(outputs, inputs\), by its bias of sizes \(48,\)",
        ),
        (
            lambda: attach([("w", 1)], tree={"w": W.reshape(48, 4, 8), "b": W[:4, :8]}),
            ValueError,
            r"several axes of outputs, .* Write lora.pissa of w.reshape\(inputs",
        ),
        (
            lambda: attach(
                [("[vw]", 2)],
                tree={"v": W, "w": W, "lora_a": W[:, :2], "lora_b": W[:2]},
            ),
            ValueError,
            "lora_a must belong to one weight, and w is another",
        ),
        (lambda: attach([("**/kernel", 3)]), ValueError, "has rank 4, and the rule"),
        (
            lambda: lora.attach(KEY, Model(), [("**/kernel", 4)], "lora", 8.0),
            ValueError,
            "has no scale: leave alpha out",
        ),
        (
            lambda: attach([("**/kernal", 3)]),
            ValueError,
            r"lora.attach\(rules=.*matches no",
        ),
        (lambda: attach([("role:query", 3)]), ValueError, "pass structure="),
        (lambda: attach([("**/kernel", 0)]), ValueError, "no weight has a rank"),
        (lambda: attach([("**/bias", 1)]), ValueError, "inner/bias: .* a matrix"),
        (lambda: attach("kernel"), TypeError, "a list of .pattern, rank."),
        (lambda: attach([("kernel", 4)], "pisa"), ValueError, "Did you mean 'pissa'"),
        (lambda: attach([("kernel", 4)], "lora_ga"), TypeError, "gradients belong"),
    ],
)
def test_wrong_arguments(wrong, error, said):
    with pytest.raises(error, match=said):
        wrong()


def attach(rules, method="pissa", tree=None, **options):
    tree = Model() if tree is None else tree
    return lora.attach(KEY, tree, rules, method, **options)


def test_weights_that_are_cut_over_devices():
    mesh = jax.make_mesh((2,), ("x",))
    cut = jax.NamedSharding(mesh, jax.P("x", None))
    params = {"w": jax.device_put(jnp.asarray(W, jnp.bfloat16), cut)}
    made = attach([("w", 2)], tree=params)
    assert made.params["w"].sharding == made.adapters["w"].w.sharding == cut
    whole = attach([("w", 2)], tree={"w": jnp.asarray(W, jnp.bfloat16)})
    np.testing.assert_allclose(made.adapters["w"].a, whole.adapters["w"].a, atol=1e-5)
    same = abs(made.params["w"] - whole.params["w"]).max() <= 0.02
    assert same and attach([("w", 2)], "lora", params).params["w"].sharding == cut
