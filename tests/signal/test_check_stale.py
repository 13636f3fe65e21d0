"""What `check` keeps serves equal models alone, however a model came to be another."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from marks import slow_but

import jaxinit as ji
from jaxinit._jaxpr.spelling import spell_program
from jaxinit.signal._measure import _kept

pytestmark = pytest.mark.usefixtures("quick_compiler")

KEY = jax.random.key(0)
X = np.random.default_rng(1).normal(size=(8, 12)).astype(np.float32)
SWITCH = {"scale": 1.0}  # a model may read what is no part of it


class Reading(nn.Module):
    """Equal to itself, whatever it reads."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dense(12)(x) * SWITCH["scale"]
        return nn.Dense(3)(nn.Dropout(0.5, deterministic=not train)(jnp.tanh(x)))


class Mutable(nnx.Module):
    act = staticmethod(jnp.tanh)

    def __init__(self, rngs: nnx.Rngs):
        self.first, self.last = (
            nnx.Linear(12, 12, rngs=rngs),
            nnx.Linear(12, 3, rngs=rngs),
        )

    def __call__(self, x):
        return self.last(self.act(self.first(x)))


def report(model, x=X, **more):
    with jax.numpy_dtype_promotion("standard"):
        return ji.check(model, x, key=KEY, seeds=2, jacobian=1, **more)


def numbers(found):
    """All that was measured."""
    layers = [(each.forward, each.backward) for each in found.layers]
    return jax.tree.leaves((layers, found.jacobian, found.loss))


