"""Draws outside of traces: a law compiles once, and values and places are jit's."""

import functools
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from marks import slow_but

import jaxinit as ji
from jaxinit import _fill

KEY = jax.random.key(3)
COMPILED: list[str] = []
TRACED: list[str] = []
# Around the fewest entries of a law, a block and a chunk of its program, and odd ones.
SIZES = (0, 1, 31, 32, 33, 1001, 2**13 - 1, 2**13 + 1, 2**19, 2**19 + 1, 2**20 + 2**13)
NARROW = ["bfloat16", "float16", "float8_e4m3fn"]
STOCK = {
    "normal": (ji.normal(0.3), jax.nn.initializers.normal(0.3)),
    "uniform": (ji.uniform(0.3), jax.nn.initializers.uniform(0.3)),
    "truncated": (
        ji.truncated_normal(0.3),
        jax.nn.initializers.truncated_normal(0.3),
    ),
    "he_normal": (ji.he_normal(), jax.nn.initializers.he_normal()),
    "glorot_uniform": (ji.glorot_uniform(), jax.nn.initializers.glorot_uniform()),
}


@jax.monitoring.register_event_duration_secs_listener
def _listen(event, duration, **metadata):
    if "backend_compile" in event:
        COMPILED.append(event)
    if "jaxpr_trace" in event:
        TRACED.append(event)


@pytest.fixture
def compiled():
    """Counts the programs that are compiled, or read from the persistent cache."""
    COMPILED.clear()
    return COMPILED


@pytest.fixture
def traced():
    """Counts the programs that are traced."""
    TRACED.clear()
    return TRACED


def by_jit(init, key, shape, dtype=None):
    return jax.jit(init, static_argnums=(1, 2))(key, shape, dtype)


def same(found, expected):
    """Compares values, types and places."""
    np.testing.assert_array_equal(np.asarray(found), np.asarray(expected), strict=True)
    assert found.weak_type == expected.weak_type
    assert found.committed == expected.committed
    assert found.sharding == expected.sharding


@pytest.mark.parametrize(
    "dtype", slow_but(["float32"], ["float32", "bfloat16", "float16"])
)
def test_a_second_shape_compiles_nothing(compiled, dtype):
    inits = [ours for ours, _ in STOCK.values()] + [
        ji.truncated_normal(0.3, mean=0.1, low=-0.2),
        ji.he_normal(gain="gelu"),
        ji.torch.normal(0.5, 2.0),
    ]
    for init in inits:
        init(KEY, (8, 8), dtype).block_until_ready()
    assert compiled  # the counter counts
    compiled.clear()
    for init in inits:
        for shape in ((4, 9), (5, 5, 7, 11), (123, 457), (1000, 600)):
            made = init(KEY, shape, dtype)
            assert made.shape == shape and made.dtype == dtype
    assert not compiled


@pytest.mark.parametrize("dtype", slow_but(["float32"], ["float32", "bfloat16"]))
def test_a_second_shape_traces_nothing(traced, dtype):
    inits = [
        *(ours for ours, _ in STOCK.values()),
        ji.variance_scaling(0.3, "fan_avg", "normal"),
        ji.normal(0.3, mean=0.1),
        ji.uniform(low=-1.0, high=2.0),
        ji.torch.trunc_normal(std=2.0),
    ]
    _fill._FIRST.clear()  # of equal initializers of other tests, which may be gone
    _fill._DRAWN.clear()
    for init in inits:
        init(KEY, (8, 9), dtype)
    _fill._DRAWN.clear()  # as for shapes that no other test draws
    traced.clear()
    found = [init(KEY, (7, 16), dtype) for init in inits]
    assert not traced
    _fill._FIRST.clear()
    _fill._DRAWN.clear()
    expected = [init(KEY, (7, 16), dtype) for init in inits]
    assert traced  # the counter counts
    for x, y in zip(found, expected, strict=True):
        same(x, y)


def test_a_shape_like_one_before_is_checked_as_ever():
    init = ji.variance_scaling(2e9, "fan_in", "uniform")
    init(KEY, (8, 8), "float16")
    for _ in range(2):
        with pytest.raises(TypeError, match="shape must be a tuple"):
            init(KEY, (8.0, 8), "float16")
        with pytest.raises(ValueError, match="leave what the type holds"):
            init(KEY, (1, 64), "float16")
        with pytest.raises(ValueError, match="needs two axes"):
            init(KEY, (64,), "float16")
        with pytest.raises(TypeError, match="dtype must be"):
            init(KEY, (8, 8), np.zeros(3))
        same(init(KEY, (np.array(8), 8)), init(KEY, [8, 8]))
        with jax.disable_jit():
            same(init(KEY, (8, 8)), init(KEY, (8, 8)))
        with pytest.raises(ValueError, match="not an array of keys"):
            init(jax.random.split(KEY), (8, 8), "float16")


