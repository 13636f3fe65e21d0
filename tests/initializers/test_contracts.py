"""Contracts of every initializer, run on every row of the catalogue.

Where a contract compiles, the rows are drawn together: by default those that draw in a
way of their own, in the slow run all others too.
"""

import copy
import inspect
import pickle
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import DRAWS, FEW, MAIN, OWN, RANDOM, ROWS, SOON, STRUCTURED
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from marks import slow_but
from together import QUICK, draw, jointly, same

import jaxinit as ji
from jaxinit import testing

KEY = jax.random.key(20)
jni = jax.nn.initializers


def each(rows):
    return pytest.mark.parametrize("row", rows, ids=lambda row: row.name)


rows = each(ROWS)


def keys_of(rows, key=KEY):
    """Gives each row the key as an argument of its own, lest draws become one."""
    return [key] * len(rows)


def test_every_builder_has_a_row():
    assert {row.init.name for row in ROWS} == set(OWN)


@each(slow_but(SOON, ROWS))
def test_shape_and_default_dtype(row):
    w = row.init(KEY, row.shape)
    assert (w.shape, w.dtype) == (row.shape, jnp.float32)
    again = ji.parse(repr(row.init))(KEY, row.shape)
    np.testing.assert_array_equal(np.asarray(w), np.asarray(again), strict=True)


@each(slow_but(MAIN, ROWS))
@pytest.mark.usefixtures("x64")
def test_default_dtype_follows_x64(row):
    out = jax.eval_shape(lambda key: row.init(key, row.shape), KEY)
    assert out.dtype == jnp.float64


def assert_rounded(rows, dtypes):
    """Asserts that weights of narrow dtypes are those of float32, rounded."""
    drawn = jax.jit(
        lambda keys: [
            [row.init(key, row.shape, dtype) for row, key in zip(rows, keys)]  # noqa: B905
            for dtype in dtypes
        ]
    )(keys_of(rows))
    with np.errstate(over="ignore", under="ignore"):
        for dtype, weights in zip(dtypes, drawn, strict=True):
            rounded = [
                np.asarray(w).astype(np.dtype(dtype)) for w in draw(rows, keys_of(rows))
            ]
            same(rows, weights, rounded)


def independent(row):
    return row in DRAWS and row.traits != "reused"


@jointly(MAIN, ROWS)
def test_same_model_in_every_dtype(rows):
    assert_rounded(rows, ["bfloat16"])


@jointly(FEW, [row for row in ROWS if independent(row)])
def test_same_model_in_dtypes_of_few_digits(rows):
    assert_rounded(rows, ["float16", "float8_e4m3fn"])


@pytest.mark.slow
@jointly([], [row for row in DRAWS if row.traits == "reused"])
def test_same_matrices_in_dtypes_of_few_digits(rows):
    assert_rounded(rows, ["float16", "float8_e4m3fn"])


@each(slow_but([ROWS[3]], [ROWS[3], DRAWS[1]]))
def test_same_model_in_every_dtype_alone(row):
    dtypes = ["bfloat16", "float16", "float8_e4m3fn"][: 3 if row.random else 1]
    testing.assert_same_in_every_dtype(row.init, row.shape, dtypes, key=KEY)


@jointly(FEW, DRAWS)
@pytest.mark.usefixtures("x64")
def test_complex_dtypes(rows):
    for row in rows:
        if not row.complex_:
            with pytest.raises(ValueError, match="law is one of real numbers"):
                row.init(KEY, row.shape, jnp.complex64)
    rows = [row for row in rows if row.complex_]
    drawn = jax.jit(
        lambda keys: [
            row.init(key, row.shape, jnp.complex128)
            for row, key in zip(rows, keys, strict=True)
        ],
        compiler_options=QUICK,
    )
    for row, w in zip(rows, map(np.asarray, drawn(keys_of(rows))), strict=True):
        assert w.dtype == np.complex128
        centered = w - row.mean
        # Five standard errors; the fourth moment of a complex normal is 2.
        error = 5 * np.sqrt(2 / (w != 0).sum())
        size = np.mean(np.abs(centered) ** 2)
        assert size == pytest.approx(row.variance, rel=error), row.name
        # Circular: the square has mean 0, as the real one never has.
        assert abs(np.mean(centered**2)) < error * row.variance, row.name


