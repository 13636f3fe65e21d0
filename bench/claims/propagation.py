"""Claims of how variances pass through plain networks."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxinit
from bench.claims.claim import Claim, Quantity, between, geometric_mean, near
from bench.claims.networks import KEY, Perceptron, Stack, check, draw_inputs, read
from jaxinit.signal.theory import MeanField

_VGG_B = (64, 64, 128, 128, 256, 256, 512, 512, 512, 512)


def _measure_glorot(quick: bool) -> list[Quantity]:
    width, seeds = (64, 3) if quick else (1000, 10)
    x = draw_inputs(16, width, scale=0.01)  # the linear regime of tanh

    def measure(init: Any) -> Any:
        report = check(Perceptron(6, width, jnp.tanh, init), x, seeds)
        gradient = read(report, "gradient_std")
        return (gradient[0] / gradient[-1]) ** 2

    what = "backward variance, layer 1 over layer 6"
    usual = measure(jaxinit.torch.linear())
    ours = measure(jaxinit.glorot_uniform())
    return [
        near(f"{what}, U(±1/√n)", usual, 3**-5, within=0.1, says="3⁻⁵"),
        near(f"{what}, Xavier", ours, 1, within=0.1),
    ]


def _measure_he(quick: bool) -> list[Quantity]:
    channels = (8,) * 4 if quick else _VGG_B
    size, seeds = (16, 3) if quick else (32, 5)
    x = draw_inputs(2, size, size, 3)

    def measure(init: Any, key: int) -> Any:
        report = check(Stack(channels, init), x, seeds, key=key)
        gradient = read(report, "gradient_std", "conv")
        return gradient[0] / gradient[-1]

    he = measure(jaxinit.variance_scaling(2, "fan_out", "normal"), KEY)
    small = measure(jaxinit.normal(0.01), KEY + 1)
    exact = math.prod(math.sqrt(2 / (9 * c)) / 0.01 for c in channels[1:])
    what = "gradient that reaches conv2 from conv10, He's over that of std 0.01"
    says = "1.7·10⁴; exactly Π √(2 / 9c) / 0.01"
    return [
        near(
            what,
            he / small,
            exact,
            within=0.1,
            says=says,
            statistic=geometric_mean,
        )
    ]


def _relative_variance(lengths: Any, axis: int | None = None) -> Any:
    return np.var(lengths, axis=axis) / np.mean(lengths, axis=axis) ** 2


def _draw_lengths(depth: int, width: int, nets: int) -> np.ndarray:
    """Draws mean squares behind the last relu, for an input of mean square 1."""
    init = jaxinit.variance_scaling(2, "fan_in", "normal")

    def pass_layer(x: jax.Array, key: jax.Array) -> tuple[jax.Array, None]:
        return jax.nn.relu(x @ init(key, (width, width))), None

    def run(key: jax.Array) -> jax.Array:
        x, _ = jax.lax.scan(pass_layer, jnp.ones(width), jax.random.split(key, depth))
        return jnp.mean(x**2)

    keys = jax.random.split(jax.random.key(KEY), nets)
    program = jax.jit(lambda keys: jax.lax.map(run, keys, batch_size=min(50, nets)))
    return np.asarray(program(keys), np.float64)


def _measure_hanin(quick: bool) -> list[Quantity]:
    width, nets = (20, 50) if quick else (100, 6000)
    shallow, deep = _draw_lengths(4, width, nets), _draw_lengths(16, width, nets)
    exact = [(1 + 5 / width) ** depth - 1 for depth in (4, 16)]
    what = "variance of the mean length over its squared mean"
    of: dict[str, Any] = {"says": "Π (1 + 5/n) − 1", "statistic": _relative_variance}
    return [
        near("mean length behind 16 layers", deep, 1, within=0.1),
        near(f"{what}, 4 layers", shallow, exact[0], within=0.15, **of),
        near(f"{what}, 16 layers", deep, exact[1], within=0.3, **of),
    ]


def _measure_kumar(quick: bool) -> list[Quantity]:
    width, seeds = (64, 3) if quick else (500, 10)
    slope = float(jax.grad(jax.nn.sigmoid)(0.0))
    number = 1 / (slope * math.sqrt(1 + float(jax.nn.sigmoid(0.0)) ** 2))
    x = draw_inputs(16, width)

    def measure(gain: float) -> Any:
        init = jaxinit.variance_scaling(gain**2, "fan_in", "normal")
        report = check(Perceptron(10, width, jax.nn.sigmoid, init), x, seeds)
        gradient = read(report, "gradient_std")
        return (gradient[0] / gradient[-1]) ** (1 / 9)

    ours, xavier = measure(number), measure(1)
    theory = MeanField("sigmoid", number**2).slope ** 0.5
    what = "gradient's factor per sigmoid layer"
    return [
        near("std · √n", number, 3.6, within=0.02, says="1 / (¼ √1.25)"),
        near(
            f"{what}, Xavier",
            xavier,
            MeanField("sigmoid", 1).slope ** 0.5,
            within=0.05,
            says="mean-field theory",
        ),
        near(f"{what}, 3.6/√n", ours, theory, within=0.05, says="mean-field theory"),
        between(f"{what}, 3.6/√n over Xavier", ours / xavier, 2),
    ]


def _measure_sussillo(quick: bool) -> list[Quantity]:
    width, depth, seeds = (32, 8, 3) if quick else (100, 100, 100)
    x = draw_inputs(1, width)

    def measure(activation: Any, gain: float) -> Any:
        init = jaxinit.variance_scaling(gain**2, "fan_in", "normal")
        report = check(Perceptron(depth, width, activation, init), x, seeds)
        gradient = read(report, "gradient_rms")
        return np.log(gradient[0] / gradient[-1]) / (depth - 1)

    relu = math.sqrt(2) * math.exp(1.2 / (width - 2.4))
    linear = math.exp(1 / (2 * width))
    drift = "drift of E log |gradient| per layer"
    margin = 0.003
    he, lecun = (measure(f, g) for f, g in ((jax.nn.relu, 2**0.5), (_keep, 1)))
    return [
        near(
            f"{drift}, relu, g = {relu:.4f}",
            measure(jax.nn.relu, relu),
            0,
            within=margin,
        ),
        near(
            f"{drift}, linear, g = {linear:.4f}",
            measure(_keep, linear),
            0,
            within=margin,
        ),
        between(
            f"{drift}, relu, g = √2",
            he,
            high=-0.006,
            says=f"−{math.log(relu / 2**0.5):.4f}",
        ),
        between(
            f"{drift}, linear, g = 1",
            lecun,
            high=-0.0025,
            says=f"−{math.log(linear):.4f}",
        ),
    ]


def _keep(x: jax.Array) -> jax.Array:
    return x


CLAIMS = (
    Claim(
        name="glorot",
        source="Glorot, Bengio 2010, §4.2, Fig. 7",
        link="https://proceedings.mlr.press/v9/glorot10a.html",
        claim="With weights U(±1/√n) the variance of back-propagated gradients falls "
        "by 3 at each layer; Xavier's weights keep it.",
        setup="6 tanh layers of 1000, 16 inputs of std 0.01 (the linear regime), 10 "
        "seeds; `check` with `torch.linear()` and `glorot_uniform()`.",
        measure=_measure_glorot,
    ),
    Claim(
        name="he",
        source="He, Zhang, Ren, Sun 2015, §2.2",
        link="https://arxiv.org/abs/1502.01852",
        claim="In a VGG of ten convolutions with weights of std 0.01, the gradient "
        "that conv10 sends to conv2 is 1/(1.7·10⁴) of what it is with He's weights.",
        setup="model B's ten 3×3 convolutions, relu, pooling behind each pair, 2 "
        "images of 32×32, 5 seeds, other keys for each arm; `check`, gradients at "
        "the outputs of conv1 and conv10.",
        measure=_measure_he,
    ),
    Claim(
        name="hanin",
        source="Hanin, Rolnick 2018, Theorem 5",
        link="https://arxiv.org/abs/1803.01719",
        claim="Weights of variance 2/fan_in keep the mean length of activations, and "
        "its relative variance over initializations is governed by Σ 1/n_l.",
        setup="relu, width 100, depths 4 and 16, 6000 networks each; drawn with "
        "`variance_scaling(2, 'fan_in', 'normal')`. The law of the length is heavy-"
        "tailed: hence 30 % at depth 16.",
        measure=_measure_hanin,
    ),
    Claim(
        name="kumar",
        source="Kumar 2017, §3 (sigmoid)",
        link="https://arxiv.org/abs/1704.08863",
        claim="Sigmoid layers want weights of std 3.6/√n, with which gradients vanish "
        "far more slowly than with Xavier's.",
        setup="the formula, with JAX's derivative; 10 sigmoid layers of 500, 16 "
        "inputs, 10 seeds; `check` beside `signal.theory.MeanField`.",
        measure=_measure_kumar,
    ),
    Claim(
        name="sussillo",
        source="Sussillo, Abbott 2014, §3",
        link="https://arxiv.org/abs/1412.6558",
        claim="The logarithm of a back-propagated gradient's norm drifts with depth "
        "unless the gain is √2 exp(1.2 / (n − 2.4)) for relu, exp(1 / 2n) for linear "
        "layers.",
        setup="100 layers of 100, one input, 100 seeds; `check` with "
        "`variance_scaling(g², 'fan_in', 'normal')`.",
        measure=_measure_sussillo,
    ),
)
