"""What a dtype holds: every initializer in every dtype is right, or refused."""

import re

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from catalogue import DISTRIBUTIONS, ROWS
from marks import slow_but

import jaxinit as ji
import jaxinit.torch as jt

KEY = jax.random.key(5)
DTYPES = sorted(
    {
        name
        for name in (*dir(ml_dtypes), "bool", "float16", "float32", "complex64")
        if isinstance(getattr(ml_dtypes, name, np.bool_), type)
        and name not in ("finfo", "iinfo", "bcomplex32", "complex32")
    }
    | {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32)}
)


def wide(array):
    """Returns an array in float64 or complex128, of any dtype."""
    array = np.asarray(array)
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def refused(init, shape, dtype):
    """Returns the message of a refusal, which names the call and the dtype."""
    with pytest.raises((ValueError, TypeError)) as caught:
        init(KEY, shape, dtype)
    message = str(caught.value)
    assert (
        message.startswith(f"{init._callee}(key, shape, dtype=") and "\n" not in message
    )
    return message


def test_the_dtypes_are_all_there():
    assert {"float4_e2m1fn", "float6_e2m3fn", "int2", "uint4", "bool"} <= {*DTYPES}
    assert len([name for name in DTYPES if name.startswith("float8")]) >= 8


FEW = [ROWS[3], DISTRIBUTIONS[2]]  # which are drawn one by one


def draws(row):
    """Draws a row in every dtype, in one program but for few; and notes refusals."""
    refusals = {}

    def draw(key):
        weights = {}
        for name in DTYPES:
            try:
                weights[name] = row.init(key, row.shape, name)
            except (ValueError, TypeError) as error:
                refusals[name] = str(error)
        return weights

    return (draw if row in FEW else jax.jit(draw))(KEY), refusals


@pytest.mark.parametrize(
    "row", slow_but(DISTRIBUTIONS[:1], ROWS), ids=lambda row: row.name
)
@pytest.mark.slow
def test_every_dtype_holds_the_weights_or_is_refused(row):
    exact = wide(row.init(KEY, row.shape))
    weights, refusals = draws(row)
    assert weights.keys() | refusals.keys() == {*DTYPES}
    for message in refusals.values():
        assert message.startswith(f"{row.init._callee}(key, shape, dtype=")
        assert "\n" not in message
    for name, found in weights.items():
        dtype = np.dtype(name)
        assert found.dtype == dtype
        if jnp.issubdtype(dtype, np.complexfloating) and row.random:
            assert np.isfinite(wide(found)).all()
        elif jnp.issubdtype(dtype, np.inexact):
            with np.errstate(all="ignore"):
                rounded = wide(np.asarray(exact, np.float32).astype(dtype))
            assert np.isfinite(rounded).all()
            low, high = row.init.arguments.get("low"), row.init.arguments.get("high")
            if low is None and high is None:
                np.testing.assert_array_equal(wide(found).real, rounded)
        else:  # integers hold values exactly
            np.testing.assert_array_equal(wide(found), exact)
        assert wide(found).any() or not exact.any()


