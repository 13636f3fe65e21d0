"""`tune`: GradInit and MetaInit, against their formulas and on nets that need them."""

import io
import itertools
import re

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from marks import slow_but

import jaxinit as ji
from jaxinit._calibrate._tensors import take_apart

pytestmark = pytest.mark.usefixtures("quick_compiler")
KEY = jax.random.key(0)
DATA = np.random.default_rng(0)
BATCHES = [
    (DATA.normal(size=(8, 6)).astype(np.float32), DATA.integers(0, 4, 8))
    for _ in range(3)
]
QUOTIENT = "gradient quotient"
AHEAD, NORM, LOSS = "loss after a step", "gradient norm", "loss"


def draw(dtype=jnp.float32, blocks=1):
    """Draws residual blocks and a readout, all with biases."""
    numbers, params = np.random.default_rng(1), {}
    for i, size in enumerate([6] * blocks + [4]):
        arrays = numbers.normal(size=(6, size)) / 2, numbers.normal(size=size) / 9
        layer = zip(("kernel", "bias"), arrays, strict=True)
        params[f"layer_{i}"] = {name: jnp.asarray(x, dtype) for name, x in layer}
    return params


def compare(logits, y):
    logits = logits.astype(jnp.float32)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def loss(params, batch):
    x, y = batch
    *blocks, last = params.values()
    x = x.astype(last["bias"].dtype)
    for layer in blocks:
        x = x + jnp.tanh(x @ layer["kernel"] + layer["bias"])
    return compare(x @ last["kernel"] + last["bias"], y)


def scales_of(report):
    return {row.path: row.scales[0] for row in report.tensors}


def multiply(params, scales, paths):
    """Multiplies leaves in the order of the tree, as the definition has it."""
    leaves, tree = jax.tree.flatten(params)
    factors = dict(zip(paths, scales, strict=True))
    names = [p for p, _ in ji._paths.named(params)]
    leaves = [w * factors.get(p, 1.0) for w, p in zip(leaves, names, strict=True)]
    return jax.tree.unflatten(tree, leaves)


def euclidean(g):
    return jnp.sqrt(sum(jnp.sum(x**2) for x in jax.tree.leaves(g)))


def modulus(g):
    return sum(jnp.sum(abs(x)) for x in jax.tree.leaves(g))


ROWS = [("sgd", euclidean, lambda g: g), ("adam", modulus, jnp.sign)]


@pytest.mark.parametrize(
    ("optimizer", "norm", "move"),
    slow_but(
        [ROWS[0]],
        ROWS,
        rows=True,
    ),
)
def test_gradinit_is_that_of_its_definition(optimizer, norm, move):
    """A step on each objective, against reverse mode through all of it."""
    params, batch, eta = draw(), BATCHES[0], 0.1
    half = jax.tree.map(lambda x: x[:4], batch)
    paths = [p for p, _ in ji._paths.named(params)]

    def gradient(alpha):
        return jax.grad(loss)(multiply(params, alpha, paths), half)

    @jax.jit
    def differentiate(alpha):
        g = gradient(alpha)
        step = jax.tree.map(lambda x: eta * move(x), g)

        def ahead(alpha):
            weights = multiply(params, alpha, paths)
            return loss(jax.tree.map(jnp.subtract, weights, step), batch)

        after, slope = jax.value_and_grad(ahead)(alpha)
        slopes = jax.grad(lambda alpha: norm(gradient(alpha)))(alpha), slope
        return slopes, (after, norm(g), loss(params, half))

    slopes, known = differentiate(jnp.ones(len(paths)))
    settings = {"steps": 1, "optimizer": optimizer, "learning_rate": eta}
    for gamma, slope in zip((0.0, float("inf")), slopes, strict=True):
        _, report = ji.tune(loss, params, batch, gamma=gamma, **settings)
        state, slope = report.state, np.asarray(slope)
        clipped = slope / max(1, np.linalg.norm(slope))
        np.testing.assert_allclose(state["first"], 0.1 * clipped, rtol=1e-3, atol=1e-6)
        square = 1e-3 * clipped**2
        np.testing.assert_allclose(state["second"], square, rtol=1e-3, atol=1e-9)
        # The first step of Adam goes 0.001 along the sign.
        scales = 1 - 1e-3 * np.sign(slope)
        np.testing.assert_allclose(state["scales"], scales, atol=1e-5)
        np.testing.assert_allclose(state["curve"], [known], rtol=1e-5)


