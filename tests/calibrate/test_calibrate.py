"""`calibrate` by LSUV, and what all methods share: layers, forms, devices."""

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
from marks import slow_but

import jaxinit as ji

pytestmark = pytest.mark.usefixtures("quick_compiler")

KEY = jax.random.key(0)
X = 3 * jax.random.normal(jax.random.key(1), (64, 16)) + 1
TOKENS = jax.random.randint(jax.random.key(2), (4, 16), 0, 50)


def chain(activation, depth, width=32):
    layers = [f for _ in range(depth) for f in (nn.Dense(width), activation)]
    return nn.Sequential(layers)


def calibrate(model, x, **more):
    return ji.calibrate(model, x, key=KEY, **more)


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def stds(report):
    return np.concatenate([layer.after.ravel() for layer in report.layers])


ACTIVATIONS = ["tanh", "relu", "gelu", "silu", "sigmoid", "elu", "selu", "softplus"]


ROWS = [("relu", 3), *((name, 30) for name in ACTIVATIONS)]


@pytest.mark.parametrize(("name", "depth"), slow_but(ROWS[:1], ROWS, rows=True))
def test_thirty_layers(name, depth):
    """One round gives all of them 1; the next call changes nothing."""
    model = chain(getattr(nn, name), depth)
    params, report = calibrate(model, X)
    assert len(report.layers) == depth and report.rounds == 1 and not report.left
    np.testing.assert_allclose(stds(report), 1, atol=1e-3)
    again, second = calibrate(model, X, params=params)
    assert second.rounds == 0
    assert_equal(params, again)
    # What the report says is what the model does.
    _, kept = model.apply(params, X, capture_intermediates=True)
    outputs = [kept["intermediates"][f"layers_{2 * i}"] for i in range(depth)]
    made = [each["__call__"][0].std() for each in outputs]
    np.testing.assert_allclose(made, stds(report), rtol=1e-3)


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        y = nn.LayerNorm()(x)
        x = x + nn.MultiHeadDotProductAttention(4)(y, y)
        y = nn.gelu(nn.Dense(64)(nn.LayerNorm()(x)))
        return x + nn.Dense(32)(y)


class Transformer(nn.Module):
    """Tied or not; its blocks are rematerialized steps of a loop, or not."""

    tied: bool = False
    loop: bool = False

    @nn.compact
    def __call__(self, tokens):
        table = nn.Embed(50, 32)
        x = table(tokens)
        if self.loop:
            run = nn.scan(
                lambda block, x, _: (block(x), None),
                variable_axes={"params": 0},
                split_rngs={"params": True},
                length=3,
            )
            x, _ = run(nn.remat(Block)(name="block"), x, None)
        else:
            for _ in range(2):
                x = Block()(x)
        x = nn.LayerNorm()(x)
        return table.attend(x) if self.tied else nn.Dense(50)(x)


@pytest.mark.slow
def test_transformer():
    """Each branch gets what it should add; a query without a target stays."""
    _, report = calibrate(Transformer(), TOKENS)
    assert len(report.layers) == 13 and report.rounds == 1 and not report.left
    np.testing.assert_allclose(stds(report), 1, atol=1e-3)
    _, tied = calibrate(Transformer(tied=True), TOKENS)
    assert [layer.path for layer in tied.left] == ["Embed_0"]
    targets = [("role:residual", 0.5), ("role:query", None)]
    params, report = calibrate(Transformer(), TOKENS, targets=targets)
    by_role = {layer.role: layer for layer in report.layers}
    np.testing.assert_allclose(by_role["residual"].after, 0.5, atol=1e-3)
    assert by_role["query"].target is None and by_role["query"].scale == 1
    assert "params" in params and not report.left


@pytest.mark.slow
def test_a_stack_of_blocks():
    """Each step has a scale of its own, though a loop runs them."""
    params, report = calibrate(Transformer(loop=True), TOKENS)
    assert len(report.layers) == 19 and report.rounds == 1
    np.testing.assert_allclose(stds(report), 1, atol=1e-3)
    paths = [layer.path for layer in report.layers if "Dense_1" in layer.path]
    assert paths == [f"block/Dense_1[{i}]" for i in range(3)]
    again, _ = calibrate(Transformer(loop=True), TOKENS, params=params)
    assert_equal(params, again)


