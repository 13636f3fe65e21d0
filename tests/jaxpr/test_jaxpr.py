"""Traced programs are evaluated by one loop, with a rule for one equation."""

import jax
import jax.extend.core.primitives as primitives_of_jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxinit._jaxpr import primitives
from jaxinit._jaxpr.equation import bind, count_operands, fix, open_body
from jaxinit._jaxpr.evaluation import evaluate

X = jnp.linspace(-1, 1, 4)


def function(x):
    total, kept = jax.lax.scan(lambda c, i: (c + x * i, c), x, jnp.arange(3.0))
    y = jax.checkpoint(jnp.tanh)(jax.nn.relu(total)) + np.arange(4.0, dtype=np.float32)
    return jax.lax.cond(y[0] > 0, jnp.sin, jnp.cos, y), kept, jnp.ones((2,)), 3.0


def test_a_program_has_the_values_of_its_function():
    closed = jax.make_jaxpr(function)(X)
    made = evaluate(closed.jaxpr, closed.consts, [X], bind)
    for ours, theirs in zip(made, jax.tree.leaves(function(X)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_rules_open_programs_within():
    names = []

    def rule(eqn, values):
        names.append(eqn.primitive.name)
        body = open_body(eqn) if eqn.primitive.name in primitives.WRAPPERS else None
        if body is not None:
            return evaluate(body.jaxpr, body.consts, values, rule)
        return bind(eqn, values)

    closed = jax.make_jaxpr(jax.jit(lambda x: jax.nn.relu(jnp.tanh(x))))(X)
    (made,) = evaluate(closed.jaxpr, closed.consts, [X], rule)
    np.testing.assert_array_equal(made, jax.nn.relu(jnp.tanh(X)))
    assert {"tanh", "max"} <= set(names)


def test_a_value_may_be_what_is_known_of_it():
    def depend(eqn, values):
        return [frozenset().union(*values)] * len(eqn.outvars)

    closed = jax.make_jaxpr(lambda x, y: (x + 1, x * y, 2.0))(X, X)
    args = [frozenset("x"), frozenset("y")]
    made = evaluate(closed.jaxpr, (), args, depend, lambda constant: frozenset())
    assert made == [{"x"}, {"x", "y"}, frozenset()]


def test_operands_of_a_loop_are_counted():
    """JAX 0.11 writes the numbers in another way than 0.10."""

    def run(rows, x):
        def step(carry, row):
            total, count = carry
            return (total + row * X, count + 1), (row, total)

        return jax.lax.scan(step, (x, 0), rows)

    closed = jax.make_jaxpr(run)(jnp.ones((3, 4)), jnp.ones(4))
    (scan,) = (eqn for eqn in closed.jaxpr.eqns if eqn.primitive.name == "scan")
    assert count_operands(scan) == (1, 2) and len(scan.invars) == 4


def test_constants_are_kept_as_they_are():
    array = np.zeros(2)
    literal = core.Literal(array, jax.typeof(array))
    fixed = fix(literal)
    array += 1
    assert not fixed.val.any() and fix(fixed) is fixed


# Those that JAX does not export, or not in every version.
OTHERS = {
    *("checkpoint", "closed_call", "copy_p", "core_call", "custom_vjp_call_jaxpr"),
    *("optimization_barrier", "pjit", "platform_index", "random_unwrap"),
    *("random_wrap", "remat", "ragged_dot", "ragged_dot_general"),
}


def test_the_list_has_names_of_primitives():
    listed = set().union(
        *(value for value in vars(primitives).values() if isinstance(value, frozenset))
    )
    known = (
        value for value in vars(primitives_of_jax).values() if hasattr(value, "bind")
    )
    assert listed - {primitive.name for primitive in known} <= OTHERS
