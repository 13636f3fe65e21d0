"""Moments of an array in one pass: by JAX's sums, and by the kernel, interpreted."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import slow_but

from jaxinit._moments import Moments, _by_kernel, moments

# Since JAX 0.11; Mosaic GPU, the successor, lowers neither log1p nor masked stores yet
# (JAX 0.12).
pytestmark = [
    pytest.mark.usefixtures("quick_compiler"),
    pytest.mark.filterwarnings(
        "ignore:The Pallas Triton backend is deprecated:DeprecationWarning"
    ),
]
gpu = pytest.mark.skipif(jax.default_backend() != "gpu", reason="needs a GPU")


def exact(x, axes=None):
    """Computes moments by NumPy, in double precision."""
    x = np.asarray(x).astype(float)
    square = np.square(x - x.mean(axes, keepdims=True))
    return Moments(
        x.mean(axes),
        square.mean(axes),
        np.square(square).mean(axes),
        x.min(axes),
        x.max(axes),
        (x == 0).mean(axes),
    )


def near(found, x, axes=None, rtol=1e-5):
    known = exact(x, axes)
    deviation = np.sqrt(known.variance)
    np.testing.assert_array_equal(found.minimum, known.minimum)
    np.testing.assert_array_equal(found.maximum, known.maximum)
    np.testing.assert_allclose(found.zeros, known.zeros, rtol=2e-7)
    np.testing.assert_allclose(found.variance, known.variance, rtol)
    np.testing.assert_allclose(found.fourth, known.fourth, rtol)
    # The mean is off by its own last place, and by rounding of the deviations.
    off = np.abs(found.mean - known.mean)
    assert (off <= 2e-7 * np.abs(known.mean) + 1e-6 * deviation).all()


def sample(shape, mean=0.0, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.gamma(2.0, size=shape) + mean).astype(np.float32)


ENTRIES = [1, 2, 129, 4095, 4096, 4097, 3 * 4096 + 5]
FEW = [129, 3 * 4096 + 5]
moment_impls = pytest.mark.parametrize(  # None is "jax"
    "impl", slow_but([None, "pallas"], [None, "jax", "pallas"])
)


@functools.partial(jax.jit, static_argnums=1)
def moments_of_all(arrays, impl):
    return [moments(x, impl=impl) for x in arrays]


@pytest.mark.parametrize("mean", [0.0, -1e3, 1e5])
@pytest.mark.parametrize("sizes", slow_but([FEW], [FEW, ENTRIES]), ids=len)
@moment_impls
def test_moments_are_exact(impl, sizes, mean):
    samples = [sample(size, mean, size) for size in sizes]
    for found, x in zip(moments_of_all(samples, impl), samples, strict=True):
        near(found, x)


@pytest.mark.parametrize(
    "size", slow_but([32 * 4096 + 4097], [1, 32 * 4096, 32 * 4096 + 4097])
)
def test_moments_on_a_tpu(on, size):
    x = sample(size, 50.0, size)
    with on("tpu"):
        near(jax.jit(lambda x: _by_kernel(x))(x), x)


@pytest.mark.slow
def test_moments_of_many_entries():
    near(moments(x := sample(2**24, 1e4)), x)


AXES = [None, 0, -1, (0, 2), (-1, -3), (0, 1, 2), ()]
TWO = [-1, (-1, -3)]


@pytest.mark.parametrize("several", slow_but([TWO], [TWO, AXES]), ids=len)
@moment_impls
def test_moments_over_axes(impl, several):
    x = np.maximum(sample((6, 9, 5), -1.0), 0)
    over = jax.jit(lambda x: [moments(x, axes, impl=impl) for axes in several])
    for axes, found in zip(several, over(x), strict=True):
        every = {None: None, (-1, -3): (2, 0)}.get(axes, axes)
        assert found.mean.shape == np.mean(x, every).shape
        near(found, x, every)


@moment_impls
@pytest.mark.slow
def test_moments_of_a_batch_of_seeds(impl):
    x = sample((4, 70, 80))
    found = jax.jit(jax.vmap(functools.partial(moments, impl=impl)))(x)
    near(found, x, (1, 2))


@pytest.mark.parametrize("dtype", slow_but(["bfloat16"], ["float16", "bfloat16"]))
@moment_impls
def test_moments_of_narrow_floats_are_of_float32(impl, dtype):
    x = jnp.asarray(sample(5000, 3.0)).astype(dtype)
    found = moments(x, impl=impl)
    assert {value.dtype for value in found} == {jnp.dtype("float32")}
    near(found, x)


@pytest.mark.usefixtures("x64")
def test_moments_of_doubles_are_of_float64():
    x = np.random.default_rng(0).normal(10, 1, 5000)
    found = moments(x)
    assert found.mean.dtype == np.float64
    near(found, x, rtol=1e-13)


ODD = [
    ([1.0, np.nan, 0.0], (np.nan, np.nan), np.nan),
    ([1.0, np.inf, 0.0], (0.0, np.inf), 1 / 3),
    ([-np.inf, np.inf], (-np.inf, np.inf), 0),
]


@pytest.mark.parametrize(
    ("values", "extremes", "share"), slow_but(ODD[:1], ODD, rows=True)
)
@moment_impls
def test_what_is_not_finite_shows(impl, values, extremes, share):
    found = moments(np.float32(values), impl=impl)
    assert np.isnan([found.mean, found.variance, found.fourth]).all()
    np.testing.assert_array_equal([found.minimum, found.maximum], extremes)
    np.testing.assert_allclose(found.zeros, share)


@moment_impls
def test_moments_of_equal_entries_and_of_none(impl):
    found = moments(np.full((3, 50), 0.1, np.float32), impl=impl)
    assert (found.mean, found.minimum, found.maximum) == (np.float32(0.1),) * 3
    assert (found.variance, found.fourth, found.zeros) == (0, 0, 0)
    for axes, shape in ((None, ()), (0, (4,)), (1, (0,))):
        none = moments(np.zeros((0, 4), np.float32), axes, impl=impl)
        assert all(x.shape == shape and np.isnan(x).all() for x in none)


@pytest.mark.gpu
@gpu
def test_kernels_of_moments_on_the_device():
    for size in [*ENTRIES, 2**24 + 1]:
        x = sample(size, 1e3, size)
        near(moments(jnp.asarray(x), impl="pallas"), x)
    near(moments(jnp.asarray(x := sample((6, 9, 5))), 1, impl="pallas"), x, 1)


@pytest.mark.parametrize(
    ("arguments", "options", "kind", "message"),
    [
        ((3.0,), {}, TypeError, "x=3.0): x must be an array."),
        (
            (np.zeros(2, int),),
            {},
            ValueError,
            "x=<ndarray int64[2]>): x must be of floats. "
            "Convert it, or take real and imaginary part.",
        ),
        (
            (np.zeros(2),),
            {"axes": 1},
            ValueError,
            "x, axes=1): x of rank 1 has no such axis.",
        ),
        (
            (np.zeros((2, 2)),),
            {"axes": (0, -3)},
            ValueError,
            "x, axes=(0, -3)): x of rank 2 has no such axis.",
        ),
        (
            (np.zeros((2, 2)),),
            {"axes": (0, -2)},
            ValueError,
            "x, axes=(0, 0)): axes names an axis twice.",
        ),
        (
            (np.zeros(2),),
            {"axes": "a"},
            TypeError,
            "x, axes='a'): axes must be an axis or a tuple of axes, as integers.",
        ),
        (
            (np.zeros(2),),
            {"impl": "fused"},
            ValueError,
            "x, axes, impl='fused'): impl must be one of 'jax', 'pallas'.",
        ),
        (
            (np.zeros(2),),
            {"impl": "pallas"},
            ValueError,
            "x, axes, impl='pallas'): sums in float32, and x is float64. "
            "Leave impl out.",
        ),
    ],
)
def test_messages_of_moments(arguments, options, kind, message):
    with pytest.raises(kind) as raised:
        moments(*arguments, **options)
    assert str(raised.value) == f"moments({message}"
