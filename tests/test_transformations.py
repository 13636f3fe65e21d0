"""Flags, transformations and meshes: every initializer draws the same under each."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import DRAWS, ROWS, SCALINGS, STRUCTURED
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from marks import slow_but

import jaxinit as ji

KEY = jax.random.key(7)
# What the default run draws: an array, a law of entries, and matrices where a case has
# been of another kind for them.
FIRST, MATRICES = [ROWS[3], SCALINGS[0]], [STRUCTURED[0], STRUCTURED[8]]
OF_MATRICES = ("jax_numpy_rank_promotion", "remat")
ALIKE = ("vmap of jit", "map", "linearize", "Auto of 1", "legacy NumPy", "unsafe_rbg")
DRAWN: dict[str, np.ndarray] = {}


def drawn(row):
    """Returns the weight that no flag or transformation has touched."""
    if row.name not in DRAWN:
        with jax.enable_x64(False):  # whatever test asks first
            DRAWN[row.name] = np.asarray(row.init(KEY, row.shape))
    return DRAWN[row.name]


def same(row, found):
    np.testing.assert_array_equal(np.asarray(found), drawn(row), strict=True)


def each(cases):
    """Runs a test on cases and one row of each way to draw; by default on few."""
    every = [(row, case) for row in [ROWS[3], *DRAWS] for case in cases]
    few = [
        (row, case)
        for row, case in every
        if (row in FIRST and case not in ALIKE)
        or (row in MATRICES and case in OF_MATRICES)
    ]
    marked = slow_but(few, every, rows=True)
    names = [f"{case}-{row.name}" for row, case in every]
    return pytest.mark.parametrize(("row", "case"), marked, ids=names)


FLAGS = {
    "jax_numpy_rank_promotion": lambda: jax.numpy_rank_promotion("raise"),
    "jax_numpy_dtype_promotion": lambda: jax.numpy_dtype_promotion("strict"),
    "jax_debug_nans": lambda: jax.debug_nans(True),
    "jax_debug_infs": lambda: jax.debug_infs(True),
    "jax_debug_key_reuse": lambda: jax.debug_key_reuse(True),
    "jax_disable_jit": jax.disable_jit,
    "jax_enable_checks": lambda: jax.enable_checks(True),
    "jax_check_tracer_leaks": jax.checking_leaks,
}


@each(FLAGS)
def test_flags(row, case):
    expected = drawn(row)
    with FLAGS[case]():
        key = jax.random.key(7)  # a fresh one, which may be used once
        found = row.init(key, row.shape)
        np.testing.assert_array_equal(found, expected, strict=True)


@pytest.mark.slow
@each(FLAGS)
def test_flags_under_jit(row, case):
    expected = drawn(row)
    with FLAGS[case]():
        key = jax.random.key(7)
        found = jax.jit(lambda key: row.init(key, row.shape))(key)
        np.testing.assert_array_equal(found, expected, strict=True)


@each(["float32"])
@pytest.mark.usefixtures("x64")
def test_float32_under_x64(row, case):
    same(row, row.init(KEY, row.shape, case))


@each(["x64"])
@pytest.mark.usefixtures("x64")
def test_every_flag_at_once(row, case):
    expected = np.asarray(row.init(KEY, row.shape))
    with contextlib.ExitStack() as stack:
        for name, flag in FLAGS.items():
            # JAX takes a loop over keys for a reuse where jit is disabled.
            if name != "jax_debug_key_reuse":
                stack.enter_context(flag())
        key = jax.random.key(7)
        np.testing.assert_array_equal(row.init(key, row.shape), expected, strict=True)


def by_custom_vjp(draw, key):
    @jax.custom_vjp
    def scaled(x):
        return draw(key) * x

    def forward(x):
        w = draw(key)
        return w * x, w

    scaled.defvjp(forward, lambda w, cotangent: (jnp.sum(w * cotangent),))
    one = np.float32(1)
    return jax.vjp(scaled, one)[0], jax.jit(scaled)(one)


def by_grad(draw, key):
    ones = jnp.ones(jax.eval_shape(draw, key).shape)

    def loss(x):
        return jnp.sum(draw(key) * x)

    return jax.grad(loss)(ones), jax.jit(jax.grad(loss))(ones)


def by_shard_map(draw, key):
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))
    none = PartitionSpec()
    mapped = jax.shard_map(
        draw, mesh=mesh, in_specs=none, out_specs=none, check_vma=False
    )
    keys = jnp.broadcast_to(key, (8,))
    each_its_own = jax.shard_map(
        lambda keys: draw(keys[0])[None],
        mesh=mesh,
        in_specs=PartitionSpec("x"),
        out_specs=PartitionSpec("x"),
    )
    return jax.jit(mapped)(key), *jax.jit(each_its_own)(keys)[:8:7]


def by_export(draw, key):
    """Lowers for every platform, and runs what CPU takes."""
    data = jax.random.key_data(key)
    legacy = jax.jit(lambda data: draw(jax.random.wrap_key_data(data)))
    for platforms in (["cuda"], ["tpu"], ["cpu", "cuda", "tpu"]):
        exported = jax.export.export(legacy, platforms=platforms)(data)
        assert exported.platforms == tuple(platforms)
    return (exported.call(data),)


def by_cond(draw, key):
    def flat(key):
        return jnp.zeros(jax.eval_shape(draw, key).shape)

    yes = jnp.array(True)
    branch = jax.jit(lambda yes, key: jax.lax.cond(yes, draw, flat, key))
    return jax.lax.cond(yes, draw, flat, key), branch(yes, key)


TRANSFORMATIONS = {
    "jit": lambda draw, key: (jax.jit(draw)(key), jax.jit(jax.jit(draw))(key)),
    "vmap": lambda draw, key: jax.vmap(draw)(jnp.stack([key, key])),
    "vmap of jit": lambda draw, key: jax.vmap(jax.jit(draw))(key[None]),
    "scan": lambda draw, key: jax.lax.scan(lambda c, k: (c, draw(k)), 0, key[None])[1],
    "map": lambda draw, key: jax.lax.map(draw, key[None]),
    "cond": by_cond,
    "remat": lambda draw, key: (jax.checkpoint(draw)(key),),
    "grad": by_grad,
    "custom_vjp": by_custom_vjp,
    "linearize": lambda draw, key: (
        jax.linearize(lambda x: draw(key) * x, np.float32(1))[0],
    ),
    "shard_map": by_shard_map,
    "export": by_export,
}


@each(TRANSFORMATIONS)
def test_transformations(row, case):
    def draw(key):
        return row.init(key, row.shape)

    for found in TRANSFORMATIONS[case](draw, KEY):
        same(row, found)


KEYS = {
    "legacy": lambda: jax.random.PRNGKey(7),
    "legacy NumPy": lambda: np.asarray(jax.random.PRNGKey(7)),
    "typed": lambda: jax.random.key(7),
    "rbg": lambda: jax.random.key(7, impl="rbg"),
    "unsafe_rbg": lambda: jax.random.key(7, impl="unsafe_rbg"),
}


@each(KEYS)
def test_keys(row, case):
    key = KEYS[case]()
    found = row.init(key, row.shape)
    if "rbg" not in case or not row.random:
        return same(row, found)
    jitted = jax.jit(lambda key: row.init(key, row.shape))(key)
    np.testing.assert_array_equal(found, jitted, strict=True)
    assert np.isfinite(found).all() and (found != drawn(row)).any()


MESHES = {
    f"{kind.name} of {count}": (count, kind)
    for kind in (AxisType.Auto, AxisType.Explicit)
    for count in (1, 8)
}


@each(MESHES)
def test_inside_a_mesh(row, case):
    count, kind = MESHES[case]
    mesh = jax.make_mesh((count,), ("x",), axis_types=(kind,))
    with jax.set_mesh(mesh):
        found = row.init(jax.random.key(7), row.shape)
        jitted = jax.jit(lambda key: row.init(key, row.shape))(jax.random.key(7))
    same(row, found)
    same(row, jitted)


@each(MESHES)
def test_placed_on_a_mesh(row, case):
    count, kind = MESHES[case]
    mesh = jax.make_mesh((count,), ("x",), axis_types=(kind,))
    split = [axis for axis, size in enumerate(row.shape) if size % count == 0]
    spec = [None] * len(row.shape)
    if split:
        spec[split[0]] = "x"
    sharding = NamedSharding(mesh, PartitionSpec(*spec))
    found = row.init(KEY, row.shape, out_sharding=sharding)
    assert found.sharding.is_equivalent_to(sharding, found.ndim)
    same(row, found)


def test_flags_are_seen():
    """A flag that did nothing would test nothing."""
    with FLAGS["jax_numpy_rank_promotion"](), pytest.raises(ValueError, match="rank"):
        jnp.ones((2, 2)) * jnp.ones(2)
    with FLAGS["jax_debug_key_reuse"]():
        key = jax.random.key(0)
        ji.normal()(key, (2,))
        with pytest.raises(jax.errors.KeyReuseError):
            ji.normal()(key, (2,))
    with FLAGS["jax_disable_jit"]():
        assert jax.config.jax_disable_jit
