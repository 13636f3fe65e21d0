"""Assertions for users' tests: each passes for what is right and fails for what is not.

Strategies: each gives what it promises.
"""

import itertools
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from marks import slow_but
from scipy import stats

import jaxinit as ji
from jaxinit import testing
from jaxinit._initializer import REGISTRY
from jaxinit.testing import _strategies

pytestmark = pytest.mark.usefixtures("quick_compiler")

jni = jax.nn.initializers
SHAPE = (24, 40)


def fails(match):
    return pytest.raises(AssertionError, match=match)


def stdnormal(key, shape, dtype=float):
    return jax.random.normal(key, shape, dtype)


def impure():
    """An initializer that also depends on how often it was called."""
    calls = itertools.count()
    return lambda key, shape, dtype=float: jnp.full(shape, next(calls), dtype)


# Moments


KNOWN = [
    (jni.he_normal(), 0.0, 2 / 24),
    (jni.orthogonal(), 0.0, 1 / 40),
    (jni.constant(-0.3), -0.3, 0.0),
    (ji.normal(0.5, mean=2.0), None, None),
    (ji.normal(0.5, dtype="bfloat16", mean=2.0), None, None),
    (ji.normal(0.5, dtype="complex64"), None, 0.25),
    (ji.constant(1 + 2j, dtype="complex64"), 1 + 2j, None),
    (ji.sparse(0.75), None, None),
    (ji.ones("int32"), None, None),
]


@pytest.mark.parametrize(
    ("init", "mean", "variance"), slow_but(KNOWN[::2], KNOWN, rows=True)
)
def test_moments(init, mean, variance):
    testing.assert_moments(init, SHAPE, mean, variance)


def test_moments_see_a_few_percent():
    with fails(
        r"assert_moments\(normal\(stddev=0\.5\), shape=\(24, 40\)\): the variance over "
        r"32 keys must be 0\.26 within 0\.01\d*, which is 5 standard errors and "
        r"rounding\. It is 0\.2[45]\d*\. Key: threefry2x32 \[0, 0\]\.$"
    ):
        testing.assert_moments(ji.normal(0.5), SHAPE, variance=0.26)


@pytest.mark.slow
def test_moments_of_many_draws_and_of_matrices_see_it():
    with fails("the variance over 64 keys must be 1.05 .* It is 0.99"):
        testing.assert_moments(stdnormal, SHAPE, 0.0, 1.05, draws=64)
    with fails(r"the mean over 32 keys must be 0\.03 .* Key: legacy \[0, 7\]"):
        testing.assert_moments(
            stdnormal, SHAPE, 0.03, 1.0, key=jax.random.PRNGKey(7), draws=32
        )
    with fails(
        "the variance .* must be 0.025 within 4.8e-08"
    ):  # a factor of 1.0001 on each entry
        testing.assert_moments(ji.orthogonal(1.0001), SHAPE, variance=1 / 40)


def test_moments_see_the_bias_of_jaxs_bfloat16():
    with fails("the mean over 32 keys must be 0 within"):
        testing.assert_moments(jni.normal(1.0, jnp.bfloat16), (96, 160), 0.0, 1.0)


def test_moments_need_finite_weights():
    holed = lambda key, shape: jnp.zeros(shape).at[0, 1].set(jnp.nan)  # noqa: E731
    with fails("the weight must be finite. 1 of 960 entries are not"):
        testing.assert_moments(holed, SHAPE, 0.0, 0.0)


def test_standard_errors_of_dependent_entries():
    """One number in all entries: its spread shows between keys and not within one."""
    same = lambda key, shape: jnp.broadcast_to(stdnormal(key, ()), shape)  # noqa: E731
    testing.assert_moments(same, SHAPE, 0.0, 1.0)
    with fails("the mean"):
        testing.assert_moments(same, SHAPE, 1.5, 1.0)


# Laws


@pytest.mark.parametrize(
    ("init", "law"),
    [
        (ji.normal(0.5), stats.norm(0, 0.5)),
        (jni.uniform(2.0), stats.uniform(0, 2)),
        (jni.uniform(2.0), lambda w: w / 2),
    ],
)
def test_law(init, law):
    testing.assert_law(init, SHAPE, law)


