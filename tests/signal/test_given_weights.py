"""`check` of given weights, loaded or trained, in place of those that are drawn."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from marks import slow_but

import jaxinit as ji

pytestmark = pytest.mark.usefixtures("quick_compiler")

KEY, X = jax.random.key(0), np.random.default_rng(0).normal(size=(16, 8))
X = X.astype(np.float32)
LAYERS = [
    f for _ in range(6) for f in (nn.Dense(8, kernel_init=ji.he_normal()), nn.relu)
]
MODEL = nn.Sequential(LAYERS)


def of_weights(report):
    """Returns the standard deviation of each layer's weight."""
    return [
        layer.forward["weight_std"].mean() for layer in report.layers if layer.fan_in
    ]


def check(model, x, params, **more):
    return ji.check(model, x, key=KEY, seeds=2, jacobian=0, params=params, **more)


@pytest.mark.parametrize("whole", [True, False])
def test_linen(whole):
    """Variables, or parameters alone; the same at every seed."""
    variables = MODEL.init(jax.random.key(3), X)
    report = check(MODEL, X, variables if whole else variables["params"])
    kernels = [variables["params"][f"layers_{i}"]["kernel"] for i in range(0, 12, 2)]
    expected = [float(np.std(kernel)) for kernel in kernels]
    np.testing.assert_allclose(of_weights(report), expected, rtol=1e-5)
    assert report.healthy


def test_sick_weights():
    """Weights that grew, or are zero, are found where drawn ones would be healthy."""
    variables = MODEL.init(KEY, X)
    grown = jax.tree.map(lambda leaf: 20 * leaf, variables)
    assert check(MODEL, X, grown).condition == "exploding"
    first = variables["params"]["layers_0"]
    dead = {"kernel": first["kernel"], "bias": first["bias"] - 100}
    params = variables["params"] | {"layers_0": dead}
    report = check(MODEL, X, params)
    assert report.condition == "dead" and "layers_0" in str(report)


def test_what_else_a_model_stores():
    """Averages of a BatchNorm are taken where they are given, and drawn elsewhere."""

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(4)(nn.BatchNorm(use_running_average=True)(nn.Dense(8)(x)))

    variables = Model().init(KEY, X)
    stats = jax.tree.map(lambda leaf: 100 * leaf, variables["batch_stats"])

    def last(params):
        layers = check(Model(), X, params).layers
        return next(x.forward["std"].mean() for x in layers if x.path == "Dense_0")

    plain, again = last(variables), last(variables["params"])
    assert plain == again
    assert last({**variables, "batch_stats": stats}) == pytest.approx(
        plain / 10, rel=0.01
    )


@pytest.mark.parametrize("part", slow_but(["state"], ["built", "itself", "state"]))
def test_nnx(part):
    """Models that are built, and parts of them."""

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.a = nnx.Linear(8, 16, rngs=rngs)
            self.b = nnx.Linear(16, 3, rngs=rngs)
            self.drop = nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, x):
            return self.b(self.drop(nnx.relu(self.a(x))))

    model = Net(nnx.Rngs(5))
    model.a.kernel[...] = 3 * model.a.kernel[...]
    expected = [float(jnp.std(layer.kernel[...])) for layer in (model.a, model.b)]
    made = model if part == "itself" else Net
    params = nnx.state(model) if part == "state" else model
    found = of_weights(check(made, X, params))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.slow
def test_equinox():
    import equinox as eqx

    mlp = eqx.nn.MLP(8, 3, 16, 1, key=KEY)
    expected = [float(jnp.std(layer.weight)) for layer in mlp.layers]
    np.testing.assert_allclose(of_weights(check(mlp, X, mlp)), expected, rtol=1e-5)


def test_functions():
    pair = (lambda key: {"w": jax.random.normal(key, (8, 3))}, lambda p, x: x @ p["w"])
    assert of_weights(check(pair, X, {"w": jnp.ones((8, 3))})) == [0.0]


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({}, "has no array layers_0/bias. Its paths are such as none"),
        ({"w": np.ones(3)}, "Its paths are such as w"),
        ({"layers_0": {"bias": np.ones(9)}}, r"has layers_0/bias of sizes \(9,\)"),
        ({"layers_0": {"bias": 3.0}}, "has no array layers_0/bias"),
        (3, r"params=3\): has no array layers_0/bias"),
        (
            {"layers_0": {"bias": np.ones(8, int)}},
            r"of int\d+, and the model's are float",
        ),
    ],
)
def test_misuse(params, said):
    with pytest.raises(ValueError, match=said):
        check(MODEL, X, params)


def test_a_built_model_is_told_how():
    model = nnx.Linear(8, 3, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="pass it as params= too"):
        ji.check(model, X, key=KEY)
    assert ji.structure(model, X)["kernel"].role == "readout"
    assert ji.structure(model, X) == ji.structure(
        lambda rngs: nnx.Linear(8, 3, rngs=rngs), X
    )
