"""`calibrate` where data, weights or programs are out of the ordinary."""

import gc
import weakref

import flax.linen as nn
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


def test_params_beside_a_branch_named_params():
    """Weights that are given are those of the whole path."""

    def apply(p, x):
        return jnp.tanh(x @ p["w"]) @ p["params"]["w"]

    def init(key):
        first, second = jax.random.split(key)
        outer, inner = ji.normal(1.0)(first, (16, 8)), ji.normal(1.0)(second, (8, 8))
        return {"w": outer, "params": {"w": inner}}

    params, report = calibrate((init, apply), X, params=init(KEY))
    assert not report.left and params["w"].shape == (16, 8)
    ratios = jax.tree.map(lambda new, old: (new / old).ravel(), params, init(KEY))
    for ratio in jax.tree.leaves(ratios):
        np.testing.assert_allclose(ratio, ratio[0], rtol=1e-5)


def test_rules_that_do_not_fit_are_those_of_calibrate():
    for rules, kind, message in (
        ([("role:kernal", 1.0)], ValueError, r"^calibrate\(rules.*'kernel'\?$"),
        ([("role:kernel", "he")], (TypeError, ValueError), r"^calibrate\(rules"),
        ("role:kernel", TypeError, r"^calibrate\(rules"),
        ([], ValueError, r"^calibrate\(rules"),
    ):
        with pytest.raises(kind, match=message):
            calibrate(of(run_two, a=(16, 8), b=(8, 4), c=(8,)), X, rules=rules)


def test_notes_are_told_once():
    layers = [nn.Dense(16, use_bias=False) for _ in range(5)]
    _, report = calibrate(nn.Sequential(layers), X, method="weight_norm")
    assert len(report.left) == 5
    first = "layers_0, layers_1, layers_2 and 2 more: keeps its mean"
    assert str(report).count("keeps its mean") == 1 and first in str(report)


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


def center(x):
    return x - x.mean(-1, keepdims=True)


KINDS = {
    "mean": (lambda x: center(x) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-6), 1),
    "std": (lambda x: center(x) / x.std(-1, keepdims=True), 1),
    "sum": (lambda x: x / jnp.sqrt((x**2).sum(-1, keepdims=True)), None),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_theory_knows_means_from_sums(kind):
    """What divides by the root of a mean is a norm; by that of a sum, it is not."""
    norm, expected = KINDS[kind]
    model = of(lambda p, x: norm(x @ p["a"]) @ p["b"], a=(16, 64), b=(64, 64))
    _, report = calibrate(model, X, method="autoinit")
    if expected is None:
        assert report.left[0].reason.endswith("no theory tells the size of its inputs")
    else:
        assert not report.left
        assert report.layers[1].after == pytest.approx(expected, abs=0.15)


@pytest.mark.slow
def test_theory_takes_layers_as_they_are():
    """Those without a target keep their size, which counts with that of their bias."""
    model = of(
        lambda p, x: jax.nn.relu(x @ p["a"] + p["c"]) @ p["b"],
        **{"a": (16, 64), "b": (64, 64), "c": (64,)},
    )
    for target in (None, 1.0):
        _, report = calibrate(model, X, method="autoinit", targets=[("a", target)])
        assert report.layers[1].after == pytest.approx(1, abs=0.15)
    model = of(lambda p, x: (x @ p["a"]) @ p["b"], a=(16, 64), b=(64, 64))
    given = {"a": jnp.ones((16, 64)), "b": jnp.ones((64, 64))}
    _, report = calibrate(model, X, method="autoinit", params=given)
    assert report.left[-1].reason.endswith("unlike in theory")


EXPERTS = [
    ("ebi,ioe->ebo", (16, 8, 4), (4, 1, 8)),
    ("ebi,oei->boe", (8, 4, 16), (8, 4)),
    ("ebi,eio->ebo", (4, 16, 8), (4, 1, 8)),
]


