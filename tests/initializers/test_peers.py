"""Defects of other libraries, each with the wrong value that must not come back."""

import inspect
import math
import random

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from marks import slow_but
from scipy import stats

import jaxinit as ji

pytestmark = pytest.mark.usefixtures("quick_compiler")

KEY = jax.random.key(29)
LEVEL = 1e-4  # of every Kolmogorov-Smirnov test: one false alarm in 10 000
# E|w|^2 of complex weights, over the formula.
JAX = 1.01866  # truncated: (0.961962 / 0.953112)^2, the law's stddev over the constant
HAIKU = 2.0  # truncated: the real and the imaginary part each have the whole variance
LUX = 4.0  # normal: a real stddev becomes s + is
SCALINGS = [(1.0, "fan_avg", 750), (2.0, "fan_in", 500)]


@pytest.mark.parametrize(
    "law", slow_but(["truncated_normal"], ["truncated_normal", "normal", "uniform"])
)
@pytest.mark.parametrize(
    ("scale", "mode", "fan"), slow_but(SCALINGS[:1], SCALINGS, rows=True)
)
def test_complex_variance(scale, mode, fan, law):
    """Of Glorot's and He's scaling, by each law."""
    init = ji.variance_scaling(scale, mode, law)
    presets = {
        (1.0, "truncated_normal"): ji.glorot_normal(),
        (1.0, "uniform"): ji.glorot_uniform(),
        (2.0, "truncated_normal"): ji.he_normal(),
        (2.0, "uniform"): ji.he_uniform(),
    }
    w = np.asarray(presets.get((scale, law), init)(KEY, (500, 1000), jnp.complex64))
    ratio = np.abs(w.astype(complex)) ** 2 * fan / scale
    tolerance = 5 * ratio.std() / math.sqrt(w.size)
    assert abs(ratio.mean() - 1) < tolerance
    assert all(abs(ratio.mean() - wrong) > tolerance for wrong in (JAX, HAIKU, LUX))


@pytest.mark.parametrize(
    ("dtype", "floor"),
    [("float64", 5000), ("float32", 5000), ("float16", 3000), ("bfloat16", 1000)],
)
@pytest.mark.usefixtures("x64")
def test_distinct_values(dtype, floor):
    """Of 10 000; JAX's bfloat16 has 128."""
    w = np.asarray(ji.truncated_normal(1.0)(KEY, (10_000,), dtype), float)
    assert len(np.unique(w)) >= floor


@pytest.mark.slow
def test_bfloat16_has_no_bias_and_tails():
    """JAX's mean is off by 0.017, and nothing lies beyond 2.9."""
    w = np.asarray(ji.normal(1.0)(KEY, (10**6,), jnp.bfloat16), float)
    assert abs(w.mean()) < 5 / math.sqrt(w.size) < 0.017 / 2
    assert abs(w).max() > 4


def test_bilinear_is_symmetric():
    """Paddle's and MXNet's y = (i / size) % size is no integer: sum 3.9375, not 4."""
    w = np.asarray(ji.bilinear()(None, (4, 4, 1, 1)))[..., 0, 0]
    assert w.sum() == 4
    assert (w >= 0).all()
    for mirrored in (w.T, w[::-1], w[:, ::-1]):
        np.testing.assert_array_equal(w, mirrored)


def batched_linen(init):
    layer = nn.DenseGeneral(200, batch_dims=(0,), kernel_init=init)
    return layer.init(KEY, jnp.ones((6, 1, 50)))["params"]["kernel"]


def batched_nnx(init):
    layer = nnx.LinearGeneral(
        50, 200, batch_axis={0: 6}, kernel_init=init, rngs=nnx.Rngs(0)
    )
    return layer.kernel[...]


@pytest.mark.parametrize("build", slow_but([batched_nnx], [batched_linen, batched_nnx]))
def test_fans_of_batched_layers(build):
    """Flax counts the batch of 6 as inputs, 300 of them instead of 50."""
    assert ji.fans((6, 50, 200), batch_axis=0) == (50, 200)
    assert ji.fans((6 * 50, 200)) == (300, 200)
    w = np.asarray(build(ji.lecun_normal(gain=math.sqrt(6))), float)
    assert w.shape == (6, 50, 200)
    kurtosis = stats.truncnorm(-2, 2).stats("k") + 3
    tolerance = 5 * math.sqrt((kurtosis - 1) / w.size)
    assert w.var() * 50 == pytest.approx(1, rel=tolerance)
    assert tolerance < 0.03  # without the gain: 1 / 6


