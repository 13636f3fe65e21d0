"""Fans and einsum axes."""

import math

import jax
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxinit as ji


@pytest.mark.parametrize(
    ("shape", "axes", "expected"),
    [
        ((3, 5), {}, (3, 5)),
        ((3, 3, 64, 128), {}, (576, 1152)),
        ((8, 64, 128), {"batch_axis": 0}, (64, 128)),
        ((64, 8, 16), {"in_axis": 0, "out_axis": (1, 2)}, (64, 128)),
        ((8, 16, 64), {"in_axis": (0, 1)}, (128, 64)),
        ((5,), {"in_axis": (), "out_axis": 0}, (1, 5)),
        ((5,), {"in_axis": 0, "out_axis": ()}, (5, 1)),
        ((), {"in_axis": (), "out_axis": ()}, (1, 1)),
        ((1000, 64), {"out_axis": 0}, (64, 64)),  # Flax's embedding
        ((0, 5), {}, (0, 5)),
        ((0, 5), {"out_axis": 0}, (5, 5)),
    ],
)
def test_fans(shape, axes, expected):
    assert ji.fans(shape, **axes) == pytest.approx(expected)


@given(
    st.lists(st.integers(1, 9), min_size=2, max_size=5),
    st.permutations(range(5)),
    st.integers(0, 2),
    st.integers(0, 2),
    st.integers(0, 1),
)
def test_fans_by_their_definition(shape, order, inputs, outputs, batch):
    axes = [axis for axis in order if axis < len(shape)]
    roles = {
        "in_axis": tuple(axes[:inputs]),
        "out_axis": tuple(axes[inputs : inputs + outputs]),
        "batch_axis": tuple(axes[inputs + outputs : inputs + outputs + batch]),
    }
    sizes = {name: math.prod(shape[i] for i in axes) for name, axes in roles.items()}
    field = math.prod(shape) / math.prod(sizes.values())
    assert ji.fans(shape, **roles) == (
        sizes["in_axis"] * field,
        sizes["out_axis"] * field,
    )


@pytest.mark.parametrize(
    ("formula", "in_axis", "out_axis", "batch_axis"),
    [
        ("bi,io->bo", (-2,), (-1,), ()),
        ("bld,dhk->blhk", (-3,), (-2, -1), ()),
        ("blhk,hkd->bld", (-3, -2), (-1,), ()),
        ("...gi,gio->...go", (-2,), (-1,), (-3,)),
        ("bd,d->bd", (), (), (-1,)),
        ("bd,d->b", (-1,), (), ()),
        ("b,dk->bd", (-1,), (-2,), ()),  # k is summed: each output has k inputs
        (" b i , o i -> b o ", (-1,), (-2,), ()),
        ("b,->b", (), (), ()),
    ],
)
def test_axes(formula, in_axis, out_axis, batch_axis):
    expected = {"in_axis": in_axis, "out_axis": out_axis, "batch_axis": batch_axis}
    assert ji.axes(formula) == expected


@pytest.mark.slow
def test_axes_keep_the_variance_of_an_einsum():
    formula, kernel = "blhk,hkd->bld", (8, 16, 64)
    w = ji.lecun_normal(**ji.axes(formula))(jax.random.key(0), kernel)
    x = jax.random.normal(jax.random.key(1), (4, 32, 8, 16))
    assert jax.numpy.einsum(formula, x, w).var() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("bi,io", "needs an input, a kernel and an output"),
        ("bi->bo", "needs an input, a kernel and an output"),
        ("b1,io->bo", "'b1' is not a row of letters"),
        ("bi,ii->bi", "'ii' has a letter twice"),
        ("bi,io->bz", "the output's 'z' is in no operand"),
        ("bi,io,oj->bj", "'io,oj' is not a row of letters"),
    ],
)
def test_formulas_that_are_none(formula, message):
    with pytest.raises(ValueError, match=rf"axes\(formula=.*\): .*{message}"):
        ji.axes(formula)
    with pytest.raises(TypeError, match="formula must be a string"):
        ji.axes(3)


@pytest.mark.parametrize(
    ("shape", "axes", "message"),
    [
        (
            (5,),
            {},
            "needs two axes to tell inputs from outputs. For a vector use normal",
        ),
        ((3, 4), {"in_axis": 2}, "in_axis=2 names axis 2, which 2 axes do not have"),
        (
            (3, 4),
            {"out_axis": (0, -2)},
            r"out_axis=\(0, -2\) is axes \(0, 0\): one twice",
        ),
        ((3, -4), {}, "sizes must be 0 or above"),
        ((3, 4), {"in_axis": (0, 0)}, "in_axis names an axis twice"),
    ],
)
def test_bad_axes(shape, axes, message):
    with pytest.raises(ValueError, match=r"fans\(.*\): .*" + message):
        ji.fans(shape, **axes)


def test_axes_must_be_integers():
    with pytest.raises(TypeError, match="in_axis must be an axis or a tuple of axes"):
        ji.fans((3, 4), in_axis="a")
    with pytest.raises(TypeError, match="out_axis must be an axis"):
        ji.he_normal(out_axis=1.5)
