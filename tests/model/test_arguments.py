"""Arguments of `reinit`, `preview`, `describe`, `jit_init`: a line for a wrong one."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxinit import describe, he_normal, jit_init, preview, recipes, reinit
from jaxinit._paths import key_of

KEY = jax.random.key(2)
PARAMS = {"d": {"kernel": jnp.ones((4, 4)), "bias": jnp.ones(4)}}
RULES = [("kernel", 0.5)]
LINEAR = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
SHAPES = {"w": jax.ShapeDtypeStruct((2,), jnp.float32)}


def assert_said(call, run, part=""):
    """Asserts that a run raises one line in the house form: call - rule - cure."""
    with pytest.raises((TypeError, ValueError)) as caught:
        run()
    text = str(caught.value)
    assert type(caught.value) in (TypeError, ValueError)
    assert re.match(rf"{call}\(.*\)[:,] \S", text) and "\n" not in text, text
    assert len(text) < 500 and re.search(part, text), text


CALLS = {
    "reinit": lambda params, rules, **more: reinit(KEY, params, rules, **more),
    "preview": preview,
    "describe": lambda params, rules, **more: describe(params, rules=rules, **more),
}


@pytest.mark.parametrize(
    ("key", "part"),
    [
        (3, r"key=3\): key must be a PRNG key. Write jax.random.key\(0\)"),
        (None, "key must be a PRNG key"),
        ("a", "key must be a PRNG key"),
        (1.5, "key must be a PRNG key"),
        ([], "key must be a PRNG key"),
        (PARAMS, "key must be a PRNG key"),
        (np.ones(3), "key must be a PRNG key"),
        (jnp.ones(2), "key must be a PRNG key"),
        (jax.random.split(KEY), "must be one key, not an array of keys"),
    ],
    ids=lambda x: type(x).__name__,
)
def test_keys(key, part):
    assert_said("reinit", lambda: reinit(key, PARAMS, RULES), part)
    assert_said("draw", lambda: preview(PARAMS, RULES).draw(key), part)
    assert_said("key_of", lambda: key_of(key, "a"), part)


PARAMETERS = [
    (None, "None has no leaves. Pass what model.init"),
    ({}, "{} has no leaves"),
    ([], r"\[\] has no leaves"),
    (3, "What came is int"),
    (1.5, "What came is float"),
    ("text", "What came is str"),
    (b"x", "What came is bytes"),
    ({1, 2}, "What came is set"),
    (object(), "What came is object"),
    (jnp.tanh, "What came is "),
    (nn.Dense, r"the class Dense. Pass what model.init\(key, x\) returns, or nnx.stat"),
    (nn.Dense(3), "What came is Dense"),
    (nnx.Linear, "the class Linear"),
    (KEY, "What came is a PRNG key"),
    ({"a": KEY}, "Its leaves are a PRNG key"),
    ({"a": "b", "c": 1}, "Its leaves are int, str"),
    (jnp.float32, "the class float32"),
    ({"dtype": np.float32}, "the class float32"),
    (np.array(["a"]), "<U1 array"),
    (np.array([object()]), "object array"),
    (np.zeros(2, [("x", float)]), "array. Pass"),
    (np.ones(2, np.longdouble), r"float\d+ array. Pass"),
]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(("params", "part"), PARAMETERS, ids=range(len(PARAMETERS)))
def test_parameters(call, params, part):
    rule = r"params=...\): there is no array in the tree that could be a parameter"
    assert_said(call, lambda: CALLS[call](params, RULES), f"{rule}. .*{part}")
    if call == "describe":
        assert_said(call, lambda: describe(params), part)


def test_parameters_without_floats():
    counts = {"n": jnp.arange(3)}
    assert_said("reinit", lambda: reinit(KEY, counts, RULES), "are int32 array")
    assert describe(counts).count == 3
    assert_said("describe", lambda: describe(SHAPES), "preview.params, rules. tells")


def test_shapes_that_no_rule_can_fill():
    shapes = SHAPES | {"n": jax.ShapeDtypeStruct((), jnp.int32)}
    assert_said("reinit", lambda: reinit(KEY, shapes, [("w", 1.0)]), "n has.*Leave it")


def test_swapped_arguments():
    swapped = r"the key stands before .* Write reinit\(key, params, rules\)"
    assert_said("reinit", lambda: reinit(PARAMS, KEY, RULES), swapped)
    for params in (PARAMS, LINEAR):
        behind = "rules must be a list of pairs .* Parameters stand before the rules"
        assert_said("reinit", lambda p=params: reinit(KEY, RULES, p), behind)
        assert_said("preview", lambda p=params: preview(RULES, p), behind)


NOT_LISTS = [
    (3, r"=3\): rules must be a list of pairs \(pattern, what\). Write \[\("),
    (he_normal(), r"For all kernels write \[\(\"kernel\", he_normal\(\)\)\]"),
    (he_normal, r"For all kernels write \[\(\"kernel\", he_normal\(\)\)\]"),
    ("he_normal()", r"For all kernels write \[\(\"kernel\", 'he_normal\(\)'\)\]"),
    ({"kernel": 0.5}, r"Write list\(rules.items\(\)\)"),
    ({}, "or pass a recipe"),
    ({("kernel", 0.5)}, "or pass a recipe"),
    (("kernel", he_normal()), "Put the pair into a list"),
    (((None, None), he_normal()), "Put the pair into a list"),
    (recipes.gpt2, r"call it: recipes"),
    (KEY, "or pass a recipe"),
    (nn.Dense(3), "or pass a recipe"),
    ([], "there is no rule"),
    ([None], "a rule is a pair .*, not None"),
    (["ab"], "a rule is a pair .*, not 'ab'"),
    ([("kernel",)], "a rule is a pair"),
    ([("kernel", 1, 2)], "a rule is a pair"),
    ([(he_normal(), "kernel")], r"Write \('kernel', he_normal\(\)\)"),
    ([(3, 0.0)], "a pattern is a glob.*, not 3"),
    ([(None, 0.0)], "a pattern is a glob"),
    ([("", 0.0)], "a pattern is a glob"),
    ([(lambda path: True, 0.0)], r"a function as a pattern takes \(path, leaf\)"),
    ([(lambda path, leaf: leaf.nope, 0.0)], "raised AttributeError"),
    ([(lambda path, leaf: jnp.ones(2), 0.0)], "raised ValueError"),
    ([("[", 0.0)], "matches no parameter"),
]
NOT_LAWS = [
    ({}, "{} is no initializer, and no number or array of the shape"),
    (b"a", "is no initializer"),
    (True, "is no initializer"),
    (object(), "is no initializer"),
    ([1, 2], "is no initializer"),
    ([[1], [1, 2]], "inhomogeneous"),
    (10**400, "is no initializer"),
    (np.array("a"), "is no initializer"),
    (KEY, "PRNGKey"),
    (1j, r"1j is complex, and float32 is not"),
    (1e300, "float32 cannot hold 1e.300"),
    ("he_nrmal", "Did you mean 'he_normal'"),
    ("", "malformed"),
    ("kernel", "there is no initializer 'kernel'"),
    (he_normal, r"Write he_normal\(...\)"),
    (jax.nn.initializers.he_normal, "not an array. If it builds an initializer, call"),
    (nn.Dense(3), "d/kernel"),
    (lambda key, shape, dtype: None, "the initializer returned None, not an array"),
    (lambda key, shape, dtype: 3.0, "returned 3.0, not an array"),
    (lambda key, shape, dtype: [1], "not an array"),
    (lambda key, shape, dtype: "a", "not an array"),
    (lambda key, shape, dtype: key, r"an array of shape \(\)"),
    (lambda key, shape, dtype: jnp.ones(shape, jnp.complex64), "is complex"),
    (lambda key, shape, dtype: {}["a"], "KeyError: 'a'"),
    (lambda key, shape, dtype: key.nope, "AttributeError"),
    (lambda: 1, "takes 0 positional arguments but 3"),
    (lambda path: 1, "takes 1 positional argument but 3"),
    (lambda path, leaf, siblings: siblings["no"], "KeyError: 'no'"),
    (lambda path, leaf, siblings: {}, "is no initializer"),
    (lambda path, leaf, siblings: "no()", "there is no initializer 'no'"),
]
WRONG = NOT_LISTS + [([("kernel", law)], part) for law, part in NOT_LAWS]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(("rules", "part"), WRONG, ids=range(len(WRONG)))
def test_rules(call, rules, part):
    assert_said(call, lambda: CALLS[call](PARAMS, rules), part)


def test_no_rules():
    assert_said("reinit", lambda: reinit(KEY, PARAMS, None), "rules=None")
    assert_said("preview", lambda: preview(PARAMS, None), "rules=None")


def test_a_rule_of_a_path_may_leave_it():
    made = reinit(KEY, PARAMS, [("**", lambda path, leaf, siblings: None)])
    assert made["d"]["kernel"] is PARAMS["d"]["kernel"]


@pytest.mark.parametrize("strict", [0, 3, "yes", [], 1.0])
def test_strict(strict):
    assert_said("preview", lambda: preview(PARAMS, RULES, strict=strict), "True or F")
    assert_said("reinit", lambda: reinit(KEY, PARAMS, RULES, strict=strict), "True")


STACKED = [
    (3, "needs a pattern, as rules have"),
    ("", "needs a pattern"),
    ([], "needs a pattern"),
    (object(), "needs a pattern"),
    ({3: 0}, "needs a pattern"),
    ("nothing", "matches no parameter"),
    (lambda path: True, r"takes \(path, leaf\)"),
    ({"kernel": "a"}, "axis must be an axis"),
    ({"kernel": None}, "axis must be an axis"),
    ({"kernel": {}}, "axis must be an axis"),
    ({"kernel": 5}, "axis=5 names axis 5, which 2 axes do not have"),
    ({"kernel": (0, 0)}, "names an axis twice"),
]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(("stacked", "part"), STACKED, ids=range(len(STACKED)))
def test_stacked(call, stacked, part):
    assert_said(call, lambda: CALLS[call](PARAMS, RULES, stacked=stacked), part)
    if call == "describe":
        assert_said(call, lambda: describe(PARAMS, stacked=stacked), part)


def test_descriptions_need_values():
    def count(params, **more):
        return describe(params, **more).count

    traced = r"d/bias must have values, and it is traced. Describe outside of jit"
    for more in ({}, {"rules": RULES}):
        run = jax.jit(lambda params, more=more: count(params, **more))
        assert_said("describe", lambda run=run: run(PARAMS), traced)
    assert_said("describe", lambda: jax.vmap(count)({"w": jnp.ones((2, 3))}), "traced")
    gone = {"w": jnp.ones(3) + 1}
    gone["w"].delete()
    assert_said("describe", lambda: describe(gone), "w must .* it has been deleted")
    assert (reinit(KEY, gone, [("w", 2.0)])["w"] == 2).all()


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"what": 3}, "what must be one of 'histogram', 'heatmap', 'bias'"),
        ({"what": None}, "what must be one of"),
        ({"what": "bar"}, "what must be one of"),
        ({"match": 3}, "match must be a part of a path, such as 'kernel'"),
        ({"match": ["kernel"]}, "match must be a part of a path"),
        ({"match": "zzz"}, "there is no parameter for a histogram"),
    ],
)
def test_plots(options, part):
    assert_said("plot", lambda: describe(PARAMS).plot(**options), part)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"init_fn": None}, "init_fn must be a function, such as model.init"),
        ({"init_fn": 3}, "init_fn must be a function"),
        ({"init_fn": "model.init"}, "init_fn must be a function"),
        ({"init_fn": PARAMS}, "init_fn must be a function"),
        ({"init_fn": [he_normal()]}, "init_fn must be a function"),
        ({"init_fn": nn.Dense(3)}, "init_fn=Dense.*a module. Pass model.init"),
        ({"out_shardings": 3}, "out_shardings=3.* as for jax.jit"),
        ({"out_shardings": "x"}, "as for jax.jit"),
        ({"out_shardings": nn.Dense}, "as for jax.jit"),
        ({"static_argnums": "a"}, "static_argnums must be integers"),
        ({"static_argnums": 3}, "static_argnums=3"),
        ({"static_argnums": nn.Dense}, "as for jax.jit"),
        ({"static_argnames": 3}, "static_argnames=3"),
        ({"static_argnames": "a"}, "as for jax.jit"),
        ({"static_argnames": [1]}, "as for jax.jit"),
    ],
    ids=str,
)
def test_init_functions(options, part):
    assert_said(
        "jit_init", lambda: jit_init(**{"init_fn": lambda key: 0} | options), part
    )


def test_shardings_of_another_tree_take_one_line():
    mesh = jax.make_mesh((1,), ("x",))
    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    init = jit_init(lambda key: PARAMS, out_shardings=[place])
    with pytest.raises(
        ValueError, match="^jit_init.*out_shardings must have the tr.*$"
    ):
        init(KEY)


def test_static_arguments_may_be_none():
    init = jit_init(lambda key: 1.0, static_argnums=None, static_argnames=None)
    assert init(KEY) == 1


def test_paths_of_keys():
    assert_said("key_of", lambda: key_of(KEY, 3), "path must be a string")
    assert key_of(KEY, "").dtype == KEY.dtype
