"""Trees: each kind of pytree as parameters, and the ties of NNX."""

import collections
import dataclasses
import functools
from typing import Any, NamedTuple

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from marks import slow_but

import jaxinit
from jaxinit import describe, preview, reinit
from jaxinit._paths import key_of, named

KEY = jax.random.key(9)
LAW = jaxinit.normal(0.5)
W = jnp.ones((4, 3))


# The kinds.


class Pair(NamedTuple):
    kernel: Any
    value: Any


@flax.struct.dataclass
class Struct:
    kernel: Any
    name: str = flax.struct.field(pytree_node=False, default="x")


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Registered:
    kernel: Any
    value: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Box:
    value: Any


@jax.tree_util.register_pytree_node_class
class Unnamed:
    """Says nothing of its children's names."""

    def __init__(self, *parts):
        self.parts = parts

    def tree_flatten(self):
        return self.parts, len(self.parts)

    @classmethod
    def tree_unflatten(cls, count, parts):
        return cls(*parts)


@jax.tree_util.register_pytree_with_keys_class
class Keyed(Unnamed):
    def tree_flatten_with_keys(self):
        return [(jax.tree_util.GetAttrKey("α/β*[0]"), self.parts[0])], None

    @classmethod
    def tree_unflatten(cls, _, parts):
        return cls(*parts)


class Net(nnx.Module):
    def __init__(self, rngs):
        self.value = nnx.Param(jnp.ones((4, 3)))
        self.layers = nnx.List([nnx.Linear(3, 3, rngs=rngs) for _ in range(11)])
        self.attention = nnx.Dict(value=nnx.Param(jnp.ones((3, 3))))
        self.raw = jnp.ones(2)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)


def equinox():
    eqx = pytest.importorskip("equinox")

    class Attention(eqx.Module):
        key: jax.Array
        value: jax.Array
        activation: Any

    return {"mlp": eqx.nn.MLP(3, 3, 4, 2, key=KEY), "a": Attention(W, W, jnp.tanh)}


def haiku():
    hk = pytest.importorskip("haiku")
    net = hk.transform(lambda x: hk.nets.MLP([4, 2])(x))
    return net.init(KEY, jnp.ones((1, 3)))


def linen():
    init = nn.with_partitioning(nn.initializers.zeros, (None, "m"))
    return nn.Dense(3, kernel_init=init).init(KEY, jnp.ones((1, 4)))


def net():
    return Net(nnx.Rngs(0))


KINDS = {
    "dict": lambda: {"a": {"kernel": W}, "b": {}},
    "ordered": lambda: collections.OrderedDict([("b", W), ("a", {"x": W})]),
    "default": lambda: collections.defaultdict(list, {"a": [W]}),
    "frozen": lambda: flax.core.freeze({"a": {"kernel": W}}),
    "list": lambda: [W, [W, [], ()]],
    "tuple": lambda: (W, (W,), None),
    "named tuple": lambda: {"a": Pair(W, W)},
    "struct": lambda: {"a": Struct(W)},
    "registered": lambda: Registered(Registered(W, W), W),
    "box": lambda: {"a": Box(W), "b": Box(Box(W)), "c": Box({"d": W})},
    "unnamed": lambda: Unnamed(W, Unnamed(W)),
    "keyed": lambda: [Keyed(W)],
    "linen": linen,
    "nnx": net,
    "nnx state": lambda: nnx.state(net()),
    "nnx params": lambda: nnx.state(net(), nnx.Param),
    "nnx within": lambda: {"a": net(), "b": (W, nnx.Param(W))},
    "nnx variable": lambda: nnx.Param(W),
    "equinox": equinox,
    "haiku": haiku,
    "array": lambda: W,
    "numpy": lambda: {"a": np.ones((4, 3), np.float32), "b": np.float32(1.0)},
    "half": lambda: {"a": W.astype(jnp.bfloat16), "b": W.astype(jnp.float16)},
    "shapes": lambda: jax.eval_shape(lambda: {"a": W}),
    "sizes": lambda: {"none": jnp.ones((0, 4)), "scalar": jnp.ones(())},
    "others": lambda: {
        **{"w": W, "none": None, "int": jnp.arange(3), "bool": jnp.ones(2, bool)},
        **{"key": KEY, "old": jax.random.PRNGKey(0), "f": jnp.tanh, "text": "x"},
        **{"number": 1.5, "type": jnp.float32, "class": np.float32, "object": object()},
        **{"long": np.ones(2, np.longdouble), "texts": np.array(["a"])},
    },
}


