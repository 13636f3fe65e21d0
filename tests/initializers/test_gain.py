"""Gains: torch's table, closed forms, and quadrature against SciPy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special

import jaxinit as ji
from jaxinit._gain import ACTIVATIONS, activation

# E[f(z)^2] in closed form. Of erf: (2 / pi) arcsin(2 / 3), by Williams (1997).
CLOSED = {
    "relu": (jax.nn.relu, 1 / 2),
    "leaky_relu": (lambda z: jax.nn.leaky_relu(z, 0.3), (1 + 0.09) / 2),
    "abs": (jnp.abs, 1),
    "identity": (lambda z: z, 1),
    "sin": (jnp.sin, (1 - math.exp(-2)) / 2),
    "erf": (jax.scipy.special.erf, 2 / math.pi * math.asin(2 / 3)),
    "exp": (jnp.exp, math.exp(2)),
    "sign": (jnp.sign, 1),
    "square": (jnp.square, 3),
    "shifted relu": (lambda z: jax.nn.relu(z - 1), 0.0753397),
}
CLOSED["shifted relu"] = (
    CLOSED["shifted relu"][0],
    special.ndtr(-1) * 2 - math.exp(-0.5) / math.sqrt(2 * math.pi),
)


@pytest.mark.parametrize("name", CLOSED)
def test_quadrature_is_right_to_a_millionth(name):
    function, moment = CLOSED[name]
    assert ji.gain(function) == pytest.approx(1 / math.sqrt(moment), abs=1e-6)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *((n, 1) for n in ("linear", "conv1d", "conv_transpose3d", "sigmoid")),
        ("tanh", 5 / 3),
        ("relu", math.sqrt(2)),
        ("leaky_relu", math.sqrt(2 / (1 + 0.01**2))),
        ("selu", 3 / 4),
    ],
)
def test_torchs_table(name, expected):
    assert ji.gain(name) == pytest.approx(expected, rel=1e-14)


def test_parameters():
    assert ji.gain("leaky_relu", 0.2) == pytest.approx(math.sqrt(2 / 1.04), rel=1e-14)
    assert ji.gain("elu", 0.5) == pytest.approx(ji.gain(lambda z: jax.nn.elu(z, 0.5)))
    assert ji.gain("celu", 0.5) == pytest.approx(ji.gain(lambda z: jax.nn.celu(z, 0.5)))


SCIPY = {
    "gelu": lambda z: (
        0.5 * z * (1 + np.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))
    ),
    "silu": lambda z: z / (1 + np.exp(-z)),
    "softplus": lambda z: np.log1p(np.exp(z)),
    "elu": lambda z: np.where(z > 0, z, np.expm1(z)),
    "mish": lambda z: z * np.tanh(np.log1p(np.exp(z))),
    "hard_tanh": lambda z: np.clip(z, -1, 1),
    "relu6": lambda z: np.clip(z, 0, 6),
    "soft_sign": lambda z: z / (1 + np.abs(z)),
}


@pytest.mark.parametrize("name", SCIPY)
def test_names_by_quadrature_agree_with_scipy(name):
    def integrand(z):
        return SCIPY[name](z) ** 2 * math.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)

    points = [-1, 0, 1, 6]
    moment = integrate.quad(integrand, -12, 12, points=points, limit=400)[0]
    assert ji.gain(name) == pytest.approx(1 / math.sqrt(moment), abs=1e-6)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_every_activation_has_a_gain_and_keeps_shapes(name):
    assert 0 < ji.gain(name) < 10
    assert activation(name)(jnp.ones((2, 3))).shape == (2, 3)


def test_relu_squares_to_two_exactly():
    assert ji.he_normal().moments((8, 4)).variance == 0.25


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("geluu",), r"nonlinearity must be one of 'abs', .*Did you mean .*'gelu'"),
        (
            ("relu", 0.1),
            "only 'celu', 'elu', 'leaky_relu' take a parameter, not 'relu'",
        ),
        (("conv2d", 0.1), "must be one of|take a parameter"),
        ((jnp.sin, 0.1), "param goes with the name of an activation"),
        (("leaky_relu", math.inf), "param must be finite"),
        ((lambda z: 0 * z,), r"E\[f\(z\)\^2\] is 0 for z standard normal"),
        ((lambda z: jnp.exp(z**2),), r"E\[f\(z\)\^2\] is (inf|nan)"),
        ((lambda z: z[:5],), "must work on each entry alone and keep the shape"),
    ],
)
def test_bad_values(arguments, message):
    with pytest.raises(ValueError, match=r"gain\(.*\): .*" + message):
        ji.gain(*arguments)


def test_bad_types():
    for wrong in (2.0, None, [1]):
        with pytest.raises(
            TypeError, match="nonlinearity must be a name or a function"
        ):
            ji.gain(wrong)
    with pytest.raises(TypeError, match="param must be a real number"):
        ji.gain("leaky_relu", True)
    with pytest.raises(TypeError, match=r"he_normal\(gain=None\): gain must be a real"):
        ji.he_normal(gain=None)
    with pytest.raises(
        ValueError, match=r"he_normal\(gain=-1\): gain must be 0 or above"
    ):
        ji.he_normal(gain=-1)
