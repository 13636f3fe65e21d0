"""Claims of mean-field theory: fixed points, depth scales, and networks made to fit."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxinit
from bench.claims.claim import Claim, NotHere, Quantity, near
from bench.claims.networks import Activation, Perceptron, check, draw_inputs, read
from jaxinit.signal.theory import MeanField, critical_weight_variance

_BIAS = 0.05  # variance of the biases of Schoenholz et al.


def _measure_schoenholz(quick: bool) -> list[Quantity]:
    width, depth, seeds = (64, 8, 3) if quick else (500, 60, 10)
    critical = critical_weight_variance("tanh", _BIAS)
    quantities = [near("critical weight variance", critical, 1.76, within=0.01)]
    scales = {1.25: 6.80, 1.5: 15.8, 1.7: 74.9, 2.0: 25.2, 2.5: 11.8, 4.0: 6.98}
    for weight, exact in scales.items():
        theory = MeanField("tanh", weight, _BIAS).depth_scale_correlation
        quantities.append(near(f"ξ_c at {weight}, theory", theory, exact, within=0.01))
    x = draw_inputs(4, width)
    reports = {
        weight: _check_tanh(weight, depth, x, seeds)
        for weight in (1.25, 1.5, critical, 4.0)
    }
    for weight in (1.25, 1.5):
        distance = read(reports[weight], "distance")[depth // 2 :]
        scale = _fit_scale(distance)
        what = f"ξ_c at {weight}, by the decay of 1 − c"
        quantities.append(near(what, scale, scales[weight], within=0.15))
    chaotic = MeanField("tanh", 4.0, _BIAS).fixed_correlation
    ended = 1 - read(reports[4.0], "distance")[depth // 2 :].mean(axis=0)
    variance = (read(reports[critical], "rms")[depth // 2 :] ** 2).mean(axis=0)
    return [
        *quantities,
        near("c* at 4.0", ended, chaotic, within=0.1, says="theory"),
        near("q* where critical", variance, 0.57, within=0.05),
    ]


def _check_tanh(weight: float, depth: int, x: jax.Array, seeds: int) -> Any:
    init = jaxinit.variance_scaling(weight, "fan_in", "normal")
    bias = jaxinit.normal(math.sqrt(_BIAS))
    return check(Perceptron(depth, x.shape[1], jnp.tanh, init, bias), x, seeds)


def _fit_scale(distances: np.ndarray) -> np.ndarray:
    """Fits layers per factor e to 1 − c.

    # [layers, seeds] -> [seeds]
    """
    slopes = np.polyfit(np.arange(len(distances)), np.log(distances), 1)[0]
    scales: np.ndarray = -1 / slopes
    return scales


def _measure_selu(quick: bool) -> list[Quantity]:
    width, depth, seeds = (64, 8, 3) if quick else (500, 50, 10)
    quantities = [
        near(
            "fixed variance, theory",
            MeanField(jax.nn.selu, 1).fixed_point,
            1,
            within=1e-3,
        )
    ]
    network = Perceptron(depth, width, jax.nn.selu, jaxinit.lecun_normal())
    for variance in (0.8, 1.5):
        x = draw_inputs(16, width, scale=math.sqrt(variance))
        report = check(network, x, seeds)
        mean, std = (read(report, name, "module")[-1] for name in ("mean", "std"))
        quantities += [
            near(f"mean behind {depth} layers from {variance}", mean, 0, within=0.05),
            near(f"variance behind them from {variance}", std**2, 1, within=0.05),
        ]
    return quantities


def _measure_dks(quick: bool) -> list[Quantity]:
    width, depth, seeds = (64, 8, 3) if quick else (256, 100, 10)
    zeta = 1.5
    activation = transform_tanh(zeta ** (1 / depth))
    field = MeanField(activation, 1)
    x = draw_inputs(1, width)
    x = x / jnp.sqrt(jnp.mean(x**2))
    # Two inputs of mean square 1 whose cosine is 1 - 1/200.
    other = draw_inputs(2, width)[1:]
    other -= x * jnp.mean(x * other)
    other /= jnp.sqrt(jnp.mean(other**2))
    close = 0.1
    pair = jnp.concatenate([x, x * math.sqrt(1 - close**2) + other * close])
    network = Perceptron(depth, width, activation, jaxinit.orthogonal())
    report = check(network, pair, seeds)
    distance = read(report, "distance", "module")
    rms = read(report, "rms", "module")[-1]
    start = float(1 - jnp.mean(pair[0] * pair[1]))
    what = f"of {depth} layers of transformed tanh"
    return [
        near(
            "slope per layer, theory",
            field.slope,
            zeta ** (1 / depth),
            within=1e-3,
            says="1.5^(1/100)",
        ),
        near(
            f"C'(1) {what}, by two close inputs", distance[-1] / start, zeta, within=0.1
        ),
        near(f"q behind {depth} layers of transformed tanh", rms**2, 1, within=0.1),
    ]


def transform_tanh(slope: float) -> Activation:
    """Transforms tanh as deep kernel shaping does: γ (tanh(α u + β) + δ).

    For u standard normal: E f² = 1 and E f = 0, so that c = 0 stays; E f'² = slope; and
    the variance map has slope 1 at q = 1. The last two determine α and β.
    """

    def build(alpha: float, beta: float) -> Activation:
        mean = _expect(lambda u: np.tanh(alpha * u + beta))
        square = _expect(lambda u: (np.tanh(alpha * u + beta) - mean) ** 2)
        gamma = 1 / math.sqrt(square)
        return lambda u: gamma * (jnp.tanh(alpha * u + beta) - mean)

    def miss(alpha: float, beta: float) -> np.ndarray:
        def standardize(u: np.ndarray) -> np.ndarray:
            f: np.ndarray = np.tanh(alpha * u + beta)
            return f

        mean = _expect(standardize)
        square = _expect(lambda u: (standardize(u) - mean) ** 2)
        steep = _expect(lambda u: (alpha * (1 - standardize(u) ** 2)) ** 2) / square
        # d/dq E f(sqrt(q) u)² at q = 1 is E f f' u.
        growth = _expect(
            lambda u: (standardize(u) - mean) * alpha * (1 - standardize(u) ** 2) * u
        )
        return np.array([steep - slope, growth / square - 1])

    at = np.array([0.3, 0.5])
    for _ in range(100):
        value, step = miss(*at), 1e-6
        if np.abs(value).max() < 1e-10:
            return build(*at)
        columns = [(miss(*(at + d)) - value) / step for d in step * np.eye(2)]
        change = np.linalg.solve(np.stack(columns, axis=1), -value)
        at = np.maximum(at + change * min(1, 0.2 / np.abs(change).max()), 1e-3)
    raise NotHere(f"no α and β give tanh the slope {slope:g}.")


def _expect(function: Callable[[np.ndarray], np.ndarray]) -> float:
    """Computes E f(u) for u standard normal, by Gauss and Hermite."""
    u, weight = np.polynomial.hermite_e.hermegauss(100)
    return float(weight @ function(u) / weight.sum())


CLAIMS = (
    Claim(
        name="schoenholz",
        source="Schoenholz, Gilmer, Ganguli, Sohl-Dickstein 2017, Figs. 2, 5",
        link="https://arxiv.org/abs/1611.01232",
        claim="For tanh with biases of variance 0.05 the critical weight variance is "
        "1.76, and the correlation of two inputs converges as exp(−l/ξ_c).",
        setup="`MeanField` beside 60 tanh layers of 500, 4 inputs, 10 seeds: `check`'s "
        "distance 1 − c behind layer 30, fitted where it falls, c* and q* as means. "
        "Expected are the theory's integrals by an independent computation.",
        tried="30 layers of 1000, fitted from layer 10 on: ξ_c at 1.5 came out as 12.8 "
        "(11.8 to 14.1), since 1 − c is still far from its limit there; c* of layer 30 "
        "alone as 0.17 (0.15 to 0.19), too few numbers to lie within 10 %.",
        measure=_measure_schoenholz,
    ),
    Claim(
        name="selu",
        source="Klambauer, Unterthiner, Mayr, Hochreiter 2017, Theorem 1",
        link="https://arxiv.org/abs/1706.02515",
        claim="With weights of variance 1/n, mean 0 and variance 1 attract the "
        "activations of selu networks from variances in [0.8, 1.5].",
        setup="50 selu layers of 500, 16 inputs of variance 0.8 and 1.5, 10 seeds; "
        "`check` with `lecun_normal()`, and `MeanField`.",
        measure=_measure_selu,
    ),
    Claim(
        name="dks",
        source="Martens, Ballard, Desjardins, Swirszcz, Dalibard, Sohl-Dickstein, "
        "Schoenholz 2021, §7",
        link="https://arxiv.org/abs/2110.01765",
        claim="tanh, transformed by four constants, gives a network of any depth q = 1 "
        "and C'(1) = 1.5 over all its layers.",
        setup="100 transformed tanh layers of 256, two inputs of cosine 0.995, 10 "
        "seeds; `check` with `orthogonal()`, and `MeanField.slope`.",
        measure=_measure_dks,
    ),
)
