"""Fans counted in the layers of Flax.

With a kernel of ones, an input of ones and no bias, an output is the number of inputs
that feed it, and the gradient of the sum of outputs is the number of outputs that an
input feeds. Both are read in the middle, where no padding reaches, as the mean over
one period of the strides.
"""

import inspect
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from marks import slow_but

import jaxinit as ji

pytestmark = pytest.mark.usefixtures("quick_compiler")

KEY = jax.random.key(0)


class Case(NamedTuple):
    """A row of the table in the docstring of `fans`, with numbers."""

    row: str  # the column of layers
    shapes: tuple[tuple[int, ...], ...]  # that the layer asks the initializer for
    arguments: dict[str, Any]
    x: tuple[int, ...]  # shape of the input
    # From an initializer and an input to a layer, as a function; or to None where the
    # layer is not linear, and its kernels multiply the input alone.
    builds: tuple[Callable[..., Any], ...]
    period: tuple[int, ...] = ()  # of the strides, along the axes after the first
    block: Any = ...  # the outputs that fan_out speaks of
    gain: float = 1.0  # that the row asks for


def bound(module, *args):
    return module.bind(module.init(KEY, *args))


def linen(layer, *args, **rest):
    return lambda init, x: bound(layer(*args, kernel_init=init, **rest), x)


def nnx_(layer, *args, **rest):
    return lambda init, x: layer(*args, kernel_init=init, rngs=nnx.Rngs(0), **rest)


def param(formula, shape):
    """A kernel without a layer."""

    def build(init, x):
        kernel = init(KEY, shape)
        return lambda x: jnp.einsum(formula, x, kernel)

    return build


def kernels(build):
    """Kernels of a layer that is not linear."""

    def run(init, x):
        build(init, x)

    return run


def linen_cell(layer):
    def build(init, x):
        cell = layer(N, kernel_init=init, recurrent_kernel_init=init)
        cell.init(KEY, cell.initialize_carry(KEY, x.shape), x)

    return build


def nnx_cell(layer):
    return kernels(
        lambda init, x: nnx_(layer, D, N, recurrent_kernel_init=init)(init, x)
    )


TOKENS = jnp.arange(2)


def embeds(method):
    """Both embeddings, as a function by this method of the layer."""

    def linen_embed(init, x):
        return method(bound(nn.Embed(7, N, embedding_init=init), TOKENS))

    def nnx_embed(init, x):
        return method(nnx.Embed(7, N, embedding_init=init, rngs=nnx.Rngs(0)))

    return linen_embed, nnx_embed


def lookup(embed):
    """Of a one-hot input: the entry that is not zero, times its row."""
    return lambda x: embed(TOKENS) * x


class Step(nn.Module):
    """A layer with an input of its own, to be scanned over."""

    kernel_init: Any

    @nn.compact
    def __call__(self, carry, x):
        return carry, nn.Dense(N, kernel_init=self.kernel_init)(x)


def scanned(init, x):
    stack = nn.scan(Step, variable_axes={"params": 0}, split_rngs={"params": True})
    layers = bound(stack(init), None, x)
    return lambda x: layers(None, x)[1]


MAPPED = nn.vmap(nn.Dense, variable_axes={"params": 0}, split_rngs={"params": True})