@functools.partial(jax.jit, static_argnums=(1, 2))
def drawn(key, shape, dtype):
    return LAW(key, shape, dtype)


def is_float(leaf):
    array = isinstance(leaf, (jax.Array, np.ndarray, np.generic, jax.ShapeDtypeStruct))
    fits = array and jnp.issubdtype(leaf.dtype, jnp.inexact)
    return fits and leaf.dtype != np.longdouble


# Those that compile what they hold; tests/model/test_frameworks.py has models of both.
LONG = {"equinox", "haiku", "half"}


@pytest.fixture(
    scope="module", params=slow_but([kind for kind in KINDS if kind not in LONG], KINDS)
)
def tree(request):
    return KINDS[request.param]()


def test_kinds_stay_and_values_depend_on_the_path(tree):
    made = reinit(KEY, tree, [("**", LAW)])
    assert jax.tree.structure(made) == jax.tree.structure(tree)
    before, after = named(tree), named(made)
    assert [path for path, _ in before] == [path for path, _ in after]
    assert len(dict(before)) == len(before)
    for (path, old), (_, new) in zip(before, after, strict=True):
        if not is_float(old):
            assert new is old or bool(jnp.all(new == old))
            continue
        assert (new.shape, new.dtype) == (old.shape, old.dtype)
        expected = drawn(key_of(KEY, path), old.shape, old.dtype)
        np.testing.assert_array_equal(new, expected, err_msg=path)


def test_kinds_are_described(tree):
    if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(tree)):
        return
    rows = describe(tree, rules=[("**", LAW)]).parameters
    paths = [path for path, leaf in named(tree) if is_float(leaf)]
    assert [row.path for row in rows if row.expected is not None] == paths
    numbers = [
        path
        for path, leaf in named(tree)
        if isinstance(leaf, (jax.Array, np.ndarray, np.generic))
        and not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        and leaf.dtype.char not in "UOg"
    ]
    assert [row.path for row in rows] == numbers


def test_doubles_of_numpy_become_what_jax_makes_of_them():
    tree = {"a": np.ones((4, 3)), "b": np.ones(3, complex), "c": np.ones(3)}
    made = reinit(KEY, tree, [("a", LAW), ("b", 2.0)])
    assert made["a"].dtype == np.float32 and made["b"].dtype == np.complex64
    assert made["c"] is tree["c"]


def test_a_model_has_the_paths_of_its_state():
    model = net()
    paths = [path for path, _ in named(model)]
    assert paths == [path for path, _ in named(nnx.state(model))]
    assert {"value", "attention/value", "layers/10/kernel", "raw"} <= set(paths)
    made = reinit(KEY, model, [("**", LAW)])
    state = reinit(KEY, nnx.state(model), [("**", LAW)])
    for (path, leaf), (_, other) in zip(named(made), named(state), strict=True):
        if is_float(leaf):
            np.testing.assert_array_equal(leaf, other, err_msg=path)


def test_paths_of_ordinary_trees_keep_their_text():
    assert [path for path, _ in named(KINDS["box"]())] == ["a", "b", "c/value/d"]
    assert [path for path, _ in named(linen())] == ["params/bias", "params/kernel"]
    assert [path for path, _ in named([W, {"a": (W,)}])] == ["0", "1/a/0"]
    assert [path for path, _ in named(nnx.Param(W))] == ["value"]
    assert [path for path, _ in named(Unnamed(W, W))] == ["0", "1"]
    assert [path for path, _ in named(W)] == [""]


# Ties.