COUNTED = [(ji.conv_orthogonal(), (2, 2, 3, 4)), (ji.sparse(0.5), (64, 8))]


@pytest.mark.parametrize(
    ("init", "shape"),
    slow_but(COUNTED[1:], COUNTED, rows=True),
    ids=str,
)
def test_the_key_alone_decides(init, shape):
    """TF1's conv_orthogonal counts its calls; torch's sparse_ has a global mask."""
    state = repr((random.getstate(), np.random.get_state()))
    first, again = np.asarray(init(KEY, shape)), np.asarray(init(KEY, shape))
    other = np.asarray(init(jax.random.key(30), shape))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    if init.name == "sparse":
        assert ((first == 0) != (other == 0)).any()
    assert repr((random.getstate(), np.random.get_state())) == state


@pytest.mark.parametrize(
    "build", slow_but([ji.delta_orthogonal], [ji.orthogonal, ji.delta_orthogonal])
)
def test_scale_of_orthogonal_is_no_bound(build):
    """JAX documents it as the upper bound of the uniform distribution."""
    text = inspect.getdoc(build)
    (scale,) = (line for line in text.splitlines() if line.startswith("  scale: "))
    assert "bound" not in text and "uniform" not in scale
    w = np.asarray(build(3.0)(KEY, (1, 8, 8))).reshape(8, 8)
    np.testing.assert_allclose(w @ w.T, 9 * np.eye(8), atol=2e-5)


SHIFTS = [((5, 7), (1, 2)), ((6, 6), (-1, 9)), ((3, 3, 4, 4), (1, 0, 2, -1))]


@pytest.mark.parametrize(
    ("shape", "shift"),
    slow_but(SHIFTS[:1], SHIFTS, rows=True),
)
def test_identity_takes_a_shift_for_each_axis(shape, shift):
    """Lux documents a tuple and refuses it."""
    expected = np.roll(ji.identity()(None, shape), shift, range(len(shape)))
    np.testing.assert_array_equal(ji.identity(shift=shift)(None, shape), expected)


SCALES = 1e-8, 1e-4, 1.0, 1e4
TYPES = [
    *((dtype, s) for dtype in ("float64", "float32", "bfloat16") for s in SCALES),
    *(("float16", s) for s in SCALES[1:]),  # which has nothing below 6e-8
]
TAILS = [(0.0, 2.0, 3.0), (-3.0, -0.5, 0.5), (0.0, -3.0, -2.5)]


@pytest.mark.parametrize(
    ("dtype", "stddev"),
    slow_but([x for x in TYPES if x[1] == 1e-4], TYPES, rows=True),
)
@pytest.mark.usefixtures("x64")
def test_truncation_holds_at_every_scale(dtype, stddev):
    """Nothing beyond the bounds, as the type rounds them, and nothing heaped there."""
    w = np.asarray(ji.truncated_normal(stddev)(KEY, (10_000,), dtype), float)
    bound = float(jnp.asarray(2 * stddev, dtype))
    assert np.isfinite(w).all() and abs(w).max() <= bound
    assert (abs(w) == bound).sum() < 25  # of 2^-8 of a bfloat16: 5 or so
    assert len(np.unique(w)) > 1000


@pytest.mark.parametrize("dtype", slow_but(["float32"], ["float32", "float64"]))
@pytest.mark.parametrize(
    ("mean", "low", "high"), slow_but(TAILS[1:2], TAILS, rows=True)
)
@pytest.mark.usefixtures("x64")
def test_truncation_in_a_tail(mean, low, high, dtype):
    init = ji.truncated_normal(1.0, mean=mean, low=low, high=high)
    w = np.asarray(init(KEY, (50_000,), dtype), float)
    assert low <= w.min() and w.max() <= high
    law = stats.truncnorm(low - mean, high - mean, mean)
    assert stats.kstest(w, law.cdf).pvalue > LEVEL