def assert_fresh(make, first, second):
    """What comes second is what it is where nothing is kept, and is not the first."""
    stale = numbers(report(make(*first[0]), **first[1]))
    found = numbers(report(make(*second[0]), **second[1]))
    _kept.forget()
    known = numbers(report(make(*second[0]), **second[1]))
    for one, other in zip(found, known, strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(stale) != len(known) or not all(map(np.array_equal, stale, known))


@pytest.fixture(autouse=True)
def nothing_kept():
    _kept.forget()
    yield
    SWITCH["scale"] = 1.0


@pytest.mark.slow
def test_what_a_model_reads_may_change():
    model = Reading()

    def make(scale):
        SWITCH["scale"] = scale
        return model

    assert_fresh(make, ((1.0,), {}), ((3.0,), {}))


CALLS = {
    "train": ({"arguments": {"train": False}}, {"arguments": {"train": True}}),
    "examples": ({"x": X}, {"x": X[:4]}),
    "values": ({"x": X}, {"x": X + 1}),
    "dtype": ({"x": X}, {"x": X.astype(jnp.bfloat16)}),
    "rank": ({"x": X}, {"x": X.reshape(2, 4, 12)}),
    "loss": ({}, {"loss": lambda y: (y**2).mean()}),
    "another loss": ({"loss": jnp.sum}, {"loss": jnp.mean}),
}


@pytest.mark.parametrize("part", slow_but(["values", "loss"], CALLS))
@pytest.mark.slow
def test_a_call_may_change(part):
    model, (first, second) = Reading(), CALLS[part]
    assert_fresh(lambda: model, ((), first), ((), second))


@pytest.mark.slow
def test_a_closure_may_change():
    scale, place = np.ones(12, "f"), [0.0]

    def apply(w, x):
        return jnp.tanh(x * scale + place[0]) @ w

    pair = (lambda key: jax.random.normal(key, (12, 3))), apply

    def make(factor, shift):
        scale[:], place[0] = factor, shift
        return pair

    assert_fresh(make, ((1.0, 0.0), {}), ((2.0, 0.0), {}))
    assert_fresh(make, ((1.0, 0.0), {}), ((1.0, 1.0), {}))


def test_a_class_may_change(monkeypatch):
    def make(act):
        monkeypatch.setattr(Mutable, "act", staticmethod(act))
        return Mutable

    assert_fresh(make, ((jnp.tanh,), {}), ((jnp.sin,), {}))


@pytest.mark.slow
def test_a_module_that_a_factory_hands_out_may_change():
    width = [12]

    def factory(rngs: nnx.Rngs):
        model = Mutable(rngs)
        model.act = lambda x: x * width[0]
        return model

    def make(size):
        width[0] = size
        return factory

    assert_fresh(make, ((1.0,), {}), ((5.0,), {}))


@pytest.mark.slow
def test_the_rule_of_a_derivative_may_change():
    slope = [1.0]

    @jax.custom_jvp
    def act(y):
        return jnp.tanh(y)

    act.defjvp(lambda ys, ts: (jnp.tanh(ys[0]), slope[0] * ts[0]))

    @jax.custom_vjp
    def back(y):
        return jnp.tanh(y)

    back.defvjp(lambda y: (jnp.tanh(y), y), lambda y, g: (slope[0] * g,))
    init = ji.he_normal()

    for function in (act, back):
        pair = (lambda key: init(key, (12, 3))), (lambda w, x, f=function: f(x @ w))

        def make(factor, pair=pair):
            slope[0] = factor
            return pair

        assert_fresh(make, ((1.0,), {}), ((4.0,), {}))


@pytest.mark.slow
def test_a_setting_of_jax_may_change():
    model = Reading()
    report(model)
    before = len(_kept._kept)
    with jax.default_matmul_precision("highest"):
        report(model)
    assert len(_kept._kept) > before
    with jax.enable_x64(True):
        double = report(model, X.astype(np.float64))
    assert double.loss.dtype == np.float64


def own(y):
    """A function with a backward pass of its own, made anew as a model's call may."""
    act = jax.custom_vjp(jnp.tanh)
    act.defvjp(lambda y: (jnp.tanh(y), y), lambda y, g: (jnp.where(y > 0, g, 0),))
    return act(y)


class Remat(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(nn.relu(nn.remat(nn.Dense)(12)(nn.relu(x))))


EQUAL = {
    "loop": (nn.RNN(nn.SimpleCell(6, activation_fn=nn.relu)), X.reshape(2, 4, 12)),
    "remat": (Remat(), X),
    "backward": (
        nn.Sequential([nn.Dense(12), own, nn.Dense(3), jax.nn.log_softmax]),
        X,
    ),
    "nnx": (Mutable, X),
}


@pytest.mark.parametrize("name", slow_but(["remat", "nnx"], EQUAL))
def test_an_equal_model_is_not_traced_again(name):
    """Rules of derivatives that are traced anew are equal if they do the same."""
    model, x = EQUAL[name]
    first = report(model, x)
    before = {*_kept._kept}
    second = report(model, x)
    assert {*_kept._kept} == before
    for one, other in zip(numbers(first), numbers(second), strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_is_drawn_may_change():
    """Vectors for the Jacobian, and numbers for a second output, of equal shapes."""

    def init(key):
        return jax.random.normal(key, (12, 3))

    def one(w, x):
        return x @ w

    def two(w, x):
        return x @ w, (x @ w)[:3]

    report((init, one))
    assert ji.check((init, two), X, key=KEY, seeds=2, jacobian=0).jacobian == {}


def test_names_of_layers_may_change():
    def make(name):
        def init(key):
            return {name: {"kernel": jax.random.normal(key, (12, 3))}}

        return init, lambda params, x: x @ params[name]["kernel"]

    assert [report(make(n)).layers[0].path for n in ("one", "two")] == ["one", "two"]


def test_spellings_know_derivatives():
    def trace(scale):
        act = jax.custom_jvp(jnp.tanh)
        act.defjvp(lambda ys, ts: (jnp.tanh(ys[0]), scale * ts[0]))
        return jax.make_jaxpr(lambda x: act(x))(X)

    one, same, other = trace(1.0), trace(1.0), trace(2.0)
    assert spell_program(one) == spell_program(other)
    assert spell_program(one, True) == spell_program(same, True)
    assert spell_program(one, True) != spell_program(other, True)
    assert spell_program(trace(None), True) != spell_program(trace(None), True)
