"""`check` measures each layer that `structure` knows of, or says that it does not."""

import jax
import jax.numpy as jnp
import pytest
from test_architectures import TABLE

import jaxinit
from jaxinit._adapt.inputs import set_mode
from jaxinit.signal import _check
from jaxinit.signal._measure.program import prepare

LOOP, BRANCH = "a while loop", "a branch that data choose"
RAGGED, BY_HAND = (
    "the operation ragged_dot_general",
    "a sum of products entry by entry",
)
UNSEEN = {
    "a layer by while_loop": {"w": LOOP},
    "layers by cond": {"one": BRANCH, "two": BRANCH},
    "experts, ragged_dot": dict.fromkeys(("gate", "up", "down"), RAGGED),
    "graph convolution and graph attention": dict.fromkeys(
        ("source", "target"), BY_HAND
    ),
    "state space, S4D": {"c": BY_HAND},
    "ensemble, Equinox": {"w": BY_HAND},
    "neural ODE, odeint": dict.fromkeys(
        ("a", "b"), "a function that only its own rule differentiates"
    ),
}
SOME = [*UNSEEN, "blocks by fori_loop", "layers by scan, Equinox"]


class Traced(Exception):
    """Carries a program out of `check`, before anything is compiled."""


def trace(each, monkeypatch):
    def stop(model, inputs, key, seeds, loss, *rest):
        raise Traced(prepare(model, inputs, key, loss))

    def fill(x):
        is_shape = isinstance(x, jax.ShapeDtypeStruct)
        return jnp.ones(x.shape, x.dtype) if is_shape else x

    monkeypatch.setattr(_check, "measure", stop)
    given = dict(each.keywords)
    train, arguments = given.pop("train", None), given.pop("arguments", {})
    given["arguments"] = set_mode(each.model, arguments, train)
    inputs = tuple(jax.tree.map(fill, each.inputs))
    with jax.numpy_dtype_promotion("standard"), pytest.raises(Traced) as caught:
        jaxinit.check(each.model, inputs, key=jax.random.key(0), **given)
    return caught.value.args[0]


@pytest.mark.parametrize("name", SOME)
def test_what_is_not_measured_is_named(name, monkeypatch):
    program = trace(TABLE[name], monkeypatch)
    assert program.unseen == UNSEEN.get(name, {})


def test_a_loop_chooses_weights_by_its_counter(monkeypatch):
    program = trace(TABLE["blocks by fori_loop"], monkeypatch)
    found = [(site.path, steps) for site, steps in program.sites]
    assert found == [("first", ()), ("up", (5,)), ("down", (5,)), ("last", ())]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(TABLE.keys() - set(SOME)))
def test_no_layer_is_silent(name, monkeypatch):
    """All that the table knows as a kernel is a layer; rows of tables are none."""
    if name == "matrix factorization":  # nothing but tables
        return
    program = trace(TABLE[name], monkeypatch)
    each = TABLE[name]
    with jax.numpy_dtype_promotion("standard"):
        known = jaxinit.structure(each.model, *each.inputs, **each.keywords)
    assert program.read_structure() == known
    assert not program.unseen