def test_metainit_is_that_of_its_definition():
    params, batch = draw(), BATCHES[0]
    _, restore = jax.flatten_util.ravel_pytree(params)
    paths = [f"layer_{i}/kernel" for i in range(2)]

    @jax.jit
    def quotient(scales):
        flat, _ = jax.flatten_util.ravel_pytree(multiply(params, scales, paths))
        of = lambda flat: loss(restore(flat), batch)  # noqa: E731
        g, hessian = jax.grad(of)(flat), jax.hessian(of)(flat)
        away = 1e-5 * jnp.where(g >= 0, 1.0, -1.0)
        return jnp.mean(abs((g - hessian @ g) / (g + away) - 1))

    tuned, report = ji.tune(loss, params, batch, "metainit", steps=1)
    ones, scales = np.ones(2, np.float32), report.state["scales"]
    known = [quotient(ones), loss(params, batch)]
    np.testing.assert_allclose(report.state["curve"], [known], 1e-3)
    assert list(scales_of(report)) == paths  # biases have one axis
    for path, scale, unit in zip(paths, scales, np.eye(2, dtype="f4"), strict=True):
        w = np.asarray(params[path.split("/")[0]]["kernel"])
        moved = (1 - scale) * np.linalg.norm(w)  # of the norm: 0.1 along the sign
        ends = (quotient(ones + sign * 1e-3 * unit) for sign in (1, -1))
        slope = float(np.subtract(*ends))
        assert moved == pytest.approx(0.1 * np.sign(slope), abs=1e-5)
        layer = tuned[path.split("/")[0]]
        np.testing.assert_allclose(layer["kernel"], scale * w, rtol=1e-6)
        assert layer["bias"] is params[path.split("/")[0]]["bias"]
    assert report.after[QUOTIENT] == pytest.approx(float(quotient(scales)), rel=1e-3)
    # The velocity of a second step is half the first's, and its sign.
    _, second = ji.tune(loss, params, batch, "metainit", steps=2)
    assert {*np.abs(second.state["first"])} <= {0.5, 1.5}
    step = report.state["scales"] - second.state["scales"]
    ratio = step / (1 - report.state["scales"]) * report.state["first"]
    np.testing.assert_allclose(ratio, second.state["first"], rtol=1e-3)


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(4)(nn.tanh(nn.Dense(6)(x)))  # Dense_0 is the readout


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.first, self.last = nnx.Linear(6, 6, rngs=rngs), nnx.Linear(6, 4, rngs=rngs)
        self.tied = self.first

    def __call__(self, x):
        return self.last(nnx.tanh(self.tied(nnx.tanh(self.first(x)))))


def make_tree(name):
    """Returns a tree of a framework, and the loss of it."""
    if name == "linen":
        params = Linen().init(KEY, BATCHES[0][0])
        return params, lambda p, b: compare(Linen().apply(p, b[0]), b[1])
    if name == "equinox":
        mlp = eqx.nn.MLP(6, 4, 6, 1, key=KEY)
        arrays, rest = eqx.partition(mlp, eqx.is_inexact_array)
        whole = lambda p: jax.vmap(eqx.combine(p, rest))  # noqa: E731
        return arrays, lambda p, b: compare(whole(p)(b[0]), b[1])
    model = Nnx(nnx.Rngs(0))
    if name == "nnx model":
        return model, lambda model, b: compare(model(b[0]), b[1])
    graph, state = nnx.split(model)
    return state, lambda p, b: compare(nnx.merge(graph, p)(b[0]), b[1])


TREES = ["linen", "equinox", "nnx model", "nnx state"]


