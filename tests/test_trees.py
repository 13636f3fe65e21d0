"""Trees: each kind of pytree, each name as a path, ties of NNX, globs."""

import collections
import dataclasses
import fnmatch
import functools
import time
from typing import Any, NamedTuple

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

import jaxinit
from jaxinit import describe, preview, reinit
from jaxinit.model import key_of, named
from jaxinit.model._patterns import literal, matches

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


@pytest.fixture(scope="module", params=KINDS)
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


# Names.

NAMES = ["value", "a/b", "", "0", "*", "**", "[x]", "?", "é", "e\u0301", "a b", "~"]
NAMES += ["line\nbreak", "\ud800", "None", ".", "/", "a/", "keys", "'"]
KEYS = [*NAMES, 0, None, True, 1.5, ("a", 1), ("a",), b"a", np.int64(3), np.str_("s")]


@pytest.mark.parametrize("name", KEYS, ids=ascii)
def test_every_key_is_a_path(name):
    tree = {"m": collections.OrderedDict([(name, W), ("other", W)])}
    path = f"m/{name}"
    assert [key for key, _ in named(tree)] == [path, "m/other"]
    assigned = preview(tree, [("m/other", 0.0), (literal(path), 1.0)], strict=True)
    made = assigned.draw(KEY)
    assert (made["m"][name] == 1).all() and not made["m"]["other"].any()
    str(assigned).encode()
    str(describe(tree)).encode()
    drawn_again = reinit(KEY, tree, [("**", LAW)])["m"][name]
    expected = drawn(key_of(KEY, path), W.shape, W.dtype)
    np.testing.assert_array_equal(drawn_again, expected)


@pytest.mark.parametrize("name", ["value", "kernel", "é", "_", "keys", "parts"])
def test_every_attribute_is_a_path(name):
    kind = dataclasses.make_dataclass("Kind", [name, "other"])
    jax.tree_util.register_dataclass(kind, [name, "other"], [])
    paths = [path for path, _ in named({"m": kind(W, W)})]
    assert paths == [f"m/{name}", "m/other"]


@pytest.mark.parametrize("name", [n for n in NAMES if n != "keys"], ids=ascii)
def test_every_attribute_of_a_model_is_a_path(name):
    model = nnx.Dict(other=nnx.Param(W))
    setattr(model, name, nnx.Dict({name: nnx.Param(W)}))
    (path,) = {path for path, _ in named(model)} - {"other"}
    assert path == f"{name}/{name}"
    made = reinit(KEY, model, [(literal(path), 2.0)])
    leaves = dict(named(nnx.state(made)))
    assert (leaves[path] == 2).all() and (leaves["other"] == 1).all()


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


@pytest.mark.parametrize(
    "tree",
    [
        {"a/b": jnp.ones((3, 3)), "a": {"b": jnp.ones((4, 4))}},
        collections.OrderedDict([(0, W), ("0", W)]),
        {"a": {"b/c": W}, "a/b": {"c": W}},
        [{"": W}, {"0/": W}][0] | {"a": {"": W}, "a/": W},
        collections.OrderedDict([(None, W), ("None", W)]),
        collections.OrderedDict([(("a", 1), W), ("('a', 1)", W)]),
    ],
    ids=lambda tree: ascii(list(tree)),
)
def test_equal_paths_are_refused(tree):
    message = r"\(params=...\): the path .* must be that of one parameter, and \[.*\] "
    for call in (preview, describe, lambda tree, rules: reinit(KEY, tree, rules)):
        with pytest.raises(ValueError, match=message + r"and \[.*\] have it\. Rename"):
            call(tree, rules=[("**", LAW)])


def test_equal_paths_of_what_is_no_parameter_are_let_be():
    tree = {"a/b": jnp.arange(3), "a": {"b": W, "c": W}}
    made = reinit(KEY, tree, [("**", 2.0)])
    assert made["a/b"] is tree["a/b"] and (made["a"]["b"] == 2).all()


def test_paths_with_an_address_are_refused():
    with pytest.raises(ValueError, match=r"the same in every process, and <object .*>"):
        preview({object(): W}, [("**", LAW)])


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


def test_a_cycle_is_no_hindrance():
    model = nnx.Linear(4, 3, rngs=nnx.Rngs(0))
    model.parent = nnx.Dict(child=model)
    made = reinit(KEY, model, [("kernel", LAW), ("bias", 1.0)])
    assert made.parent.child is made and (made.bias[...] == 1).all()


def test_equal_arrays_of_plain_trees_are_two_parameters():
    made = reinit(KEY, {"a": W, "b": W}, [("**", LAW)])
    assert (made["a"] != made["b"]).any()
    assert describe({"a": W, "b": W}).count == 2 * W.size


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


# Globs.

PARTS = st.lists(st.sampled_from(["a", "b", "ab", "", "**"]), max_size=7)
GLOBS = st.lists(st.sampled_from(["**", "*", "a", "?b", "[ab]", "", "a*"]), max_size=7)


def by_definition(parts, globs):
    """Matches by trying every number of parts for every ``**``."""
    if not globs:
        return not parts
    if globs[0] == "**":
        return any(by_definition(parts[i:], globs[1:]) for i in range(len(parts) + 1))
    first = bool(parts) and fnmatch.fnmatchcase(parts[0], globs[0])
    return first and by_definition(parts[1:], globs[1:])


@given(PARTS.filter(bool), GLOBS.filter(lambda globs: len(globs) > 1))
def test_globs_match_as_defined(parts, globs):
    expected = by_definition(parts, globs)
    assert matches("/".join(globs), "/".join(parts), W) == expected


def test_globs_take_no_exponential_time():
    path, deep = "/".join(["a"] * 60), "/".join(["**", "a"] * 30)
    start = time.process_time()
    assert matches(deep, path, W) and not matches(f"{deep}/b", path, W)
    assert not matches("*a" * 30 + "/b", "a" * 60 + "/c", W)
    assert time.process_time() - start < 0.1


@given(st.text("ab/*?[]!-é\\\n", max_size=12))
def test_a_path_is_matched_by_its_literal(path):
    assert matches(literal(path), path, W)
    assert not matches(literal(f"x/{path}"), f"y/{path}", W)
