"""Draws of `jaxinit.random`: JAX's bits, by a program of one pass, and exact laws.

What is held against `jax.random` is held against its compiled form, bit for bit: the
sizes lie around the borders of words, vectors and blocks.
"""

import math
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.extend.random import threefry_2x32
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from marks import slow_but

import jaxinit as ji
from jaxinit import random
from jaxinit.random import threefry

KEY = jax.random.key(7)
FLOATS = ["float32", "float64"]
NARROW = ["float16", "bfloat16"]

LAWS = {  # each takes the module to draw with: ours or JAX's
    "bits": lambda m, key, shape, dtype: m.bits(key, shape, dtype),
    "uniform": lambda m, key, shape, dtype: m.uniform(key, shape, dtype),
    "between": lambda m, key, shape, dtype: m.uniform(key, shape, dtype, -2.5, 0.75),
    "normal": lambda m, key, shape, dtype: m.normal(key, shape, dtype),
    "truncated": lambda m, key, shape, dtype: m.truncated_normal(
        key, -1.0, 2.5, shape, dtype
    ),
}
CASES = [
    *[("bits", f"uint{width}") for width in (32, 64)],
    *[(law, dtype) for law in list(LAWS)[1:] for dtype in FLOATS],
]
RANKED = [("bits", "uint8"), ("normal", "complex128"), ("bits", "uint32")]
DTYPE = {law: "uint32" if law == "bits" else "float32" for law in LAWS}
BORDERS = [1, 2, 3, 7, 8, 9, 16, 17, 31, 33, 127, 128, 1023, 1025, 65535, 65537]
FEW = BORDERS[::3]  # 1, 7, 16, 33, 1023, 65537
SHAPES = [(), (3, 5), (4, 0, 2), (1, 7, 2, 3), (2, 1, 3, 2, 5)]

# For what depends on the key and not on the law.
normal_first = pytest.mark.parametrize("law", slow_but(["normal"], LAWS))


def same(ours, expected):
    """Compares bits, so that 0.0 and -0.0 differ."""
    ours, expected = np.asarray(ours), np.asarray(expected)
    assert (ours.dtype, ours.shape) == (expected.dtype, expected.shape)
    assert ours.tobytes() == expected.tobytes()


def jitted(module, law, key, shape, dtype):
    draw = jax.jit(lambda key: LAWS[law](module, key, shape, dtype))
    return np.asarray(draw(key))


def compiled(draw, **options):
    return jax.jit(draw, **options).lower(KEY).compile()


# Values


@pytest.mark.parametrize(
    "cases",
    [
        pytest.param([(*CASES[i], FEW[1::2]) for i in (0, -4, -1)], id="first"),
        pytest.param(
            [(*case, FEW) for case in CASES if case[0] != "between"],
            id="few",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            [(*case, FEW) for case in CASES if case[0] == "between"]
            + [(*case, BORDERS) for case in CASES if "32" in case[1]],
            id="every",
            marks=pytest.mark.slow,
        ),
    ],
)
@pytest.mark.usefixtures("x64")
@pytest.mark.slow
def test_values_around_borders(cases):
    """All laws in one program; of ours each has a key of its own."""

    def all_of(module, keys):
        return [
            [LAWS[law](module, key, (n,), dtype) for n in sizes]
            for (law, dtype, sizes), key in zip(cases, keys, strict=True)
        ]

    ours = jax.jit(lambda keys: all_of(random, keys))([KEY] * len(cases))
    jaxs = jax.jit(lambda key: all_of(jax.random, [key] * len(cases)))(KEY)
    for found, expected in zip(ours, jaxs, strict=True):
        for one, known in zip(found, expected, strict=True):
            same(one, known)


@pytest.mark.parametrize("size", slow_but([129], [1, 129]))
@pytest.mark.parametrize("law", slow_but(["normal"], ["bits", "uniform", "normal"]))
def test_a_key_may_be_a_constant_of_the_program(law, size):
    expected = jitted(jax.random, law, KEY, (size,), DTYPE[law])
    same(jax.jit(lambda: LAWS[law](random, KEY, (size,), DTYPE[law]))(), expected)