@pytest.mark.slow
def test_law_sees_one_percent_in_a_million_entries():
    """A law that is one percent too wide; the level decides, down to the right one."""
    with fails(
        r"assert_law\(normal\(stddev=1\.01\), shape=\(1000000,\)\): the entries must "
        r"follow the law, at level 0\.0001\. Over 1000000 of them the distance from it "
        r"is 0\.00\d+ near w = .*, which has probability .*e-.* Key: threefry2x32"
    ):
        testing.assert_law(ji.normal(1.01), (10**6,), stats.norm())
    testing.assert_law(ji.normal(1.01), (10**6,), stats.norm(), level=1e-30)
    testing.assert_law(ji.normal(1.0), (10**6,), stats.norm())


# Orthonormal columns


@pytest.mark.slow
def test_orthonormal():
    for scale, dtype in [(2.0, "float32"), (0.1, "bfloat16"), (1, "float16")]:
        w = ji.orthogonal(scale)(jax.random.key(0), SHAPE, dtype)
        testing.assert_orthonormal(w, scale)
    testing.assert_orthonormal(w.astype(jnp.float8_e4m3fn))
    w = ji.orthogonal(column_axis=0)(jax.random.key(0), (40, 3, 9), "complex64")
    testing.assert_orthonormal(w, column_axis=0)
    testing.assert_orthonormal(np.eye(3, 5))
    testing.assert_orthonormal(-3 * np.eye(3, 5), scale=-3)


def test_orthonormal_sees_a_small_error():
    wide, tall = np.eye(3, 5), np.eye(5, 3)
    wide[1, 2] = 1e-6
    tall[0, 2] = 1e-3
    with fails(
        r"assert_orthonormal\(weight=<ndarray float64\[3, 5\]>, scale=1\): the rows "
        r"must be orthonormal times scale, within 2e-15\. The product of 1 and 2 is "
        r"off by 1e-06\."
    ):
        testing.assert_orthonormal(wide)
    testing.assert_orthonormal(wide, tolerance=1e-5)
    with fails("the columns must be .* The product of 0 and 2 is off by 0.001"):
        testing.assert_orthonormal(tall.astype(np.float32))
    testing.assert_orthonormal(tall.astype(jnp.bfloat16))
    with fails("off by 0.0[12]"):
        testing.assert_orthonormal((1.01 * tall).astype(jnp.bfloat16))
    with fails("off by 0.75"):
        testing.assert_orthonormal(0.5 * np.eye(4))
    with fails("off by nan"):
        testing.assert_orthonormal(np.full((2, 2), np.nan))


# Keys


@pytest.mark.slow
def test_pure():
    testing.assert_pure(ji.normal(), (4, 5), "bfloat16", key=jax.random.PRNGKey(0))


@pytest.mark.slow
def test_pure_of_jaxs_initializers_and_constants():
    testing.assert_pure(jni.uniform(), (4, 5))
    testing.assert_pure(ji.zeros(), (4, 5), int)
    testing.assert_pure(jni.ones, (), random=False)


def test_pure_sees_state():
    with fails(
        r"assert_pure\(impure\.<locals>\.<lambda>, shape=\(2, 3\)\): the same key must "
        r"give the same weight\. 6 of 6 entries differ: \[0, 0\] is 3\.0, not 0\.0\. "
    ):
        testing.assert_pure(impure(), (2, 3))
    with fails("another key must give another weight. It gives the same; random=False"):
        testing.assert_pure(jni.ones, (2, 3))


@pytest.mark.slow
def test_pure_sees_how_it_is_called():
    with fails(
        r"jit must give the bits of the eager call\. \d+ of 2880 entries differ.* All "
        r"compiled calls agree: eager JAX compiles and rounds each operation by itself"
    ):
        testing.assert_pure(jni.normal(0.3), SHAPE)
    with fails(r"vmap must give the bits of the eager call\. .* Key: rbg \[0, 0, 0, 0"):
        testing.assert_pure(ji.uniform(), (4, 5), key=jax.random.key(0, impl="rbg"))


