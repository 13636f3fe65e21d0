"""Flags, transformations and meshes: every initializer draws the same under each.

The default run draws few rows, each alone. The slow one draws all rows together, each
with a key of its own: one program for a case compiles sooner than one for a row, and
cases that lead to the same program share it.
"""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import DRAWS, ROWS, SCALINGS, STRUCTURED
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxinit as ji

KEY = jax.random.key(7)
# What the default run draws: an array, a law of entries, and matrices where a case has
# been of another kind for them.
FIRST, MATRICES = [ROWS[3], SCALINGS[0]], [STRUCTURED[0], STRUCTURED[8]]
OF_MATRICES = ("jax_numpy_rank_promotion", "remat")
ALIKE = ("vmap of jit", "map", "linearize", "Auto of 1", "legacy NumPy", "unsafe_rbg")
# What other default tests have: test_contracts.py, test_eager.py and test_as_jit.py.
ELSEWHERE = {"jit", "scan", "cond", "custom_vjp", "Explicit of 1", "Auto of 8", "typed"}
ELSEWHERE |= {"jax_debug_infs", "jax_numpy_dtype_promotion", "jax_enable_checks"}
TOGETHER = (ROWS[3], *DRAWS)
DRAWN: dict[str, np.ndarray] = {}


def drawn(row):
    """Returns the weight that no flag or transformation has touched."""
    if row.name not in DRAWN:
        with jax.enable_x64(False):  # whatever test asks first
            DRAWN[row.name] = np.asarray(row.init(KEY, row.shape))
    return DRAWN[row.name]


def draw(rows, keys):
    """Draws a weight of each row; within a program, if one is traced."""
    return [row.init(key, row.shape) for row, key in zip(rows, keys, strict=True)]


def keys_of(rows):
    """Makes fresh keys, each of which may be used once."""
    return [jax.random.key(7) for _ in rows]


def same(rows, found):
    for row, w in zip(rows, found, strict=True):
        np.testing.assert_array_equal(np.asarray(w), drawn(row), row.name, strict=True)


def each(cases):
    """Runs a test on cases and one row of each way to draw; by default on few."""
    alone, together = [], []
    for case in cases:
        few = [*FIRST] * (case not in ALIKE) + [*MATRICES] * (case in OF_MATRICES)
        slow = [pytest.mark.slow] * (case in ELSEWHERE)
        alone += [
            pytest.param((row,), case, id=f"{case}-{row.name}", marks=slow)
            for row in few
        ]
        together += [pytest.param(TOGETHER, case, id=case, marks=pytest.mark.slow)]
    return pytest.mark.parametrize(("rows", "case"), alone + together)


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
def test_flags(rows, case):
    for row in rows:
        drawn(row)
    with FLAGS[case]():
        same(rows, draw(rows, keys_of(rows)))


@pytest.mark.slow
@each(FLAGS)
def test_flags_under_jit(rows, case):
    for row in rows:
        drawn(row)
    with FLAGS[case]():
        same(rows, jax.jit(functools.partial(draw, rows))(keys_of(rows)))


@each(["float32"])
@pytest.mark.usefixtures("x64")
def test_float32_under_x64(rows, case):
    same(rows, [row.init(KEY, row.shape, case) for row in rows])


@each(["x64"])
@pytest.mark.usefixtures("x64")
def test_every_flag_at_once(rows, case):
    expected = draw(rows, keys_of(rows))
    with contextlib.ExitStack() as stack:
        for name, flag in FLAGS.items():
            # JAX takes a loop over keys for a reuse where jit is disabled.
            if name != "jax_debug_key_reuse":
                stack.enter_context(flag())
        found = draw(rows, keys_of(rows))
    for row, w, before in zip(rows, found, expected, strict=True):
        np.testing.assert_array_equal(w, before, row.name, strict=True)


def by_custom_vjp(draw, keys):
    @jax.custom_vjp
    def scaled(x):
        return jax.tree.map(lambda w: w * x, draw(keys))

    def forward(x):
        weights = draw(keys)
        return jax.tree.map(lambda w: w * x, weights), weights

    def backward(weights, cotangents):
        parts = jax.tree.map(lambda w, g: jnp.sum(w * g), weights, cotangents)
        return (sum(parts),)

    scaled.defvjp(forward, backward)
    one = np.float32(1)
    return jax.vjp(scaled, one)[0], jax.jit(scaled)(one)


def by_grad(draw, keys):
    ones = jax.tree.map(lambda w: jnp.ones(w.shape), jax.eval_shape(draw, keys))

    def loss(xs):
        return sum(jax.tree.map(lambda w, x: jnp.sum(w * x), draw(keys), xs))

    return jax.grad(loss)(ones), jax.jit(jax.grad(loss))(ones)