@pytest.mark.parametrize("name", slow_but(["nnx model"], TREES))
def test_trees_of_each_framework(name):
    """What comes back is what was given, and only numbers in it have changed."""
    params, of_params = make_tree(name)
    before = [np.asarray(x) for x in jax.tree.leaves(params)]
    tuned, report = ji.tune(of_params, params, BATCHES, steps=3, scale_rate=0.01)
    assert jax.tree.structure(tuned) == jax.tree.structure(params)
    assert len(report.tensors) == 4 and report.steps == 3
    pairs = zip(before, jax.tree.leaves(params), strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs)  # what came is as it was
    rows = [(row.before, row.after) for row in report.tensors]
    assert any(a != b for a, b in rows)
    if name == "nnx model":
        assert tuned.tied is tuned.first and tuned is not params


@pytest.mark.parametrize("method", ["gradinit", "metainit"])
def test_a_resumed_call_is_the_unbroken_one(method, tmp_path):
    params = draw()
    whole, report = ji.tune(loss, params, BATCHES, method, steps=5)
    _, begun = ji.tune(loss, params, BATCHES, method, steps=2)
    np.savez(tmp_path / "scales.npz", **begun.state)
    with np.load(tmp_path / "scales.npz") as state:
        resumed, ended = ji.tune(loss, params, BATCHES, method, steps=5, state=state)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed), strict=True):
        np.testing.assert_array_equal(a, b)
    for name, array in report.state.items():
        np.testing.assert_array_equal(array, ended.state[name])
    assert (begun.steps, ended.steps) == (2, 5)
    values = dict(enumerate(BATCHES)).values()  # begins anew, and is read past step 1
    _, other = ji.tune(loss, params, values, method, steps=5, state=begun.state)
    np.testing.assert_array_equal(other.state["curve"], ended.state["curve"])
    with pytest.raises(ValueError, match=r"steps=1\): steps must count those of state"):
        ji.tune(loss, params, BATCHES, method, steps=1, state=begun.state)
    # With nothing left to do, the weights are those of the state.
    again, _ = ji.tune(loss, params, BATCHES, method, steps=5, state=ended.state)
    np.testing.assert_array_equal(
        again["layer_0"]["kernel"], whole["layer_0"]["kernel"]
    )


def test_statistics_are_no_weights():
    variables = {"params": draw(), "batch_stats": {"mean": np.ones(3, "float32")}}
    with pytest.raises(
        ValueError, match='batch_stats are none. Pass variables."params"'
    ):
        ji.tune(loss, variables, BATCHES)
    state = {"w": nnx.Param(jnp.ones(3)), "mean": nnx.BatchStat(jnp.ones(3))}
    parts = take_apart(state, None, None, None, 0)
    assert parts.paths == ["w"] == [tensor.path for tensor in parts.tensors]
    (mean,) = parts.others
    again = parts.layout.restore([2 * parts.weights[0]], parts.others)
    assert type(again["mean"]) is nnx.BatchStat and mean.sum() == 3
    assert again["w"][...].sum() == 6 and again["mean"][...].sum() == 3


def test_ways_to_give_batches():
    params, curves = draw(), []
    for batches in (
        BATCHES,
        lambda step: BATCHES[step % 3],
        iter(BATCHES * 2),
        dict(enumerate(BATCHES)).values(),
    ):
        _, report = ji.tune(loss, params, batches, steps=5)
        curves.append(report.state["curve"])
        np.testing.assert_array_equal(curves[-1], curves[0])
    _, report = ji.tune(loss, params, BATCHES[0], steps=2)
    np.testing.assert_array_equal(report.state["curve"][0], curves[0][0])
    with pytest.raises(ValueError, match="there is no batch for step 3. Pass more"):
        ji.tune(loss, params, iter(BATCHES), steps=5)


