"""Models of Equinox and Haiku: filled, drawn anew, described and checked."""

import functools

import jax
import numpy as np
import pytest
from marks import slow_but

import jaxinit
from jaxinit._adapt.adapt import adapt_for_training
from jaxinit._adapt.kinds import construct
from jaxinit._check import Unfit
from jaxinit._paths import named

eqx = pytest.importorskip("equinox")
hk = pytest.importorskip("haiku")

KEY = jax.random.key(7)
X = np.random.default_rng(1).normal(size=(16, 8)).astype(np.float32)
HAIKU = hk.without_apply_rng(hk.transform(lambda x: hk.nets.MLP([16, 16, 8])(x)))


def equinox(key):
    return eqx.nn.MLP(8, 8, 16, 2, key=key)


def arrays(tree):
    return {path: np.asarray(x) for path, x in named(eqx.filter(tree, eqx.is_array))}


def assert_same(ours, theirs):
    ours, theirs = arrays(ours), arrays(theirs)
    assert ours.keys() == theirs.keys() and ours
    for path, leaf in ours.items():
        np.testing.assert_array_equal(leaf, theirs[path], err_msg=path)


@pytest.fixture(scope="module")
def filled():
    return jaxinit.jit_init(equinox)(KEY)


@pytest.fixture(scope="module")
def haiku():
    return jaxinit.jit_init(HAIKU.init)(KEY, X)


def test_equinox_is_filled_as_by_jit(filled):
    assert_same(filled, eqx.filter_jit(equinox)(KEY))
    assert isinstance(filled, eqx.nn.MLP) and filled(X[0]).shape == (8,)
    assert callable(filled.activation)


@pytest.mark.slow
def test_stacked_equinox_is_filled_as_by_jit():
    def layers(key):
        keys = jax.random.split(key, 3)
        return eqx.filter_vmap(lambda key: eqx.nn.Linear(8, 8, key=key))(keys)

    made = jaxinit.jit_init(layers)(KEY)
    assert_same(made, eqx.filter_jit(layers)(KEY))
    rules = [("weight", jaxinit.he_normal(in_axis=1, out_axis=0))]
    drawn = jaxinit.preview(made, rules, stacked="**").rows
    assert {row.path: row.std for row in drawn} == {"weight": 0.5, "bias": None}


@pytest.mark.parametrize("kind", slow_but(["typed"], ["typed", "legacy"]))
def test_haiku_is_filled_as_by_jit(haiku, kind):
    key = KEY if kind == "typed" else jax.random.PRNGKey(7)
    made = haiku if key is KEY else jaxinit.jit_init(HAIKU.init)(key, X)
    assert_same(made, jax.jit(HAIKU.init)(key, X))


@pytest.mark.slow
def test_rules_and_descriptions_of_equinox(filled):
    rules = [
        ("layers/0/weight", jaxinit.orthogonal()),
        ("weight", jaxinit.he_normal(in_axis=1, out_axis=0)),
        ("bias", lambda path, leaf, siblings: 1 / siblings["weight"].shape[1]),
    ]
    made = jaxinit.reinit(KEY, filled, rules)
    assert isinstance(made, eqx.nn.MLP) and made.activation is filled.activation
    assert made(X[0]).shape == (8,)
    first = np.asarray(made.layers[0].weight)
    np.testing.assert_allclose(first.T @ first, np.eye(8), atol=1e-5)
    assert (np.asarray(made.layers[1].bias) == 1 / 16).all()
    rows = {x.path: x for x in jaxinit.describe(made, rules=rules).parameters}
    assert rows.keys() == arrays(filled).keys()
    expected = rows["layers/1/weight"].expected
    assert expected == pytest.approx((2 / 16) ** 0.5)
    assert rows["layers/1/weight"].std == pytest.approx(expected, rel=0.25)


@pytest.mark.slow
def test_rules_and_descriptions_of_haiku(haiku):
    rules = [("**/linear_0/w", jaxinit.orthogonal()), ("w", "he_normal()"), ("b", 0.5)]
    made = jaxinit.reinit(KEY, haiku, rules)
    assert jax.tree.structure(made) == jax.tree.structure(haiku)
    assert HAIKU.apply(made, X).shape == (16, 8)
    rows = {x.path: x for x in jaxinit.describe(made, rules=rules).parameters}
    assert rows["mlp/~/linear_0/b"].mean == 0.5
    assert rows["mlp/~/linear_1/w"].expected == pytest.approx((2 / 16) ** 0.5)


@pytest.mark.slow
def test_check_of_a_pair_of_haiku():
    pair = (lambda key: HAIKU.init(key, X), HAIKU.apply)
    report = jaxinit.check(pair, X, key=KEY, seeds=2, jacobian=0)
    assert len(report.layers) == 3 and report.condition


@pytest.mark.slow
def test_check_of_equinox_as_a_pair():
    static = eqx.filter(equinox(KEY), eqx.is_array, inverse=True)

    def init(key):
        return eqx.filter(equinox(key), eqx.is_array)

    def apply(params, x):
        return jax.vmap(eqx.combine(params, static))(x)

    report = jaxinit.check((init, apply), X, key=KEY, seeds=2, jacobian=0)
    assert len(report.layers) == 3 and report.condition


MAKERS = {
    "rngs": lambda rngs: rngs,
    "key": lambda key: key,
    "rngs of a partial": functools.partial(lambda width, rngs: rngs, 3),
    "rngs by another name": lambda streams: streams,
    "key by another name": lambda k: {"key": k}[k],
    "rngs among keywords": lambda **given: given["rngs"],
    "key among keywords": lambda **given: given["key"],
}


@pytest.mark.parametrize("name", MAKERS)
def test_a_maker_is_called_with_what_it_takes(name):
    found = construct(MAKERS[name], {"rngs": "rngs", "key": "key"})
    assert found == name.partition(" ")[0]


def test_a_maker_that_fails_raises_its_first_error():
    def fail(source):
        raise ValueError(source)

    with pytest.raises(ValueError, match="^rngs$"):
        construct(fail, {"rngs": "rngs", "key": "key"})


def test_only_models_of_flax_are_trained():
    for model in (equinox(KEY), HAIKU, (HAIKU.init, HAIKU.apply)):
        with pytest.raises(Unfit, match="is neither a Linen module nor an NNX class"):
            adapt_for_training(model, "package:Model")
