"""Flax: initializers as `kernel_init` in Linen and NNX, boxed, lifted and compiled."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import FEW, ROWS
from flax import nnx
from marks import slow_but

import jaxinit as ji
from jaxinit.testing import assert_orthonormal, assert_plugs_into_flax

KEY = jax.random.key(0)
X = jnp.ones((2, 12))


class Net(nn.Module):
    """Two dense layers of one initializer."""

    kernel_init: object

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(16, kernel_init=self.kernel_init, bias_init=ji.zeros)(x)
        return nn.Dense(4, kernel_init=self.kernel_init, bias_init=ji.constant(0.5))(x)


def traces(make):
    """Counts the compilations of two equal modules as static arguments."""
    count = 0

    def init(model, key, x):
        nonlocal count
        count += 1
        return model.init(key, x)

    jitted = jax.jit(init, static_argnums=0)
    for _ in range(2):
        jitted(Net(make()), KEY, X)
    return count


MAKERS = [ji.he_normal, lambda: ji.he_normal(gain=jax.nn.gelu)]


@pytest.mark.parametrize("make", slow_but(MAKERS[1:], MAKERS))
def test_equal_modules_compile_once(make):
    assert traces(make) == 1


@pytest.mark.slow
def test_equal_modules_of_jaxs_initializers_compile_twice():
    assert traces(jax.nn.initializers.he_normal) == 2


def test_linen_values_are_jaxs():
    ours = jax.jit(Net(ji.he_normal()).init)(KEY, X)
    theirs = jax.jit(Net(jax.nn.initializers.he_normal()).init)(KEY, X)
    chex.assert_trees_all_equal(ours, theirs)


@pytest.mark.parametrize("row", slow_but(FEW, ROWS), ids=lambda row: row.name)
def test_param_of_every_row(row):
    assert_plugs_into_flax(row.init, row.shape, jnp.bfloat16)


def test_linen_dtypes_and_partitioning():
    model = nn.Dense(
        8,
        dtype=jnp.float32,
        param_dtype=jnp.bfloat16,
        kernel_init=nn.with_partitioning(ji.he_normal(), (None, "model")),
        bias_init=nn.with_logical_partitioning(ji.zeros, ("embed",)),
    )
    params = model.init(KEY, X)["params"]
    assert params["kernel"].names == (None, "model")
    assert params["kernel"].value.dtype == jnp.bfloat16
    assert params["bias"].names == ("embed",)


@pytest.mark.slow
def test_linen_lifted_transforms():
    class Layer(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return nn.Dense(12, kernel_init=ji.orthogonal())(x), None

    scanned = nn.scan(
        nn.remat(Layer),
        variable_axes={"params": 0},
        split_rngs={"params": True},
        length=5,
    )
    kernel = jax.jit(scanned().init)(KEY, X, None)["params"]
    (kernel,) = (leaf for leaf in jax.tree.leaves(kernel) if leaf.ndim == 3)
    for layer in kernel:
        assert_orthonormal(layer)
    assert (kernel[0] != kernel[1]).any()

    mapped = nn.vmap(nn.Dense, variable_axes={"params": 0}, split_rngs={"params": True})
    mapped = jax.jit(mapped(7, kernel_init=ji.he_normal()).init)
    w = mapped(KEY, jnp.ones((3, 2, 5)))
    assert w["params"]["kernel"].shape == (3, 5, 7)


def test_nnx():
    class Model(nnx.Module):
        def __init__(self, rngs):
            init = ji.he_normal(gain="gelu")
            self.dense = nnx.Linear(12, 8, kernel_init=init, rngs=rngs)
            self.conv = nnx.Conv(
                3, 6, (3, 3), kernel_init=ji.delta_orthogonal(), rngs=rngs
            )
            self.embed = nnx.Embed(50, 8, embedding_init=ji.normal(0.02), rngs=rngs)

    model = Model(nnx.Rngs(0))
    kernel = model.conv.kernel[...]
    assert_orthonormal(kernel[1, 1])
    graph, _ = nnx.split(model)
    again, _ = nnx.split(Model(nnx.Rngs(1)))
    assert graph == again and hash(graph) == hash(again)
    split = nnx.jit(lambda: nnx.split(Model(nnx.Rngs(0)))[1])()
    np.testing.assert_array_equal(
        split["dense"]["kernel"][...], model.dense.kernel[...]
    )


def test_flax_embedding_default_has_its_fan():
    """Flax's default embedding initializer names out_axis=0: fan_in = features."""
    flax_default = nn.linear.default_embed_init
    ours = ji.variance_scaling(1.0, "fan_in", "normal", out_axis=0)
    theirs = jax.jit(lambda key: flax_default(key, (1000, 48), jnp.float32))(KEY)
    np.testing.assert_array_equal(ours(KEY, (1000, 48)), theirs)