def test_bounds_and_patterns():
    """Factors stop at the least allowed, 0 for biases, and only where asked."""
    params = draw()
    settings = {"steps": 6, "scale_rate": 0.5, "gamma": 0.0}
    _, report = ji.tune(loss, params, BATCHES, minimum=0.2, **settings)
    bounds = {row.path: row.minimum for row in report.tensors}
    assert set(bounds.values()) == {0.0, float(np.float32(0.2))}
    assert all((bounds[p] == 0) == p.endswith("bias") for p in bounds)
    assert all(min(row.scales) >= row.minimum for row in report.tensors)
    assert any(row.is_bounded for row in report.tensors)
    where = ["**/layer_0/bias", (6, 4)]
    tuned, report = ji.tune(loss, params, BATCHES, where=where, **settings)
    assert set(scales_of(report)) == {"layer_0/bias", "layer_1/kernel"}
    assert tuned["layer_0"]["kernel"] is params["layer_0"]["kernel"]


@pytest.mark.slow
def test_narrow_weights():
    """Factors and steps are those of float32, and weights are rounded once."""
    narrow = draw(jnp.bfloat16)
    tuned, report = ji.tune(loss, narrow, BATCHES, steps=3)
    assert report.state["scales"].dtype == np.float32
    for path, scale in scales_of(report).items():
        layer, leaf = path.split("/")
        w = narrow[layer][leaf].astype(jnp.float32)
        expected = (w * np.float32(scale)).astype(jnp.bfloat16)
        assert tuned[layer][leaf].dtype == jnp.bfloat16
        np.testing.assert_array_equal(tuned[layer][leaf], expected)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["gradinit", "metainit"])
def test_stacked_layers_have_a_factor_each(method):
    params = draw(blocks=2)
    pair = params["layer_0"], params["layer_1"]
    stack = jax.tree.map(lambda *each: jnp.stack(each), *pair)
    stacked = {"layers": stack, "out": params["layer_2"]}

    def of_stack(params, batch):
        rows = [jax.tree.map(lambda x, i=i: x[i], params["layers"]) for i in range(2)]
        return loss({"a": rows[0], "b": rows[1], "c": params["out"]}, batch)

    _, one = ji.tune(loss, params, BATCHES, method, steps=3)
    _, both = ji.tune(of_stack, stacked, BATCHES, method, steps=3, stacked="layers/*")
    known = scales_of(one)
    (row,) = (row for row in both.tensors if row.path == "layers/kernel")
    expected = known["layer_0/kernel"], known["layer_1/kernel"]
    np.testing.assert_allclose(row.scales, expected, atol=1e-5)


@pytest.mark.slow
def test_structure_tells_roles_and_biases():
    x = BATCHES[0][0]
    params = Linen().init(KEY, x)["params"]
    settings = {"steps": 1, "structure": ji.structure(Linen(), x)}
    _, report = ji.tune(
        lambda p, b: compare(Linen().apply({"params": p}, b[0]), b[1]),
        *(params, BATCHES),
        where=["role:readout", "role:bias"],
        **settings,
    )
    bounds = {row.path: row.minimum for row in report.tensors}
    assert set(bounds) == {"Dense_0/bias", "Dense_1/bias", "Dense_0/kernel"}
    assert {p for p in bounds if not bounds[p]} == {"Dense_0/bias", "Dense_1/bias"}


@pytest.mark.parametrize("method", ["gradinit", "metainit"])
def test_what_is_not_finite_ends_the_call(method):
    params = draw()
    bad = (BATCHES[0][0] * np.float32("nan"), BATCHES[0][1])
    where = r"tune\(loss=...\): Step 0: all must be finite, and the loss is nan, .*"
    with pytest.raises(ValueError, match=where + "the gradient of layer_0/bias is not"):
        ji.tune(loss, params, bad, method, steps=2)
    tuned, report = ji.tune(loss, params, [*BATCHES, bad], method, steps=6)
    good, _ = ji.tune(loss, params, BATCHES, method, steps=3)
    assert report.steps == 3 and report.stopped.startswith("Step 3: all must be finite")
    assert report.stopped in str(report)
    np.testing.assert_array_equal(tuned["layer_0"]["kernel"], good["layer_0"]["kernel"])


