"""Initial weights: those that Flax and `reinit` draw, by few programs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import slow_but

import jaxinit
from jaxinit.lab import DEFAULT_INITIALIZERS
from jaxinit.lab._train._draws import draw_all, drop_perturbations
from jaxinit.lab._tried._model import MLP
from jaxinit.lab._tried._perceptron import adapt_perceptron
from jaxinit.lab._tried.networks import build_network
from jaxinit.lab._tried.tasks import memory

SEEDS = 2
FIRST = ("constant(0.01)", "he_normal()", "lecun_uniform()")


def draw_together(initialize, x):
    """Draws all seeds in one program, as one vmap."""
    keys = jax.vmap(jax.random.key)(jnp.arange(SEEDS))
    return jax.jit(jax.vmap(lambda key: drop_perturbations(initialize(key, x))))(keys)


def assert_equal(ours, theirs):
    """Compares the draws of one initializer, bit for bit."""
    mine = jax.tree.map(lambda a: a[0], ours)
    assert jax.tree.structure(mine) == jax.tree.structure(theirs)
    jax.tree.map(np.testing.assert_array_equal, mine, theirs)


@pytest.mark.parametrize("spec", slow_but(FIRST, DEFAULT_INITIALIZERS))
def test_perceptrons_have_the_weights_that_flax_draws(spec):
    init, x = jaxinit.parse(spec), jnp.ones((1, 6))
    model = MLP(4, 8, 3, jax.nn.relu, "none")
    ours = draw_all(adapt_perceptron(model), [init], SEEDS, x)
    assert_equal(ours, draw_together(model.clone(kernel_init=init).init, x))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("depth", "norm"),
    slow_but([(12, "batch")], [(2, "batch"), (3, "layer"), (12, "batch")], rows=True),
)
def test_depth_and_norm_leave_the_weights_to_flax(depth, norm):
    init, x = jaxinit.he_normal(), jnp.ones((1, 6))
    model = MLP(depth, 8, 3, jax.nn.relu, norm)
    ours = draw_all(adapt_perceptron(model), [init], SEEDS, x)
    theirs = draw_together(
        lambda key, x: model.clone(kernel_init=init).init(key, x, train=True), x
    )
    assert_equal(ours, theirs)


@pytest.mark.slow
def test_other_networks_have_the_weights_that_reinit_draws():
    task, init = memory(), jaxinit.he_normal()
    network = build_network("transformer", task, 1, 8, jax.nn.relu, "layer")
    x = jnp.asarray(task.x_train[:1])
    ours = draw_all(network, [init], SEEDS, x)
    assert_equal(ours, draw_together(network.redraw_by(init), x))


def test_initializers_of_one_law_share_a_program(monkeypatch):
    compiled, real = [], jaxinit.model._fill.plan._compile

    def compile_(program, lowered):
        compiled.append(program.kind)
        real(program, lowered)

    monkeypatch.setattr("jaxinit.model._fill.plan._compile", compile_)
    jaxinit.clear_caches()
    inits = ["he_normal()", "glorot_normal()", "truncated_normal(0.2)", "zeros()"]
    network = adapt_perceptron(MLP(6, 8, 8, jax.nn.relu, "none"))
    drawn = draw_all(network, list(map(jaxinit.parse, inits)), SEEDS, jnp.ones((1, 8)))
    assert compiled == ["law"]
    assert {len(leaf) for leaf in jax.tree.leaves(drawn)} == {4}
