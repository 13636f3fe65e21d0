"""Contracts of every initializer, run on every row of the catalogue."""

import copy
import inspect
import pickle
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import DRAWS, MAIN, OWN, RANDOM, ROWS
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from marks import slow_but

import jaxinit as ji
from jaxinit import testing

KEY = jax.random.key(20)
jni = jax.nn.initializers


def each(rows):
    return pytest.mark.parametrize("row", rows, ids=lambda row: row.name)


rows = each(ROWS)
random_rows = each(RANDOM)
# Where a contract compiles programs of its own.
main_rows = each(slow_but(MAIN, ROWS))
main_draws = each(slow_but(MAIN, DRAWS))
main_random_rows = each(slow_but(MAIN, RANDOM))


def same(a, b):
    np.testing.assert_array_equal(np.asarray(a), np.asarray(b), strict=True)


def test_every_builder_has_a_row():
    assert {row.init.name for row in ROWS} == set(OWN)


@rows
def test_shape_and_default_dtype(row):
    w = row.init(KEY, row.shape)
    assert (w.shape, w.dtype) == (row.shape, jnp.float32)
    same(w, ji.parse(repr(row.init))(KEY, row.shape))


@rows
@pytest.mark.usefixtures("x64")
def test_default_dtype_follows_x64(row):
    out = jax.eval_shape(lambda key: row.init(key, row.shape), KEY)
    assert out.dtype == jnp.float64


@main_rows
def test_same_model_in_every_dtype(row):
    independent = row in DRAWS and row.traits != "reused"
    dtypes = ["bfloat16", *(["float16", "float8_e4m3fn"] if independent else [])]
    testing.assert_same_in_every_dtype(row.init, row.shape, dtypes, key=KEY)


@pytest.mark.slow
@each([row for row in DRAWS if row.traits == "reused"])
def test_same_model_in_dtypes_of_few_digits(row):
    dtypes = ["float16", "float8_e4m3fn"]
    testing.assert_same_in_every_dtype(row.init, row.shape, dtypes, key=KEY)


@main_draws
@pytest.mark.usefixtures("x64")
def test_complex_dtypes(row):
    if not row.complex_:
        with pytest.raises(ValueError, match="law is one of real numbers"):
            row.init(KEY, row.shape, jnp.complex64)
        return
    w = np.asarray(row.init(KEY, row.shape, jnp.complex128))
    assert w.dtype == np.complex128
    centered = w - row.mean
    # Five standard errors, of entries with the fourth moment of a complex normal: 2.
    error = 5 * np.sqrt(2 / (w != 0).sum())
    assert np.mean(np.abs(centered) ** 2) == pytest.approx(row.variance, rel=error)
    # Circular: the square has mean 0, as the real one never has.
    assert abs(np.mean(centered**2)) < error * row.variance


@main_rows
def test_pure_in_the_key_and_eager_is_jit_is_vmap_is_scan(row):
    testing.assert_pure(row.init, row.shape, random=row.random, key=KEY)


@main_random_rows
def test_typed_and_legacy_keys_agree(row):
    legacy = jax.random.key_data(KEY)
    same(row.init(KEY, row.shape), row.init(legacy, row.shape))
    same(row.init(KEY, row.shape), row.init(np.asarray(legacy), row.shape))


@random_rows
@pytest.mark.slow
@pytest.mark.parametrize("impl", ["rbg", "unsafe_rbg", "unpartitionable threefry"])
def test_other_generators(row, impl):
    old = impl == "unpartitionable threefry"
    key = jax.random.key(1, impl="threefry2x32" if old else impl)
    with jax.threefry_partitionable(not old):
        w = np.asarray(row.init(key, row.shape))
    assert np.mean((w - row.mean) ** 2) == pytest.approx(row.variance, rel=0.1)