@pytest.mark.parametrize(
    ("init", "dtype", "rule"),
    [
        (ji.he_normal(), "float8_e8m0fnu", "the weights, -0.402 to 0.402, leave what"),
        (ji.zeros(), "float8_e8m0fnu", "the weights, 0, leave what the type holds"),
        (ji.constant(500.0), "float8_e4m3fn", "500, leave .* -448 to 448"),
        (ji.constant(1e5), "float16", r"1e\+05, leave what the type holds"),
        (ji.constant(7.5), "float4_e2m1fn", "7.5, leave .* -6 to 6"),
        (ji.constant([0.0, -1e39]), None, r"-1e\+39 to 0, leave"),
        (ji.constant(1 + 1e39j), "complex64", r"1 to 1e\+39, leave"),
        (ji.constant(np.inf), "float8_e4m3fn", "inf, leave what the type holds"),
        (ji.constant(np.nan), "float4_e2m1fn", "nan, leave what the type holds"),
        (ji.constant(300), "int8", "value is not an integer that this type holds"),
        (ji.constant(-1), "uint8", "value is not an integer that this type holds"),
        (ji.constant(2), "int2", "value is not an integer that this type holds"),
        (ji.constant(-9), "int4", "value is not an integer that this type holds"),
        (ji.constant(16), "uint4", "value is not an integer that this type holds"),
        (ji.constant(2.0**63), "int32", "value is not an integer that this type"),
        (ji.constant(0.5), "bool", "value is not an integer that this type holds"),
        (ji.constant(np.nan), "int8", "value is not an integer that this type holds"),
        (jt.constant(300), "int8", "val is not an integer that this type holds"),
        (ji.identity(0.5), "int32", "gain is not an integer that this type holds"),
        (ji.identity(300), "int8", "gain is not an integer that this type holds"),
        (ji.identity(1e5), "float16", r"0 to 1e\+05, leave"),
        (ji.lstm_bias(0.5), "int32", "a bias is not an integer that this type holds"),
        (ji.layer_scale(), "float8_e4m3fn", "weights of the size 1e-05 round to 0"),
        (ji.layer_scale(1e9), "float16", r"1e\+09, leave"),
        (
            ji.uniform(low=-3e38, high=3e38),
            None,
            "high - low is no number of this type",
        ),
        (ji.uniform(1e39), None, r"0 to 1e\+39, leave"),
        (ji.uniform(1e-9), "float16", "weights of the size 1e-09 round to 0"),
        (ji.normal(3e38), None, r"the weights, -1.65e\+39 to 1.65e\+39, leave"),
        (ji.normal(1e308), None, "the weights, -inf to inf, leave"),
        (ji.normal(1e38), "complex64", r"-5.5e\+38 to 5.5e\+38, leave"),
        (ji.normal(2e4), "float16", r"-1.1e\+05 to 1.1e\+05, leave"),
        (ji.normal(1, mean=7e4), "float16", r"7e\+04 to 7e\+04, leave"),
        (ji.normal(1e-39), None, "weights of the size 1e-39 round to 0"),
        (ji.normal(1e-4), "float8_e4m3fn", "weights of the size 0.0001 round to 0"),
        (ji.truncated_normal(1e39), None, r"-2e\+39 to 2e\+39, leave"),
        (ji.truncated_normal(1, low=1e-4, high=2e-4, mean=1e-4), "bfloat16", None),
        (ji.he_normal(gain=1e30), None, "the variance, .*, is no number of this type"),
        (ji.he_normal(gain=1e-30), None, "the variance, .*, is no number of this type"),
        (ji.he_normal(gain=1e6), "float16", "leave what the type holds"),
        (ji.orthogonal(1e39), None, r"-1e\+39 to 1e\+39, leave"),
        (ji.orthogonal(1e6), "float16", r"-1e\+06 to 1e\+06, leave"),
        (ji.scaled_uniform_orthogonal(1e5), "float16", r"-1e\+05 to 1e\+05, leave"),
        (ji.sparse(0.5, 1e39), None, "leave what the type holds"),
        (ji.stacked(ji.normal(1e39)), None, "leave what the type"),
        (jt.embedding(), "float8_e8m0fnu", "leave what the type holds"),
        (ji.he_normal(), "float6_e2m3fn", "dtype is not a type that XLA has"),
        (ji.zeros(), "uint1", "dtype is not a type that XLA has"),
        (ji.zeros(), "float128", "dtype must be a number type"),
    ],
)
def test_what_a_dtype_cannot_hold(init, dtype, rule):
    shape = (4, 64, 64) if "stacked" in repr(init) else (64, 64)
    if rule is None:  # the law is narrow, and holds numbers of the dtype
        found = wide(init(KEY, shape, dtype))
        assert (found >= 1e-4).all() and (found <= 2e-4).all()
    else:
        message = refused(init, shape, dtype)
        assert re.search(rule, message), message