@pytest.mark.parametrize("size", slow_but([129], [1, 129]))
@pytest.mark.parametrize("law", slow_but(["truncated"], ["between", "truncated"]))
def test_a_constant_key_rounds_as_any_other(law, size):
    expected = jitted(jax.random, law, KEY, (size,), DTYPE[law])
    same(jax.jit(lambda: LAWS[law](random, KEY, (size,), DTYPE[law]))(), expected)


@pytest.mark.parametrize(("law", "dtype"), slow_but(RANKED[2:], RANKED, rows=True))
@pytest.mark.usefixtures("x64")
@pytest.mark.slow
def test_values_of_every_rank(law, dtype):
    def all_of(module, key):
        return [LAWS[law](module, key, shape, dtype) for shape in SHAPES]

    for ours, jaxs in zip(
        jax.jit(lambda key: all_of(random, key))(KEY),
        jax.jit(lambda key: all_of(jax.random, key))(KEY),
        strict=True,
    ):
        same(ours, jaxs)


SIZES = [1, 8, 15, 32, 129, 1024, 65536]


@pytest.mark.parametrize("size", slow_but([129, 65536], SIZES))
def test_programs_of_one_draw_give_the_same_values(size):
    expected = jitted(jax.random, "normal", KEY, (size,), "float32")
    same(jitted(random, "normal", KEY, (size,), "float32"), expected)


@pytest.mark.parametrize("law", slow_but(["normal"], LAWS))
def test_eager_jit_vmap_and_scan_agree(law):
    keys, dtype = jax.random.split(KEY, 3), DTYPE[law]

    def draw(key):
        return LAWS[law](random, key, (5, 7), dtype)

    jaxs = jax.jit(lambda key: LAWS[law](jax.random, key, (5, 7), dtype))
    expected = np.stack([jaxs(key) for key in keys])
    if law != "truncated":  # whose bounds JAX rounds otherwise when they are not fixed
        same(np.stack([draw(key) for key in keys]), expected)
    same(jax.jit(jax.vmap(draw))(keys), expected)
    same(jax.lax.scan(lambda c, key: (c, draw(key)), 0, keys)[1], expected)


# Of the normal law JAX rounds the last product apart from the draw.
@pytest.mark.parametrize(
    "law", slow_but(["truncated"], [law for law in LAWS if law != "normal"])
)
def test_eager_is_eager_jax(law):
    ours, jaxs = (LAWS[law](m, KEY, (99,), DTYPE[law]) for m in (random, jax.random))
    same(ours, jaxs)


@normal_first
def test_legacy_keys_agree_with_typed_ones(law):
    legacy = jax.random.key_data(KEY)
    expected = jitted(jax.random, law, KEY, (33,), DTYPE[law])
    draw = jax.jit(lambda key: LAWS[law](random, key, (33,), DTYPE[law]))
    same(draw(legacy), expected)
    same(draw(np.asarray(legacy)), expected)


def test_complex_normal_is_jitted_jax_when_eager():
    expected = jitted(jax.random, "normal", KEY, (50,), "complex64")
    same(random.normal(KEY, (50,), "complex64"), expected)


ANY_BOUNDS = [
    (-1, 1),
    (np.float32(-1), np.int32(3)),
    (-7.25, -7.0),
    (jnp.asarray(-3.0), 1e-3),
    (0.0, 1e-40),  # below the normal range
    (-3e38, 3e38),  # the spread overflows
    (2.0, 2.0),
    (1.0, -1.0),
    (0, 2**40),
]


@pytest.mark.slow
def test_uniform_between_any_bounds():
    """In one program, where each has a key of its own, and one by one."""

    def draws(module, keys, bounds):
        pairs = zip(keys, bounds, strict=True)
        return [module.uniform(key, (9, 3), "float32", *pair) for key, pair in pairs]

    def wide(high):  # JAX's integers end at 2^31
        return float(high) if isinstance(high, int) else high

    keys, of_jax = [KEY] * len(ANY_BOUNDS), [(a, wide(b)) for a, b in ANY_BOUNDS]
    expected = jax.jit(lambda keys: draws(jax.random, keys, of_jax))(keys)
    jitted = jax.jit(lambda keys: draws(random, keys, ANY_BOUNDS))(keys)
    eager = draws(random, keys, ANY_BOUNDS)
    for known, *ours in zip(expected, jitted, eager, strict=True):
        same(ours[0], known)
        same(ours[1], known)


