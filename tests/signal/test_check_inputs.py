"""`check` takes what people have: inputs, models and dtypes of every kind.

Most of what can go wrong goes wrong while a model is traced, so that sweeps trace the
programs that `check` runs, and one test of each mechanism runs them.
"""

import collections
import dataclasses
import functools
import itertools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from marks import slow_but, stable

import jaxinit as ji
from jaxinit.signal import _check
from jaxinit.signal._measure._draw import prepare_draw
from jaxinit.signal._measure.flow import run_model
from jaxinit.signal._measure.jacobian import prepare_products
from jaxinit.signal._measure.program import prepare
from jaxinit.signal._measure.summary import sum_up

pytestmark = pytest.mark.usefixtures("quick_compiler")

KEY, X = jax.random.key(0), np.ones((4, 8), np.float32)


class Traced(Exception):
    """Carries what was traced out of `check`."""


@pytest.fixture
def traced(monkeypatch):
    """Runs `check` up to where programs would be compiled; returns the layers."""

    def measure(model, inputs, key, seeds, loss, chunk, jacobian, *say):
        program = prepare(model, inputs, key, loss)
        products = prepare_products(model, inputs, program.stored, key)
        draw, _ = prepare_draw(program, products and products.start)
        seed = jax.eval_shape(draw.init_fn, key)
        jax.eval_shape(
            lambda seed: sum_up(program, run_model(program, seed, inputs)), seed
        )
        if products:
            drawn = seed.stored, seed.noise, inputs, seed.vectors
            jax.eval_shape(products.multiply, *drawn)
        raise Traced([site.path for site, _ in program.sites if site.kind != "module"])

    monkeypatch.setattr(_check, "measure", measure)

    def run(model, x, **given):
        with pytest.raises(Traced) as caught:
            ji.check(model, x, key=KEY, seeds=2, **given)
        return caught.value.args[0]

    return run


def init(key):
    return {"w": ji.lecun_normal()(key, (8, 8))}


def of(read):
    """Makes a model that reads its matrix's input out of what it is called with."""
    return init, lambda params, *x: jnp.tanh(read(*x) @ params["w"])


class Pair(NamedTuple):
    x: object
    mask: object = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Batch:
    x: object
    step: object


INPUTS = {
    "array": (lambda x: x, X),
    "jax array": (lambda x: x, jnp.asarray(X)),
    "numpy float64": (lambda x: x, X.astype(np.float64)),
    "list of numbers": (lambda x: x, X.tolist()),
    "list of arrays": (lambda x: x[0] + x[1], [X, X]),
    "dict": (lambda d: d["x"], {"x": X}),
    "dict with None": (lambda d: d["x"], {"x": X, "mask": None}),
    "dict of text": (lambda d: d["x"], {"x": X, "deep": {"tokens": np.arange(4)}}),
    "OrderedDict": (lambda d: d["x"], collections.OrderedDict(x=X)),
    "defaultdict": (lambda d: d["x"], collections.defaultdict(int, x=X)),
    "NamedTuple": (lambda p: p.x, Pair(X)),
    "dataclass": (lambda b: b.x * b.step, Batch(X, 2.0)),
    "tuple of one": (lambda x: x, (X,)),
    "several": (lambda x, y: x + y, (X, X)),
    "tuple in a tuple": (lambda pair: pair[0], ((X, X),)),
    "None among": (lambda x, mask: x if mask is None else None, (X, None)),
    "True among": (lambda x, train: x if train else None, (X, True)),
    "False among": (lambda x, train: None if train else x, (X, False)),
    "bool in a dict": (lambda d: d["x"] if d["on"] else None, {"x": X, "on": True}),
    "int among": (lambda x, n: x * n, (X, 3)),
    "float among": (lambda x, n: x * n, (X, 3.0)),
    "numpy scalar": (lambda x, n: x * n, (X, np.float32(3))),
    "array of bools": (lambda x, m: jnp.where(m, x, 0), (X, X > 0)),
    "a key": (lambda x, k: x + jax.random.normal(k, x.shape), (X, jax.random.key(1))),
    "tokens": (lambda t: jax.nn.one_hot(t, 8), np.arange(4)),
}


