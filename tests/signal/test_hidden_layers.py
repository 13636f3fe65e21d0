"""Layers in functions with own derivatives, branches and loops: measured, or named."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxinit as ji
from jaxinit.signal import _check
from jaxinit.signal._measure.program import prepare

pytestmark = pytest.mark.usefixtures("quick_compiler")

KEY, X = jax.random.key(0), np.random.default_rng(0).normal(size=(16, 8))
X = X.astype(np.float32)


@jax.custom_vjp
def doubled(w, x):
    """Multiplies; its own rule doubles the gradient of x and forgets that of w."""
    return x @ w


doubled.defvjp(
    lambda w, x: (x @ w, (w, x)), lambda kept, g: (0 * kept[0], 2 * g @ kept[0].T)
)


@jax.custom_jvp
def by_jvp(w, x):
    return x @ w


by_jvp.defjvp(lambda at, d: (at[1] @ at[0], d[1] @ at[0] + at[1] @ d[0]))


def loop(w, x):
    def step(carry):
        return carry[0] + 1, carry[1] @ w

    return jax.lax.while_loop(lambda carry: carry[0] < x.sum(), step, (0.0, x))[1]


only_its_rule = jax.custom_vjp(loop)
only_its_rule.defvjp(lambda w, x: (loop(w, x), w), lambda w, g: (0 * w, g))


def of_rows(w, x):
    return jax.lax.ragged_dot(x, w[None], jnp.array([len(x)]))


SEEN = {
    "custom_vjp": doubled,
    "custom_jvp": by_jvp,
    "inside remat": jax.checkpoint(by_jvp),
    "inside jit": jax.jit(by_jvp),
    "a constant cond": lambda w, x: jax.lax.cond(True, lambda: x @ w, lambda: x),
    "a constant switch": lambda w, x: jax.lax.switch(1, [lambda: x, lambda: x @ w]),
}
UNSEEN = {
    "while": (loop, "a while loop"),
    "cond": (
        lambda w, x: jax.lax.cond(x.sum() > 0, lambda: x @ w, lambda: x),
        "a branch that data choose",
    ),
    "no rule": (only_its_rule, "a function that only its own rule differentiates"),
    "in scan": (
        lambda w, x: jax.lax.scan(lambda c, _: (loop(w, c), None), x, length=2)[0],
        "a while loop",
    ),
    "ragged": (of_rows, "the operation ragged_dot_general"),
}


def draw(names, key):
    keys = jax.random.split(key, len(names))
    pairs = zip(names, keys, strict=True)
    return {name: ji.orthogonal()(key, (8, 8)) for name, key in pairs}


def apply_in_turn(functions, params, x):
    """Applies each function to its weight; the unseen ones beside the way."""
    for name, function in functions.items():
        x = function(params[name], x)
    for name, (function, _) in UNSEEN.items() if "while" in params else ():
        x = x + jax.lax.stop_gradient(function(params[name], x))
    return x


def check(functions, names):
    model = functools.partial(draw, names), functools.partial(apply_in_turn, functions)
    report = ji.check(model, X, key=KEY, seeds=2, jacobian=0)
    return report, {layer.path: layer for layer in report.layers}


def test_layers_are_measured_or_named():
    report, layers = check(SEEN, [*SEEN, *UNSEEN])
    assert list(layers) == list(SEEN)
    assert report.unseen == {name: inside for name, (_, inside) in UNSEEN.items()}
    assert report.to_dict()["unseen"] == report.unseen
    for text in (str(report), report._repr_html_()):
        assert "the layers inside a while loop, with the weights while, in scan" in text
        assert "the operation ragged_dot_general, with the weights ragged" in text


@pytest.mark.slow
def test_their_signal_and_gradient():
    """The function's own rule says what flows out, derivatives of the body within."""
    _, layers = check(SEEN, SEEN)
    _, plain = check(dict.fromkeys(SEEN, lambda w, x: x @ w), SEEN)
    for name, layer in layers.items():
        twin = plain[name]
        np.testing.assert_allclose(layer.values("std"), twin.values("std"), rtol=1e-5)
        for of in ("gradient_std", "gradient_weight_std"):
            np.testing.assert_allclose(layer.values(of), twin.values(of), rtol=1e-5)
    # The one that doubles comes first: what is before it is the input.
    _, layers = check({"first": by_jvp, "custom_vjp": doubled}, ["first", "custom_vjp"])
    twins = {"first": by_jvp, "custom_vjp": by_jvp}
    _, plain = check(twins, ["first", "custom_vjp"])
    ratio = layers["first"].values("gradient_std") / plain["first"].values(
        "gradient_std"
    )
    np.testing.assert_allclose(ratio, 2, rtol=1e-5)