def test_truncation_at_any_bounds():
    bounds = (-2, 2), (1.066357757671799, 2.294965609839984), (-np.inf, 0.5), (-4, -3.5)

    def draw(module):
        def drawn(keys):
            pairs = zip(keys, bounds, strict=True)
            return [module.truncated_normal(key, *pair, (500,)) for key, pair in pairs]

        return jax.jit(drawn)([KEY] * len(bounds))

    for ours, known in zip(draw(random), draw(jax.random), strict=True):
        same(ours, known)


def test_bounds_may_be_batched():
    low = jnp.asarray([-2.0, 0.0, 1.5])

    for law in (
        lambda m, low: m.uniform(KEY, (9,), "float32", low, 3.0),
        lambda m, low: m.truncated_normal(KEY, low, 3.0, (9,), "float32"),
    ):
        ours, jaxs = (
            jax.jit(jax.vmap(lambda low, m=m, law=law: law(m, low)))(low)
            for m in (random, jax.random)
        )
        same(ours, jaxs)


@normal_first
def test_unpartitionable_threefry(law):
    def ours():
        return np.asarray(jax.jit(lambda: LAWS[law](random, KEY, (33,), DTYPE[law]))())

    before = ours()
    with jax.threefry_partitionable(False):
        expected = jitted(jax.random, law, KEY, (33,), DTYPE[law])
        same(ours(), expected)
    same(ours(), before)
    assert (before != expected).any()


@pytest.mark.parametrize("impl", slow_but(["rbg"], ["rbg", "unsafe_rbg"]))
@normal_first
def test_other_generators(law, impl):
    key = jax.random.key(5, impl=impl)
    expected = jitted(jax.random, law, key, (33,), DTYPE[law])
    same(jitted(random, law, key, (33,), DTYPE[law]), expected)


def test_legacy_keys_of_another_default_generator():
    with jax.default_prng_impl("rbg"):
        key = jax.random.PRNGKey(3)
        assert key.shape == (4,)
        expected = jitted(jax.random, "normal", key, (33,), "float32")
        same(jitted(random, "normal", key, (33,), "float32"), expected)


