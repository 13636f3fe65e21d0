"""Init functions see tracers that answer at once; what they do is traced as ever."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax import lax
from jax.extend import core

from jaxinit._jaxpr import tracers
from jaxinit._jaxpr.tracers import trace_quietly

KEY = jax.random.key(0)


def drawn(key):
    return jax.random.normal(key, (4,))


def closed_over_by_jit(key):
    x = drawn(key)
    return jax.jit(lambda y: y * x)(x), jax.named_call(lambda y: y + x)(x)


def custom_derivatives(key):
    x = drawn(key)

    @jax.custom_jvp
    def forward(y):
        return y * x

    @jax.custom_vjp
    def backward(y):
        return y * x

    forward.defjvp(lambda primals, tangents: (forward(*primals), tangents[0]))
    backward.defvjp(lambda y: (backward(y), y), lambda y, g: (g * y,))
    return jax.nn.relu(x), forward(x), backward(x)


def control_flow(key):
    x = drawn(key)
    total, _ = lax.scan(lambda c, i: (c + x * i, None), x, jnp.arange(3.0))
    chosen = lax.cond(x[0] > 0, lambda y: y + x, lambda y: y - x, x)
    last = lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] * x), (0, x))
    return total, chosen, last


def transformed(key):
    x = drawn(key)

    def function(y):
        return (jnp.sin(y) * x).sum()

    many = jax.vmap(lambda key: drawn(key) + x)(jax.random.split(key, 3))
    again = jax.checkpoint(function)(x)
    return many, again, jax.grad(function)(x), jax.jvp(function, (x,), (x,))


def arrays(key):
    x = drawn(key)
    shape = jax.eval_shape(drawn, key).shape
    return (
        x[1:3],
        x.at[0].set(1),
        jnp.zeros(shape),
        jax.random.key_data(key),
        {"key": key},
    )


def module(key):
    model = nnx.Sequential(
        nnx.Linear(3, 4, rngs=(rngs := nnx.Rngs(key))),
        nnx.BatchNorm(4, rngs=rngs),
        nnx.Dropout(0.5, rngs=rngs),
    )
    return nnx.split(model)[1]


def equations(traced):
    """Returns what a program does, in order; its numbers are those of the places."""
    places = {}

    def name(atom):
        is_variable = isinstance(atom, core.Var)
        return places.setdefault(atom, len(places)) if is_variable else str(atom)

    jaxpr = traced.jaxpr.jaxpr
    return [
        (eqn.primitive.name, list(map(name, eqn.invars)), list(map(name, eqn.outvars)))
        for eqn in jaxpr.eqns
    ], list(map(name, jaxpr.outvars))


FUNCTIONS = [
    *(arrays, closed_over_by_jit, control_flow, custom_derivatives, module),
    transformed,
]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_traces_are_those_of_jit(function):
    calls = []

    def counted(key):
        calls.append(key)
        return function(key)

    traced = jax.jit(lambda key: trace_quietly(counted, (key,), {})).trace(KEY)
    assert equations(traced) == equations(jax.jit(function).trace(KEY))
    assert len(calls) == 1  # it did not fall back
    assert isinstance(calls[0], tracers._Tracer)


def test_a_tracer_says_at_once_that_it_has_no_sharding():
    def init(key):
        with pytest.raises(AttributeError, match="sharding") as raised:
            drawn(key).sharding  # noqa: B018
        assert (
            len(str(raised.value)) < 200
        )  # that of JAX tells where the tracer is from
        assert getattr(key, "sharding", None) is None
        return key

    jax.jit(lambda key: trace_quietly(init, (key,), {})).trace(KEY)


def test_errors_are_those_of_jax():
    def init(key):
        return drawn(key) if drawn(key)[0] > 0 else None

    with pytest.raises(jax.errors.TracerBoolConversionError, match="the argument key"):
        jax.jit(lambda key: trace_quietly(init, (key,), {})).trace(KEY)


def test_what_jax_changes_is_only_slower(monkeypatch):
    def changed(*args):
        raise NotImplementedError

    monkeypatch.setattr(tracers._Trace, "process_primitive", changed)
    traced = jax.jit(lambda key: trace_quietly(drawn, (key,), {})).trace(KEY)
    assert equations(traced) == equations(jax.jit(drawn).trace(KEY))


def test_arguments_that_are_not_traced_come_as_they_are():
    given = {"sizes": [3, 4]}

    def init(key, given):
        seen.append(given)
        return key

    seen = []
    jax.jit(lambda key: trace_quietly(init, (key, given), {})).trace(KEY)
    assert seen == [given]