def test_the_report():
    _, report = ji.tune(loss, draw(), BATCHES, steps=4, optimizer="sgd", gamma=0.0)
    lines = str(report).splitlines()
    assert lines[0].split() == [
        "path",
        "shape",
        "scale",
        "root",
        "mean",
        "square",
        "after",
    ]
    assert lines[-1].startswith(
        "4 of 4 steps lowered the norm of the gradient, which was"
    )
    assert re.search(
        r"loss after a step \S+ → \S+, gradient norm \S+ → \S+, loss", str(report)
    )
    told = report.to_dict()
    assert told["method"] == "gradinit" and len(told["tensors"]) == 4
    assert list(told["curve"]) == [AHEAD, NORM, LOSS] and told["steps"] == 4
    figure = report.plot()
    assert [axis.get_title() for axis in figure.axes] == [AHEAD, NORM, LOSS, "scale"]
    figure.savefig(io.BytesIO())
    assert repr(report).startswith(
        "TuningReport('gradinit', 4 steps, loss after a step "
    )


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (
            {"method": "gradint"},
            ValueError,
            "method must be one of 'gradinit', 'metain",
        ),
        ({"loss": 1}, TypeError, r"tune\(loss=1\): loss must be a function"),
        ({"steps": -1}, ValueError, "steps must be 0 or above"),
        ({"optimizer": "lion"}, ValueError, "optimizer must be one of 'adam', 'sgd'"),
        ({"learning_rate": 0}, ValueError, "learning_rate must be above 0"),
        ({"gamma": -1}, ValueError, "gamma must be 0 or above"),
        ({"scale_rate": -1}, ValueError, "scale_rate must be 0 or above"),
        ({"minimum": "a"}, TypeError, "minimum must be a real number"),
        (
            {"method": "metainit", "gamma": 1.0},
            TypeError,
            r"gamma=1.0\): gamma belongs to method=\"gradinit\"",
        ),
        ({"batches": []}, ValueError, "batches must hold a batch"),
        (
            {"batches": np.ones((1, 6))},
            ValueError,
            r"a batch must have one number of examples, 2 or more, .*\[1\]",
        ),
        ({"where": "kernl"}, ValueError, r"tune\(where=...\): kernl matches no param"),
        (
            {"where": ["bias", "x"]},
            ValueError,
            r"tune\(where=...\): x matches no param",
        ),
        ({"stacked": 3}, TypeError, r"tune\(stacked=...\): a pattern is a glob, re"),
        ({"params": {}}, ValueError, r"tune\(params=...\): there is no array of real"),
        (
            {"params": {"b": np.ones(3)}, "method": "metainit"},
            ValueError,
            r"tune\(params=...\): no tensor of 2 axes or more is left",
        ),
        (
            {"params": {"w": np.ones(2, "c8")}},
            TypeError,
            "w must be real, and it is co",
        ),
        (
            {"params": {"w": jax.ShapeDtypeStruct((2,), "float32")}},
            TypeError,
            "w must be an array, not a shape. Draw the weights first",
        ),
        ({"loss": lambda p, b: b[0]}, ValueError, "loss must return one real number"),
        ({"state": {"a": 1}}, TypeError, "state must be the state of the report of an"),
    ],
)
def test_wrong_arguments(change, kind, message):
    given = {"loss": loss, "params": draw(), "batches": BATCHES, "steps": 1} | change
    with pytest.raises(kind, match=message):
        ji.tune(**given)


def test_a_state_of_another_call():
    _, report = ji.tune(loss, draw(), BATCHES, steps=1)
    with pytest.raises(
        ValueError, match="with the same tensors and method. Here are 2"
    ):
        ji.tune(loss, draw(), BATCHES, "metainit", state=report.state)
    with pytest.raises(TypeError, match="and it is traced. Tune outside of jit"):
        jax.jit(lambda params: ji.tune(loss, params, BATCHES))(draw())


@pytest.fixture(scope="module")
def digits():
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return ((x - x.mean()) / x.std()).astype(np.float32), y.astype(np.int32)