def test_ties():
    """A table of embeddings stays; a layer that is used twice counts once."""

    def init(key):
        return {
            "table": ji.normal(1.0)(key, (50, 16)),
            "w": ji.normal(0.5)(key, (16, 16)),
        }

    def apply(params, tokens):
        x = params["table"][tokens]
        x = jnp.tanh(jnp.tanh(x @ params["w"]) @ params["w"])
        return x @ params["table"].T

    _, report = calibrate((init, apply), TOKENS)
    first, second, last = report.layers
    np.testing.assert_allclose(first.after, 1, atol=1e-3)
    assert first.scale == second.scale and second.reason.startswith("has the weight")
    assert last.scale == 1 and last.reason.endswith("is an embedding table")
    assert report.rounds == 1


def test_loops():
    """A stack has a scale for each layer; a layer over time one for all its steps."""

    def init(key):
        one, two = jax.random.split(key)
        stack = {"kernel": ji.normal(0.5)(one, (4, 16, 16)), "bias": jnp.ones((4, 16))}
        return {
            "stack": stack,
            "in": ji.normal(0.5)(two, (16, 16)),
            "h": jnp.eye(16) / 2,
        }

    def apply(params, x):
        def layer(x, each):
            return jnp.tanh(x @ each["kernel"] + each["bias"]), None

        def step(h, x):
            return jnp.tanh(x @ params["in"] + h @ params["h"]), None

        x, _ = jax.lax.scan(layer, x, params["stack"])
        steps = x.reshape(8, 8, 16)
        return jax.lax.scan(step, jnp.zeros((8, 16)), steps)[0]

    params, report = calibrate((init, apply), X)
    assert [layer.path for layer in report.layers[:2]] == ["stack[0]", "stack[1]"]
    assert 1 < report.rounds <= 10 and not report.left
    np.testing.assert_allclose(stds(report)[:4], 1, atol=1e-3)
    np.testing.assert_allclose(stds(report), 1, atol=0.05)
    ratio = params["stack"]["kernel"] / init(KEY)["stack"]["kernel"]
    assert params["h"].std() > 0.125 and ratio.shape == (4, 16, 16)