@pytest.mark.parametrize("name", INPUTS)
def test_any_pytree_is_an_input(traced, name):
    read, x = INPUTS[name]
    with jax.numpy_dtype_promotion("standard"):
        assert len(traced(of(read), x)) == 1


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ("text", "x must be an array, or a tuple of arrays for several inputs"),
        ((X, "train"), r"what chooses the program goes in arguments=\{...\}"),
        ({"x": X, "mode": "train"}, r"^check\(model, x='train'\): x must be an array"),
        (
            (2, 3),
            r"^check\(model, x=\(2, 3\)\): x must be data, not a shape. Draw them",
        ),
        (jax.ShapeDtypeStruct((2, 3), "float32"), r"Draw them, .*key\(1\), \(2, 3\)\)"),
        ({"x": jax.ShapeDtypeStruct((2,), "float32")}, "numbers, not shapes alone"),
        (object(), "x must be an array"),
        (jnp.sin, "x must be an array"),
        (np.array(["a"]), "x must be an array"),
        ([[1.0], [1.0, 2.0]], "x must be an array"),
        ({1, 2}, "x must be an array"),
        (range(3), "x must be an array"),
        ((10**400,), "not a shape"),
        (dataclasses.make_dataclass("D", ["x"])(X), "jax.tree_util.register_dataclass"),
    ],
    ids=stable,
)
def test_what_is_no_input_is_refused(x, message):
    with pytest.raises(TypeError, match=message) as caught:
        ji.check(of(lambda x: x), x, key=KEY)
    assert "\n" not in str(caught.value)


def test_an_input_needs_an_example():
    with pytest.raises(ValueError, match="x must have entries: one example or more"):
        ji.check(of(lambda x: x), X[:0], key=KEY)


def test_an_input_must_not_be_traced():
    with pytest.raises(TypeError, match="not tracers.*outside of jax.jit"):
        jax.jit(lambda x: ji.check(of(lambda x: x), x, key=KEY))(X)