def test_a_model_whose_layers_are_all_hidden():
    pair = functools.partial(draw, ["w"]), lambda p, x: UNSEEN["cond"][0](p["w"], x)
    with pytest.raises(ValueError, match="has no layer.*; w is inside a branch that"):
        ji.check(pair, X, key=KEY)


class Traced(Exception):
    """Carries paths of layers out of `check`, before anything is compiled."""


class Parts(nn.Module):
    """A model with methods, static arguments, streams and collections."""

    def setup(self):
        self.coder, self.decoder = nn.Dense(4), nn.Dense(8)
        self.count = self.variable("cache", "count", jnp.zeros, ())

    def encode(self, x, times, mask=None):
        self.sow("intermediates", "x", x)
        self.count.value = self.count.value + 1
        y = self.coder(x) * times + jax.random.normal(self.make_rng("noise"), (4,))
        return y if mask is None else jnp.where(mask, y, 0)

    def __call__(self, x):
        return self.decoder(self.coder(x))


def test_what_jit_init_takes(monkeypatch):
    """Methods by name or function, static arguments, arrays by name, init functions."""

    def measure(model, inputs, key, seeds, loss, *rest):
        program = prepare(model, inputs, key, loss)
        raise Traced([site.path for site, _ in program.sites if site.fan_in])

    monkeypatch.setattr(_check, "measure", measure)

    def paths(model, x, **given):
        with pytest.raises(Traced) as caught:
            ji.check(model, x, key=jax.random.PRNGKey(0), **given)
        return caught.value.args[0]

    streams, mask = {"streams": ("noise",)}, {"mask": np.ones((16, 4), bool)}
    for method in ("encode", Parts.encode):
        call = {"arguments": {"method": method, "times": 2, **mask}}
        assert paths(Parts(), X, **call, **streams) == ["coder"]
    assert paths(Parts(), (X, 2), arguments={"method": "encode"}, **streams)
    static = ji.jit_init(
        lambda key, x, width: Parts().init(key, x), static_argnames="width"
    )
    pair = static, lambda variables, x, width: Parts().apply(variables, x)
    both = ["params/coder", "params/decoder"]
    assert paths(pair, X, arguments={"width": 3}) == both
    for name, cure in (("rngs", "name them, as streams="), ("mutable", "leave it out")):
        with pytest.raises(ValueError, match=f"not have '{name}': .*{cure}"):
            ji.check(Parts(), X, key=KEY, arguments={name: True})


@pytest.mark.slow
def test_roles_are_read_from_the_same_trace(monkeypatch):
    """Those of `structure`, of stacked layers too; a check does without, if it must."""
    layers = [nn.Dense(8), nn.relu, nn.Dense(8), nn.relu, nn.Dense(3)]
    model = nn.Sequential(layers)
    report = ji.check(model, X, key=KEY, seeds=1, jacobian=0)
    assert report.structure == ji.structure(model, X)
    roles = [layer.role for layer in report.layers if layer.fan_in]
    assert roles == ["input", "hidden", "readout"]
    assert [x["role"] for x in report.to_dict()["layers"] if x["fan_in"]] == roles

    def fail(*args):
        raise RuntimeError

    monkeypatch.setattr("jaxinit.signal._measure.program.read_structure", fail)
    other = nn.Sequential([nn.Dense(9), *layers[1:]])  # what was read is kept
    report = ji.check(other, X, key=KEY, seeds=1, jacobian=0)
    assert report.structure is None and report.layers[0].role == ""
