"""Steps of an optimizer in `check`: losses, updates over weights, and their faces."""

import math
import types

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jaxinit as ji
from jaxinit.signal._measure import _kept

pytestmark = pytest.mark.usefixtures("quick_compiler")

KEY, DATA = jax.random.key(0), np.random.default_rng(0)
X = DATA.normal(size=(16, 8)).astype(np.float32)
LABELS, STEPS = DATA.integers(0, 4, 16), 3


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(16, kernel_init=ji.he_normal())(x))
        return nn.Dense(4)(nn.BatchNorm(use_running_average=False)(x))


def loss(logits):
    each = optax.softmax_cross_entropy_with_integer_labels(logits, LABELS)
    return each.mean()


def check(model, *, optimizer=None, x=X, seeds=2, **more):
    settings = {"loss": loss, "steps": STEPS, "jacobian": 0} | more
    optimizer = optimizer or optax.adam(1e-2)
    return ji.check(model, x, key=KEY, seeds=seeds, optimizer=optimizer, **settings)


def walk(apply, params, optimizer, of_output=loss):
    """Takes the steps by hand; returns losses, and the parameters at each."""
    state, losses, ways = optimizer.init(params), [], [params]

    @jax.jit
    def step(params, state):
        number, slopes = jax.value_and_grad(lambda p: of_output(apply(p)))(params)
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimizer.update(slopes, state, params, value=number)
        return number, optax.apply_updates(params, updates), state

    for _ in range(STEPS + 1):
        number, params, state = step(params, state)
        losses.append(float(number))
        ways.append(params)
    return np.array(losses), ways[:-1]


def ratios(weights):
    """Computes the root mean square of each change over that of the weight before."""
    weights = [np.asarray(w, np.float64) for w in weights]
    pairs = zip(weights, weights[1:], strict=False)
    return [np.sqrt(((b - a) ** 2).mean() / (a**2).mean()) for a, b in pairs]


def updates(report):
    return {x.path: x.updates for x in report.layers if x.updates is not None}


@pytest.fixture(scope="module")
def trained():
    """The report of weights that are given, those, and the optimizer."""
    optimizer = optax.with_extra_args_support(optax.adamw(1e-2))
    variables = Net().init(jax.random.key(3), X)
    return check(Net(), optimizer=optimizer, params=variables), variables, optimizer


def test_steps_are_those_of_a_loop_by_hand(trained):
    report, variables, optimizer = trained

    def apply(params):
        whole = {**variables, "params": params}
        return Net().apply(whole, X, mutable=["batch_stats"])[0]

    losses, ways = walk(apply, variables["params"], optimizer)
    np.testing.assert_allclose(report.training["loss"][1], losses, rtol=1e-4)
    np.testing.assert_allclose(report.training["loss"][0, 0], report.loss[0], rtol=1e-5)
    np.testing.assert_allclose(report.training["chance"], math.log(4), rtol=1e-6)
    assert list(updates(report)) == ["Dense_0", "Dense_1"]
    for path, found in updates(report).items():
        expected = ratios([way[path]["kernel"] for way in ways])
        np.testing.assert_allclose(found, [expected] * 2, rtol=1e-3)


def test_faces(trained):
    report, *_ = trained
    first, last = (updates(report)["Dense_0"][:, i].mean() for i in (0, -1))
    for text in (report.table(), report._repr_html_()):
        assert f"{first:.3g}" in text and f"{last:.3g}" in text
        assert "first update" in text and "last update" in text
        assert "in 3 steps, guessing has 1.39; it fell for 2 of 2 seeds" in text
    record = report.to_dict(seeds=True)
    assert [len(step["values"]) for step in record["training"]["loss"]] == [2] * 4
    assert record["training"]["chance"]["mean"] == pytest.approx(math.log(4))
    layers = {layer["path"]: layer for layer in record["layers"]}
    means = [step["mean"] for step in layers["Dense_1"]["updates"]]
    assert means == pytest.approx(list(updates(report)["Dense_1"].mean(0)))
    assert "updates" not in layers["BatchNorm_0"]
    titles = [axis.get_title() for axis in report.plot().subfigs[0].axes]
    assert titles[2:] == ["update over weight"]


@pytest.mark.slow
def test_drawn_weights_of_few_seeds_and_chance_of_any_cross_entropy():
    """A sum over examples has a chance of its own; a squared error has none."""
    report = check(Net(), seeds=6, loss=lambda logits: 16 * loss(logits))
    assert report.training["loss"].shape == (4, STEPS + 1)
    np.testing.assert_allclose(report.training["loss"][:, 0], report.loss[:4], 1e-5)
    np.testing.assert_allclose(report.training["chance"], 16 * math.log(4), rtol=1e-6)
    kept = set(_kept._kept)
    again = check(Net(), seeds=5, steps=1, loss=lambda logits: 16 * loss(logits))
    assert set(_kept._kept) == kept  # nothing was compiled
    assert again.training["loss"].shape == (4, 2)
    squared = check(Net(), seeds=1, loss=lambda y: (y**2).mean())
    assert list(squared.training) == ["loss"] and "guessing" not in str(squared)