def conv(row, window, d, n, strides, groups=1):
    """A case of a convolution from d to n channels, in Linen and NNX."""
    rest = {"strides": strides, "feature_group_count": groups}
    return Case(
        row,
        ((*window, d // groups, n),),
        {"strides": strides, "groups": groups},
        (1, *[16] * len(window), d),
        (linen(nn.Conv, n, window, **rest), nnx_(nnx.Conv, d, n, window, **rest)),
        strides,
    )


def conv_transpose(row, window, d, n, strides, shape, **axes):
    rest = {"strides": strides, "transpose_kernel": bool(axes)}
    return Case(
        row,
        (shape,),
        {"strides": strides, "transposed": True, **axes},
        (1, *[8] * len(window), d),
        (
            linen(nn.ConvTranspose, n, window, **rest),
            nnx_(nnx.ConvTranspose, d, n, window, **rest),
        ),
        strides,
    )


def conv_local(window, positions, x):
    rank = len(window)
    return Case(
        "ConvLocal",
        ((*positions, math.prod(window) * x[-1], N),),
        {"batch_axis": tuple(range(rank))},
        x,
        (linen(nn.ConvLocal, N, window, padding="VALID"),),
        (1,) * rank,
        (slice(None), *(size // 2 for size in positions)),
    )


D, N = 6, 5  # inputs and outputs
HEADS = H, K = 2, 4  # number and size
GENERAL = "DenseGeneral, LinearGeneral, attention's query, key, value, out"
EINSUM, FORMULA, OUT = 'Einsum("bld,dhk->blhk")', "bld,dhk->blhk", "blhk,hkd->bld"
AXIS, STACKED = "fused q, k, v as an axis", "bld,dthk->btlhk"
BESIDE = "fused q, k, v side by side"
FLIPPED = "ConvTranspose(transpose_kernel=True)"
GATES = "LSTMCell, and Linen's GRUCell and OptimizedLSTMCell: each gate"
FIRST, PART = (slice(None), 0), (..., slice(N))

DENSE = [
    Case(
        "Dense, Linear",
        ((D, N),),
        {},
        (2, D),
        (linen(nn.Dense, N), nnx_(nnx.Linear, D, N)),
    ),
    Case(
        GENERAL,
        ((D, H * K),),
        {},
        (2, D),
        (linen(nn.DenseGeneral, HEADS), nnx_(nnx.LinearGeneral, D, HEADS)),
    ),
    Case(
        GENERAL,
        ((H * K, 15),),
        {},
        (3, H, K),
        (
            linen(nn.DenseGeneral, (3, 5), axis=(-2, -1)),
            nnx_(nnx.LinearGeneral, HEADS, (3, 5), axis=(-2, -1)),
        ),
    ),
    Case(
        GENERAL,
        ((D, H * K), (H * K, 7)),
        {},
        (3, D),
        (
            kernels(
                linen(
                    nn.MultiHeadDotProductAttention,
                    H,
                    qkv_features=H * K,
                    out_features=7,
                )
            ),
            kernels(nnx_(nnx.MultiHeadAttention, H, D, H * K, 7)),
        ),
    ),
    Case(
        "DenseGeneral(batch_dims) of b stacked weights",
        ((3 * D, N),),
        {},
        (3, 2, D),
        (
            linen(nn.DenseGeneral, N, batch_dims=(0,)),
            nnx_(nnx.LinearGeneral, D, N, batch_axis={0: 3}),
        ),
        gain=math.sqrt(3),
    ),
    Case(
        EINSUM,
        ((D, H, K),),
        ji.axes(FORMULA),
        (2, 3, D),
        (linen(nn.Einsum, (D, H, K), FORMULA), nnx_(nnx.Einsum, FORMULA, (D, H, K))),
    ),
    Case(
        EINSUM,
        ((H, K, D),),
        ji.axes(OUT),
        (2, 3, H, K),
        (linen(nn.Einsum, (H, K, D), OUT), nnx_(nnx.Einsum, OUT, (H, K, D))),
    ),
    Case(
        AXIS,
        ((D, 3, H, K),),
        {"in_axis": 0, "batch_axis": 1, "out_axis": (2, 3)},
        (2, 3, D),
        (linen(nn.Einsum, (D, 3, H, K), STACKED), param(STACKED, (D, 3, H, K))),
        block=FIRST,
    ),
    Case(
        BESIDE,
        ((D, 3 * N),),
        {"groups": 3},
        (2, D),
        (linen(nn.Dense, 3 * N), nnx_(nnx.Linear, D, 3 * N)),
        block=PART,
    ),
    Case(
        BESIDE,
        ((D, 3 * H * K),),
        {"groups": 3},
        (2, D),
        (linen(nn.DenseGeneral, (3, H, K)), nnx_(nnx.LinearGeneral, D, (3, H, K))),
        block=FIRST,
    ),
]
CONVOLUTIONS = [
    conv("Conv", (3,), 4, 6, (1,)),
    conv("Conv", (3, 4), 2, 5, (2, 3)),
    conv("Conv", (2, 3, 2), 3, 2, (2, 2, 2)),
    conv("Conv, grouped", (3,), 4, 6, (2,), 2),
    conv("Conv, grouped", (3, 2), 6, 9, (3, 1), 3),
    conv("Conv, depthwise", (3, 3), 4, 8, (1, 1), 4),
    conv("Conv, depthwise", (5,), 4, 4, (2,), 4),
    conv_transpose("ConvTranspose", (4,), 3, 5, (2,), (4, 3, 5)),
    conv_transpose("ConvTranspose", (2,), 3, 5, (3,), (2, 3, 5)),  # with gaps
    conv_transpose("ConvTranspose", (3, 4), 3, 2, (2, 3), (3, 4, 3, 2)),
    conv_transpose(FLIPPED, (4,), 3, 5, (2,), (4, 5, 3), in_axis=-1, out_axis=-2),
    conv_transpose(
        FLIPPED, (3, 4), 3, 2, (2, 3), (3, 4, 2, 3), in_axis=-1, out_axis=-2
    ),
    conv_local((3,), (6,), (1, 8, 4)),
    conv_local((3, 2), (5, 6), (1, 7, 7, 2)),
]
OTHERS = [
    Case(
        "Embed, as a lookup",
        ((7, N),),
        {"in_axis": (), "batch_axis": 0},
        (2, 1),
        embeds(lookup),
    ),
    Case(
        "Embed, as the output layer (`attend`)",
        ((7, N),),
        {"in_axis": 1, "out_axis": 0},
        (2, N),
        embeds(lambda embed: embed.attend),
    ),
    Case(
        GATES,
        ((D, N), (N, N)),
        {},
        (2, D),
        (
            *map(linen_cell, (nn.LSTMCell, nn.GRUCell, nn.OptimizedLSTMCell)),
            nnx_cell(nnx.LSTMCell),
        ),
    ),
    Case(
        "NNX's OptimizedLSTMCell: gates joined",
        ((D, 4 * N), (N, 4 * N)),
        {"groups": 4},
        (2, D),
        (nnx_cell(nnx.OptimizedLSTMCell),),
        block=PART,
    ),
    Case(
        "NNX's GRUCell: gates joined",
        ((D, 3 * N), (N, 3 * N)),
        {"groups": 3},
        (2, D),
        (nnx_cell(nnx.GRUCell),),
        block=PART,
    ),
    Case(
        "Bilinear form, (x, y) -> n",
        ((3, 4, N),),
        {"in_axis": (0, 1)},
        (2, 3, 4),  # an input is a product of an entry of x and one of y
        (param("bxy,xyn->bn", (3, 4, N)),),
    ),
    Case("`nn.scan`, `nn.vmap`", ((D, N),), {}, (3, 2, D), (scanned, linen(MAPPED, N))),
    Case(
        "stacked by hand",
        ((3, D, N),),
        {"batch_axis": 0},
        (3, 2, D),
        (param("lbd,ldn->lbn", (3, D, N)),),
    ),
]
CASES = [*DENSE, *CONVOLUTIONS, *OTHERS]
FIRST_OF_ROW = list({case.row: case for case in CASES[::-1]}.values())


def middle(array, period):
    """Averages over one period in the middle of the axes after the first."""
    axes = tuple(range(1, 1 + len(period)))
    for axis, size in zip(axes, period, strict=True):
        start = (array.shape[axis] - size) // 2
        array = array[(slice(None),) * axis + (slice(start, start + size),)]
    return array.mean(axes)


def count(layer, case, x):
    """Counts fan_in of every output and fan_out of every input."""
    y, pull = jax.vjp(layer, x)
    chosen = np.zeros(y.shape, np.float32)
    chosen[case.block] = 1
    (gradient,) = pull(jnp.asarray(chosen))
    return y, gradient


@pytest.mark.parametrize(
    ("case", "build"),
    [
        pytest.param(
            *(case, build),
            id=f"{case.row} {i}",
            marks=[pytest.mark.slow] * (case not in FIRST_OF_ROW or i > 0),
        )
        for case in CASES
        for i, build in enumerate(case.builds)
    ],
)
def test_fans_are_those_of_the_layer(case, build):
    asked = {}

    def init(key, shape, dtype=jnp.float32):
        asked[shape] = None
        return jnp.ones(shape, dtype)

    @jax.jit
    def count_all(x):
        layer = build(init, x)
        assert tuple(asked) == case.shapes
        if layer is not None:
            return [count(layer, case, x)] * len(asked)
        alone = [(jnp.ones((2, n[0])), lambda x, n=n: x @ jnp.ones(n)) for n in asked]
        return [count(kernel, case, x) for x, kernel in alone]

    for shape, both in zip(case.shapes, count_all(jnp.ones(case.x)), strict=True):
        counted = [middle(np.asarray(x), case.period) for x in both]
        fan_in, fan_out = ji.fans(shape, **case.arguments)
        np.testing.assert_allclose(counted[0], fan_in / case.gain**2, rtol=1e-6)
        np.testing.assert_allclose(counted[1], fan_out, rtol=1e-6)

        he = ji.he_normal(gain=math.sqrt(2) * case.gain, **case.arguments)
        assert he.moments(shape).variance == pytest.approx(2 / counted[0].flat[0])
        back = ji.he_normal(mode="fan_out", **case.arguments)
        assert back.moments(shape).variance == pytest.approx(2 / counted[1].flat[0])


def test_every_layer_of_the_docstring_is_counted():
    parts = re.split(r"(?m)^(=+) +=+ +=+\n", inspect.getdoc(ji.fans))
    rule, table = parts[3:5]
    layers = [line[: len(rule)].strip() for line in table.splitlines()]
    rows = dict.fromkeys(case.row for case in CASES)
    assert " ".join(filter(None, layers)) == " ".join(rows)


SIGNALS = [case for case in CONVOLUTIONS if len(case.x) == 3 and case.period != (1,)]
(GAPS,) = (case for case in SIGNALS if case.shapes == ((2, 3, 5),))


@pytest.mark.parametrize(
    "case", slow_but([GAPS], SIGNALS), ids=lambda case: f"{case.row} {case.shapes}"
)
def test_convolutions_keep_the_variance(case):
    """Of normal signals, and of gradients in the mode fan_out."""
    forth = ji.lecun_normal(**case.arguments)
    back = ji.lecun_normal(mode="fan_out", **case.arguments)

    def energy(key):
        signal, weight, gradient = jax.random.split(key, 3)
        x = jax.random.normal(signal, case.x)

        def layer(init):
            return case.builds[0](lambda _, *shape: init(weight, *shape), x)

        y, pull = layer(forth)(x), jax.vjp(layer(back), x)[1]
        (pulled,) = pull(jax.random.normal(gradient, y.shape))
        return [middle(z**2, case.period).mean() for z in (y, pulled)]

    run = jax.jit(lambda keys: jax.lax.map(energy, keys))
    for energies in map(np.asarray, run(jax.random.split(KEY, 1000))):
        tolerance = 5 * energies.std() / math.sqrt(energies.size)
        assert abs(energies.mean() - 1) < tolerance < 0.15  # forgetting strides: 1 or 3


@pytest.mark.parametrize("law", ["normal", "uniform"])
@pytest.mark.parametrize("family", ["glorot", "he", "lecun"])
def test_presets_take_groups_and_strides(family, law):
    build = getattr(ji, f"{family}_{law}")
    for transposed, fan_in, fan_out in [(False, 8, 6), (True, 4, 12)]:
        rest = {"groups": 2, "strides": 2, "transposed": transposed, "gain": 3.0}
        for mode, fan in [
            ("fan_in", fan_in),
            ("fan_out", fan_out),
            ("fan_avg", (fan_in + fan_out) / 2),
            ("fan_geo_avg", math.sqrt(fan_in * fan_out)),
        ]:
            variance = build(mode=mode, **rest).moments((4, 2, 6)).variance
            assert variance == pytest.approx(9 / fan)


def connections(window, d, n, strides, groups, spare):
    """Counts how often an input feeds an output of a circular convolution.

    Input channel c at i feeds output channel m at j, of the same group, by the tap t
    where i = j strides + t. # [positions strides, d, positions, n]
    """
    positions = window + spare
    count = np.zeros((positions * strides, d, positions, n), int)
    for j in range(positions):
        for t in range(window):
            for c in range(d):
                for m in range(n):
                    if c * groups // d == m * groups // n:
                        count[(j * strides + t) % len(count), c, j, m] += 1
    return count


@settings(max_examples=60)
@given(
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(0, 2),
)
def test_fans_of_a_convolution_by_counting(window, d, n, strides, groups, spare):
    d, n = d * groups, n * groups
    count = connections(window, d, n, strides, groups, spare)
    fan_in, fan_out = count.sum((0, 1)), count.sum((2, 3)).mean(0)
    rest = {"groups": groups, "strides": strides}
    found = ji.fans((window, d // groups, n), **rest)
    np.testing.assert_allclose(fan_in, found[0])
    np.testing.assert_allclose(fan_out, found[1])
    # The transposed convolution turns every connection round.
    found = ji.fans((window, n // groups, d), **rest, transposed=True)
    np.testing.assert_allclose(fan_out, found[0])
    np.testing.assert_allclose(fan_in, found[1])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"groups": 4}, ValueError, r"groups=4 do not divide the 6 outputs\."),
        ({"groups": 0}, ValueError, r"groups=0\): groups must be 1 or above\."),
        ({"groups": 1.5}, TypeError, r"groups=1.5\): groups must be an integer\."),
        (
            {"strides": (2,)},
            ValueError,
            r"strides=\(2,\) are not one for each of the 2 axes of the receptive field",
        ),
        ({"strides": 0}, ValueError, r"strides=0\): strides must be 1 or above\."),
        ({"strides": (2, 0)}, ValueError, r"strides=\(2, 0\)\): strides must be 1 or"),
        ({"strides": "2"}, TypeError, r"strides='2'\): strides must be an integer\."),
        ({"transposed": 1}, TypeError, r"transposed=1\): transposed must be True or F"),
    ],
)
def test_bad_groups_and_strides(arguments, error, message):
    shape = (3, 3, 4, 6)
    with pytest.raises(error, match=r"^fans\(.*" + message):
        ji.fans(shape, **arguments)
    with pytest.raises(error, match=r"^he_normal\(.*" + message):
        ji.he_normal(**arguments)(KEY, shape)