def by_shard_map(draw, keys):
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))
    none = PartitionSpec()
    mapped = jax.shard_map(
        draw, mesh=mesh, in_specs=none, out_specs=none, check_vma=False
    )
    eight = jax.tree.map(lambda key: jnp.broadcast_to(key, (8,)), keys)
    each_its_own = jax.shard_map(
        lambda keys: [w[None] for w in draw([key[0] for key in keys])],
        mesh=mesh,
        in_specs=PartitionSpec("x"),
        out_specs=PartitionSpec("x"),
    )
    found = jax.jit(each_its_own)(eight)
    return jax.jit(mapped)(keys), [w[0] for w in found], [w[7] for w in found]


def by_export(draw, keys):
    """Lowers for every platform, and runs what CPU takes."""
    data = jax.tree.map(jax.random.key_data, keys)
    legacy = jax.jit(
        lambda data: draw([jax.random.wrap_key_data(each) for each in data])
    )
    for platforms in (["cuda"], ["tpu"], ["cpu", "cuda", "tpu"]):
        exported = jax.export.export(legacy, platforms=platforms)(data)
        assert exported.platforms == tuple(platforms)
    return (exported.call(data),)


def by_cond(draw, keys):
    def flat(keys):
        return jax.tree.map(lambda w: jnp.zeros(w.shape), jax.eval_shape(draw, keys))

    yes = jnp.array(True)
    branch = jax.jit(lambda yes, keys: jax.lax.cond(yes, draw, flat, keys))
    return jax.lax.cond(yes, draw, flat, keys), branch(yes, keys)


def stacked(keys, count):
    return jax.tree.map(lambda key: jnp.stack([key] * count), keys)


def steps(found, count):
    return [[w[i] for w in found] for i in range(count)]


TRANSFORMATIONS = {
    "jit": lambda draw, keys: (jax.jit(draw)(keys), jax.jit(jax.jit(draw))(keys)),
    # Of three keys, as in test_contracts.py, which compiles the same programs.
    "vmap": lambda draw, keys: steps(jax.vmap(draw)(stacked(keys, 3)), 3),
    "vmap of jit": lambda draw, keys: steps(
        jax.vmap(jax.jit(draw))(stacked(keys, 1)), 1
    ),
    "scan": lambda draw, keys: steps(
        jax.lax.scan(lambda c, k: (c, draw(k)), 0, stacked(keys, 1))[1], 1
    ),
    "map": lambda draw, keys: steps(jax.lax.map(draw, stacked(keys, 1)), 1),
    "cond": by_cond,
    "remat": lambda draw, keys: (jax.checkpoint(draw)(keys),),
    "grad": by_grad,
    "custom_vjp": by_custom_vjp,
    "linearize": lambda draw, keys: (
        jax.linearize(
            lambda x: jax.tree.map(lambda w: w * x, draw(keys)), np.float32(1)
        )[0],
    ),
    "shard_map": by_shard_map,
    "export": by_export,
}


@each(TRANSFORMATIONS)
def test_transformations(rows, case):
    keys = keys_of(rows)
    results = TRANSFORMATIONS[case](functools.partial(draw, rows), keys)
    for found in results:
        same(rows, found)


KEYS = {
    "legacy": lambda: jax.random.PRNGKey(7),
    "legacy NumPy": lambda: np.asarray(jax.random.PRNGKey(7)),
    "typed": lambda: jax.random.key(7),
    "rbg": lambda: jax.random.key(7, impl="rbg"),
    "unsafe_rbg": lambda: jax.random.key(7, impl="unsafe_rbg"),
}


@each(KEYS)
def test_keys(rows, case):
    keys = [KEYS[case]() for _ in rows]
    found = draw(rows, keys)
    if "rbg" not in case:
        return same(rows, found)
    jitted = jax.jit(functools.partial(draw, rows))(keys)
    for row, w, of_jit in zip(rows, found, jitted, strict=True):
        np.testing.assert_array_equal(w, of_jit, row.name, strict=True)
        if row.random:
            assert np.isfinite(w).all() and (w != drawn(row)).any(), row.name
        else:
            same([row], [w])


MESHES = {
    f"{kind.name} of {count}": (count, kind)
    for kind in (AxisType.Auto, AxisType.Explicit)
    for count in (1, 8)
}


@each(MESHES)
def test_inside_a_mesh(rows, case):
    count, kind = MESHES[case]
    # The axis of model/test_meshes.py, which compiles the same programs of single rows.
    mesh = jax.make_mesh((count,), ("model",), axis_types=(kind,))
    with jax.set_mesh(mesh):
        found = draw(rows, keys_of(rows))
        jitted = jax.jit(functools.partial(draw, rows))(keys_of(rows))
    same(rows, found)
    same(rows, jitted)


@each(MESHES)
def test_placed_on_a_mesh(rows, case):
    count, kind = MESHES[case]
    mesh = jax.make_mesh((count,), ("x",), axis_types=(kind,))
    for row in rows:
        split = [axis for axis, size in enumerate(row.shape) if size % count == 0]
        spec = [None] * len(row.shape)
        if split:
            spec[split[0]] = "x"
        sharding = NamedSharding(mesh, PartitionSpec(*spec))
        found = row.init(KEY, row.shape, out_sharding=sharding)
        assert found.sharding.is_equivalent_to(sharding, found.ndim), row.name
        same([row], [found])


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