@jointly(FEW[:1], ROWS)
def test_pure_in_the_key_and_eager_is_jit_is_vmap_is_scan(rows):
    """As `testing.assert_pure`, of many. Equal initializers share what jit traced."""
    keys = jax.random.split(KEY, 3)
    chex.clear_trace_counter()

    @chex.assert_max_traces(1)
    def draw_of(inits, keys):
        return [
            init(key, row.shape)
            for init, row, key in zip(inits, rows, keys, strict=True)
        ]

    jitted = jax.jit(draw_of, static_argnums=0)

    def equal():
        return tuple(ji.parse(repr(row.init)) for row in rows)

    def drawn(keys):
        return draw(rows, keys)

    eager = [drawn(keys_of(rows, key)) for key in keys]
    same(rows, drawn(keys_of(rows, keys[0])), eager[0])
    for row, first, other in zip(rows, eager[0], eager[1], strict=True):
        if row.random:
            assert (np.asarray(first) != np.asarray(other)).any(), row.name
    batch = keys_of(rows, keys)
    stacks = [
        jax.vmap(drawn)(batch),
        jax.jit(jax.vmap(drawn))(batch),
        jax.lax.scan(lambda _, keys: (0, drawn(keys)), 0, batch)[1],
    ]
    for i, key in enumerate(keys):
        same(rows, jitted(equal(), keys_of(rows, key)), eager[i])
        for stack in stacks:
            same(rows, [w[i] for w in map(np.asarray, stack)], eager[i])


@jointly(FEW, RANDOM)
def test_typed_and_legacy_keys_agree(rows):
    legacy = jax.random.key_data(KEY)
    expected = draw(rows, keys_of(rows))
    jitted = jax.jit(lambda keys: draw(rows, keys))
    same(rows, jitted(keys_of(rows, legacy)), expected)
    same(rows, jitted(keys_of(rows, np.asarray(legacy))), expected)


@each([DRAWS[1]])
def test_typed_and_legacy_keys_agree_alone(row):
    legacy = jax.random.key_data(KEY)
    expected = draw([row], [KEY])
    same([row], draw([row], [legacy]), expected)
    same([row], draw([row], [np.asarray(legacy)]), expected)


@pytest.mark.slow
@jointly([], RANDOM)
@pytest.mark.parametrize("impl", ["rbg", "unsafe_rbg", "unpartitionable threefry"])
def test_other_generators(rows, impl):
    old = impl == "unpartitionable threefry"
    key = jax.random.key(1, impl="threefry2x32" if old else impl)
    with jax.threefry_partitionable(not old):
        jitted = jax.jit(lambda keys: draw(rows, keys), compiler_options=QUICK)
        drawn = jitted(keys_of(rows, key))
    for row, w in zip(rows, map(np.asarray, drawn), strict=True):
        square = np.mean((w - row.mean) ** 2)
        assert square == pytest.approx(row.variance, rel=0.1), row.name


def split_by_eight(row):
    """Returns how eight devices share a row, of which no axis may be so divisible."""
    axis = max(range(len(row.shape)), key=lambda axis: row.shape[axis] % 8 == 0)
    return (
        PartitionSpec() if row.shape[axis] % 8 else PartitionSpec(*[None] * axis, "x")
    )


@each(slow_but([ROWS[3], *FEW], ROWS))
@pytest.mark.slow
def test_values_do_not_depend_on_sharding(row):
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, split_by_eight(row))
    w = row.init(KEY, row.shape, None, sharding)
    assert w.sharding.is_equivalent_to(sharding, w.ndim)
    same([row], [w], draw([row], [KEY]))