@pytest.mark.parametrize(
    "cases",
    [
        pytest.param([("uniform", "float16"), ("normal", "bfloat16")], id="two"),
        pytest.param(
            [("bits", "uint16"), ("between", "bfloat16"), ("normal", "float16")]
            + [("truncated", dtype) for dtype in NARROW],
            id="others",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_narrow_dtypes(cases):
    def draws(module):
        def drawn(keys):
            pairs = zip(keys, cases, strict=True)
            return [
                LAWS[law](module, key, (129,), dtype) for key, (law, dtype) in pairs
            ]

        return jax.jit(drawn)([KEY] * len(cases))

    for ours, known in zip(draws(random), draws(jax.random), strict=True):
        same(ours, known)


# Programs


@pytest.mark.parametrize("law", slow_but(["normal", "truncated"], LAWS))
def test_the_fused_program_loops_over_no_array(law):
    assert loops(random, law) == 0


@normal_first
def test_jax_program_has_a_loop(law):
    """Else the test above shows nothing."""
    assert loops(jax.random, law) >= 1


def loops(module, law):
    """Counts the loops that carry an array of the output's shape."""
    draw = lambda key: LAWS[law](module, key, (64, 33), DTYPE[law])  # noqa: E731
    lines = compiled(draw).as_text().splitlines()
    return sum(" while(" in line and "[64,33]" in line for line in lines)


@pytest.mark.parametrize("impl", ["rbg", "unsafe_rbg", "threefry2x32"])
def test_other_platforms_take_the_path_of_jax(impl):
    """The programs for a TPU, which need no TPU to be written."""
    key = jax.random.key(0, impl=impl)
    ours, jaxs = (
        jax.jit(lambda key, m=m: m.bits(key, (64, 33), "uint32"))
        .trace(key)
        .lower(lowering_platforms=("tpu",))
        .as_text()
        for m in (random, jax.random)
    )
    for operation in ("stablehlo.while", "stablehlo.rng_bit_generator"):
        assert ours.count(operation) == jaxs.count(operation)


DRAWS = {
    "uniform": lambda key, shape: random.uniform(key, shape),
    "normal": lambda key, shape: random.normal(key, shape),
    "truncated": lambda key, shape: random.truncated_normal(key, -2, 2, shape),
    "he_normal": lambda key, shape: ji.he_normal()(key, shape),
    "bfloat16": lambda key, shape: ji.he_normal()(key, shape, jnp.bfloat16),
}


@pytest.mark.parametrize("name", slow_but(["normal"], DRAWS))
def test_no_memory_beside_the_output(name):
    memory = compiled(lambda key: DRAWS[name](key, (1024, 1024))).memory_analysis()
    assert memory.output_size_in_bytes == (2 if name == "bfloat16" else 4) << 20
    assert memory.temp_size_in_bytes < 4096


@pytest.mark.parametrize(
    "spec", slow_but([("a", "b")], [("a",), (None, "b"), ("a", "b")])
)
@pytest.mark.parametrize("name", slow_but(["normal"], DRAWS))
def test_shards_are_drawn_where_they_lie(name, spec):
    shape, mesh = (64, 48), jax.make_mesh((4, 2), ("a", "b"), (AxisType.Auto,) * 2)
    sharding = NamedSharding(mesh, PartitionSpec(*spec))
    draw = lambda key: DRAWS[name](key, shape)  # noqa: E731
    program = compiled(draw, out_shardings=sharding)
    text, memory = program.as_text(), program.memory_analysis()
    for word in ("all-reduce", "all-gather", "all-to-all", "collective-permute"):
        assert word not in text

    whole, parts = np.asarray(jax.jit(draw)(KEY)), program(KEY)
    same(parts, whole)
    assert len(parts.addressable_shards) == 8
    for shard in parts.addressable_shards:
        assert shard.data.shape == sharding.shard_shape(shape)
        same(shard.data, whole[shard.index])
    size = math.prod(sharding.shard_shape(shape)) * whole.itemsize
    assert memory.output_size_in_bytes == size
    # The key, and the loop that hides it.
    assert memory.argument_size_in_bytes + memory.temp_size_in_bytes <= 256


def test_the_search_for_communication_finds_it():
    mesh = jax.make_mesh((8,), ("a",), (AxisType.Auto,))
    rows, whole = (NamedSharding(mesh, PartitionSpec(*s)) for s in (("a",), ()))
    move = jax.jit(lambda x: x + 1, in_shardings=rows, out_shardings=whole)
    assert "all-gather" in move.lower(jnp.zeros((8, 8))).compile().as_text()


# Counters

words = st.lists(st.integers(0, 2**32 - 1), min_size=32, max_size=32)


def joined(pair):
    high, low = (np.asarray(word).astype(object) for word in pair)
    return (high << 32) + low


@given(words, words)
def test_times_is_the_high_word(a, b):
    a, b = (np.array([0, 1, 0xFFFF, 0x10000, 2**32 - 1, *x], np.uint32) for x in (a, b))
    a, b = a[:, None], b[None, :]
    exact = a.astype(object) * b.astype(object) >> 32
    assert (np.asarray(threefry.times(a, b)) == exact).all()


@given(words, words, st.integers(0, 2**64 - 1))
def test_product_is_that_of_64_bits(high, low, stride):
    index = np.array(high, np.uint32), np.array(low, np.uint32)
    product = joined(threefry.product(index, stride))
    assert (product == joined(index) * stride % 2**64).all()


HUGE = [
    (2**32 + 5,),
    (2**33 + 5,),
    (2**20, 2**13),
    (2**32, 2),
    (2, 2**32),
    (3, 2**32 + 1, 7),
    (5, 2**31 - 1, 2, 3),
    (2**16, 2**16, 2**16),
]


@pytest.mark.parametrize("shape", HUGE, ids=str)
def test_counters_past_a_word(shape):
    """The last entries of each axis, and nothing else, are computed."""
    start = [max(size - 3, 0) for size in shape]
    program = (
        jax.jit(
            lambda: [jax.lax.slice(w, start, shape) for w in threefry._counter(shape)]
        )
        .lower()
        .compile()
    )
    assert program.memory_analysis().temp_size_in_bytes < 4096
    expected = 0
    for axis, size in enumerate(shape):
        index = np.arange(start[axis], size).astype(object)
        line = [-1 if i == axis else 1 for i in range(len(shape))]
        stride = math.prod(shape[axis + 1 :])
        expected = expected + (index * stride).reshape(line)
    assert expected.flat[-1] == math.prod(shape) - 1
    assert (joined(program()) == expected).all()


@pytest.mark.parametrize(
    "shape", slow_but([(2**20, 2**13)], [(2**33 + 5,), (2**20, 2**13)]), ids=str
)
def test_last_numbers_of_a_huge_array(shape):
    start = [max(size - 3, 0) for size in shape]
    program = compiled(
        lambda key: jax.lax.slice(random.uniform(key, shape), start, shape)
    )
    assert program.memory_analysis().temp_size_in_bytes < 4096
    counters = [
        sum(i * math.prod(shape[k + 1 :]) for k, i in enumerate(place))
        for place in np.ndindex(*[3] * len(shape))
        for place in [[int(a) + b for a, b in zip(place, start, strict=True)]]
    ]
    halves = [c >> 32 for c in counters] + [c % 2**32 for c in counters]
    words = threefry_2x32(jax.random.key_data(KEY), np.array(halves, np.uint32))
    high, low = np.split(np.asarray(words), 2)
    mantissa = (high ^ low) >> np.uint32(9) | np.uint32(0x3F800000)
    same(np.asarray(program(KEY)).ravel(), mantissa.view(np.float32) - np.float32(1))


# Subsets


def test_subsets_agree_in_eager_jit_vmap_and_for_legacy_keys():
    keys = jax.random.split(KEY, 3)

    def draw(key):
        return random.subset(key, 4, (11, 6))

    expected = np.stack([draw(key) for key in keys])
    assert (expected[0] != expected[1]).any()
    same(np.stack([jax.jit(draw)(key) for key in keys]), expected)
    same(jax.jit(jax.vmap(draw))(keys), expected)
    same(np.stack([draw(jax.random.key_data(key)) for key in keys]), expected)


@given(words, words)
def test_probability_is_off_by_less_than_a_word(a, b):
    """Of 2^32 words, those that take a row are the first ceil(2^32 need / left)."""
    a, b = np.array(a, object) + 1, np.array(b, object) + 1
    need, left = np.minimum(a, b) - 1, np.minimum(np.maximum(a, b), 2**32 - 1)
    first = -(-need * 2**32 // left)  # the first word that takes no row
    assert (first * left - need * 2**32 < left).all()  # the bound itself

    def taken(word):
        word = np.clip(word, 0, 2**32 - 1).astype(np.uint32)
        return np.asarray(threefry.times(word, left.astype(np.uint32))) < need

    assert taken(first - 1)[need > 0].all()
    assert not taken(first)[first < 2**32].any()


# Messages

KEYS = "key must be a PRNG key. Write jax.random.key(0) for the seed 0."
MANY = "key must be one key, not an array of keys. "
MANY += "Use jax.vmap(lambda key: init(key, shape))(keys)."
INTEGERS = "shape must be a tuple of integers, such as (256, 512)."
NUMBERS = "dtype must be a number type, such as jnp.float32."
CALLS = {
    "bits": random.bits,
    "uniform": random.uniform,
    "normal": random.normal,
    "truncated_normal": lambda key, *rest: random.truncated_normal(key, -1, 1, *rest),
}
BAD = [
    ((3,), TypeError, f"key=3): {KEYS}"),
    ((None,), TypeError, f"key=None): {KEYS}"),
    ((np.zeros(2),), TypeError, f"key=<ndarray float64[2]>): {KEYS}"),
    ((np.zeros(3, "uint32"),), TypeError, f"key=<ndarray uint32[3]>): {KEYS}"),
    ((np.zeros((3, 2), "uint32"),), ValueError, f"key=<ndarray uint32[3, 2]>): {MANY}"),
    (
        (jax.random.split(KEY, 5),),
        ValueError,
        f"key=<PRNGKeyArray key<fry>[5]>): {MANY}",
    ),
    ((KEY, 3.0), TypeError, f"key, shape=3.0): {INTEGERS}"),
    ((KEY, (2.5,)), TypeError, f"key, shape=(2.5,)): {INTEGERS}"),
    ((KEY, "ab"), TypeError, f"key, shape='ab'): {INTEGERS}"),
    ((KEY, (2, -1)), ValueError, "key, shape=(2, -1)): sizes must be 0 or above."),
    (
        (KEY, (2**31, 2**31)),
        ValueError,
        "key, shape=(2147483648, 2147483648)): has more than 2^56 entries.",
    ),
    ((KEY, (), "foo"), TypeError, f"key, shape, dtype='foo'): {NUMBERS}"),
]


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(("arguments", "kind", "message"), BAD)
def test_bad_arguments(name, arguments, kind, message):
    with pytest.raises(kind) as raised:
        CALLS[name](*arguments)
    assert str(raised.value) == f"random.{name}({message}"


@pytest.mark.parametrize(
    ("name", "kind", "dtypes"),
    [
        ("bits", "an unsigned integer", ["int32", "float32", "bool"]),
        ("uniform", "a float", ["int32", "uint8", "complex64"]),
        ("normal", "a float or complex", ["int8", "bool"]),
        ("truncated_normal", "a float or complex", ["uint32", "bool"]),
    ],
)
def test_dtypes_of_another_kind(name, kind, dtypes):
    for dtype in dtypes:
        with pytest.raises(ValueError) as raised:
            CALLS[name](KEY, (2,), dtype)
        expected = f"key, shape, dtype={dtype!r}): dtype must be {kind} type."
        assert str(raised.value) == f"random.{name}({expected}"


SCALAR = "must be a real number or a scalar array."
BOUNDS = [
    ("a", "'a'"),
    (None, "None"),
    (True, "True"),
    (1j, "1j"),
    (10**400, "1" + 56 * "0" + "..."),
    (np.zeros(3, "float32"), "<ndarray float32[3]>"),
    (np.bool_(True), "np.True_"),
    (KEY, "<PRNGKeyArray key<fry>[]>"),
]


@pytest.mark.parametrize(("bound", "shown"), BOUNDS, ids=lambda x: str(x)[:9])
def test_bounds_are_scalars(bound, shown):
    calls = {
        "uniform(key, shape, dtype, minval": lambda: random.uniform(KEY, minval=bound),
        "uniform(key, shape, dtype, minval, maxval": lambda: random.uniform(
            KEY, maxval=bound
        ),
        "truncated_normal(key, lower": lambda: random.truncated_normal(KEY, bound, 1),
        "truncated_normal(key, lower, upper": lambda: random.truncated_normal(
            KEY, 0, bound
        ),
    }
    for call, draw in calls.items():
        name = call.split()[-1].rpartition("(")[-1]
        with pytest.raises(TypeError) as raised:
            draw()
        assert str(raised.value) == f"random.{call}={shown}): {name} {SCALAR}"


@pytest.mark.parametrize("dtype", slow_but(["float32"], ["float32", "complex64"]))
def test_bounds_may_be_traced(dtype):
    def draw(bound):
        return (
            random.uniform(KEY, (5,), maxval=bound),
            random.truncated_normal(KEY, -bound, bound, (5,), dtype),
        )

    for found, known in zip(jax.jit(draw)(0.5), draw(0.5), strict=True):
        np.testing.assert_allclose(found, known, rtol=1e-6)


@pytest.mark.parametrize("dtype", slow_but([None], [None, "uint8", "uint64"]))
@pytest.mark.usefixtures("x64")
def test_bits_of_the_default_type_under_x64(dtype):
    same(random.bits(KEY, (9,), dtype), jax.random.bits(KEY, (9,), dtype))


def test_subsets_do_not_change_under_x64():
    narrow = np.asarray(random.subset(KEY, 4, (11, 6)))
    with jax.enable_x64(True):
        same(random.subset(KEY, 4, (11, 6)), narrow)


LARGEST = (2**28, 2**28)


def test_the_largest_shape_is_allowed():
    out = jax.eval_shape(lambda key: random.normal(key, LARGEST), KEY)
    assert out.shape == LARGEST


COMPILES = """
import jax
from jaxinit import random
jax.config.update("jax_enable_x64", True)
kinds = [("jax", "complex128"), ("fused", "complex128"), ("paired", "complex64")]
for impl, dtype in kinds:
    draw = jax.jit(lambda key: random.normal(key, SHAPE, dtype, impl=impl))
    draw.lower(jax.random.key(0)).compile()
"""


@pytest.mark.slow
def test_the_largest_shape_compiles():
    """In a process of its own, since XLA would abort it.

    Without a law jax.random aborts from 2^39 bytes on (JAX 0.11.2, CPU).
    """
    code = COMPILES.replace("SHAPE", str(LARGEST))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
