"""Coordinate checks: what is measured, and what is said of it."""

import collections
import json
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from planted import Form, Perceptron, X, adamw, sp
from scipy import stats

from jaxinit.scaling import _coordinate_match, _slopes
from jaxinit.scaling._coordinate_check import coordinate_check
from jaxinit.signal.watching import Watch

pytestmark = pytest.mark.usefixtures("quick_compiler", "standard_promotion")

KEY, WIDTHS = jax.random.key(0), (64, 256)


def run(form, widths=WIDTHS, make=Perceptron, x=X, **settings):
    settings = {"seeds": 4, "steps": 2} | settings
    return coordinate_check(
        lambda width: make(width, form),
        widths,
        x,
        key=KEY,
        scaling=lambda base, target, *x: target.width,
        optimizer=lambda width: adamw(form, width),
        **settings,
    )


@pytest.fixture(scope="module")
def standard():
    with jax.numpy_dtype_promotion("standard"):
        return run(Form(table=sp))


def find(report, condition):
    return [x.path for x in report.findings if x.condition == condition]


def test_one_rate_for_all_is_accused(standard):
    """Adam's steps add up over inputs: by n in what the width feeds, and only there."""
    assert find(standard, "update") == ["first", "second", "readout"]
    first, *_ = standard.findings
    text = r"first grows as n\^(\.9|1\.)\d+ after step 1: its learning rate is not "
    assert re.match(text + "divided by the width", first.reason)
    assert not standard.transfers and not find(standard, "start")
    with pytest.raises(AssertionError, match=r"over its width.*not:\n- first grows"):
        standard.assert_transfers()


def test_mup_transfers():
    report = run(Form())
    report.assert_transfers(allow=())
    assert report.findings == () and report.transfers
    readout = next(row for row in report.rows if row.path == "readout")
    assert readout.slopes[0].value < -0.3 and readout.verdict == "transfers"


def test_manner(standard):
    text = str(standard)
    assert text.startswith("does not transfer over widths 64–256: first and 2 more\n\n")
    assert repr(standard).startswith("CoordinateReport(does not transfer") and (
        len(repr(standard)) < 80
    )
    heads = text.splitlines()[2].split("  ")
    assert [h.strip() for h in heads if h.strip()] == [
        *("layer", "role", "start", "step 1", "step 2", "update", "verdict")
    ]
    assert "update grows" in standard._repr_html_()
    record = json.loads(standard.to_json())
    assert record["sizes"] == [64, 256] and not record["transfers"]
    rows = {row["path"]: row for row in record["rows"]}
    assert np.shape(rows["first"]["values"]["output"]) == (2, 4, 3)
    assert rows["first/bias"]["role"] == "bias"
    figure = standard.plot()
    titles = [axis.get_title() for axis in figure.axes]
    assert titles[:2] == ["enter", "enter/bias"] and "first\nupdate grows" in titles
    assert len(figure.axes[0].lines) == 3