@jointly(FEW, ROWS)
def test_values_do_not_depend_on_explicit_sharding(rows):
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Explicit,))
    specs = [split_by_eight(row) for row in rows]

    def placed(keys):
        each = zip(rows, keys, specs, strict=True)
        return [row.init(key, row.shape, out_sharding=spec) for row, key, spec in each]

    with jax.set_mesh(mesh):
        weights = jax.jit(placed)(keys_of(rows))
    for row, w, spec in zip(rows, weights, specs, strict=True):
        sharding = NamedSharding(mesh, spec)
        assert w.sharding.is_equivalent_to(sharding, w.ndim), row.name
    same(rows, weights, draw(rows, keys_of(rows)))


def zero_sizes(row):
    """Returns shapes with an axis of size 0: what a row takes, what it refuses, why."""
    last = len(row.shape) - 1
    array = isinstance(row.init.arguments.get("value"), tuple)
    refused = {  # axes that no size of 0 fits, and why
        "constant": ({last} if array else set(), "does not broadcast"),
        "blocks": ({0, 1}, "must divide the last two axes"),
        "concatenated": ({(row.init.arguments.get("axis") or 0) % 2}, "made up of"),
        "chrono": ({last}, "four gates"),
        "looks_linear": ({0, 1}, "two even axes"),
        "masked": ({last}, "does not broadcast"),
        "repeated": (
            {last} if row.init.arguments.get("times") else set(),
            "must divide",
        ),
        "orthogonal": (
            {last} if row.init.arguments.get("groups", 1) > 1 else set(),
            "must divide",
        ),
        "permutation": ({last, last - 1}, "square matrix"),
        "ssm.hippo_legs": ({0, 1}, "square matrix"),
        "conv_orthogonal": (
            {last} | ({0, 1} if last == 3 else set()),
            "window of equal sizes|as many outputs",
        ),
        "delta_orthogonal": ({last}, "as many outputs as inputs"),
        "from_array": ({0, 1}, "the array has shape"),
        "stft": ({1, 2}, r"needs a shape \(frame, 1, frequencies\)"),
    }
    axes, reason = refused.get(row.init.name, (set(), ""))
    shapes = [
        row.shape[:axis] + (0,) + row.shape[axis + 1 :]
        for axis in range(len(row.shape))
    ]
    taken = [shape for axis, shape in enumerate(shapes) if axis not in axes]
    return taken, [shapes[axis] for axis in sorted(axes)], reason


@rows
def test_zero_sizes_that_are_refused(row):
    _, shapes, reason = zero_sizes(row)
    for shape in shapes:
        with pytest.raises(ValueError, match=rf"{re.escape(str(shape))}.*({reason})"):
            row.init(KEY, shape)


@jointly(MAIN, ROWS)
def test_zero_sizes_give_empty_arrays(rows):
    cases = [(row, shape) for row in rows for shape in zero_sizes(row)[0]]
    drawn = jax.jit(lambda key: [row.init(key, s, jnp.bfloat16) for row, s in cases])
    for (row, shape), w in zip(cases, drawn(KEY), strict=True):
        assert (w.shape, w.dtype) == (shape, jnp.bfloat16), row.name


@each([ROWS[4], DRAWS[1], STRUCTURED[0]])
def test_zero_sizes_give_empty_arrays_alone(row):
    for shape in zero_sizes(row)[0]:
        w = row.init(KEY, shape, jnp.bfloat16)
        assert (w.shape, w.dtype) == (shape, jnp.bfloat16)


@each(slow_but(SOON, ROWS))
@pytest.mark.slow
def test_shapes_of_a_trillion_entries_trace(row):
    fixed = "from_array", "masked", "permutation", "selected", "ssm.hippo_legs"
    if row.init.name in fixed or row.init.arguments.get("sizes"):
        return  # a size follows from an argument, or from another
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
