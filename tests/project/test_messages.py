"""Messages of the builders: call - rule - what came - cure."""

import jax
import jax.numpy as jnp
import pytest

import jaxinit as ji

KEY = jax.random.key(0)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ji.truncated_normal(lower=-1, low=0), "lower and upper, in units of"),
        (lambda: ji.truncated_normal(low=0, corrected=True), "above 0, and no correct"),
        (lambda: ji.truncated_normal(0.0, high=1), "above 0, and no correction"),
        (
            lambda: ji.truncated_normal(low=1, high=0),
            r"truncated_normal\(low=1.0\): low must be below high, 0",
        ),
        (
            lambda: ji.variance_scaling(1.0, "fan_inn", "normal"),
            r"variance_scaling\(mode='fan_inn'\): mode must be one of 'fan_in', "
            r"'fan_out', 'fan_avg', 'fan_geo_avg'\. Did you mean 'fan_in'",
        ),
        (
            lambda: ji.he_normal(mode="in"),
            r"he_normal\(mode='in'\): mode must be one of",
        ),
        (lambda: ji.variance_scaling(1, "fan_in", 3), "distribution must be one of"),
        (
            lambda: ji.variance_scaling(-1, "fan_in", "normal"),
            "scale must be 0 or above",
        ),
        (lambda: ji.normal(-1), r"normal\(stddev=-1\): stddev must be 0 or above"),
        (lambda: ji.normal(float("inf")), "stddev must be finite"),
        (lambda: ji.normal(10**400), "stddev must be finite"),
        (lambda: ji.uniform(1.0, high=2.0), "give scale or high, not both"),
        (lambda: ji.uniform(low=1, high=1), "low must be below the upper end, 1"),
        (lambda: ji.uniform(low=1), "low must be below the upper end, 0.01"),
        (lambda: ji.truncated_normal(lower=2, upper=1), "lower must be below upper, 1"),
        (
            lambda: ji.truncated_normal(lower=7, upper=8),
            "less than 1e-05 of a normal law",
        ),
        (
            lambda: ji.sparse(1.5),
            r"sparse\(sparsity=1.5\): sparsity must lie between 0",
        ),
        (
            lambda: ji.orthogonal(method="svd"),
            "method must be one of 'householder', 'qr'",
        ),
        (lambda: ji.orthogonal(gain="geluu"), r"orthogonal\(gain='geluu'\)"),
        (lambda: ji.uniform_unit_scaling(-1), "scale must be 0 or above"),
        (lambda: ji.he_normal(groups=0), r"he_normal\(groups=0\): groups must be 1 or"),
        (
            lambda: ji.he_normal(strides=(2, 0)),
            r"strides=\(2, 0\)\): strides must be 1",
        ),
        (lambda: ji.dirac(0), r"dirac\(groups=0\): groups must be 1 or above"),
        (lambda: ji.layer_scale(layers=0), "layers must be 1 or above"),
        (lambda: ji.layer_scale(0.1, layers=3), "give value or layers, not both"),
        (
            lambda: ji.lstm_bias(order="ifgg"),
            r"lstm_bias\(order='ifgg'\): order must be one of 'flax', 'torch'",
        ),
        (lambda: ji.stft("img"), "side must be one of 'real', 'imag'. Did you mean 'i"),
        (
            lambda: ji.stft("real", "han"),
            "window must be one of 'bartlett', 'blackman'",
        ),
        (
            lambda: ji.stft("real", scaling="a"),
            "scaling must be one of 'density', 'spec",
        ),
    ],
)
def test_values_refused_by_builders(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ji.normal("a"), r"normal\(stddev='a'\): stddev must be a real number"),
        (lambda: ji.normal(True), "stddev must be a real number"),
        (lambda: ji.normal(1j), "stddev must be a real number"),
        (lambda: ji.normal([1.0, 2.0]), "stddev must be a real number"),
        (
            lambda: ji.normal(dtype="float33"),
            r"normal\(dtype='float33'\): dtype must be a",
        ),
        (lambda: ji.normal(dtype="f4,f8"), "dtype must be a number type"),
        (lambda: ji.normal(dtype=str), r"normal\(dtype=str\): dtype must be a number"),
        (
            lambda: ji.constant("a"),
            "value must be a number or a regular array of numbers",
        ),
        (
            lambda: ji.constant([[1], [1, 2]]),
            "value must be a number or a regular array",
        ),
        (lambda: ji.constant({}), "value cannot be a dict: it has no fixed value"),
        (lambda: ji.constant(2**70), "value must be a number|too large"),
        (
            lambda: ji.identity(in_axis=(0, 1)),
            r"identity\(in_axis=\(0, 1\)\): in_axis must",
        ),
        (lambda: ji.orthogonal(column_axis=[0]), "column_axis must be one axis"),
        (lambda: ji.orthogonal(column_axis=None), "column_axis must be an axis"),
        (
            lambda: ji.orthogonal(batch_axis=1.5),
            "batch_axis must be an axis or a tuple",
        ),
        (lambda: ji.identity(shift=0.5), "shift must be an integer"),
        (lambda: ji.he_normal(groups=2.0), "groups must be an integer"),
        (lambda: ji.he_normal(strides="2"), "strides must be an integer"),
        (lambda: ji.he_normal(transposed=1), "transposed must be True or False"),
        (lambda: ji.stft("real", periodic=None), "periodic must be True or False"),
        (lambda: ji.stft("real", [[1, 2]]), "window must be a name, None, or a row of"),
        (lambda: ji.stft("real", [1, "a"]), "window must be a name, None, or a row of"),
        (lambda: ji.from_array(["a"]), "array must be a number or a regular array"),
        (lambda: ji.lstm_bias("one"), "forget must be a real number"),
    ],
)
def test_types_refused_by_builders(build, message):
    with pytest.raises(TypeError, match=message):
        build()


