"""Data of every scale and every type: standardized right, or refused with the place."""

import numpy as np
import pytest

from jaxinit import _check as check
from jaxinit.lab._tried.data import make_task

ROWS = 40
Y = np.arange(ROWS) % 2
X = np.random.default_rng(0).normal(size=(ROWS, 3))
PLAIN = make_task("plain", X, Y)
INTEGERS = [np.dtype(f"{kind}{size}") for kind in "iu" for size in (1, 2, 4, 8)]
EDGES = [5e-324, 1e-320, 1e-310, 1e-300, 1e-170, 1e-23, 1e20, 1e170, 1e200, 1e300]


def check_task(task, columns=3):
    """Training rows of mean 0 and variance 1 by column, all finite; none constant."""
    x = task.x_train.astype(np.float64)
    assert x.shape == (len(x), columns) and task.x_train.dtype == np.float32
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(x.var(axis=0), 1, rtol=1e-5)
    assert np.isfinite(task.x_test).all()


def targets(scale, dtype=np.float64):
    return (np.linspace(-1, 1, ROWS).astype(dtype) * dtype(scale)).astype(dtype)


@pytest.mark.parametrize("exponent", range(-300, 301, 30))
def test_a_factor_changes_nothing(exponent):
    scaled = make_task("scaled", X * 10.0**exponent, targets(10.0**exponent))
    for name in ("x_train", "x_test"):
        ours, theirs = getattr(scaled, name), getattr(PLAIN_TARGETS, name)
        np.testing.assert_allclose(ours, theirs, rtol=2e-6, atol=1e-7)
    np.testing.assert_allclose(scaled.y_train, PLAIN_TARGETS.y_train, rtol=1e-6)
    assert scaled.chance == pytest.approx(1, rel=1e-5)


PLAIN_TARGETS = make_task("plain", X, targets(1))


def test_a_power_of_two_changes_no_bit():
    for power in (-900, -1, 5, 900):
        scaled = make_task("scaled", np.ldexp(X, power), Y)
        np.testing.assert_array_equal(scaled.x_train, PLAIN.x_train)
        np.testing.assert_array_equal(scaled.x_test, PLAIN.x_test)


@pytest.mark.parametrize("scale", EDGES)
def test_what_varies_is_no_constant(scale):
    """Two values of one size, subnormal ones too, and their difference alone."""
    x = np.where(Y == 0, 0.0, scale)[:, None]
    check_task(make_task("two values", np.c_[x, -x, x + X[:, :1] * scale], Y))
    check_task(make_task("targets", X, np.where(Y == 0, 1.0, 3.0) * scale))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble])
def test_every_real_type_to_its_limits(dtype):
    info = np.finfo(dtype)
    for scale in (info.max, info.tiny, info.smallest_subnormal, dtype(1)):
        x = np.array([[scale, 0, -scale], [-scale, scale, scale]], dtype)[Y]
        check_task(make_task("limits", x, Y))


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_every_integer_type_to_its_limits(dtype):
    least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
    x = np.array([[least, most - 1, least], [most, most, least + 1]], dtype)[Y]
    task = make_task("limits", x, Y)
    check_task(task)
    np.testing.assert_allclose(np.abs(task.x_train), 1, rtol=1e-5)
    assert (task.x_train[:, 0] > 0).tolist() == (task.y_train == 1).tolist()


def test_booleans_are_numbers():
    check_task(make_task("bits", np.c_[Y, 1 - Y, Y].astype(bool), Y))


def test_values_near_one_another_keep_their_difference():
    x = np.c_[Y, Y, Y] * np.spacing(1e16) + 1e16
    check_task(make_task("near", x, Y))
    check_task(make_task("near", 2**62 + np.c_[Y, Y, Y], Y))


@pytest.mark.parametrize("shape", [(3,), (1, 3)], ids=["table", "image"])
def test_an_outlier_in_any_row_leaves_no_constant_or_is_refused(shape):
    seen = set()
    for row in range(ROWS):
        x = X.copy()
        x[row, 1] = 1e300
        try:
            task = make_task("outlier", x.reshape(ROWS, *shape), Y)
        except check.Unfit as error:
            seen.add(str(error).split("] ")[1].partition(",")[0])
        else:
            check_task(task)
            seen.add("right")
    far = "is 1e+300"  # of the test rows: too far from the others
    few = "varies too little beside the other entries for float32. Look for outliers"
    assert seen == {far, "right" if shape == (3,) else f"{few} in x."}


