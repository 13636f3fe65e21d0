"""Names, layouts and frameworks change nothing; activations and branches are told."""

import functools
from collections import Counter

import flax.linen as nn
import jax
import numpy as np
import pytest
from architecture import data
from hypothesis import given, settings
from hypothesis import strategies as st
from same_block import KERNELS, MODELS, NAMES, PLAIN, X, build_functions

import jaxinit

# Written by hand: four products of the attention, two behind it, two at the ends.
ROWS = Counter(
    {
        ("input", (12, 12)): 1,
        ("query", (12, 12)): 1,
        ("key", (12, 12)): 1,
        ("value", (12, 12)): 1,
        ("residual", (12, 12)): 1,
        ("hidden", (12, 48)): 1,
        ("residual", (48, 12)): 1,
        ("readout", (12, 4)): 1,
        ("bias", None): 8,
        ("gain", None): 3,
        ("offset", None): 3,
    }
)


@functools.cache
def read(name):
    with jax.numpy_dtype_promotion("standard"):
        return jaxinit.structure(MODELS[name], *X)


@pytest.mark.parametrize("name", MODELS)
def test_one_architecture_in_every_framework(name):
    rows = read(name)
    assert Counter((row.role, row.fans) for row in rows.values()) == ROWS
    assert rows.branches == 2
    (up,) = (row for row in rows.find("hidden"))
    assert (up.activation, up.norm, up.branch) == ("relu", "before", 2)
    assert {row.branch for row in rows.find("residual")} == {1, 2}
    assert {row.head for row in rows.values() if row.head} == {6}
    assert all(row.head for role in ("query", "key") for row in rows.find(role))
    kernels = [row.order for row in rows.values() if row.is_kernel]
    assert len(set(kernels)) == 8


@settings(max_examples=20)
@given(
    order=st.permutations(range(len(NAMES))),
    is_transposed=st.fixed_dictionaries(dict.fromkeys(KERNELS, st.booleans())),
)
def test_names_and_layouts_change_nothing(order, is_transposed):
    """Parameters are renamed, which sorts them anew, and kernels stored transposed."""
    names = {name: f"p{place:02}" for name, place in zip(NAMES, order, strict=True)}
    rows = jaxinit.structure(build_functions(names, is_transposed), *X)
    before = read("functions")
    for name in NAMES:
        one, other = before[name], rows[names[name]]
        assert (one.role, one.fans, one.norm, one.activation, one.branch) == (
            other.role,
            other.fans,
            other.norm,
            other.activation,
            other.branch,
        )
        if name in KERNELS and is_transposed[name]:
            assert (other.in_axis, other.out_axis) == (one.out_axis, one.in_axis)
        assert {names[path] for path in one.of} == set(other.of)


def test_fans_draw_the_same_numbers_whatever_the_layout():
    """The axes of a row are the arguments of builders."""
    names = dict(zip(NAMES, NAMES, strict=True))
    rows = jaxinit.structure(build_functions(names, dict.fromkeys(KERNELS, True)), *X)
    key, row, plain = jax.random.key(0), rows["up"], read("functions")["up"]
    stored = jaxinit.glorot_normal(**row.axes)(key, row.shape)
    usual = jaxinit.glorot_normal(**plain.axes)(key, plain.shape)
    assert abs(float(np.std(stored)) / float(np.std(usual)) - 1) < 0.2


ACTIVATIONS = {
    "relu": nn.relu,
    "gelu": nn.gelu,
    "silu": nn.silu,
    "tanh": nn.tanh,
    "sigmoid": nn.sigmoid,
    "elu": nn.elu,
    "selu": nn.selu,
    "softplus": nn.softplus,
    "leaky_relu": nn.leaky_relu,
    "relu6": nn.relu6,
    "soft_sign": nn.soft_sign,
    "function": lambda x: x * x - 3,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_named(name):
    """Behind a dense layer, a convolution with norm, and in a gated unit."""

    class Layers(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = ACTIVATIONS[name](nn.Dense(12, name="dense")(x))
            h = nn.Conv(12, (3,), use_bias=False, name="conv")(x)
            x = x + ACTIVATIONS[name](h)
            gate = ACTIVATIONS[name](nn.Dense(16, name="gate")(x))
            x = gate * nn.Dense(16, name="up")(x)
            return nn.Dense(4, name="last")(x)

    rows = jaxinit.structure(Layers(), data(2, 5, 8))
    told = {path: row.activation for path, row in rows.items() if row.is_kernel}
    assert told == {
        "dense/kernel": name,
        "conv/kernel": name,
        "gate/kernel": name,
        "up/kernel": None,
        "last/kernel": None,
    }


def test_a_scale_is_no_activation():
    assert {row.activation for row in read("functions").find("query")} == {None}
    assert {row.activation for row in read("Linen").find("query")} == {None}


@pytest.mark.parametrize("layers", [1, 2, 5])
def test_branches_are_counted(layers):
    class Blocks(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Dense(12)(x)
            for _ in range(layers):
                x = x + nn.MultiHeadDotProductAttention(2)(nn.LayerNorm()(x))
                x = x + nn.Dense(12)(nn.gelu(nn.Dense(48)(nn.LayerNorm()(x))))
            return nn.Dense(4)(x)

    rows = jaxinit.structure(Blocks(), *X)
    assert rows.branches == 2 * layers
    numbers = sorted(row.branch for row in rows.find("residual"))
    assert numbers == list(range(1, 2 * layers + 1))


@pytest.mark.parametrize("kind", ["one-hot rows", "integers", "raw inputs"])
def test_the_first_branch_of_a_stream_without_embedding(kind):
    """A mask made of the same integers is no stream that attention is added to."""

    class Blocks(nn.Module):
        @nn.compact
        def __call__(self, tokens):
            raw = tokens.astype(np.float32) * 0.5
            raw = jax.numpy.stack([raw + i for i in range(12)], -1)
            x = {
                "one-hot rows": lambda: jax.nn.one_hot(tokens, 12),
                "integers": lambda: raw,
                "raw inputs": lambda: jax.numpy.sin(raw),
            }[kind]()
            hidden = (tokens > 3)[:, None, None, :]
            counts = tokens.astype(np.float32)[:, None, None, :]
            bias = (tokens == 3).astype(np.float32)[:, None, None, :] - 0.1 * counts
            for _ in range(2):
                y = nn.LayerNorm()(x)
                q, k, v = (nn.DenseGeneral((2, 6))(y) for _ in range(3))
                y = nn.dot_product_attention(q, k, v, bias=bias, mask=hidden)
                x = x + nn.DenseGeneral(12, (-2, -1))(y)
                x = x + nn.Dense(12)(nn.gelu(nn.Dense(48)(nn.LayerNorm()(x))))
            return nn.Dense(4)(x)

    rows = jaxinit.structure(Blocks(), np.zeros((3, 5), np.int32))
    assert rows.branches == 4
    assert sorted(row.branch for row in rows.find("residual")) == [1, 2, 3, 4]
    assert {row.branch for row in rows.find("query")} == {1, 3}


def test_plain_functions_stand_for_all():
    assert read("functions") == jaxinit.structure(PLAIN, *X)