@pytest.mark.parametrize(
    ("init", "shape", "dtype", "message"),
    [
        (
            ji.he_normal(),
            (5,),
            None,
            r"he_normal\(\)\(key, shape=\(5,\)\): needs two axes to tell inputs from "
            r"outputs\. For a vector use normal\(stddev=\.\.\.\)",
        ),
        (ji.he_normal(in_axis=3), (4, 5), None, "in_axis=3 names axis 3, which 2 axes"),
        (
            ji.normal(),
            (4,),
            "int32",
            r"normal\(\)\(key, shape, dtype='int32'\): random weights need a float",
        ),
        (ji.uniform(), (4,), "complex64", "this law is one of real numbers"),
        (ji.truncated_normal(), (4,), "complex64", "this law is one of real numbers"),
        (
            ji.constant([1, 2]),
            (3,),
            None,
            r"value has shape \(2,\), which does not broad",
        ),
        (
            ji.constant([[1, 2]]),
            (2,),
            None,
            r"value has shape \(1, 2\), which does not",
        ),
        (ji.constant(1j), (3,), "float32", "value is complex"),
        (
            ji.constant(0.5),
            (3,),
            "int32",
            "value is not an integer that this type holds",
        ),
        (
            ji.constant(300),
            (3,),
            "int8",
            "value is not an integer that this type holds",
        ),
        (
            ji.constant(-1),
            (3,),
            "uint8",
            "value is not an integer that this type holds",
        ),
        (
            ji.orthogonal(),
            (5,),
            None,
            r"needs two axes or more\. For a vector use normal",
        ),
        (
            ji.orthogonal(column_axis=4),
            (5, 5),
            None,
            "column_axis=4 names axis 4, which",
        ),
        (ji.delta_orthogonal(), (5, 5), None, "needs a kernel of 3, 4 or 5 axes"),
        (
            ji.delta_orthogonal(),
            (3, 5, 4),
            None,
            "needs at least as many outputs as inp",
        ),
        (ji.conv_orthogonal(), (5, 5), None, "needs a kernel of 3, 4 or 5 axes"),
        (ji.conv_orthogonal(), (3, 2, 5, 5), None, "needs a window of equal sizes"),
        (ji.conv_orthogonal(), (3, 5, 4), None, "as many outputs as inputs"),
        (ji.scaled_uniform_orthogonal(), (5,), None, "needs two axes or more"),
        (
            ji.scaled_uniform_orthogonal(column_axis=0),
            (3, 4, 5),
            None,
            "a delta kernel has its outputs last, not column_axis=0",
        ),
        (
            ji.scaled_uniform_orthogonal(),
            (2, 4, 5),
            None,
            "a delta kernel needs odd sizes, to have a middle. Use delta=False",
        ),
        (ji.sparse(0.5), (5,), None, "needs an axis of inputs and one of outputs"),
        (ji.identity(), (5,), None, "needs an axis of inputs and one of outputs"),
        (ji.identity(in_axis=-1), (5, 5), None, "share an axis"),
        (ji.normal(), (-1,), None, "sizes must be 0 or above"),
        (ji.he_normal(groups=3), (4, 5), None, "groups=3 do not divide the 5 outputs"),
        (ji.he_normal(strides=2), (4, 5), None, "each of the 0 axes of the receptive"),
        (
            ji.he_normal(strides=(2, 2)),
            (3, 4, 5),
            None,
            r"strides=\(2, 2\) are not one for each of the 1 axes of the receptive",
        ),
        (
            ji.orthogonal(batch_axis=0),
            (4, 5),
            None,
            r"needs two axes or more\. For a vector use normal",
        ),
        (ji.orthogonal(batch_axis=-1), (4, 5, 6), None, "batch_axis=-1 share an axis"),
        (ji.identity(shift=(1, 2)), (2, 3, 3), None, "is not one for each axis"),
        (ji.dirac(), (3, 4), None, "needs a kernel of 3, 4 or 5 axes"),
        (ji.dirac(3), (3, 1, 4), None, "groups=3 do not divide the 4 outputs"),
        (ji.bilinear(), (3, 4), None, "needs a kernel of 3, 4 or 5 axes"),
        (ji.lstm_bias(), (6,), None, "needs four gates side by side"),
        (ji.lstm_bias(), (), None, "needs four gates side by side"),
        (ji.uniform_unit_scaling(), (), None, "names axis -1, which 0 axes do not"),
        (ji.stft("real"), (8, 2, 5), None, r"needs a shape \(frame, 1, frequencies\)"),
        (ji.stft("real"), (8, 1, 1), None, "with two frequencies or more"),
        (ji.stft("real"), (1, 1, 2**23 + 1), None, "has at most 8388608 frequencies"),
        (
            ji.stft("real", [1, 2, 3]),
            (8, 1, 5),
            None,
            "the window has 3 values, not one for each of the frame",
        ),
        (
            ji.stft("real"),
            (2, 1, 5),
            None,
            "the window is zero there. Use scaling=None",
        ),
        (ji.from_array([1, 2]), (3,), None, r"the array has shape \(2,\)"),
        (ji.from_array([1, 2]), (2, 2), None, r"the array has shape \(2,\)"),
        (ji.from_array([[1, 2, 3]]), (3, 1), None, "Transpose it"),
        (ji.from_array([1j]), (1,), "float32", "array is complex"),
        (ji.from_array([0.5]), (1,), "int8", "array is not an integer that this type"),
    ],
)
def test_shapes_and_dtypes_refused_at_the_call(init, shape, dtype, message):
    with pytest.raises(ValueError, match=message):
        init(KEY, shape, dtype)
    if dtype is None:
        with pytest.raises(
            ValueError, match=r"\.moments\(.*" + message.split(": ")[-1]
        ):
            init.moments(shape)


