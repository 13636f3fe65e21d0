"""Mean-field theory: closed forms, known critical points, iteration and simulation.

Tolerances: the docstring of `MeanField` promises 1e-8 of an expectation's size
(`QUADRATURE`); what is measured is mostly 1e-10. Fixed points are zeros of expectations
and inherit it, divided by the slope at the zero: a hundred times is allowed (`ZERO`).
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special, stats

import jaxinit as ji
from jaxinit._gain import ACTIVATIONS
from jaxinit.signal.theory import (
    MeanField,
    Profile,
    critical_weight_variance,
    profile,
)
from jaxinit.signal.theory._expectation import Expectation
from jaxinit.signal.theory._propagation import Convolution, propagate_variances

QUADRATURE = 1e-8
ZERO = 1e-6
erf = jax.scipy.special.erf


# E[f(u1) f(u2)] and E[f'(u)^2] in closed form, of variance q and correlation c. relu:
# the arc-cosine kernel of Cho and Saul (2009). erf: Williams (1997). sin: from the
# characteristic function. sign: Sheppard (1899).
def relu_kernel(q, c):
    angle = math.acos(c)
    return q * (math.sin(angle) + (math.pi - angle) * c) / (2 * math.pi)


def leaky_kernel(q, c, slope=0.2):
    # leaky(u) = (1 - slope) relu(u) + slope u, and E[relu(u1) u2] = c q / 2.
    mixed = slope * (1 - slope) * q * c + slope**2 * q * c
    return (1 - slope) ** 2 * relu_kernel(q, c) + mixed


def abs_kernel(q, c):
    return 2 * relu_kernel(q, c) + 2 * relu_kernel(q, -c)


KERNELS = {
    "identity": (lambda z: z, lambda q, c: q * c, lambda q: 1),
    "relu": (jax.nn.relu, relu_kernel, lambda q: 1 / 2),
    "leaky_relu": (("leaky_relu", 0.2), leaky_kernel, lambda q: (1 + 0.2**2) / 2),
    "abs": (jnp.abs, abs_kernel, lambda q: 1),
    "erf": (
        erf,
        lambda q, c: 2 / math.pi * math.asin(2 * q * c / (1 + 2 * q)),
        lambda q: 4 / math.pi / math.sqrt(1 + 4 * q),
    ),
    "sin": (
        jnp.sin,
        lambda q, c: math.exp(-q) * math.sinh(q * c),
        lambda q: (1 + math.exp(-2 * q)) / 2,
    ),
    "sign": (jnp.sign, lambda q, c: 2 / math.pi * math.asin(c), lambda q: math.inf),
}
VARIANCES = (1e-6, 0.1, 1.0, 7.0)
CORRELATIONS = (-1.0, -0.999, -0.4, 0.0, 0.3, 0.9, 0.9999, 1.0)


@pytest.mark.parametrize("name", KERNELS)
def test_maps_have_their_closed_forms(name):
    function, kernel, slope_square = KERNELS[name]
    network = MeanField(function, 1.7, 0.3)
    for q in VARIANCES:
        variance = 1.7 * kernel(q, 1.0) + 0.3
        assert network.variance_map(q) == pytest.approx(variance, rel=QUADRATURE)
        for c in CORRELATIONS:
            expected = (1.7 * kernel(q, c) + 0.3) / variance
            assert network.correlation_map(c, q) == pytest.approx(
                expected, abs=QUADRATURE
            )
        backward = 1 / math.sqrt(slope_square(q))
        assert network.gain_backward(q) == pytest.approx(backward, rel=QUADRATURE)
        forward = math.sqrt(q / kernel(q, 1.0))
        assert network.gain_forward(q) == pytest.approx(forward, rel=QUADRATURE)


@pytest.mark.parametrize("name", ["relu", "erf", "sign"])
def test_distances_keep_their_digits_near_one(name):
    # 1 - C at c = 1 - r, from the closed form's series: its first term's error is of
    # relative order sqrt(r).
    function, _, slope_square = KERNELS[name]
    network, r = MeanField(function, 1.0), 1e-9
    distance = 1 - network.correlation_map(1 - r, 1.0)
    square = network.variance_map(1.0)
    first = slope_square(1.0) * r if name != "sign" else 2 / math.pi * math.sqrt(2 * r)
    assert distance == pytest.approx(first / square, rel=2 * math.sqrt(r))


@pytest.mark.parametrize("q", [0.3, 5.0])
def test_bends_anywhere_are_found(q):
    # d/dc E[f(u1) f(u2)] = q P(u1 > a, u2 > a) for f = relu(u - a), by Price (1958).
    a = 0.37
    network = MeanField(lambda z: jax.nn.relu(z - a), 1.0)
    t = a / math.sqrt(q)
    density = math.exp(-(t**2) / 2) / math.sqrt(2 * math.pi)
    mean = math.sqrt(q) * (density - t * special.ndtr(-t))
    square = q * ((1 + t**2) * special.ndtr(-t) - t * density)

    def both(c):
        law = stats.multivariate_normal(cov=[[1, c], [c, 1]])
        return law.cdf([-t, -t])

    kernel = mean**2 + q * integrate.quad(both, 0, 0.6, epsabs=1e-10)[0]
    assert network.variance_map(q) == pytest.approx(square, rel=QUADRATURE)
    assert network.gain_backward(q) ** -2 == pytest.approx(
        special.ndtr(-t), rel=QUADRATURE
    )
    assert network.correlation_map(0.6, q) == pytest.approx(
        kernel / square, abs=QUADRATURE
    )


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_forward_gain_is_that_of_gain(name):
    # `gain` promises 1e-6.
    found = MeanField(name, 1.0).gain_forward()
    assert found == pytest.approx(ji.gain(ACTIVATIONS[name]), abs=1e-6)


class Unhashable:
    def __eq__(self, other):
        return self is other

    __hash__ = None

    def __call__(self, u):
        return jnp.tanh(u)


FORMS = {
    "name": "tanh",
    "numpy": np.tanh,
    "of scalars": np.vectorize(math.tanh),
    "float32": lambda u: jnp.tanh(u.astype(jnp.float32)),
    "unhashable": Unhashable(),
}


@pytest.mark.parametrize("form", FORMS)
def test_any_form_of_function_will_do(form):
    network = MeanField(FORMS[form], 2.0, 0.1)
    expected = MeanField(jnp.tanh, 2.0, 0.1)
    # A value in float32 is off by 1e-7; of the rest differences are the least exact.
    tolerance = 1e-6 if form == "float32" else QUADRATURE
    for name in ("fixed_point", "slope", "fixed_correlation"):
        found = getattr(network, name)
        assert found == pytest.approx(getattr(expected, name), rel=10 * tolerance)
    assert network.correlation_map(-0.3) == pytest.approx(
        expected.correlation_map(-0.3), abs=tolerance
    )


def test_numpy_functions_may_jump_and_bend():
    step = MeanField(lambda u: np.where(u > 0.7, 1, 0), 1.0)
    assert step.variance_map(1.0) == pytest.approx(special.ndtr(-0.7), rel=QUADRATURE)
    assert step.gain_backward() == 0
    bent = MeanField(lambda u: np.maximum(u, 0.7), 1.0)
    assert bent.gain_backward() ** -2 == pytest.approx(
        special.ndtr(-0.7), rel=QUADRATURE
    )


def test_a_derivative_may_be_given():
    straight = MeanField(jnp.sign, 1.0, 0.2, derivative=jnp.ones_like)
    plain = MeanField(jnp.sign, 1.0, 0.2)
    assert straight.slope == pytest.approx(1, rel=QUADRATURE)
    assert plain.slope == math.inf and plain.phase == "chaotic"
    assert straight.fixed_correlation == plain.fixed_correlation
    c = plain.fixed_correlation  # = (2 / pi arcsin(c) + 0.2) / 1.2
    assert (2 / math.pi * math.asin(c) + 0.2) / 1.2 == pytest.approx(c, abs=ZERO)


def test_fixed_points_of_linear_maps():
    for function, half in (("identity", 1), ("relu", 2)):
        network = MeanField(function, 0.6 * half, 0.1)
        assert network.fixed_point == pytest.approx(0.1 / 0.4, rel=ZERO)
        assert network.slope == pytest.approx(0.6, rel=QUADRATURE)
        assert MeanField(function, 0.6 * half).fixed_point == 0
        assert MeanField(function, 1.5 * half).fixed_point == math.inf
        assert MeanField(function, half).fixed_point == 1  # all are fixed
        assert MeanField(function, half, 1e-6).fixed_point == math.inf


SETTINGS = [  # activation, weight_variance, bias_variance, phase
    ("tanh", 0.8, 0.0, "ordered"),
    ("tanh", 1.0, 0.0, "critical"),
    ("tanh", 1.5**2, 0.0, "chaotic"),
    ("tanh", 1.3, 0.05, "ordered"),
    ("tanh", 2.5**2, 0.3**2, "chaotic"),
    ("hard_tanh", 1.8, 0.1, "chaotic"),
    ("sigmoid", 1.0, 0.0, "ordered"),
    ("gelu", 1.9, 0.1, "ordered"),
    ("selu", 1.0, 0.0, "chaotic"),
    ("relu", 2.0, 0.0, "critical"),
    ("relu", 1.5, 0.2, "ordered"),
    ("relu", 3.0, 0.0, "chaotic"),
]


@pytest.mark.parametrize(("name", "weight", "bias", "phase"), SETTINGS)
def test_fixed_points_are_fixed_and_led_to(name, weight, bias, phase):
    network = MeanField(name, weight, bias)
    q, c = network.fixed_point, network.fixed_correlation
    assert network.phase == phase
    if 0 < q < math.inf:
        assert network.variance_map(q) == pytest.approx(q, rel=ZERO)
        assert (c < 1) == (phase == "chaotic")
    assert network.correlation_map(c) == pytest.approx(c, abs=ZERO)
    scale = max(network.depth_scale_variance, network.depth_scale_correlation)
    if not scale < 50:
        return
    layers = math.ceil(scale * math.log(1e6))
    reached = profile(
        name, weight, bias, depth=layers, input_moment=0.5, input_correlation=0.5
    )
    # A distance falls by 1e6 where it is small; on the way there it may fall less.
    assert reached.variance[-1] == pytest.approx(q, rel=1e-4)
    assert reached.correlation[-1] == pytest.approx(c, abs=1e-4)


# tanh without biases: slopes at a fixed point of variance 0 (Poole 2016). erf likewise:
# 1 / f'(0)^2 = pi / 4. 1.76 at 0.05 is Schoenholz's (2017).
@pytest.mark.parametrize(
    ("function", "bias", "expected"),
    [
        ("tanh", 0.0, 1.0),
        (erf, 0.0, math.pi / 4),
        ("relu", 0.0, 2.0),
        ("relu", 0.1, 2.0),  # where the variance has no bound
        ("identity", 0.0, 1.0),
        (("leaky_relu", 0.2), 0.0, 2 / 1.04),
        ("abs", 0.5, 1.0),
    ],
)
def test_known_critical_points(function, bias, expected):
    found = critical_weight_variance(function, bias)
    assert found == pytest.approx(expected, rel=ZERO)


def test_critical_line():
    biases = (0.0, 1e-4, 0.05, 0.3, 1.0)
    line = [critical_weight_variance("tanh", bias) for bias in biases]
    assert line == sorted(line)
    assert line[2] == pytest.approx(1.76, abs=0.005)
    for weight, bias in zip(line, biases, strict=True):
        assert MeanField("tanh", weight, bias).slope == pytest.approx(1, abs=ZERO)
        assert MeanField("tanh", 0.99 * weight, bias).phase == "ordered"
        assert MeanField("tanh", 1.01 * weight, bias).phase == "chaotic"


def derivative(function, x, step):
    """Fourth-order differences: their error is of order step^4."""
    near = function(x + step) - function(x - step)
    far = function(x + 2 * step) - function(x - 2 * step)
    return (8 * near - far) / (12 * step)


@pytest.mark.parametrize(
    ("function", "weight", "bias"),
    [
        ("tanh", 1.3, 0.05),
        ("tanh", 2.5**2, 0.3**2),
        ("hard_tanh", 1.8, 0.1),  # f'' is not a function: -f at +-1 counts
        ("gelu", 1.9, 0.1),
        ("relu", 1.5, 0.2),
        ("sin", 2.0, 0.1),
    ],
)
def test_depth_scales_are_those_of_the_maps(function, weight, bias):
    network = MeanField(function, weight, bias)
    q, c = network.fixed_point, network.fixed_correlation
    slope = derivative(network.variance_map, q, 1e-2 * q)
    assert math.exp(-1 / network.depth_scale_variance) == pytest.approx(slope, abs=1e-6)
    if c == 1:  # one-sided, where relu's map has the next term in r^(3/2)
        assert math.exp(-1 / network.depth_scale_correlation) == pytest.approx(
            (1 - network.correlation_map(1 - 1e-9)) / 1e-9, abs=1e-4
        )
        assert network.slope == pytest.approx(
            math.exp(-1 / network.depth_scale_correlation), rel=QUADRATURE
        )
    else:
        slope = derivative(network.correlation_map, c, 5e-2 * (1 - c))
        assert math.exp(-1 / network.depth_scale_correlation) == pytest.approx(
            slope, abs=1e-6
        )


def test_depth_scales_without_end():
    assert MeanField("relu", 2).depth_scale_variance == math.inf
    assert MeanField("relu", 2).depth_scale_correlation == math.inf
    assert MeanField("relu", 3).depth_scale_variance == math.inf
    constant = MeanField(lambda z: 0 * z + 1, 1.0, 0.5)
    assert constant.depth_scale_correlation == 0 and constant.fixed_correlation == 1
    assert constant.gain_backward() == math.inf


def test_what_dies_or_explodes():
    dead = MeanField(lambda z: jax.nn.relu(z - 1), 1.0)
    assert dead.fixed_point == 0 and dead.slope == 0 and dead.correlation_map(0.3) == 1
    assert MeanField(lambda z: 0 * z, 1.0).gain_forward() == math.inf
    wild = MeanField(jnp.exp, 1.0)
    assert wild.fixed_point == math.inf and wild.slope == math.inf
    assert math.isnan(wild.fixed_correlation)
    # In the limit of small variance tanh is linear, and of large variance gelu is relu.
    assert MeanField("tanh", 0.5).correlation_map(0.3) == pytest.approx(0.3, abs=ZERO)
    assert MeanField("gelu", 4.0).slope == pytest.approx(2, rel=ZERO)


def test_a_network_is_a_value():
    network = MeanField("tanh", 2, 0.1)
    assert network == MeanField("tanh", 2.0, 0.1) != MeanField("tanh", 2.0, 0.2)
    assert hash(network) == hash(MeanField("tanh", 2.0, 0.1))
    assert repr(network).startswith("MeanField(activation='tanh', weight_variance=2.0")


def test_results_do_not_depend_on_where_they_are_computed(x64):
    def slope():
        return MeanField(jax.nn.silu, 1.5, 0.1).slope

    @jax.jit
    def traced(x):
        return x * slope()

    expected = slope()
    assert float(traced(jnp.ones(()))) == expected
    with jax.enable_x64(False):
        assert slope() == expected


def test_a_profile_follows_the_maps():
    network = MeanField("tanh", 1.8, 0.2)
    found = profile("tanh", 1.8, 0.2, depth=4, input_moment=0.7, input_correlation=0.1)
    assert isinstance(found, Profile)
    q = 1.8 * 0.7 + 0.2
    c = (1.8 * 0.7 * 0.1 + 0.2) / q
    for layer in range(4):
        assert found.variance[layer] == pytest.approx(q, rel=QUADRATURE)
        assert found.correlation[layer] == pytest.approx(c, abs=QUADRATURE)
        q, c = network.variance_map(q), network.correlation_map(c, q)
        assert found.second_moment[layer] == pytest.approx((q - 0.2) / 1.8)
    assert found.gradient[-1] == 1
    slopes = [1.8 * network.gain_backward(q) ** -2 for q in found.variance[:-1]]
    assert found.gradient[0] == pytest.approx(math.prod(slopes), rel=QUADRATURE)


@pytest.mark.parametrize("name", ["relu", "tanh", "sin", "sigmoid"])
def test_expectations_of_fields_are_those_of_their_entries(name):
    # The map of second moments by a layer without weights of its own.
    of = Expectation(name)
    for decades in (0.1, 2, 8):
        field = np.logspace(0.5 - decades, 0.5, 60).reshape(6, 10)
        field[0, 0] = 0
        same = Convolution(1.0, 0.0, 1.0, np.ones(1), (60,), (np.arange(60)[:, None],))
        _, (found,) = propagate_variances([of], [same], field.ravel())
        expected = np.array([of.square(q) for q in field.ravel().tolist()])
        assert found == pytest.approx(expected, abs=1e-6 * expected.max())


def test_a_profile_of_unequal_layers():
    functions = ["relu", jnp.sin, "identity"]
    found = profile(
        functions, np.array([2.0, 1.0, 0.5]), [0, 0.1, 0], widths=[8, 6, 4, 2]
    )
    first = 2.0
    second = first / 2 + 0.1
    third = 0.5 * (1 - math.exp(-2 * second)) / 2
    assert found.variance == pytest.approx([first, second, third], rel=QUADRATURE)
    back = 0.5 * 2 / 4 * (1 + math.exp(-2 * second)) / 2
    assert found.gradient == pytest.approx([4 / 6 / 2 * back, back, 1], rel=QUADRATURE)
    assert found.correlation is None
    assert profile("relu", 1, depth=3, input_moment=0).variance == pytest.approx(0)


# The square of an activation of a normal variable has a relative variance of at most 5
# (relu: E[f^4] / E[f^2]^2 - 1 = 5), and so has (w f')^2 for normal w. A layer of n
# units adds 5 / n to the relative variance of the next one's signal, as much to that of
# a gradient, which also feels that of the signal; measuring adds 2 / n. The maps here
# do not amplify: d log V / d log q <= 1. A correlation is a ratio of such means.
WIDTH, DEPTH, SEEDS = 2048, 4, 8
DEVIATION = 5 * math.sqrt((2 * 5 * DEPTH + 2) / (WIDTH * SEEDS))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "weight", "bias"), [(jnp.tanh, 2.0, 0.1), (jax.nn.relu, 2.0, 0.05)]
)
def test_wide_networks_are_as_predicted(function, weight, bias):
    c = 0.3
    x = np.ones(WIDTH, np.float32)
    x[::2] = -1
    y = c * x
    y[::4], y[1::4] = (y[::4] + math.sqrt(1 - c**2), y[1::4] + math.sqrt(1 - c**2))
    y[2::4], y[3::4] = (y[2::4] - math.sqrt(1 - c**2), y[3::4] - math.sqrt(1 - c**2))
    assert (y**2).mean() == pytest.approx(1) and (x * y).mean() == pytest.approx(c)

    @jax.jit
    def measure(key):
        inputs = jnp.stack([x, y], axis=1)  # [features, 2]
        zeros = [jnp.zeros((WIDTH, 2))] * DEPTH
        *keys, last = jax.random.split(key, 2 * DEPTH + 1)

        def network(shifts):
            before, outputs = inputs, []
            for layer, shift in enumerate(shifts):
                w = jax.random.normal(keys[2 * layer], (WIDTH, WIDTH))
                b = jax.random.normal(keys[2 * layer + 1], (WIDTH, 1))
                z = math.sqrt(weight / WIDTH) * w @ before + math.sqrt(bias) * b + shift
                before = function(z)
                outputs.append(z)
            return outputs

        outputs, pullback = jax.vjp(network, zeros)
        cotangent = [*zeros[1:], jax.random.normal(last, (WIDTH, 2))]
        (gradients,) = pullback(cotangent)
        z, d = jnp.stack(outputs), jnp.stack(gradients)  # [layers, features, 2]
        return (z**2).mean((1, 2)), z.prod(2).mean(1), (d**2).mean((1, 2))

    found = [measure(key) for key in jax.random.split(jax.random.key(0), SEEDS)]
    variance, product, gradient = np.mean(found, axis=0)
    expected = profile(function, weight, bias, depth=DEPTH, input_correlation=c)
    assert variance == pytest.approx(expected.variance, rel=DEVIATION)
    assert product / variance == pytest.approx(expected.correlation, abs=DEVIATION)
    assert gradient / gradient[-1] == pytest.approx(expected.gradient, rel=DEVIATION)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (
            lambda: MeanField("tanh", -1),
            ValueError,
            r"^MeanField\(weight_variance=-1\): weight_variance must be 0 or above",
        ),
        (lambda: MeanField("tanh", 0), ValueError, "weight_variance must be above 0"),
        (lambda: MeanField("tanh", 1, -0.1), ValueError, "bias_variance must be 0 or"),
        (
            lambda: MeanField("tanhh", 1),
            ValueError,
            r"^MeanField\(activation='tanhh'\): .*Did you mean 'tanh'",
        ),
        (
            lambda: MeanField(("relu", 0.1), 1),
            ValueError,
            r"^MeanField\(param=0.1\): only 'celu', 'elu', 'leaky_relu' take",
        ),
        (
            lambda: MeanField(3, 1),
            TypeError,
            r"^MeanField\(activation=3\): activation must be a name, a \(name, param",
        ),
        (
            lambda: MeanField(lambda z: z[:5], 1),
            ValueError,
            "the activation must work on each entry alone and keep the shape",
        ),
        (lambda: MeanField(jnp.fft.fft, 1), ValueError, "activation must be real"),
        (
            lambda: MeanField(jnp.log, 1),
            ValueError,
            "the activation must give a number for every real number",
        ),
        (
            lambda: MeanField(jnp.sign, 1, derivative=1.0),
            TypeError,
            r"^MeanField\(derivative=1.0\): derivative must be a function",
        ),
        (
            lambda: MeanField(jnp.sign, 1, derivative=jnp.sum),
            ValueError,
            "the derivative must work on each entry alone",
        ),
        (
            lambda: MeanField("relu", 1).variance_map(-1),
            ValueError,
            r"^MeanField\.variance_map\(q=-1\): q must be 0 or above",
        ),
        (lambda: MeanField("relu", 1).gain_forward(-1), ValueError, "gain_forward"),
        (lambda: MeanField("relu", 1).gain_backward(-1), ValueError, "gain_backward"),
        (
            lambda: MeanField("relu", 1).correlation_map(1.2),
            ValueError,
            r"^MeanField\.correlation_map\(c=1.2\): c must lie between -1 and 1",
        ),
        (
            lambda: MeanField("relu", 1).correlation_map(1, -1),
            ValueError,
            r"^MeanField\.correlation_map\(q=-1\): q must be 0 or above",
        ),
        (
            lambda: critical_weight_variance("gelu"),
            ValueError,
            r"^critical_weight_variance\(activation='gelu'\): no weight_variance has "
            "slope 1 at a variance that q = 1 leads to",
        ),
        (lambda: critical_weight_variance(jnp.sign), ValueError, "no weight_variance"),
        (
            lambda: critical_weight_variance("relu", -1),
            ValueError,
            r"^critical_weight_variance\(bias_variance=-1\): bias_variance must be 0",
        ),
        (
            lambda: profile("relu", 1),
            ValueError,
            r"^profile\(depth=None\): needs depth, widths or a list with an entry for",
        ),
        (
            lambda: profile(["relu"], [1, 2]),
            ValueError,
            r"^profile\(weight_variance=\[1, 2\]\): weight_variance is for 2 layers, "
            "activation for 1",
        ),
        (
            lambda: profile("relu", 1, widths=[4]),
            ValueError,
            r"^profile\(widths=\[4\]\): widths is for 0 layers",
        ),
        (lambda: profile("relu", 1, widths=[4, 0]), ValueError, "widths must be 1 or"),
        (lambda: profile("relu", 1, depth=0), ValueError, "depth must be 1 or above"),
        (lambda: profile("relu", [1, -1]), ValueError, r"^profile\(weight_variance=-1"),
        (lambda: profile("relu", 1, [-1]), ValueError, r"^profile\(bias_variance=-1"),
        (lambda: profile("rely", 1, depth=1), ValueError, "Did you mean 'relu'"),
        (
            lambda: profile("relu", 1, depth=1, input_moment=-1),
            ValueError,
            "input_moment must be 0 or above",
        ),
        (
            lambda: profile("relu", 1, depth=1, input_correlation=2),
            ValueError,
            r"^profile\(input_correlation=2\): input_correlation must lie between -1",
        ),
    ],
)
def test_messages(call, kind, message):
    with pytest.raises(kind, match=message):
        call()
