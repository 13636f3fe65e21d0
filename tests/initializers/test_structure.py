"""Weights of a fixed structure do what they say, in the layers that they are for."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from marks import slow_but
from scipy import signal, stats

import jaxinit as ji

pytestmark = pytest.mark.usefixtures("quick_compiler")

KEY = jax.random.key(5)
LEVEL = 1e-4
rng = np.random.default_rng(0)


def apply(layer, x):
    """Applies a layer with its initial weights."""
    return np.asarray(jax.jit(layer.init_with_output)(KEY, x)[0])


@pytest.mark.parametrize("groups", slow_but([2], [1, 2, 4]))
@pytest.mark.parametrize("window", slow_but([2, 3], [1, 2, 3]))
def test_dirac_passes_each_group_on(groups, window):
    x = rng.normal(size=(1, 9, 8)).astype(np.float32)
    conv = nn.Conv(
        8, (window,), feature_group_count=groups, kernel_init=ji.dirac(groups)
    )
    np.testing.assert_array_equal(apply(conv, x), x)


def test_dirac_passes_on_what_fits():
    wide = np.asarray(ji.dirac(2, gain=3.0)(None, (1, 2, 6)))[0]  # 3 outputs a group
    np.testing.assert_array_equal(
        wide, 3 * np.array([[1, 0, 0, 1, 0, 0], [0, 1, 0, 0, 1, 0]])
    )
    narrow = np.asarray(ji.dirac(2)(None, (1, 3, 2)))[0]  # 1 output a group
    np.testing.assert_array_equal(narrow, [[1, 1], [0, 0], [0, 0]])


def test_wholes_of_no_entries_and_odd_arguments():
    he = ji.he_normal()
    assert ji.hadamard()(None, (0, 3, 3)).shape == (0, 3, 3)
    empty = ji.masked(he, np.ones((0, 3)))
    assert empty(KEY, (0, 3)).shape == (0, 3) and empty.moments((0, 3)).mean == 0
    with pytest.raises(TypeError, match="mask must hold True and False"):
        ji.masked(he, [[1], [1, 0]])
    with pytest.raises(ValueError, match=r"axes=\(1,\) must name every axis"):
        ji.transposed(he, 1)(KEY, (3, 4))


def test_identity_shifts():
    x = rng.normal(size=(7, 5)).astype(np.float32)
    w = np.asarray(ji.identity(shift=2)(None, (5, 5)))
    np.testing.assert_array_equal(x @ w, np.roll(x, 2, 1))
    plain = np.asarray(ji.identity()(None, (3, 4, 5)))
    for shift in [(1, 0, 0), (-1, 2, 3), (4, -5, 6)]:
        rolled = ji.identity(shift=shift)(None, (3, 4, 5))
        np.testing.assert_array_equal(rolled, np.roll(plain, shift, (0, 1, 2)))


@pytest.mark.parametrize("rank", slow_but([2], [1, 2, 3]))
@pytest.mark.parametrize("window", slow_but([4, 5], [3, 4, 5, 6]))
def test_bilinear_upsamples_linearly(rank, window):
    """A plane stays a plane, and a constant a constant, away from the border."""
    factor = (window + 1) // 2
    size = 6
    axes = np.meshgrid(*[np.arange(float(size))] * rank, indexing="ij")
    plane = 1 + sum((i + 1) * axis for i, axis in enumerate(axes))
    kernel = np.asarray(ji.bilinear()(None, (window,) * rank + (1, 1)), float)[
        ..., 0, 0
    ]
    assert (kernel == np.flip(kernel)).all() and (kernel > 0).all()
    assert kernel.sum() == pytest.approx(factor**rank)
    spread = np.zeros([size * factor] * rank)
    spread[(slice(None, None, factor),) * rank] = plane
    # Entry t of the full convolution is the plane at (t - (window - 1) / 2) / factor.
    up = signal.convolve(spread, kernel, method="direct")
    inner = slice(window, (size - 1) * factor - 1)
    place = (np.arange(up.shape[0]) - (window - 1) / 2) / factor
    fine = np.meshgrid(*[place] * rank, indexing="ij")
    expected = 1 + sum((i + 1) * axis for i, axis in enumerate(fine))
    where = (inner,) * rank
    np.testing.assert_allclose(up[where], expected[where], rtol=1e-6)


def test_bilinear_in_flax():
    """Channels stay apart, and a depthwise kernel fills every output."""
    x = rng.normal(size=(1, 5, 5, 3)).astype(np.float32)
    up = nn.ConvTranspose(3, (4, 4), strides=(2, 2), kernel_init=ji.bilinear())
    y = apply(up, x)
    assert y.shape == (1, 10, 10, 3)
    expected = (9 * x[0, 2, 2] + 3 * x[0, 1, 2] + 3 * x[0, 2, 1] + x[0, 1, 1]) / 16
    np.testing.assert_allclose(y[0, 4, 4], expected, rtol=1e-5)
    depthwise = np.asarray(ji.bilinear()(None, (4, 4, 1, 3)))
    assert (depthwise == depthwise[..., :1]).all()


WINDOWS = ["hann", "hamming", "blackman", "bartlett", "boxcar"]


@pytest.mark.parametrize("window", slow_but(["hamming"], WINDOWS))
@pytest.mark.parametrize("periodic", [False, True])
def test_stft_windows_are_scipys(window, periodic):
    taps = signal.get_window(window, 12, periodic)
    turns = np.outer(np.arange(12), np.arange(17)) / 32
    for scaling, size in [
        ("density", np.linalg.norm(taps)),
        ("spectrum", abs(taps).sum()),
        (None, 1.0),
    ]:
        expected = (taps / size)[:, None] * np.exp(-2j * np.pi * turns)
        for side in ("real", "imag"):
            w = ji.stft(side, window, scaling, periodic)(None, (12, 1, 17))
            np.testing.assert_allclose(w[:, 0], getattr(expected, side), atol=1e-6)


def test_stft_is_the_transform_of_scipy():
    x = rng.normal(size=256)
    _, _, expected = signal.stft(
        x, nperseg=32, noverlap=24, boundary=None, scaling="spectrum"
    )
    parts = [
        apply(
            nn.Conv(
                17, (32,), strides=8, padding="VALID", use_bias=False, kernel_init=k
            ),
            x[None, :, None].astype(np.float32),
        )[0]
        for k in (ji.stft(side, "hann", "spectrum", True) for side in ("real", "imag"))
    ]
    np.testing.assert_allclose(parts[0] + 1j * parts[1], expected.T, atol=1e-5)


@pytest.mark.slow
def test_stft_of_long_frames_is_exact():
    """Phases are reduced in integers: float32 would have lost them."""
    w = np.asarray(ji.stft("real", window=None)(None, (5000, 1, 4097)))[:, 0]
    turns = np.outer(np.arange(5000), np.arange(4097)) % 8192 / 8192
    assert np.abs(w - np.cos(2 * np.pi * turns)).max() < 1e-7
    own = np.linspace(1, 2, 5000)
    mine = ji.stft("imag", own, None)(None, (5000, 1, 2))[:, 0, 1]
    np.testing.assert_allclose(mine, 0 * own, atol=1e-6)


def test_lstm_bias_opens_the_forget_gate_of_flax():
    """Of a cell without other weights: its memory fades by sigmoid(1), not a half."""
    cell = nnx.OptimizedLSTMCell(
        3,
        4,
        kernel_init=ji.zeros(),
        recurrent_kernel_init=ji.zeros(),
        bias_init=ji.lstm_bias(),
        rngs=nnx.Rngs(0),
    )
    memory = jnp.ones((1, 4))
    step = nnx.jit(lambda cell, carry, x: cell(carry, x)[0])
    after, _ = step(cell, (memory, memory), jnp.ones((1, 3)))
    np.testing.assert_allclose(after, nn.sigmoid(1.0), rtol=1e-6)


@pytest.mark.parametrize(
    ("order", "expected"),
    [("torch", "ifgo"), ("haiku", "igfo"), ("onnx", "iofg"), ("goif", "goif")],
)
def test_lstm_bias_orders_the_gates(order, expected):
    init = ji.lstm_bias(2.0, order, input=1.0, cell=3.0, output=4.0)
    value = {"i": 1.0, "f": 2.0, "g": 3.0, "o": 4.0}
    row = init(None, (2, 8))[1].tolist()
    assert row == [value[gate] for gate in expected for _ in range(2)]


@pytest.mark.parametrize(
    ("layers", "value"), [(1, 0.1), (18, 0.1), (19, 1e-5), (24, 1e-5), (25, 1e-6)]
)
def test_layer_scale_follows_depth(layers, value):
    assert ji.layer_scale(layers=layers).moments((3,)).mean == value
    assert ji.layer_scale(0.3).moments((3,)).mean == 0.3


@pytest.mark.parametrize("dtype", ["bool", "int8", "bfloat16", "complex64"])
def test_from_array_keeps_values_of_every_type(dtype):
    array = np.array([[0, 1, 1], [1, 0, 1]], jnp.dtype(dtype))
    w = ji.from_array(array)(None, (2, 3), dtype)
    np.testing.assert_array_equal(np.asarray(w), array, strict=True)


def test_from_array_of_any_size_compares_by_value():
    big = rng.normal(size=(60, 50)).astype(np.float32)
    init = ji.from_array(big)
    assert init == ji.from_array(jnp.asarray(big)) and hash(init)
    assert init != ji.from_array(big + 1)
    big[:] = 0  # a copy was taken
    assert np.asarray(init(None, (60, 50))).std() > 0.9
    assert ji.from_array(np.zeros((0, 3)))(None, (0, 3)).shape == (0, 3)


def test_uniform_unit_scaling_of_a_vector_has_one_input():
    w = np.asarray(ji.uniform_unit_scaling(2.0)(KEY, (50_000,)))
    edge = 2 * np.sqrt(3)
    assert stats.kstest(w, stats.uniform(-edge, 2 * edge).cdf).pvalue > LEVEL


STACKS = [((4, 6, 5), 0, -1), ((6, 4, 2, 5), (1, -2), 0), ((5, 2, 3, 4), -1, 0)]


@pytest.mark.parametrize(
    ("shape", "batch_axis", "column_axis"), slow_but(STACKS[1:2], STACKS, rows=True)
)
def test_stacked_orthogonal_weights(shape, batch_axis, column_axis):
    init = ji.orthogonal(2.0, column_axis, batch_axis=batch_axis)
    w = np.asarray(init(KEY, shape), float)
    batch = np.atleast_1d(batch_axis) % len(shape)
    first = np.moveaxis(w, [*batch, column_axis], [*range(len(batch)), -1])
    matrices = first.reshape(
        -1, *(np.prod(first.shape[len(batch) : -1]), first.shape[-1])
    )
    for q in matrices:
        gram = q.T @ q if q.shape[0] >= q.shape[1] else q @ q.T
        np.testing.assert_allclose(gram, 4 * np.eye(len(gram)), atol=1e-5)
    assert len({q.tobytes() for q in matrices}) == len(matrices)