def test_zero_sizes_are_still_checked():
    with pytest.raises(ValueError, match="needs two axes"):
        ji.he_normal()(KEY, (0,))
    with pytest.raises(ValueError, match="needs a kernel of 3, 4 or 5 axes"):
        ji.delta_orthogonal()(KEY, (0, 3))


def test_dtypes_that_are_none_at_the_call():
    with pytest.raises(TypeError, match=r"\(key, shape, dtype='abc'\): dtype must be"):
        ji.normal()(KEY, (3,), "abc")
    with pytest.raises(TypeError, match="dtype must be a number type"):
        ji.zeros()(KEY, (3,), object)


def test_long_and_large_values_stay_on_one_line():
    with pytest.raises(TypeError) as caught:
        ji.normal()("x" * 1000 + "\n", (3,))
    assert len(str(caught.value)) < 250 and "\n" not in str(caught.value)
    with pytest.raises(TypeError, match=r"stddev=<ndarray float32\[100\]>"):
        ji.normal(jnp.zeros(100))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: ji.random.orthonormal(KEY, 4, 4, jnp.dtype("float32"), "svd"),
            r"random.orthonormal\(method='svd'\): method must be one of 'householder', "
            "'qr'",
        ),
        (lambda: ji.random.subset(KEY, -1, (3, 2)), "count must be 0 or above"),
        (
            lambda: ji.random.subset(KEY, 4, (3, 2)),
            r"random.subset\(count=4\): there are only 3 rows to take",
        ),
    ],
)
def test_values_refused_by_draws(call, message):
    with pytest.raises(ValueError, match=message):
        call()