def test_what_is_watched():
    """What a change of weight makes of the input, in loops too; logits of attention."""

    def apply(params, stored, key, x):
        x = x @ params["in"] + params["bias"]
        x, _ = jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, params["stack"])
        q, k = x @ params["query"], x @ params["key"]
        return jax.nn.softmax(q @ k.T / 4) @ x

    draw, shapes = np.random.default_rng(1), {"in": (5, 4), "bias": (4,)}
    shapes |= {"stack": (3, 4, 4), "query": (4, 4), "key": (4, 4)}
    then, now = (
        {
            name: jnp.asarray(draw.normal(size=s), "float32")
            for name, s in shapes.items()
        }
        for _ in range(2)
    )
    x = jnp.asarray(draw.normal(size=(6, 5)), "float32")
    watch = Watch(apply, now, (), KEY, x)
    places = {place.path: place for place in watch.places}
    assert {p: (x.kind, x.leaves) for p, x in places.items()} == {
        "in": ("dense", ("in",)),
        "stack": ("dense", ("stack",)),
        "query": ("dense", ("query",)),
        "key": ("dense", ("key",)),
        "q·k": ("attention", ("key", "query")),
    }
    run, zeros = jax.jit(watch.run), watch.make_before()
    first = run(zeros, then, (), KEY, x)[1]
    before = {n: each["weight"] for n, each in first.items() if "weight" in each}
    output, values = run(before, now, (), KEY, x)
    np.testing.assert_allclose(output, apply(now, (), KEY, x), rtol=1e-4, atol=1e-5)
    h = x @ now["in"]
    got = values[places["in"].number]
    np.testing.assert_allclose(got["product"], h, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got["output"], h + now["bias"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        got["moved"], x @ (now["in"] - then["in"]), rtol=1e-4, atol=1e-5
    )
    h, got = h + now["bias"], values[places["stack"].number]
    for i in range(3):
        np.testing.assert_allclose(got["input"][i], h, rtol=1e-3, atol=1e-5)
        change = h @ (now["stack"][i] - then["stack"][i])
        np.testing.assert_allclose(got["moved"][i], change, rtol=1e-3, atol=1e-5)
        h = jnp.tanh(h @ now["stack"][i])
    logits = (h @ now["query"]) @ (h @ now["key"]).T / 4
    got = values[places["q·k"].number]["output"]
    np.testing.assert_allclose(got, logits, rtol=1e-3, atol=1e-5)


def test_slopes_are_least_squares_with_students_interval():
    draw, sizes = np.random.default_rng(2), np.array([32, 64, 128, 512])
    noise = 0.1 * draw.normal(size=(4, 5))
    values = np.exp(0.5 * np.log(sizes)[:, None] + noise)[..., None]
    (slope,) = _slopes.fit_slopes(sizes, values)
    x, y = np.repeat(np.log(sizes), 5), np.log(values).ravel()
    assert slope.value == pytest.approx(np.polyfit(x, y, 1)[0])
    pooled = np.log(values[..., 0]).var(1, ddof=1).mean()
    error = (pooled / ((x - x.mean()) ** 2).sum()) ** 0.5
    low, high = stats.t.interval(0.95, 16, slope.value, error)
    assert (slope.low, slope.high) == (pytest.approx(low), pytest.approx(high))
    (single,) = _slopes.fit_slopes(sizes, values[:, :1])
    line = stats.linregress(np.log(sizes), np.log(values[:, 0, 0]))
    reach = stats.t.ppf(0.975, 2) * line.stderr
    assert single.high - single.value == pytest.approx(reach)
    zero, lost = values.copy(), values.copy()
    zero[0, 0], lost[1, 1] = 0, np.nan
    assert not _slopes.fit_slopes(sizes, zero)[0].known
    assert _slopes.fit_slopes(sizes, lost)[0].low == np.inf


def test_an_attention_is_excused_by_its_own_queries_alone():
    """Not by those of one whose name only begins alike."""

    def find(path, condition, of):
        shared = {"step": 1, "slope": _slopes.Slope(0.5, 0.4, 0.6), "reason": ""}
        return _slopes.Finding(condition=condition, path=path, of=of, **shared)

    def judge(layer, attention):
        found = [find(layer, "update", "dense"), find(attention, "attention", of)]
        things = [Thing(layer, "hidden query", drift=())]
        return len(_slopes._drop_effects(found, things, things, 0.2))

    of, Thing = "attention", collections.namedtuple("Thing", "path role drift")
    for attention, kept in [("a_1/q·k", 1), ("a/q·k", 2), ("a_1/q/q·k", 1), ("q·k", 1)]:
        assert judge("a_1/q", attention) == kept, attention


@pytest.mark.parametrize(
    "drift, rate, accused", [(1, 1, "a"), (0, 1, "ab"), (1, 0, "b")]
)
def test_a_layer_whose_inputs_leave_is_not_accused_behind_one_that_grows(
    drift, rate, accused
):
    """Exponents: of how far the inputs of b move; of what a's update does."""
    sizes, ones = (64, 256), np.ones((2, 3, 2))
    n = np.asarray(sizes, float)[:, None, None] * ones

    def measure(path, **values):
        values = {"output": ones, "input": ones, "passed": 0 * ones} | values
        kinds = {"path": path, "kind": "dense", "role": "hidden"}
        return _slopes.Measured(**kinds, values=values)

    things = [
        measure("a", moved=n**rate, drift=0 * ones),
        measure("b", moved=n**-0.5, drift=n**drift),
    ]
    slopes = [_slopes.Slopes(sizes, each) for each in things]
    found = _slopes.judge(things, slopes, "width", 0.2)
    assert [x.path for x in found] == list(accused)


def test_blocks_have_one_name_over_depths():
    """Numbers that grow become a star, those within a block stay; roles keep apart."""

    def listed(depth):
        paths = [
            (f"block_{b}/dense_{i}", "hidden") for b in range(depth) for i in (0, 1)
        ]
        paths += [(f"layers/{i}", "hidden") for i in range(depth)]
        paths += [(f"layers/{depth}", "readout")]
        names = [_coordinate_match.Name(path, "dense", role) for path, role in paths]
        return depth, [(name, i, float(i)) for i, name in enumerate(names)]

    two, three = _coordinate_match.match([listed(2), listed(3)], "depth")
    assert {(n.path, n.role): len(sources) for n, sources in three.items()} == {
        ("block_*/dense_0", "hidden"): 3,
        ("block_*/dense_1", "hidden"): 3,
        ("layers/*", "hidden"): 3,
        ("layers/*", "readout"): 1,
    }
    assert list(two) == list(three)


def make_nnx(width):
    def make(rngs):
        layers = nnx.Linear(32, width, rngs=rngs), nnx.Linear(width, 4, rngs=rngs)
        return nnx.Sequential(layers[0], nnx.relu, layers[1])

    return make


def make_equinox(width):
    return lambda key: eqx.nn.MLP(32, 4, width, 1, key=key)


@pytest.mark.parametrize(
    "factory", [make_nnx, pytest.param(make_equinox, marks=pytest.mark.slow)]
)
def test_other_frameworks_and_recipes(factory):
    """One optimizer for all sizes; weights by a recipe; a loss."""
    report = coordinate_check(
        factory,
        (32, 64),
        X,
        key=KEY,
        optimizer=optax.sgd(1e-2),
        rules=[("role:input", 0.1), ("*", 0.0)],
        loss=lambda y: (y**2).mean() - y.mean(),
        seeds=1,
        steps=1,
    )
    first, last = (row for row in report.rows if row.kind == "dense")
    assert (first.role, last.role) == ("input", "readout")
    assert first.slopes[0].value == pytest.approx(0, abs=1e-5)
    assert not last.slopes[0].known and last.slopes[1].known  # it starts at zeros


def call(**given):
    model = (lambda key: {"w": jnp.ones((4, 2))}), lambda params, x: x @ params["w"]
    settings = {"factory": lambda width: model, "sizes": (2, 4), "x": jnp.ones((1, 4))}
    settings |= {"key": KEY, "optimizer": optax.sgd(0.1)} | given
    return coordinate_check(**settings)


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        ({"sizes": (64,)}, ValueError, "sizes must be two or more different integers"),
        ({"sizes": (64, 64)}, ValueError, "sizes must be two or more different"),
        ({"sizes": 64}, TypeError, "sizes must be two or more different integers"),
        ({"sizes": (0, 64)}, ValueError, "sizes must be 1 or above"),
        ({"factory": "Perceptron"}, TypeError, "factory must be a function of a size"),
        ({"optimizer": 0.1}, TypeError, r"such as optax.adam\(1e-2\); or, with a sca"),
        ({"optimizer": lambda scale: 1}, TypeError, "optimizer must be one of optax"),
        ({"loss": 1}, TypeError, "loss must be a function of the output"),
        ({"scaling": 1}, TypeError, r"scaling must be a function of \(base, target"),
        ({"steps": 0}, ValueError, "steps must be 1 or above"),
        ({"seeds": 0}, ValueError, "seeds must be 1 or above"),
        ({"base": 0}, ValueError, "base must be 1 or above"),
        ({"tolerance": 0}, ValueError, "tolerance must be above 0"),
        ({"along": "heads"}, ValueError, "along must be one of 'width', 'depth'"),
        ({"key": 0}, TypeError, "key must be a PRNG key"),
        ({"x": (3, 4)}, TypeError, "x must be data, not a shape"),
    ],
)
def test_misuse(given, kind, message):
    with pytest.raises(kind, match=rf"^coordinate_check\(.*{message}"):
        call(**given)


def test_sizes_of_different_layers_are_refused():
    def make(width):
        names = [f"w{i}" for i in range(width)]
        draw = lambda key: {name: jnp.ones((4, 4)) for name in names}  # noqa: E731

        def apply(params, x):
            for name in names:
                x = x @ params[name]
            return x

        return draw, apply

    with pytest.raises(ValueError, match="same layers at every size, and w1 is not in"):
        call(factory=make, sizes=(1, 2))


def test_conditions_that_are_allowed(standard):
    standard.assert_transfers(allow=("update", "aligned"))
    with pytest.raises(
        ValueError, match=r"^assert_transfers\(allow='updates'\): allow"
    ):
        standard.assert_transfers(allow="updates")