def test_what_a_dtype_holds():
    same = np.testing.assert_array_equal
    same(wide(ji.constant(65504.0)(None, 2, "float16")), 65504)
    same(wide(ji.constant(65510.0)(None, 2, "float16")), 65504)  # rounds to it
    same(wide(ji.constant(np.inf)(None, 2, "bfloat16")), np.inf)
    same(wide(ji.constant(-np.inf)(None, 2, "float8_e5m2")), -np.inf)
    same(wide(ji.constant([np.nan, 1])(None, 2, "float16")), [np.nan, 1])
    same(wide(ji.constant(-8)(None, 2, "int4")), -8)
    same(wide(ji.constant(2.0)(None, 2, "float8_e8m0fnu")), 2)
    same(wide(ji.constant(1)(None, 2, bool)), 1)
    same(wide(ji.constant(1e-40)(None, 2)), np.float32(1e-40))
    same(wide(ji.constant([1.0, 1e-30])(None, 2, "float16")), [1, 0])
    same(wide(ji.constant([500.0])(None, (0, 1), "float8_e4m3fn")), np.zeros((0, 1)))
    assert ji.uniform(low=-6e4, high=6e4)(KEY, (64,), "float16").dtype == np.float16
    assert ji.normal(1.0)(KEY, (64,), "float4_e2m1fn").dtype.name == "float4_e2m1fn"
    assert ji.uniform(low=1, high=4)(KEY, (64,), "float8_e8m0fnu").shape == (64,)


def test_zeros_and_turned_signs_beside_bounds():
    """Bounds that rounding keeps are those of the whole weight, not of its part."""
    same = np.testing.assert_array_equal
    law, mask = ji.uniform(low=0.3, high=0.7), np.eye(4).tolist()
    for init in (ji.masked(law, mask), ji.blocks(law, 4)):
        found = wide(init(KEY, (4, 4), "bfloat16"))
        same(found == 0, np.eye(4) == 0)
    middle = wide(ji.centered(law)(KEY, (3, 4, 4), "bfloat16"))
    assert not middle[[0, 2]].any() and middle[1].all()
    pairs = wide(ji.looks_linear(law)(KEY, (4, 4), "bfloat16"))
    same(pairs[:2], -pairs[2:])
    far = ji.truncated_normal(1.0, low=0.0)
    same(wide((far * 0)(KEY, 3, "bfloat16")), np.zeros(3))


BOUNDED = [
    ji.truncated_normal(0.1, low=-0.1, high=0.1),
    ji.truncated_normal(0.1, mean=0.3, high=0.31),
    jt.trunc_normal(0, 0.1, -0.1, 0.1),
    ji.uniform(low=-0.1, high=0.1),
    ji.uniform(low=0.3, high=0.7),
    jt.uniform(-0.1, 0.1),
]
NARROW = ["bfloat16", "float16", "float8_e5m2", "float8_e3m4"]


@pytest.mark.parametrize("init", slow_but([BOUNDED[1], BOUNDED[3]], BOUNDED), ids=repr)
@pytest.mark.parametrize("dtype", slow_but(["bfloat16", "float8_e3m4"], NARROW))
def test_bounds_are_kept_after_rounding(init, dtype):
    given = init.arguments
    low, high = given.get("low", given.get("a")), given.get("high", given.get("b"))
    found = wide(init(KEY, (4096,), dtype))
    assert found.max() <= high and (low is None or found.min() >= low)
    rounded = wide(init(KEY, (4096,)).astype(dtype))
    inside = (rounded <= high) & (rounded >= (-np.inf if low is None else low))
    assert inside.mean() > 0.5
    np.testing.assert_array_equal(found[inside], rounded[inside])


@pytest.mark.parametrize("init", BOUNDED[:3], ids=repr)
def test_truncated_bounds_are_kept_in_float32(init):
    given = init.arguments
    high = given.get("high", given.get("b"))
    assert wide(init(KEY, (2**16,))).max() <= high


@pytest.mark.parametrize("init", BOUNDED, ids=repr)
def test_real_laws_refuse_complex_weights_without_a_warning(init):
    assert "this law is one of real numbers" in refused(init, (4,), "complex64")


def test_no_weights_are_held_by_any_dtype():
    for init in (ji.normal(1e308), jt.normal(-1e308)):
        assert init(KEY, (0, 3), "float8_e5m2").shape == (0, 3)


def test_bounds_between_which_a_dtype_has_no_number():
    message = refused(ji.uniform(low=1.001, high=1.002), (4,), "bfloat16")
    assert "no number of this type lies between the bounds" in message


def test_a_users_law_states_what_it_needs():
    @ji.initializer
    def two_points(size=1.0):
        def draw(key, shape, dtype):
            return jax.random.rademacher(key, shape, dtype) * np.asarray(size, dtype)

        return draw, lambda shape: None, lambda shape: ((-size, size), size)

    assert two_points()(KEY, (4,), "float16").dtype == np.float16
    refused(two_points(1e5), (4,), "float16")
    refused(two_points(1e-9), (4,), "float16")