@main_rows
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_values_do_not_depend_on_sharding(row, kind):
    axis = max(range(len(row.shape)), key=lambda axis: row.shape[axis] % 8 == 0)
    if row.shape[axis] % 8:  # no axis of this row can be split by eight
        axis, spec = 0, PartitionSpec()
    else:
        spec = PartitionSpec(*[None] * axis, "x")
    mesh = jax.make_mesh((8,), ("x",), axis_types=(kind,))
    sharding = NamedSharding(mesh, spec)
    if kind == AxisType.Auto:
        w = row.init(KEY, row.shape, None, sharding)
    else:
        with jax.set_mesh(mesh):
            w = jax.jit(lambda key: row.init(key, row.shape, out_sharding=spec))(KEY)
    assert w.sharding.is_equivalent_to(sharding, w.ndim)
    same(row.init(KEY, row.shape), w)


@rows
def test_zero_sizes_give_empty_arrays(row):
    last = len(row.shape) - 1
    array = isinstance(row.init.arguments.get("value"), tuple)
    refused = {  # axes that no size of 0 fits, and why
        "constant": ({last} if array else set(), "does not broadcast"),
        "conv_orthogonal": (
            {last} | ({0, 1} if last == 3 else set()),
            "window of equal sizes|as many outputs",
        ),
        "delta_orthogonal": ({last}, "as many outputs as inputs"),
        "from_array": ({0, 1}, "the array has shape"),
        "stft": ({1, 2}, r"needs a shape \(frame, 1, frequencies\)"),
    }
    axes, reason = refused.get(row.init.name, (set(), ""))
    for axis in range(len(row.shape)):
        shape = row.shape[:axis] + (0,) + row.shape[axis + 1 :]
        if axis in axes:
            with pytest.raises(
                ValueError, match=rf"{re.escape(str(shape))}.*({reason})"
            ):
                row.init(KEY, shape)
        else:
            w = row.init(KEY, shape, jnp.bfloat16)
            assert (w.shape, w.dtype) == (shape, jnp.bfloat16)


@rows
def test_shapes_of_a_trillion_entries_trace(row):
    if row.init.name == "from_array":
        return  # its shape is the array's own
    if row.init.name == "stft":
        shape = (10**6, 1, 10**6)
    elif row.init.name == "conv_orthogonal":
        shape = (1, 1, 512, 10**9)  # cost follows the outputs for larger windows
    elif row.traits == "reused" and "sparse" not in row.init.name:
        shape = (*row.shape[:-2], 512, 10**9)  # cost follows the smaller side
    else:
        shape = (*row.shape[:-2], 10**6, row.shape[-1] if not row.random else 10**6)
    out = jax.eval_shape(lambda key: row.init(key, shape), KEY)
    assert (out.shape, out.dtype) == (shape, jnp.float32)


@rows
def test_equal_hash_copy_pickle_spec(row):
    init = row.init
    again = ji._initializer._rebuild(init._build, dict(init.arguments))
    assert again == init and hash(again) == hash(init) and again is not init
    assert pickle.loads(pickle.dumps(init)) == init
    assert copy.copy(init) is init and copy.deepcopy(init) is init
    assert ji.parse(repr(init)) == init
    assert init != ji.normal(0.123)


@main_rows
def test_compiles_once_for_equal_initializers(row):
    chex.clear_trace_counter()

    @chex.assert_max_traces(1)
    def draw(init, key):
        return init(key, row.shape)

    jitted = jax.jit(draw, static_argnums=0)
    for _ in range(3):
        jitted(ji.parse(repr(row.init)), KEY)


@rows
def test_is_a_jax_initializer(row):
    assert isinstance(row.init, jax.nn.initializers.Initializer)


@rows
def test_moments_are_those_of_the_catalogue(row):
    mean, variance = row.init.moments(row.shape)
    assert mean == pytest.approx(row.mean, rel=1e-4, abs=1e-12)
    assert variance == pytest.approx(row.variance, rel=1e-4, abs=1e-12)


@pytest.mark.parametrize("name", sorted({*dir(jni)} & {*OWN} - {"zeros", "ones"}))
def test_arguments_of_jax_keep_name_order_and_default(name):
    def read(function):
        found = inspect.signature(function).parameters.values()
        return [(p.name, p.default, p.kind) for p in found]

    theirs, ours = read(getattr(jni, name)), read(OWN[name])
    assert [(a, b) for a, b, _ in ours[: len(theirs)]] == [(a, b) for a, b, _ in theirs]
    assert {kind for _, _, kind in ours[len(theirs) :]} <= {
        inspect.Parameter.KEYWORD_ONLY
    }