OUTPUTS = {
    "text": lambda y: {"y": y, "name": "model"},
    "text and None": lambda y: (y, None, "model"),
    "integers": lambda y: (y, jnp.argmax(y, -1)),
    "a function": lambda y: (y, jnp.sin),
    "complex": lambda y: jax.lax.complex(y, y),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_any_pytree_is_an_output(traced, name):
    model = init, lambda params, x: OUTPUTS[name](x @ params["w"])
    assert traced(model, X) == ["w"]

    def loss(output):
        assert jax.tree.structure(output) == jax.tree.structure(OUTPUTS[name](X))
        arrays = [x for x in jax.tree.leaves(output) if isinstance(x, jax.Array)]
        return jnp.abs(arrays[0]).sum()

    assert traced(model, X, loss=loss) == ["w"]


@pytest.mark.parametrize("output", [None, "text", 3, {}])
def test_an_output_needs_an_array(output):
    model = init, lambda params, x: (x @ params["w"], output)[1]
    with pytest.raises(ValueError, match="must return an array of real or complex"):
        ji.check(model, X, key=KEY)


# Dtypes.

FLOATS = ("float32", "bfloat16", "float16", "float64", "complex64")
SOME = (("bfloat16", "float32"), ("float16", "bfloat16"), ("float64", "complex64"))
EIGHTS = ("float8_e4m3fn", "float8_e5m2", "float8_e4m3b11fnuz")


def cast(dtype):
    def draw(key):
        return {"w": ji.lecun_normal()(key, (8, 8)).astype(dtype)}

    return draw, lambda params, x: x @ params["w"]


@pytest.mark.parametrize(
    "dtypes", slow_but(SOME, list(itertools.product(FLOATS, FLOATS))), ids=str
)
def test_inputs_and_parameters_have_any_dtype(traced, x64, dtypes):
    x, w = dtypes
    with jax.numpy_dtype_promotion("standard"):
        assert traced(cast(w), jnp.asarray(X, x)) == ["w"]


@pytest.mark.parametrize("dtype", EIGHTS)
def test_inputs_of_eight_bits(traced, dtype):
    draw, apply = cast("float32")
    model = draw, lambda params, x: apply(params, x.astype(jnp.float32))
    assert traced(model, jnp.asarray(X, dtype)) == ["w"]
    assert traced(cast(dtype), jnp.asarray(X, dtype)) == ["w"]


@pytest.mark.slow
def test_half_precision_is_measured_in_single():
    """Of W with orthonormal rows all singular values are 1, to half precision."""
    model = lambda key: ji.orthogonal()(key, (8, 8)).astype(jnp.bfloat16), jnp.matmul
    apply = lambda w, x: x @ w  # noqa: E731
    x = jax.random.normal(jax.random.key(1), (16, 8), jnp.bfloat16)
    report = ji.check((model[0], apply), x, key=KEY, seeds=2, jacobian=2)
    np.testing.assert_allclose(report.jacobian["largest"], 1, atol=0.02)
    np.testing.assert_allclose(report.jacobian["mean_square"], 1, atol=0.02)
    assert abs(report.layers[0].mean("std") - float(x.astype(float).std())) < 0.02


@pytest.mark.slow
def test_complex_layers_have_the_moments_of_complex_numbers():
    """A18: std sqrt(E|y - Ey|^2), cosine Re<a, b> / |a||b|, singular values of W."""
    draw = ji.lecun_normal()
    model = lambda key: draw(key, (64, 64), jnp.complex64), lambda w, x: x @ w
    parts = jax.random.normal(jax.random.key(1), (2, 32, 64)) / 2**0.5
    x = jax.lax.complex(*parts)
    report = ji.check(model, x, key=KEY, seeds=2, jacobian=2)
    (layer,) = (layer for layer in report.layers if layer.kind == "dense")
    for seed, key in enumerate(jax.random.split(KEY, 2)):
        w = np.asarray(model[0](jax.random.split(key, 3)[0]))
        y = np.asarray(x) @ w
        around = y - y.mean()
        assert layer.values("std")[seed] == pytest.approx(around.std(), rel=1e-4)
        assert layer.values("weight_std")[seed] == pytest.approx(w.std(), rel=1e-4)
        after = np.roll(y, -1, 0)
        sizes = np.linalg.norm(y, axis=1) * np.linalg.norm(after, axis=1)
        cosine = ((y.conj() * after).sum(1).real / sizes).mean()
        assert layer.values("distance")[seed] == pytest.approx(1 - cosine, abs=1e-4)
        values = np.linalg.svd(w, compute_uv=False)
        square = report.jacobian["mean_square"][seed]
        assert abs(report.jacobian["largest"][seed] / values[0] - 1) < 0.01
        assert abs(square / np.mean(values**2) - 1) < 0.2  # by 8 random vectors
    assert 0.9 < layer.mean("std") < 1.1 and layer.mean("distance") > 0.9


# Models.


class Live(nnx.Module):
    def __init__(self, width, *, rngs):
        self.dense = nnx.Linear(8, width, rngs=rngs)

    def __call__(self, x):
        return self.dense(x)


class Synchronized(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Dense(8)(x)
        return nn.BatchNorm(use_running_average=False, axis_name="batch")(x)


DENSE = nn.Sequential([nn.Dense(8), nn.relu, nn.Dense(8)])
MODELS = {
    "Linen": (DENSE, ["layers_0", "layers_2"]),
    "Linen's functions": ((DENSE.init, DENSE.apply), ["layers_0", "layers_2"]),
    "jit_init": ((ji.jit_init(DENSE.init), DENSE.apply), ["layers_0", "layers_2"]),
    "partial of NNX": (functools.partial(Live, 8), ["dense"]),
    "partial by name": (functools.partial(Live, width=8), ["dense"]),
    "function of rngs": (lambda rngs: Live(8, rngs=rngs), ["dense"]),
    "function of r": (lambda r: Live(8, rngs=r), ["dense"]),
    "function of a key": (lambda key: Live(8, rngs=nnx.Rngs(key)), ["dense"]),
    "function of k": (lambda k: Live(8, rngs=nnx.Rngs(k)), ["dense"]),
    "NNX in a pair": (
        (lambda k: Live(8, rngs=nnx.Rngs(k)), lambda m, x: m(x)),
        ["dense/kernel"],
    ),
    "init of inputs": (
        (lambda key, x: ji.normal()(key, (x.shape[-1], 4)), lambda w, x: x @ w),
        ["(weight)"],
    ),
    "init with a default": (
        (lambda key, n=4: ji.normal()(key, (8, n)), lambda w, x: x @ w),
        ["(weight)"],
    ),
    "a list": ([init, lambda params, x: x @ params["w"]], ["w"]),
    "apply with rng": ((init, lambda params, rng, x: x @ params["w"]), ["w"]),
    "numbers in params": (
        (lambda k: init(k) | {"n": 2, "f": "x"}, lambda p, x: [x @ p["w"]] * p["n"]),
        ["w"],
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_every_form_of_a_model(traced, name):
    model, paths = MODELS[name]
    assert traced(model, X) == paths


@pytest.mark.slow
def test_every_form_of_equinox_and_haiku(traced):
    eqx = pytest.importorskip("equinox")
    hk = pytest.importorskip("haiku")
    layers = functools.partial(eqx.nn.MLP, 8, 8, 16, 1)

    class Own(eqx.Module):
        linear: eqx.nn.Linear
        drop: eqx.nn.Dropout

        def __init__(self, key):
            self.linear, self.drop = eqx.nn.Linear(8, 8, key=key), eqx.nn.Dropout(0.5)

        def __call__(self, x, key):
            return self.drop(self.linear(x), key=key)

    def mapped(model, x):
        return jax.vmap(model)(x)

    two = ["layers/0", "layers/1"]
    assert traced(layers, X) == two
    assert traced(lambda key: layers(key=key), X) == two
    assert traced(lambda k: layers(key=k), X) == two
    assert traced((lambda key: layers(key=key), mapped), X) == two
    assert traced(Own, X) == ["linear"]
    net = hk.transform(lambda x: hk.nets.MLP([8, 8])(x))
    two = ["mlp/~/linear_0", "mlp/~/linear_1"]
    for model in (net, hk.without_apply_rng(net), (net.init, net.apply)):
        assert traced(model, X) == two
    normed = hk.transform_with_state(
        lambda x: hk.BatchNorm(True, True, 0.9)(hk.Linear(4)(x), True)
    )
    with jax.numpy_dtype_promotion("standard"):
        assert traced(normed, X) == ["linear"]
    with pytest.raises(ValueError, match="drawn already.*lambda key: Model"):
        ji.check(layers(key=KEY), X, key=KEY)


@pytest.mark.slow
def test_an_axis_can_be_bound(traced):
    assert traced(Synchronized(), X, axis_name="batch") == ["Dense_0"]
    assert traced(Synchronized(), X, axis_name=("batch", "other")) == ["Dense_0"]
    with pytest.raises(ValueError, match="name it, as axis_name='batch' does"):
        ji.check(Synchronized(), X, key=KEY)


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        ({"arguments": 3}, TypeError, "arguments must be a dictionary of keywords"),
        ({"arguments": {3: 1}}, TypeError, "arguments must be a dictionary of keywo"),
        ({"streams": 3}, TypeError, "streams must be a name, or several in a tuple"),
        ({"axis_name": (1,)}, TypeError, "axis_name must be a name, or several"),
        ({"seeds": "4"}, TypeError, "seeds must be an integer"),
        ({"seeds": 1.5}, TypeError, "seeds must be an integer"),
        ({"limit": "9"}, TypeError, "limit must be a real number"),
        ({"jacobian": None}, TypeError, "jacobian must be an integer"),
        ({"chunk": "x"}, TypeError, "chunk must be an integer"),
        ({"key": "0"}, TypeError, "key must be a PRNG key"),
        ({"loss": lambda y: None}, TypeError, "loss must return one real number"),
        ({"loss": lambda y: "text"}, TypeError, "loss must return one real number"),
        ({"loss": lambda y: 1j * y.sum()}, ValueError, "must return one real number"),
        ({"loss": lambda y: y.sum() > 0}, ValueError, "must return one real number"),
    ],
    ids=stable,
)
def test_wrong_kinds_of_arguments(given, kind, message):
    given = {"key": KEY, "seeds": 1} | given
    with jax.numpy_dtype_promotion("standard"), pytest.raises(kind, match=message) as e:
        ji.check(of(lambda x: x), X, **given)
    assert "\n" not in str(e.value) and str(e.value).startswith("check(")


@pytest.mark.parametrize(
    "model",
    [None, 3, "relu", {}, X, (init,), (init, 3), (3, init), [], nn.Dense, object()],
    ids=stable,
)
def test_wrong_kinds_of_models(model):
    with pytest.raises((TypeError, ValueError), match=r"^check\(model=") as e:
        ji.check(model, X, key=KEY)
    assert "\n" not in str(e.value)


def test_activation_behind_a_convolution_of_equinox():
    """`jax.vmap` of its convolution of one example adds an axis, and takes it off."""
    eqx = pytest.importorskip("equinox")

    def make(key):
        conv = eqx.nn.Conv2d(2, 2, 3, padding=1, key=key)
        return eqx.nn.Sequential([conv, eqx.nn.Lambda(jax.nn.relu), conv])

    report = ji.check(make, jnp.ones((2, 2, 4, 4)), key=KEY, seeds=1, jacobian=0)
    assert report.layers[0].activation == "relu"
