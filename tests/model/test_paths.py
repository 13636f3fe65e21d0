"""Paths: each name as a part of one, equal ones, and the globs that match them."""

import collections
import dataclasses
import fnmatch
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

import jaxinit
from jaxinit import describe, preview, reinit
from jaxinit._paths import key_of, named
from jaxinit.model._rules.patterns import literal, matches

KEY = jax.random.key(9)
LAW = jaxinit.normal(0.5)
W = jnp.ones((4, 3))


@functools.partial(jax.jit, static_argnums=(1, 2))
def drawn(key, shape, dtype):
    return LAW(key, shape, dtype)


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