def test_equal_laws_share_a_program(compiled):
    ji.lecun_normal()(KEY, (8, 9))
    other = jax.random.key(8)
    compiled.clear()
    ji.he_normal()(KEY, (8, 9))
    ji.variance_scaling(0.3, "fan_out", "truncated_normal")(KEY, (8, 9))
    ji.lecun_normal()(other, (8, 9))
    ji.truncated_normal(0.1)(KEY, (8, 9))
    assert not compiled


@pytest.mark.parametrize("size", slow_but([0, 33, 2**19 + 1], SIZES))
def test_every_size_is_jitted_jax(size):
    ours, theirs = STOCK["normal"]
    same(ours(KEY, (size,)), by_jit(theirs, KEY, (size,), jnp.float32))


@pytest.mark.parametrize(
    "shape", slow_but([(7, 11)], [(7, 11), (3, 5, 64, 33)]), ids=str
)
@pytest.mark.parametrize("name", slow_but(["uniform", "truncated"], STOCK))
def test_every_law_is_jitted_jax(name, shape):
    ours, theirs = STOCK[name]
    same(ours(KEY, shape), by_jit(theirs, KEY, shape, jnp.float32))
    legacy = jax.random.PRNGKey(3)
    np.testing.assert_array_equal(ours(legacy, shape), ours(KEY, shape))


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", STOCK)
def test_float64_is_jitted_jax(name):
    ours, theirs = STOCK[name]
    for shape in ((7, 11), (1030, 1030)):  # the second on several threads
        same(ours(KEY, shape), by_jit(theirs, KEY, shape, jnp.float64))


@pytest.mark.parametrize("dtype", slow_but(NARROW[:1], NARROW))
@pytest.mark.parametrize("name", slow_but(["truncated"], STOCK))
def test_narrow_types_are_rounded_once(name, dtype):
    init, shape = STOCK[name][0], (131, 65)
    np.testing.assert_array_equal(
        init(KEY, shape, dtype), init(KEY, shape).astype(dtype), strict=True
    )


@pytest.mark.parametrize(
    ("init", "dtype"),
    slow_but(
        [(ji.normal(), "complex64")],
        [(ji.normal(), "complex64"), (ji.orthogonal(), None), (ji.sparse(0.5), None)],
        rows=True,
    ),
    ids=str,
)
def test_what_has_no_law_is_compiled_as_ever(init, dtype):
    same(init(KEY, (6, 8), dtype), by_jit(init, KEY, (6, 8), dtype))


def test_other_keys_are_those_of_jit():
    init = ji.he_normal()
    for key in (jax.random.key(3, impl="rbg"), jax.random.key(3, impl="unsafe_rbg")):
        same(init(key, (17, 9)), by_jit(init, key, (17, 9)))
    with jax.threefry_partitionable(False):
        found = init(KEY, (17, 9))
        same(found, by_jit(init, KEY, (17, 9)))
    assert (found != init(KEY, (17, 9))).any()


@pytest.mark.parametrize(
    "make", slow_but([jax.random.key], [jax.random.key, jax.random.PRNGKey])
)
def test_places_are_those_of_jit(make):
    init, device, key = ji.he_normal(), jax.devices()[3], make(3)
    moved = jax.device_put(key, device)
    same(init(moved, (17, 9)), by_jit(init, moved, (17, 9)))
    for chosen in (device, "cpu"):
        with jax.default_device(chosen):
            same(init(key, (17, 9)), by_jit(init, key, (17, 9)))
    with jax.default_device(device):
        elsewhere = make(4)
    for shape in ((17, 9), (700, 900)):  # it goes where the draw goes
        same(init(elsewhere, shape), by_jit(init, elsewhere, shape))


def test_a_key_may_lie_on_every_device():
    init = ji.he_normal()
    everywhere = NamedSharding(jax.make_mesh((8,), ("x",)), PartitionSpec())
    spread = jax.device_put(KEY, everywhere)
    same(init(spread, (17, 9)), by_jit(init, spread, (17, 9)))


@pytest.mark.parametrize(
    "kind",
    slow_but([AxisType.Explicit], [AxisType.Auto, AxisType.Explicit]),
    ids=str,
)
def test_a_mesh_is_seen(kind):
    init = ji.he_normal()
    mesh = jax.make_mesh((8,), ("x",), axis_types=(kind,))
    expected = np.asarray(init(KEY, (16, 9)))
    with jax.set_mesh(mesh):
        found = init(KEY, (16, 9))
        assert found.sharding == by_jit(init, KEY, (16, 9)).sharding
        placed = init(KEY, (16, 9), out_sharding=PartitionSpec("x"))
    for w in (found, placed):
        np.testing.assert_array_equal(w, expected)
    assert placed.sharding.spec[0] == "x"