class Tied(nnx.Module):
    def __init__(self, rngs):
        self.embed = nnx.Embed(8, 4, rngs=rngs)
        self.head = nnx.Linear(4, 8, rngs=rngs)
        self.head.kernel = self.embed.embedding
        self.blocks = nnx.List([nnx.Linear(4, 4, rngs=rngs)] * 3)


@pytest.fixture(scope="module")
def tied():
    return Tied(nnx.Rngs(0))


@pytest.mark.slow
def test_a_shared_variable_is_one_parameter(tied):
    rows = preview(tied, [("**", LAW)]).rows
    paths = ["blocks/0/bias", "blocks/0/kernel", "embed/embedding", "head/bias"]
    assert [row.path for row in rows] == paths
    described = describe(tied)
    assert [row.path for row in described.parameters] == paths
    assert described.count == 4 + 16 + 32 + 8
    before = tied.embed.embedding[...]
    made = reinit(KEY, tied, [("**", LAW)])
    assert tied.embed.embedding[...] is before
    assert made.head.kernel is made.embed.embedding
    assert made.blocks[0] is made.blocks[2]
    assert nnx.graphdef(made) == nnx.graphdef(tied)
    expected = drawn(key_of(KEY, "embed/embedding"), (8, 4), np.dtype(np.float32))
    np.testing.assert_array_equal(made.head.kernel[...], expected)
    nnx.update(tied, reinit(KEY, nnx.state(tied), [("**", LAW)]))
    np.testing.assert_array_equal(tied.head.kernel[...], expected)


@pytest.mark.slow
def test_ties_stay_in_trees_of_models_and_of_shapes(tied):
    pair = reinit(KEY, {"a": tied, "b": [tied.embed, tied.head.bias]}, [("**", LAW)])
    assert pair["b"][0] is pair["a"].embed
    assert pair["b"][1] is pair["a"].head.bias
    one, other = reinit(KEY, [tied.head.bias] * 2, [("**", LAW)])
    assert one is other
    made = reinit(KEY, nnx.eval_shape(lambda: Tied(nnx.Rngs(0))), [("**", LAW)])
    assert made.head.kernel is made.embed.embedding
    again = nnx.jit(lambda key, model: reinit(key, model, [("**", LAW)]))(KEY, tied)
    assert again.head.kernel is again.embed.embedding
    np.testing.assert_array_equal(again.head.kernel[...], made.head.kernel[...])


def test_jit_init_keeps_ties(tied):
    init = jaxinit.jit_init(lambda key: {"net": Tied(nnx.Rngs(key)), "f": jnp.tanh})
    filled = init(KEY)
    made = filled["net"]
    assert made.head.kernel is made.embed.embedding and filled["f"] is jnp.tanh
    assert nnx.graphdef(made) == nnx.graphdef(tied)
    assert jax.tree.structure(made) == jax.tree.structure(tied)
    expected = jax.jit(lambda key: Tied(nnx.Rngs(key)))(KEY)
    jax.tree.map(np.testing.assert_array_equal, made, expected)


def test_a_cycle_is_no_hindrance():
    model = nnx.Linear(4, 3, rngs=nnx.Rngs(0))
    model.parent = nnx.Dict(child=model)
    made = reinit(KEY, model, [("kernel", LAW), ("bias", 1.0)])
    assert made.parent.child is made and (made.bias[...] == 1).all()


def test_equal_arrays_of_plain_trees_are_two_parameters():
    made = reinit(KEY, {"a": W, "b": W}, [("**", LAW)])
    assert (made["a"] != made["b"]).any()
    assert describe({"a": W, "b": W}).count == 2 * W.size


@pytest.mark.slow
def test_shared_of_equinox_is_one_parameter():
    eqx = pytest.importorskip("equinox")
    pair = eqx.nn.Embedding(8, 4, key=KEY), eqx.nn.Linear(4, 8, key=KEY)
    shared = eqx.nn.Shared(
        pair, lambda pair: pair[1].weight, lambda pair: pair[0].weight
    )
    made = reinit(KEY, shared, [("weight", LAW)])
    embedding, linear = made()
    assert linear.weight is embedding.weight
    assert [row.path for row in describe(made).parameters] == [
        "pytree/0/weight",
        "pytree/1/bias",
    ]
