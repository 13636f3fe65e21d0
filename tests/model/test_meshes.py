"""Draws do not depend on the mesh: builders, `jax.random`, `jit_init`, `reinit`."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import MAIN, RANDOM
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from marks import slow_but

import jaxinit
from jaxinit import random

KEY = jax.random.key(4)
SHAPE = (32, 64)
ROWS = PartitionSpec("model")
MESHES = [(kind, count) for kind in ("Explicit", "Auto") for count in (1, 8)]


def mesh_of(kind, count):
    axes = (getattr(AxisType, kind),)
    devices = jax.devices()[:count]
    return jax.make_mesh((count,), ("model",), axes, devices=devices)


def assert_equal(made, expected):
    assert jax.tree.structure(made) == jax.tree.structure(expected)
    leaves = zip(
        jax.tree_util.tree_leaves_with_path(made),
        jax.tree.leaves(expected),
        strict=True,
    )
    other = []
    for (path, a), b in leaves:
        same = np.asarray(a).tobytes() == np.asarray(b).tobytes()
        other += [] if a.dtype == b.dtype and same else [jax.tree_util.keystr(path)]
    assert not other


# builders

FEW = [row for row in MAIN if "normal" in row.init.name][:4]


def rows_at(number):
    """Returns every eighth row: a few programs for all, of which each is compiled."""
    return RANDOM[number::8]


@functools.cache
def on_one_device(number):
    rows = FEW if number is None else rows_at(number)
    return {row.name: np.asarray(row.init(KEY, row.shape)) for row in rows}


@pytest.mark.parametrize(
    ("mesh", "number"),
    slow_but(
        [(("Explicit", 1), None)],
        [(("Explicit", 1), None)]
        + [(mesh, number) for mesh in MESHES for number in range(8)],
        rows=True,
    ),
)
def test_builders(mesh, number):
    rows = FEW if number is None else rows_at(number)
    expected = on_one_device(number)

    def drawn(key):
        return {row.name: row.init(key, row.shape) for row in rows}

    with jax.set_mesh(mesh_of(*mesh)):
        assert_equal(drawn(KEY), expected)
        if number is None:
            assert_equal(jax.jit(drawn)(KEY), expected)


@pytest.mark.parametrize(
    "place", slow_but([ROWS], [ROWS, PartitionSpec(None, "model")])
)
@pytest.mark.parametrize("mesh", slow_but([("Explicit", 8)], MESHES))
def test_builders_with_a_sharding(mesh, place):
    rows = [jaxinit.normal(0.02), jaxinit.he_normal(), jaxinit.orthogonal()]
    expected = [init(KEY, SHAPE) for init in rows]
    entered = mesh_of(*mesh)
    with jax.set_mesh(entered):
        made = [init(KEY, SHAPE, None, place) for init in rows]
        assert_equal(made, expected)
        sharding = NamedSharding(entered, place)
        assert all(x.sharding.is_equivalent_to(sharding, 2) for x in made)
        in_program = jax.jit(lambda key: [init(key, SHAPE) for init in rows])
        assert_equal(in_program(KEY), expected)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["jit", "vmap", "scan"])
def test_builders_with_a_sharding_in_a_trace(way):
    """No mesh is entered: a draw of matrix products finds it in the sharding."""
    rows = [jaxinit.he_normal(), jaxinit.orthogonal(), jaxinit.orthogonal(method="qr")]
    rows.append(jaxinit.delta_orthogonal())
    shapes = [SHAPE] * 3 + [(3, 3, *SHAPE)]
    mesh = mesh_of("Auto", 8)

    def drawn(key):
        places = [PartitionSpec(*[None] * (len(s) - 1), "model") for s in shapes]
        return [
            init(key, shape, None, NamedSharding(mesh, place))
            for init, shape, place in zip(rows, shapes, places, strict=True)
        ]

    expected = [init(KEY, shape) for init, shape in zip(rows, shapes, strict=True)]
    if way == "jit":
        assert_equal(jax.jit(drawn)(KEY), expected)
    elif way == "vmap":
        assert_equal([x[0] for x in jax.vmap(drawn)(KEY[None])], expected)
    else:
        made = jax.lax.scan(lambda carry, key: (carry, drawn(key)), 0, KEY[None])[1]
        assert_equal([x[0] for x in made], expected)


def test_draws_within_shard_map():
    mesh = mesh_of("Explicit", 8)
    laws = {
        "normal": functools.partial(random.normal, shape=(40,)),
        "cut": lambda key: random.truncated_normal(key, -1.0, 2.0, (40,)),
        "built": lambda key: jaxinit.normal(0.02)(key, (40,)),
    }

    def each(words):
        key = jax.random.wrap_key_data(words[0])
        return {name: law(key)[None] for name, law in laws.items()}

    words = jax.random.key_data(jax.random.split(KEY, 8))
    expected = [
        {name: law(jax.random.wrap_key_data(w)) for name, law in laws.items()}
        for w in words[:2]
    ]
    axis = PartitionSpec("model")
    with jax.set_mesh(mesh):
        mapped = jax.shard_map(each, in_specs=axis, out_specs=axis)
        words = jax.device_put(words, NamedSharding(mesh, axis))
        made = jax.tree.map(np.asarray, jax.jit(mapped)(words))
    for i, one in enumerate(expected):
        assert_equal(jax.tree.map(lambda x, i=i: x[i], made), one)


@pytest.mark.slow
def test_draws_of_the_room():
    laws = {
        "bits": lambda key: random.bits(key, SHAPE),
        "normal": lambda key: random.normal(key, SHAPE),
        "uniform": lambda key: random.uniform(key, SHAPE, minval=-0.3),
        "cut": lambda key: random.truncated_normal(key, -1.0, 2.0, SHAPE),
        "complex": lambda key: random.normal(key, SHAPE, np.complex64),
    }
    expected = {name: law(KEY) for name, law in laws.items()}
    with jax.set_mesh(mesh_of("Explicit", 1)):
        assert_equal({name: law(KEY) for name, law in laws.items()}, expected)


# whole models


def model(key):
    keys = jax.random.split(key, 6)
    drawn = jax.random.normal(keys[0], SHAPE)
    return {
        "normal": drawn * 0.3,
        "normed": drawn / jnp.linalg.norm(drawn),
        "orthogonal": jaxinit.orthogonal()(keys[1], (64, 64)),
        "stock": jax.nn.initializers.orthogonal()(keys[3], (16, 16)),
        "ours": jaxinit.normal(0.02)(keys[4], SHAPE),
        "sparse": jaxinit.sparse(0.5)(keys[5], SHAPE),
        "zeros": jnp.zeros(64),
    }


def divided(mesh, tree):
    """Returns shardings that divide the last axis where they can."""

    def place(leaf):
        spec = (*[None] * (leaf.ndim - 1), "model")
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.tree.map(place, tree)


@pytest.mark.parametrize("mesh", slow_but([("Explicit", 8)], MESHES))
@pytest.mark.parametrize("entered", slow_but([False], [False, True]))
@pytest.mark.slow
def test_whole_models_with_shardings(mesh, entered):
    expected, place = jax.jit(model)(KEY), mesh_of(*mesh)
    shardings = divided(place, expected)
    init = jaxinit.jit_init(model, out_shardings=shardings)
    if entered:
        with jax.set_mesh(place):
            made = init(KEY)
    else:
        made = init(KEY)
    assert_equal(made, expected)
    assert jax.tree.map(lambda x: x.sharding, made) == shardings


@pytest.mark.parametrize("mesh", slow_but([("Explicit", 1)], MESHES))
@pytest.mark.slow
def test_whole_models_within_a_mesh(mesh):
    expected = jax.jit(model)(KEY)
    init = jaxinit.jit_init(model)
    with jax.set_mesh(mesh_of(*mesh)):
        made, types = init(KEY), jax.jit(model)(KEY)
        assert_equal(made, expected)
        assert jax.tree.map(lambda x: x.sharding, made) == jax.tree.map(
            lambda x: x.sharding, types
        )
        of_mesh = init(jax.random.wrap_key_data(jax.random.key_data(KEY)))
        assert_equal(of_mesh, expected)
        assert init.plan(KEY).slices
        described = str(jaxinit.describe(made))
        spec = PartitionSpec("model")
        halves = jaxinit.jit_init(
            lambda key: jax.random.normal(key, (64,)), out_shardings=spec
        )
        assert halves(KEY).sharding.spec == spec
    assert described == str(jaxinit.describe(expected))


@pytest.mark.slow
def test_models_are_described_within_a_mesh():
    def described():
        return str(jaxinit.describe(jax.jit(model)(KEY)))

    expected = described()
    with jax.set_mesh(mesh_of("Explicit", 1)):
        assert described() == expected


@pytest.mark.slow
def test_sums_do_not_depend_on_shardings():
    def init(key):
        drawn = jax.random.normal(key, SHAPE)
        return {
            "w": drawn * 2 / jnp.sqrt(jnp.sum(drawn * drawn)),
            "centered": drawn * 0.3 - drawn.mean(0),
        }

    expected = jax.jit(init)(KEY)
    shardings = divided(mesh_of("Explicit", 8), expected)
    made = jaxinit.jit_init(init, out_shardings=shardings)(KEY)
    assert_equal(made, expected)
    assert jax.tree.map(lambda x: x.sharding, made) == shardings


def test_functions_that_need_types_with_shardings():
    mesh = mesh_of("Explicit", 8)

    def init(key):
        row = jaxinit.normal()(key, SHAPE, None, PartitionSpec("model"))
        assert jax.typeof(row).sharding.spec[0] == "model"
        return {"w": row * 2}

    with jax.set_mesh(mesh):
        made, expected = jaxinit.jit_init(init)(KEY), jax.jit(init)(KEY)
        assert made["w"].sharding == expected["w"].sharding
    assert_equal(made, {"w": jaxinit.normal()(KEY, SHAPE) * 2})


@pytest.mark.slow
def test_parameters_drawn_anew_where_they_lie():
    rules = [("square", jaxinit.orthogonal()), ("wide", jaxinit.delta_orthogonal())]
    params = {"square": jnp.ones((64, 64)), "wide": jnp.ones((3, 8, 16))}
    expected = jaxinit.reinit(KEY, params, rules)
    shardings = divided(mesh_of("Explicit", 8), params)
    made = jaxinit.reinit(KEY, jax.device_put(params, shardings), rules)
    assert_equal(made, expected)
    assert jax.tree.map(lambda x: x.sharding, made) == shardings


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Explicit", "Auto"])
@pytest.mark.parametrize("entered", [False, True])
def test_within_traces_the_result_lies_where_jit_lays_it(kind, entered):
    mesh = mesh_of(kind, 8)
    place = NamedSharding(mesh, PartitionSpec("model"))

    def draw(key, shape=SHAPE, dtype=jnp.float32):
        return jax.random.normal(key, shape, dtype)

    ours = jaxinit.jit_init(draw, out_shardings=place)
    theirs = jax.jit(draw, out_shardings=place)
    keys = jax.random.split(KEY, 2)
    params = {"kernel": jax.device_put(jnp.zeros(SHAPE), place)}
    rules = [("kernel", draw)]
    expected = jaxinit.reinit(KEY, params, rules)
    with jax.set_mesh(mesh) if entered else contextlib.nullcontext():
        for change, given in ((jax.jit, keys[0]), (jax.vmap, keys)):
            made, same = change(ours)(given), change(theirs)(given)
            assert made.sharding == same.sharding
            assert_equal(made, same)
        drawn = jax.jit(lambda key: jaxinit.reinit(key, params, rules))(KEY)
    assert_equal(drawn, expected)