def test_draws_have_their_shape_and_dtype():
    with fails(r"the weight must have shape \(2, 3\)\. Its shape is \(3, 2\)\."):
        testing.assert_pure(lambda key, shape: jnp.zeros(shape[::-1]), (2, 3))
    with fails("the weight must have dtype float16. Its dtype is float32."):
        testing.assert_pure(lambda key, shape, dtype: jnp.zeros(shape), (2,), "float16")


# Dtypes


@pytest.mark.slow
def test_same_in_every_dtype():
    testing.assert_same_in_every_dtype(ji.normal(), SHAPE)


@pytest.mark.slow
def test_same_in_every_dtype_of_eight_bits():
    every = [name for name in dir(jnp) if name.startswith("float8_e")]
    assert len(every) >= 4
    every.remove("float8_e8m0fnu")  # has neither sign nor zero
    testing.assert_same_in_every_dtype(ji.constant(-0.3), (2,), every)


def test_jaxs_normal_is_another_one_in_bfloat16():
    with fails(
        "the bfloat16 weight must be the float32 one, rounded. 960 of 960|9.. of 960"
    ):
        testing.assert_same_in_every_dtype(jni.normal(), SHAPE)


# Flax


FITTING = [ji.he_normal(), jni.he_normal(), ji.zeros, stdnormal]


@pytest.mark.parametrize("init", slow_but(FITTING[:1], FITTING))
def test_plugs_into_flax(init):
    testing.assert_plugs_into_flax(init, (3, 4), "bfloat16", key=jax.random.PRNGKey(1))


def test_flax_sees_what_compiles_twice():
    testing.assert_plugs_into_flax(ji.zeros(), (), rebuild=ji.zeros)
    with fails("equal initializers must be equal, and compile once. They compile"):
        testing.assert_plugs_into_flax(
            jni.he_normal(), (3, 4), rebuild=jni.he_normal, key=jax.random.key(2)
        )


def test_flax_sees_what_does_not_fit():
    with fails("nn.with_partitioning must box the same value with its names"):
        testing.assert_plugs_into_flax(impure(), (3, 4))

    def eager_is_narrow(key, shape):
        traced = isinstance(key, jax.core.Tracer)
        return jnp.zeros(shape, jnp.float32 if traced else jnp.float16)

    with fails(r"a Linen param must be float32\[3\]\. It is float16\[3\]\."):
        testing.assert_plugs_into_flax(eager_is_narrow, (3,))


# Arguments

BAD_VALUES = [
    (lambda: testing.assert_law(ji.zeros(), SHAPE, abs, level=1), "above 0 and below"),
    (lambda: testing.assert_law(ji.zeros(), SHAPE, abs, level=0.0), r"\(level=0\.0\)"),
    (lambda: testing.assert_moments(stdnormal, SHAPE), "init states no moments. Give"),
    (lambda: testing.assert_moments(stdnormal, SHAPE, 0.0), "Give mean and variance"),
    (lambda: testing.assert_moments(ji.normal(), SHAPE, variance=-1), "0 or above"),
    (
        lambda: testing.assert_moments(ji.normal(), SHAPE, draws=4),
        "draws must be 16 or",
    ),
    (lambda: testing.assert_pure(ji.zeros(), (2, 0)), "without entries shows nothing"),
    (lambda: testing.assert_pure(ji.zeros(), (-2,)), "sizes must be 0 or above"),
    (
        lambda: testing.assert_law(ji.normal(dtype="complex64"), SHAPE, abs),
        "the law must be one of real entries. Test abs or angle",
    ),
    (
        lambda: testing.assert_same_in_every_dtype(ji.ones(), (2,), ["float32"]),
        r"\(dtypes='float32'\): dtypes must be floats of fewer than 32 bits",
    ),
    (lambda: testing.assert_orthonormal(np.ones(3)), "needs two axes or more, and"),
    (lambda: testing.assert_orthonormal(np.ones((2, 0))), "needs two axes or more"),
    (lambda: testing.assert_orthonormal(np.eye(2), 0.0), "scale must not be 0"),
    (lambda: testing.assert_orthonormal(np.eye(2), 1, 2), "column_axis=2 names axis 2"),
    (lambda: testing.assert_orthonormal(np.eye(2), tolerance=-1), "0 or above"),
    (lambda: testing.keys("threefry"), r"keys\(impl='threefry'\): .* 'threefry2x32'"),
    (lambda: testing.shapes(-1), r"shapes\(min_rank=-1\): min_rank must be 0 or above"),
    (lambda: testing.shapes(3, 2), "max_rank must be 3 or above"),
    (lambda: testing.shapes(min_size=3, max_size=2), "max_size must be 3 or above"),
]
BAD_TYPES = [
    (lambda: testing.assert_pure("normal", SHAPE), "must be a function of key, shape"),
    (lambda: testing.assert_pure(jni.he_normal, (2,)), "not a function. Pass a built"),
    (lambda: testing.assert_pure(ji.zeros(), "3"), "shape must be a tuple of integers"),
    (lambda: testing.assert_pure(ji.zeros(), (2,), key=0), "key must be a PRNG key"),
    (lambda: testing.assert_pure(ji.zeros(), (2,), str), "dtype must be a number type"),
    (lambda: testing.assert_law(ji.zeros(), SHAPE, 3), "law must be a frozen law of"),
    (
        lambda: testing.assert_moments(ji.normal(), SHAPE, "0"),
        "mean must be a real num",
    ),
    (lambda: testing.shapes(0.5), "min_rank must be an integer"),
]