def test_layers_within_time():
    """A stack that runs at each step of time, of as many layers as there are steps."""

    def apply(params, x):
        def layer(x, w):
            return jnp.tanh(x @ w), None

        def step(h, x):
            return jax.lax.scan(layer, h + x, params["stack"])

        return jax.lax.scan(step, jnp.zeros((64, 16)), jnp.stack([x] * 3))[0]

    def init(key):
        sizes = jnp.array([0.2, 1.0, 5.0])[:, None, None]
        return {"stack": sizes * ji.normal(0.25)(key, (3, 16, 16))}

    params, report = calibrate((init, apply), X, params=init(KEY))
    assert [layer.path for layer in report.layers] == [f"stack[{i}]" for i in range(3)]
    np.testing.assert_allclose(stds(report), 1, atol=0.05)
    ratio = params["stack"] / init(KEY)["stack"]
    np.testing.assert_allclose(ratio, ratio[:, :1, :1] * np.ones((3, 16, 16)), 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("cell", [nn.SimpleCell, nn.OptimizedLSTMCell])
def test_steps_of_time_share_a_weight(cell):
    """What all steps give together counts; a layer that acts on itself takes rounds."""

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(4)(nn.RNN(cell(16))(x)[:, -1])

    _, report = calibrate(Model(), X.reshape(8, 8, 16))
    assert 1 < report.rounds <= 10 and not report.left
    np.testing.assert_allclose(stds(report), 1, atol=0.05)


class Convolutions(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(8, (3, 3), use_bias=False)(x)
        y = nn.relu(nn.BatchNorm(use_running_average=True)(x))
        x = x + nn.Conv(8, (3, 3), feature_group_count=2)(y)
        x = x + nn.Conv(8, (1, 1), kernel_init=nn.initializers.zeros)(nn.relu(x))
        return nn.Dense(10)(x.mean((1, 2)))


@pytest.mark.slow
def test_convolutions_by_unit():
    """A branch that begins as zero stays so, and is named."""
    x = 2 * jax.random.normal(KEY, (8, 8, 8, 3))
    params, report = calibrate(Convolutions(), x, stat="unit")
    (zero,) = report.left
    assert zero.path == "Conv_2" and "constant" in zero.reason
    others = [layer for layer in report.layers if layer is not zero]
    for layer in others:
        np.testing.assert_allclose(layer.after, 1, atol=1e-3)
    assert others[1].after.shape == (8,) and np.ptp(others[1].scale) > 0
    assert set(params) == {"params", "batch_stats"}
    assert_equal(params["params"]["Conv_2"]["kernel"], np.zeros((1, 1, 8, 8)))


@pytest.mark.slow
def test_experts_by_unit():
    """An einsum with an axis of experts: each has units of its own."""

    def init(key):
        return {"w": ji.normal(2.0)(key, (4, 16, 8))}

    def apply(params, x):
        return jnp.einsum("bi,eio->beo", x, params["w"])

    params, report = calibrate((init, apply), X, stat="unit")
    assert report.layers[0].after.shape == (4, 8)
    np.testing.assert_allclose(apply(params, X).std(0), 1, rtol=1e-5)


@pytest.mark.slow
def test_the_bias_counts():
    """The factor is the root of a quadratic equation; a bias alone may be too large."""
    model = chain(nn.relu, 3)
    drawn = model.init(KEY, X)
    bias = jax.random.normal(KEY, (32,))
    for size, reached in ((0.7, True), (5.0, False)):
        given = jax.tree.map(lambda leaf: leaf, drawn)
        given["params"]["layers_0"]["bias"] = size * bias
        params, report = calibrate(model, X, params=given)
        assert_equal(params["params"]["layers_0"]["bias"], size * bias)
        assert report.rounds == 1
        assert [layer.path for layer in report.left] == ["layers_0"] * (not reached)
    assert report.left[0].reason == f"its bias alone has a std of {5 * bias.std():.3g}"


class Net(nnx.Module):
    def __init__(self, rngs):
        self.a = nnx.Linear(16, 32, rngs=rngs)
        self.b = nnx.Linear(32, 4, rngs=rngs)

    def __call__(self, x):
        return self.b(nnx.relu(self.a(x)))


class Module(eqx.Module):
    a: eqx.nn.Linear
    b: eqx.nn.Linear

    def __init__(self, key):
        first, second = jax.random.split(key)
        self.a, self.b = (
            eqx.nn.Linear(16, 32, key=first),
            eqx.nn.Linear(32, 4, key=second),
        )

    def __call__(self, x):
        return self.b(jax.nn.relu(self.a(x)))


@pytest.mark.slow
def test_frameworks_agree():
    """From the same weights, each gives the same ones in its own form."""
    linen = nn.Sequential([nn.Dense(32), nn.relu, nn.Dense(4)])
    drawn = linen.init(KEY, X)["params"]
    layers = [drawn["layers_0"], drawn["layers_2"]]
    net, module = Net(nnx.Rngs(0)), Module(KEY)
    for name, layer in zip("ab", layers, strict=True):
        getattr(net, name).kernel[...] = layer["kernel"]
        getattr(net, name).bias[...] = layer["bias"]
        where = lambda m, name=name: (getattr(m, name).weight, getattr(m, name).bias)  # noqa: E731
        module = eqx.tree_at(where, module, (layer["kernel"].T, layer["bias"]))
    expected, _ = calibrate(linen, X, params=drawn)
    assert set(expected) == set(drawn)
    of_net, _ = calibrate(net, X)
    of_state, _ = calibrate(net, X, params=nnx.state(net))
    of_module, _ = calibrate(module, X)
    assert isinstance(of_net, Net) and isinstance(of_module, Module)
    assert isinstance(of_state, nnx.State)
    for name, path in zip("ab", ("layers_0", "layers_2"), strict=True):
        kernel = expected[path]["kernel"]
        for other in (of_net, of_state):
            node = other[name] if other is of_state else getattr(other, name)
            found = node["kernel"] if other is of_state else node.kernel
            np.testing.assert_allclose(found[...], kernel, rtol=1e-6)
        np.testing.assert_allclose(getattr(of_module, name).weight.T, kernel, rtol=1e-6)
    np.testing.assert_allclose(of_net(X).std(), 1, rtol=1e-5)


@pytest.mark.slow
def test_other_forms():
    """Classes, factories, pairs of functions, and boxes that tell of partitions."""
    made, _ = calibrate(Net, X)
    assert isinstance(made, Net) and abs(made(X).std() - 1) < 1e-4
    made, _ = calibrate(lambda key: eqx.nn.MLP(16, 4, 8, 1, key=key), X)
    assert abs(jax.vmap(made)(X).std() - 1) < 1e-4
    transformed = hk.transform(lambda x: hk.nets.MLP([16, 4])(x))
    made, _ = calibrate(transformed, X)
    assert abs(transformed.apply(made, None, X).std() - 1) < 1e-4
    init = nn.with_partitioning(nn.initializers.lecun_normal(), ("in", "out"))
    made, _ = calibrate(nn.Dense(8, kernel_init=init), X)
    box = made["params"]["kernel"]
    assert isinstance(box, nn.Partitioned) and box.names == ("in", "out")


@pytest.mark.slow
def test_low_precision():
    """A weight is rounded once, and the error of its type is good enough."""
    kind = {"dtype": jnp.bfloat16, "param_dtype": jnp.bfloat16}
    model = nn.Sequential([nn.Dense(64, **kind), nn.tanh, nn.Dense(8, **kind)])
    params, report = calibrate(model, X.astype(jnp.bfloat16))
    assert report.rounds == 1 and not report.left
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("bfloat16")}


@pytest.mark.slow
def test_any_devices():
    """Weights and data laid out over eight devices give the bits of one."""
    model = chain(nn.relu, 3)
    drawn = model.init(KEY, X)
    expected, report = calibrate(model, X, params=drawn)
    mesh = jax.make_mesh((8,), ("data",), (jax.sharding.AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    laid = jax.device_put(drawn, rows)
    params, other = calibrate(model, jax.device_put(X, rows), params=laid)
    assert_equal(params, expected)
    assert all(leaf.sharding == rows for leaf in jax.tree.leaves(params))
    assert other.to_dict() == report.to_dict()


@pytest.mark.slow
def test_rules_begin():
    """The paper's start: orthonormal weights, which are scaled by one number each."""
    rules = [("role:kernel", ji.orthogonal()), ("role:bias", 0.0)]
    params, _ = calibrate(chain(nn.tanh, 3), X, rules=rules)
    kernel = params["params"]["layers_2"]["kernel"]
    product = kernel.T @ kernel
    np.testing.assert_allclose(product, product[0, 0] * np.eye(32), atol=1e-5)


def test_it_compiles_once():
    """Other weights and targets of the same model need no compiler."""
    model = chain(nn.relu, 3)
    calibrate(model, X)
    compiled = []

    def note(event, *_, **__):
        if "backend_compile" in event:
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        ji.calibrate(model, X, key=jax.random.key(5), targets=[("kernel", 0.5)])
    finally:
        jax.monitoring.unregister_event_duration_listener(note)
    assert not compiled


def test_the_report():
    """A row for each layer, a line for the whole, and a plot."""
    _, report = calibrate(chain(nn.relu, 3), X)
    assert repr(report) == "CalibrationReport(lsuv: 3 layers, std 1, 1 round)"
    assert str(report).startswith("lsuv: 3 layers, std 1, 1 round\n\nlayer ")
    row = report.to_dict()["layers"][0]
    assert row["path"] == "layers_0" and abs(row["after"] - 1) < 1e-4
    assert row["scale"] == pytest.approx(1 / row["before"], rel=1e-4)
    (axis,) = report.plot().axes
    assert [line.get_label() for line in axis.lines] == ["before", "after"]


WRONG = [
    ({"method": "lsvu"}, ValueError, r"method must be one of 'lsuv'.* Did you mean"),
    ({"stat": "mean"}, ValueError, r"calibrate\(stat='mean'\): stat must be one of"),
    (
        {"stat": "std", "method": "within"},
        ValueError,
        "stat is no choice of 'within'. L",
    ),
    ({"rounds": 0}, ValueError, r"calibrate\(rounds=0\): rounds must be 1 or above"),
    ({"rounds": 3, "method": "admin"}, ValueError, "rounds is no choice of 'admin'"),
    ({"tol": -1.0}, ValueError, "tol must be 0 or above"),
    ({"targets": 0.5}, TypeError, "targets must be a list of pairs"),
    ({"targets": [("kernel", 0.0)]}, ValueError, "must be above 0, or None"),
    (
        {"targets": [("kernel", 2.0)], "method": "between"},
        ValueError,
        "this method takes None alone",
    ),
    ({"targets": [("kernle", 2.0)]}, ValueError, r"\(targets=...\): kernle matches no"),
    ({"targets": ["kernel"]}, TypeError, "targets must be a real number"),
    ({"method": "admin"}, ValueError, r'norms stand behind.* Use method="lsuv"'),
    ({"params": {}}, ValueError, r"calibrate\(params=\{\}\): has no array"),
    ({"key": 0}, TypeError, r"calibrate\(key=0\): key must be a PRNG key"),
]


def test_a_program_that_cannot_be_read(monkeypatch):
    def fail(*_):
        raise NotImplementedError

    monkeypatch.setattr("jaxinit.signal._measure.program.read_structure", fail)
    model = (lambda key: jnp.ones((16, 3))), lambda w, x: x @ w
    with pytest.raises(ValueError, match=r"that jaxinit\.structure cannot read"):
        calibrate(model, X)


@pytest.mark.parametrize(("given", "kind", "message"), WRONG)
def test_messages(given, kind, message):
    with pytest.raises(kind, match=message):
        ji.calibrate(chain(nn.relu, 3), X, **{"key": KEY, **given})