def test_steps_that_are_too_large():
    report = check(Net(), seeds=1, optimizer=optax.sgd(1e30))
    text = str(report)
    assert "a number that is not finite in 3 steps" in text
    assert "it fell for 0 of 1 seed" in text
    assert "the first update is larger than the weights of Dense_0, Dense_1" in text


@pytest.mark.slow
def test_weights_in_loops_and_of_several_parameters():
    """Each repetition has its own; a low-rank update counts as the layer sees it."""

    def draw(key):
        keys = jax.random.split(key, 5)
        normal = ji.lecun_normal()
        return {
            "stack": normal(keys[0], (3, 8, 8)),
            "shared": normal(keys[1], (8, 8)),
            "base": normal(keys[2], (8, 4)),
            "down": normal(keys[3], (8, 2)),
            "up": jnp.zeros((2, 4)),
            "count": 7,
        }

    def apply(params, x):
        x, _ = jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, params["stack"])
        shared = lambda x, _: (jnp.tanh(x @ params["shared"]), None)  # noqa: E731
        x, _ = jax.lax.scan(shared, x, length=2)
        frozen = jax.lax.stop_gradient(params["base"])
        return x @ (frozen + params["down"] @ params["up"])

    params = draw(jax.random.key(5))
    optimizer = optax.sgd(0.5)
    report = check((draw, apply), optimizer=optimizer, params=params, seeds=1)
    arrays = {name: x for name, x in params.items() if name != "count"}
    losses, ways = walk(lambda p: apply(p, X), arrays, optimizer)
    np.testing.assert_allclose(report.training["loss"][0], losses, rtol=1e-4)
    expected = {f"stack[{i}]": [w["stack"][i] for w in ways] for i in range(3)}
    expected |= {f"shared[{i}]": [w["shared"] for w in ways] for i in range(2)}
    expected["base"] = [w["base"] + w["down"] @ w["up"] for w in ways]
    found = updates(report)
    assert list(found) == list(expected)
    for path, weights in expected.items():
        np.testing.assert_allclose(found[path][0], ratios(weights), rtol=1e-3)


class Live(nnx.Module):
    def __init__(self, rngs):
        self.dense = nnx.Linear(8, 4, rngs=rngs)
        self.drop = nnx.Dropout(0.1, rngs=rngs)

    def __call__(self, x):
        return self.drop(self.dense(x))


@pytest.mark.slow
def test_other_frameworks_and_optimizers():
    """NNX and Equinox; functions that are not of optax; one that reads the loss."""
    plain = types.SimpleNamespace(
        init=lambda params: (),
        update=lambda slopes, state, params: (
            jax.tree.map(lambda g: -0.1 * g, slopes),
            state,
        ),
    )
    live = check(Live, optimizer=plain, seeds=1)
    mlp = eqx.nn.MLP(8, 4, 16, 1, key=KEY)
    rate = optax.contrib.reduce_on_plateau()  # its update asks for the loss
    plateau = optax.chain(optax.sgd(0.1), rate)
    built = check(mlp, params=mlp, optimizer=plateau, seeds=1)
    for report in (live, built):
        losses = report.training["loss"][0]
        assert losses[-1] < losses[0]
        found = np.concatenate([each[0] for each in updates(report).values()])
        assert ((found > 0) & (found < 1)).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lbfgs", "lion", "schedule_free_sgd", "muon"])
def test_more_optimizers(name):
    """A line search calls the loss; averages of weights are not what moves."""
    make = getattr(optax, name, None) or getattr(optax.contrib, name)
    report = check(Net(), optimizer=make(1e-2), seeds=1)
    assert report.training["loss"][0, -1] < report.training["loss"][0, 0]


def test_complex_parameters_go_down():
    def draw(key):
        return ji.lecun_normal()(key, (8, 4), jnp.complex64)

    def real(output):
        return (jnp.abs(output - 1j) ** 2).mean()

    model = draw, lambda w, x: x.astype(w.dtype) @ w
    report = check(model, optimizer=optax.sgd(0.05), loss=real, seeds=1)
    assert (np.diff(report.training["loss"][0]) < 0).all()


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        ({"steps": -1}, ValueError, "steps must be 0 or above"),
        ({"steps": "3"}, TypeError, "steps must be an integer"),
        ({"steps": 0}, ValueError, "steps must be 1 or above for an optimizer to take"),
        ({"optimizer": 0.1}, TypeError, r"such as optax.adam\(1e-3\)"),
        ({"optimizer": optax.adam}, TypeError, "optimizer must be one of optax"),
        ({"loss": None}, TypeError, "loss must be a function of the output for steps"),
    ],
)
def test_misuse(given, kind, message):
    with pytest.raises(kind, match=rf"^check\(.*{message}"):
        check(Net(), **given)