@pytest.mark.parametrize(
    ("kind", "call", "message"),
    [(ValueError, *case) for case in BAD_VALUES]
    + [(TypeError, *case) for case in BAD_TYPES],
)
def test_arguments_refused(kind, call, message):
    with pytest.raises(kind, match=message):
        call()


@pytest.mark.parametrize(
    ("module", "call"),
    [
        ("scipy.stats", lambda: testing.assert_law(ji.normal(), SHAPE, abs)),
        ("hypothesis.strategies", testing.keys),
        ("hypothesis.strategies", testing.shapes),
        ("hypothesis.strategies", testing.specs),
    ],
)
def test_missing_packages_are_named(monkeypatch, module, call):
    monkeypatch.setitem(sys.modules, module, None)
    name = module.partition(".")[0]
    message = f"needs {name}. Run pip install 'jaxinit[testing]'."
    with pytest.raises(ImportError, match=re.escape(message)):
        call()


# Strategies


def collected(strategy, count=60):
    """Returns the examples that hypothesis draws."""
    found = []

    @settings(max_examples=count, database=None)
    @given(strategy)
    def collect(example):
        found.append(example)

    collect()
    return found


def test_keys_are_of_every_kind():
    found = collected(testing.keys())
    legacy = [key for key in found if key.dtype == np.uint32]
    typed = [key for key in found if key.dtype != np.uint32]
    assert legacy and all(key.shape == (2,) for key in legacy)
    impls = {str(jax.random.key_impl(key)) for key in typed}
    assert impls == {"threefry2x32", "rbg", "unsafe_rbg"}
    for key in collected(testing.keys("rbg"), 5):
        assert str(jax.random.key_impl(key)) == "rbg"


def test_shapes_keep_their_bounds():
    found = collected(testing.shapes())
    assert {len(shape) for shape in found} == set(range(5))
    assert {0, 8} <= set(itertools.chain(*found)) <= set(range(9))
    for shape in collected(testing.shapes(1, 2, 3, 4)):
        assert len(shape) in (1, 2) and set(shape) <= {3, 4}


@pytest.mark.slow
def test_specs_are_of_every_builder():
    known = dict(REGISTRY)

    @ji.initializer
    def by_the_name(strict, rate: float = 0.0):
        if strict != 1 or rate > 0.5:
            raise ZeroDivisionError("of a user's builder")
        return stdnormal

    @ji.initializer
    def by_the_table(table):
        raise ji._check.Unfit("a table must be a file.", table=table)

    guessed = {name for name in REGISTRY if _strategies._required(name) is not None}
    found = collected(testing.specs(), 600)
    inits = [ji.parse(spec) for spec in found]
    assert guessed == {*known, "by_the_name"}  # not by_the_table
    names = {spec.partition("(")[0] for spec in found}
    assert names <= guessed and len(names) > len(known) / 2
    assert any("gain='gelu'" in spec for spec in found)
    assert any("mode='fan_out'" in spec for spec in found)
    assert len({repr(init) for init in inits}) > 100