@pytest.mark.slow
@pytest.mark.parametrize(("spec", "sizes", "bias"), EXPERTS)
def test_units_of_experts(spec, sizes, bias):
    """Whatever the order of axes in the weight, the output and the bias."""
    x = jax.random.normal(KEY, (4, 64, 16)) + 1
    model = of(lambda p, x: jnp.einsum(spec, x, p["w"]) + p["b"], w=sizes, b=bias)
    for method, more in (("lsuv", {"stat": "unit"}), ("weight_norm", {})):
        params, report = calibrate(model, x, method=method, **more)
        output = model[1](params, x)
        axis = spec.index("b", spec.index(">")) - spec.index(">") - 1
        np.testing.assert_allclose(output.std(axis), 1, atol=1e-5)
        if method == "weight_norm" and not report.left:
            np.testing.assert_allclose(output.mean(axis), 0, atol=1e-5)
        assert report.rounds == 1


def test_targets_that_match_no_layer():
    """A bias is no layer, and a rule behind one that takes all is left with none."""
    for targets in ([("c", 0.5)], [("a", 0.5), ("a", 2.0)]):
        with pytest.raises(ValueError, match=r"matches no layer .* such as a, b\."):
            calibrate(TWO, X, targets=targets)


@pytest.mark.slow
def test_a_layer_without_a_target_passes_on():
    """Biases behind it go with the factors before it: the function stays."""

    def apply(p, x):
        x = jax.nn.relu(jax.nn.relu(x @ p["a"]) @ p["m"])
        return jax.nn.relu(x @ p["b"] + p["c"]) @ p["d"]

    sizes = {name: (16, 16) for name in "ambd"}
    model = of(apply, **sizes, c=(16,))
    given = model[0](KEY)
    given["a"] *= 7.0
    params, report = calibrate(
        model, X, method="between", params=given, targets=[("m", None)]
    )
    np.testing.assert_array_equal(params["m"], given["m"])
    np.testing.assert_allclose(apply(params, X), apply(given, X), rtol=1e-3, atol=1e-2)
    assert {layer.target for layer in report.layers} == {None}


@pytest.mark.slow
def test_a_branch_without_a_target_adds():
    """It stays as it is; what it adds counts for the branches behind it."""

    def norm(x):
        return (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True))

    def apply(p, x):
        x = x @ p["in"]
        for name in "abc":
            x = norm(x + jnp.tanh(x @ p[name + "1"]) @ p[name + "2"])
        return x @ p["out"]

    sizes = {name + step: (16, 16) for name in "abc" for step in "12"}
    model = of(apply, **sizes, **{"in": (16, 16), "out": (16, 4)})
    _, report = calibrate(model, X, method="admin", targets=[("b2", None)])
    rows = {layer.path: layer for layer in report.layers}
    total = 1 + sum(float(rows[name].before) ** 2 for name in ("a2", "b2"))
    assert rows["b2"].scale == 1
    assert rows["c2"].scale == pytest.approx(total**-0.5, rel=1e-4)


@pytest.mark.slow
def test_the_best_round_is_kept():
    """A layer out of reach does not undo what the others gained."""

    def apply(p, x):
        def step(h, x):
            return jnp.tanh(x @ p["in"] + h @ p["h"]), None

        steps = (x @ p["a"] + 100 * p["c"]).reshape(8, 8, 16)
        return jax.lax.scan(step, jnp.zeros((8, 16)), jnp.tanh(steps))[0]

    sizes = {name: (16, 16) for name in ("a", "in", "h")}
    model = of(apply, **sizes, c=(16,))
    given = model[0](KEY)
    params, report = calibrate(model, X, params=given, rounds=3, tol=1e-6)
    assert report.layers[0].reason.startswith("its bias alone")
    for layer in report.layers[1:]:
        assert layer.after == pytest.approx(1, abs=0.2)
        assert abs(layer.after - 1) < abs(layer.before - 1)