def test_flags_are_heeded():
    init, expected = ji.he_normal(), np.asarray(ji.he_normal()(KEY, (17, 10)))
    here = jax.random.key(3)
    flags = [
        jax.transfer_guard("disallow"),
        jax.disable_jit(),
        jax.debug_nans(True),
        jax.enable_x64(True),
        jax.ensure_compile_time_eval(),
    ]
    for flag in flags:
        _fill._DRAWN.clear()
        _fill._FIRST.clear()
        with flag:
            found = init(here, (17, 10), jnp.float32)
        np.testing.assert_array_equal(found, expected)
    with jax.debug_key_reuse(True):
        init(here, (17, 10))
        with pytest.raises(jax.errors.KeyReuseError):
            init(here, (17, 10))


def test_a_rule_of_jax_that_a_draw_breaks_is_still_broken():
    @ji.initializer
    def mixed(dtype=None):
        """Builds an initializer that mixes types."""
        return lambda key, shape, dtype: jax.random.normal(key, shape) * np.int32(3)

    with jax.numpy_dtype_promotion("standard"):
        mixed()(KEY, (8, 8))
    with pytest.raises(ValueError, match="promotion"):
        mixed()(KEY, (8, 8))


def test_a_drawn_weight_can_be_given_away():
    init = ji.he_normal()
    for shape in ((8, 8), (500, 600)):
        expected = np.array(init(KEY, shape))
        given = init(KEY, shape)
        jax.jit(lambda w: w + 1, donate_argnums=0)(given).block_until_ready()
        np.testing.assert_array_equal(init(KEY, shape), expected)


def test_threads_draw_side_by_side():
    init = ji.he_normal()
    expected = [np.asarray(init(jax.random.key(i), (70, 80))) for i in range(8)]
    found: dict[int, np.ndarray] = {}

    def draw(i):
        for _ in range(20):
            found[i] = np.asarray(init(jax.random.key(i), (70, 80)))

    threads = [threading.Thread(target=functools.partial(draw, i)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, w in enumerate(expected):
        np.testing.assert_array_equal(found[i], w)


# Orthonormal matrices

NEAR = [((300, 300), (309, 290)), ((65, 40), (7, 96))]
SQUARE = [((65, 65), "float32"), ((128, 100), "float32"), ((100, 128), "float64")]
MATRICES = [
    *((ji.orthogonal(2.0), *case) for case in SQUARE),
    (ji.orthogonal(), (17, 6), "float32"),
    (ji.orthogonal(), (64, 64), "float32"),
    (ji.orthogonal(), (300, 299), "float32"),
    (ji.orthogonal(3.0), (300, 310), "bfloat16"),
    (ji.orthogonal(0.3, 0, gain="relu"), (40, 3, 9), "float32"),
    (ji.orthogonal(1e-30), (64, 65), "float32"),
    (ji.delta_orthogonal(0.5), (3, 8, 16), "float32"),
    (ji.scaled_uniform_orthogonal(1.5), (3, 3, 70, 90), "float32"),
    (ji.torch.orthogonal(layout="torch"), (40, 8, 3), "float16"),
    (ji.orthogonal(batch_axis=0), (3, 8, 16), "float32"),
    (ji.conv_orthogonal(), (2, 8, 16), "float32"),
]


FIRST = [MATRICES[3], MATRICES[7]]  # in both orders of axes


@pytest.mark.parametrize(
    ("init", "shape", "dtype"), slow_but(FIRST, MATRICES, rows=True), ids=str
)
@pytest.mark.usefixtures("x64")
def test_every_matrix_is_that_of_jit(init, shape, dtype):
    found = init(KEY, shape, dtype)
    same(found, by_jit(init, KEY, shape, dtype))
    legacy = init(jax.random.PRNGKey(3), shape, dtype)
    np.testing.assert_array_equal(np.asarray(legacy), np.asarray(found))


@pytest.mark.parametrize("near", slow_but([NEAR[1]], NEAR))
def test_shapes_that_are_padded_alike_share_a_program(compiled, near):
    first, second = near
    init = ji.orthogonal(2.0)
    init(KEY, first).block_until_ready()
    compiled.clear()
    for shape in (second, second[::-1], first[::-1]):
        assert init(KEY, shape).shape == shape
        assert ji.orthogonal(0.5, 0)(jax.random.key(8), shape).shape == shape
    assert not compiled


@pytest.mark.slow
def test_only_a_chain_of_operations_on_one_matrix_is_made_on_the_host():
    """What else becomes of a matrix is compiled, or all of it."""

    def draw(key, shape, dtype):
        q = ji.random.orthonormal(key, *shape, dtype)
        _ = 3 * q  # of no use
        return jnp.maximum(q * 2, q * -2).astype(dtype)

    init = ji.initializer(lambda: (draw, lambda shape: ji.Moments(0.0, 1.0)))()
    same(init(KEY, (9, 8)), by_jit(init, KEY, (9, 8)))