def cut(digits, seed, count, size):
    """Cuts batches of random digits; 28 batches of 64 are an epoch."""
    numbers, batches = np.random.default_rng(seed), []
    while len(batches) < count:
        order = numbers.permutation(len(digits[0]))
        whole = order[: len(order) // size * size].reshape(-1, size)
        batches += [tuple(each[i] for each in digits) for i in whole]
    return batches[:count]


def draw_deep(seed, depth, width, factor=1.0):
    """Draws He's law, times a factor."""
    numbers = np.random.default_rng(seed)
    sizes, params = [64] + [width] * depth + [10], []
    for inputs, outputs in itertools.pairwise(sizes):
        w = factor * (2 / inputs) ** 0.5 * numbers.normal(size=(inputs, outputs))
        kernel = jnp.asarray(w, jnp.float32)
        params.append({"kernel": kernel, "bias": jnp.zeros(outputs)})
    return params


def residual(params, batch):
    first, *inner, last = params
    x = jax.nn.relu(batch[0] @ first["kernel"] + first["bias"])
    for a, b in zip(inner[::2], inner[1::2], strict=True):
        hidden = jax.nn.relu(x @ a["kernel"] + a["bias"])
        x = x + hidden @ b["kernel"] + b["bias"]
    return compare(jax.nn.relu(x) @ last["kernel"] + last["bias"], batch[1])


def plain(params, batch):
    *inner, last = params
    x = batch[0]
    for layer in inner:
        x = jax.nn.relu(x @ layer["kernel"] + layer["bias"])
    return compare(x @ last["kernel"] + last["bias"], batch[1])


def train(of, optimizer):
    """Returns a function that trains on batches, and tells the loss on all data."""

    @jax.jit
    def step(params, state, batch):
        updates, state = optimizer.update(jax.grad(of)(params, batch), state, params)
        return optax.apply_updates(params, updates), state

    def run(params, batches, digits):
        state = optimizer.init(params)
        with jax.numpy_dtype_promotion("standard"):  # optax mixes types
            for batch in batches:
                params, state = step(params, state, batch)
        return float(of(params, digits))

    return run


@pytest.mark.slow
def test_gradinit_lets_a_residual_net_without_norms_train(digits, full_compiler):
    """SGD diverges from He's law, and Adam is slow; after an epoch neither is so."""
    for optimizer, rate in (("sgd", 0.1), ("adam", 1e-3)):
        run = train(residual, getattr(optax, optimizer)(rate))
        for seed in range(3):
            params = draw_deep(seed, 17, 64)
            batches = cut(digits, 10 + seed, 56, 128)
            settings = {"optimizer": optimizer, "learning_rate": rate}
            tuned, report = ji.tune(residual, params, batches, **settings)
            assert report.after[NORM] < report.before[NORM] / 10
            assert report.after[AHEAD] < report.before[AHEAD] / 5
            assert all(min(row.scales) >= row.minimum for row in report.tensors)
            epoch = cut(digits, seed, 28, 64)
            before, after = (run(p, epoch, digits) for p in (params, tuned))
            assert after < 2 and not after > before / 2  # guessing: 2.3


@pytest.mark.slow
def test_metainit_helps_weights_that_are_too_large(digits, full_compiler):
    """Twice He's law trains slower than He's; MetaInit makes up for most of that."""
    run, losses = train(plain, optax.sgd(0.1)), []
    for seed in range(4):
        params, good = (draw_deep(seed, 4, 32, factor) for factor in (2.0, 1.0))
        batches = cut(digits, 50 + seed, 100, 512)
        tuned, report = ji.tune(plain, params, batches, "metainit", steps=100)
        quotients = report.curve[QUOTIENT]
        assert np.median(quotients[-5:]) < 0.7 * np.median(quotients[:5])
        epochs = cut(digits, seed, 56, 64)
        losses.append([run(each, epochs, digits) for each in (params, tuned, good)])
        before, after, _ = losses[-1]
        assert after < before
    before, after, good = np.mean(losses, 0)
    assert after - good < (before - good) / 2