def test_a_target_that_varies_in_the_test_rows_alone_is_refused():
    seen = []
    for row in range(ROWS):
        y = np.full(ROWS, 1e-23)
        y[row] = 2e-23
        try:
            seen.append(make_task("targets", X, y).chance == pytest.approx(1))
        except check.Unfit as error:
            assert "each with two values or more in the training rows" in str(error)
            seen.append(None)
    assert seen.count(True) == 30 and seen.count(None) == 10


def test_constant_columns_stay_0_at_every_scale():
    for value in (*EDGES, 0.1, -1.7e308, 0.0):
        x = np.c_[X, np.full(ROWS, value)]
        task = make_task("constant", x, Y)
        assert not task.x_train[:, 3].any() and not task.x_test[:, 3].any()


@pytest.mark.parametrize("scale", EDGES)
def test_a_column_that_varies_in_the_test_rows_alone_is_finite(scale):
    for row in range(0, ROWS, 3):
        x = np.c_[X, np.zeros(ROWS)]
        x[row, 3] = scale
        task = make_task("late", x, Y)
        assert np.abs(task.x_test[:, 3]).max() in (1, pytest.approx(0, abs=0.2))


WRONG = [
    (X * 1j, "x must hold real numbers, not complex128"),
    (X.astype(str), "x must hold real numbers, not <U"),
    (X.astype(object), "x must hold real numbers, not object"),
    (X.astype("M8[s]"), "x must hold real numbers, not datetime64[s]"),
    (X.astype("m8[s]"), "x must hold real numbers, not timedelta64[s]"),
    (np.ma.masked_greater(X, 0.5), "x is masked. Fill its gaps"),
    (np.zeros(ROWS, "f8,f8")[:, None], "x must hold real numbers, not ["),
    ([[1.0]] * 39 + [[1.0, 2.0]], "x must be an array, with rows of equal shape"),
    (X[:0], "8 rows or more, not shape (0, 3)"),
    (X[0, 0], "not shape ()"),
]


@pytest.mark.parametrize(("x", "rule"), WRONG, ids=range(len(WRONG)))
def test_inputs_that_are_no_numbers_are_refused(x, rule):
    with pytest.raises(check.Unfit) as caught:
        make_task("wrong", x, Y)
    assert rule in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_with_its_place(dtype, value):
    x, y = X.astype(dtype), targets(1, dtype)
    x[7, 2] = value
    with pytest.raises(check.Unfit, match=r"in 1 rows. The first is x\[7, 2\]\."):
        make_task("wrong", x, Y)
    with pytest.raises(check.Unfit, match=r"The first is x\[7, 2, 0\]\."):
        make_task("wrong", x[..., None], Y)
    y[5] = value
    with pytest.raises(check.Unfit, match=r"The first is y\[5\]\."):
        make_task("wrong", X, y)


ONE_HOT = np.eye(2)[Y]
TARGETS = [
    (ONE_HOT, "y is one-hot. Give the classes, y.argmax(axis=1); or for real"),
    (ONE_HOT.astype(int), "y is one-hot."),
    (ONE_HOT.astype(bool), "y is one-hot."),
    (ONE_HOT.astype(np.float16), "y is one-hot."),
    (Y.astype(float), "y is 0.0 or 1.0. Give the classes, y.astype(int); or for"),
    (Y[:, None].astype(np.float32), "y is 0.0 or 1.0."),
    (Y * 1j, "y must hold classes or real targets, not complex128"),
    (Y.astype(object), "not object. Give names of classes as y.astype(str)."),
    (Y.astype("M8[s]"), "y must hold classes or real targets, not datetime64"),
    (np.ma.masked_equal(Y, 1), "y is masked."),
    (Y[1:], "y must have an entry for each of the 40 rows"),
]


@pytest.mark.parametrize(("y", "rule"), TARGETS, ids=range(len(TARGETS)))
def test_targets_that_are_none_are_refused(y, rule):
    with pytest.raises(check.Unfit) as caught:
        make_task("wrong", X, y)
    assert rule in str(caught.value) and "\n" not in str(caught.value)


def test_two_times_one_hot_is_a_regression():
    assert make_task("targets", X, 2 * ONE_HOT).kind == "regression"
    assert make_task("targets", X, 2.0 * Y).kind == "regression"
