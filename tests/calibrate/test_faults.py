"""`calibrate` where data, weights or programs are out of the ordinary."""

import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxinit as ji

pytestmark = pytest.mark.usefixtures("quick_compiler")

KEY = jax.random.key(0)
X = 3 * jax.random.normal(jax.random.key(1), (64, 16)) + 1


def calibrate(model, x, **more):
    return ji.calibrate(model, x, key=KEY, **more)


def of(apply, **shapes):
    """A pair of functions, whose weights are normal."""

    def init(key):
        keys = jax.random.split(key, len(shapes))
        each = zip(shapes.items(), keys, strict=True)
        return {name: ji.normal(1.0)(key, shape) for (name, shape), key in each}

    return init, apply


def run_two(p, x):
    return jnp.tanh(x @ p["a"] + p["c"]) @ p["b"]


TWO = of(run_two, a=(16, 8), b=(8, 4), c=(8,))


def test_a_tree_of_ones_own_named_params():
    def apply(p, x):
        return x @ p["params"]["w"]

    model = (lambda key: {"params": {"w": ji.normal(1.0)(key, (16, 8))}}), apply
    params, report = calibrate(model, X, params=model[0](KEY))
    assert not report.left
    assert apply(params, X).std() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("method", ["lsuv", "weight_norm"])
def test_data_that_are_not_finite(method):
    """Weights stay finite, and the reason is named."""
    wrong = {
        "its output is not finite": X.at[0, 0].set(jnp.nan),
        "the square of its output is not finite": 1e20 * X,
    }
    for reason, x in wrong.items():
        params, report = calibrate(TWO, x, method=method)
        assert report.layers[0].reason == reason
        np.testing.assert_array_equal(report.layers[0].scale, 1)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
        assert reason in str(report)


def test_rounding_is_no_variance():
    """Equal examples make units constant, whatever the mean of a sum rounds to."""
    given, x = TWO[0](KEY), jnp.tile(X[:1], (100, 1))
    params, report = calibrate(TWO, x, method="weight_norm", params=given)
    jax.tree.map(np.testing.assert_array_equal, params, given)
    for layer in report.layers:
        assert layer.reason.endswith("its product with the data is constant")


def test_weights_are_let_go():
    """What is kept of a model's program does not hold the weights that were given."""
    model = of(lambda p, x: jnp.sin(x @ p["w"]), w=(16, 8))
    given = model[0](KEY)
    alive = weakref.ref(given["w"])
    calibrate(model, X, params=given)
    del given
    gc.collect()
    assert alive() is None


def test_a_stack_of_complex_layers():
    """Each step has a row that names its type."""

    def apply(p, x):
        return jax.lax.scan(lambda x, w: (x @ w, None), x.astype("complex64"), p["w"])[
            0
        ]

    model = (lambda _: {"w": jnp.ones((3, 16, 16), "complex64")}), apply
    _, report = calibrate(model, X)
    assert [layer.reason for layer in report.layers] == [
        "stays as it is: its output is complex64"
    ] * 3


@pytest.mark.slow
def test_a_bias_is_the_parameter_that_is_added():
    """Not another one of the same kernel, nor one that is scaled on its way."""

    def tied(p, x):
        return jnp.tanh(jnp.tanh(x @ p["w"] + p["z"]) @ p["w"] + p["a"]) @ p["v"]

    model = of(tied, w=(16, 16), z=(16,), a=(16,), v=(16, 4))
    given = model[0](KEY)
    params, report = calibrate(model, X, method="weight_norm", params=given)
    np.testing.assert_array_equal(params["a"], given["a"])
    output = X @ params["w"] + params["z"]
    np.testing.assert_allclose(output.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(output.std(0), 1, atol=1e-5)
    assert report.layers[1].reason.startswith("has the weight of an earlier layer")
    hidden = jnp.tanh(output) @ params["w"] + params["a"]
    np.testing.assert_allclose(report.layers[1].mean_after, hidden.mean(0), atol=1e-5)

    model = of(lambda p, x: x @ p["w"] + 0.1 * p["b"], w=(16, 8), b=(8,))
    given = model[0](KEY)
    params, report = calibrate(model, X, method="weight_norm", params=given)
    np.testing.assert_array_equal(params["b"], given["b"])
    assert report.left[0].reason == "keeps its mean: it has no bias of its own"
