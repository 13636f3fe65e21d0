"""Claims of the singular values of deep linear networks."""

import math
from typing import Any

import flax.linen as nn
import jax
import numpy as np

import jaxinit
from bench.claims.claim import Claim, Quantity, between, near
from bench.claims.networks import KEY, Perceptron, check, draw_inputs


def _multiply(init: Any, depth: int, width: int, seeds: int) -> np.ndarray:
    """Multiplies the weights of linear networks.

    # [seeds, width, width]
    """
    draw = jax.jit(lambda key: init(key, (width, width)))
    products = []
    for seed in jax.random.split(jax.random.key(KEY), seeds):
        product = np.eye(width)
        for key in jax.random.split(seed, depth):
            product = product @ np.asarray(draw(key), np.float64)
        products.append(product)
    return np.stack(products)


def _vary(products: np.ndarray) -> np.ndarray:
    """Computes the variance of squared singular values over their squared mean."""
    square = products.swapaxes(1, 2) @ products
    mean = np.trace(square, axis1=1, axis2=2) / square.shape[1]
    variance: np.ndarray = (square**2).sum(axis=(1, 2)) / square.shape[1] / mean**2 - 1
    return variance


def _measure_pennington(quick: bool) -> list[Quantity]:
    width, seeds = (16, 3) if quick else (200, 20)
    orthogonal = jaxinit.orthogonal()
    normal = jaxinit.variance_scaling(1, "fan_in", "normal")
    what = "variance of squared singular values over their squared mean"
    gaussian = [
        near(
            f"{what}, Gaussian, {depth} layers",
            _vary(_multiply(normal, depth, width, seeds)),
            depth,
            within=0.1,
        )
        for depth in (4, 16)
    ]
    rotated = _vary(_multiply(orthogonal, 16, width, seeds))
    return [*gaussian, near(f"{what}, orthogonal, 16 layers", rotated, 0, within=1e-3)]


def _measure_saxe(quick: bool) -> list[Quantity]:
    width, depth, seeds = (8, 4, 3) if quick else (32, 64, 10)
    x = draw_inputs(1, width)
    linear = Perceptron(depth, width, jax.nn.identity, jaxinit.orthogonal())
    jacobian = check(linear, x, seeds, jacobian=seeds).jacobian
    normal = jaxinit.variance_scaling(1, "fan_in", "normal")
    products = _multiply(normal, depth, width, seeds)
    spectra = np.linalg.svd(products, compute_uv=False)  # [seeds, width]
    small = (spectra < spectra[:, :1] / 100).mean(axis=1)
    return [
        near("largest singular value, orthogonal", jacobian["largest"], 1, within=1e-3),
        near("their mean square, orthogonal", jacobian["mean_square"], 1, within=1e-3),
        near(
            "share below a hundredth of the largest, Gaussian",
            small,
            _predict_share(depth, width),
            within=0.1,
            says="by Newman's Lyapunov exponents",
        ),
    ]


def _predict_share(depth: int, width: int) -> float:
    """Predicts the share of singular values below a hundredth of the largest.

    Singular value i of a product of L Gaussian matrices of variance 1/n grows as
    exp(L λ_i), λ_i = (log(2 / n) + ψ((n − i + 1) / 2)) / 2 (Newman 1986).
    """
    halves = (width - np.arange(width)) / 2
    growth = depth * np.asarray(jax.scipy.special.digamma(halves), np.float64) / 2
    return float((growth < growth[0] - math.log(100)).mean())


class _Convolutions(nn.Module):
    """Linear convolutions of 3×3."""

    depth: int
    channels: int
    kernel_init: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images to images of the same shape."""

        def convolve(conv: nn.Module, x: jax.Array) -> tuple[jax.Array, None]:
            return conv(x), None

        layers = nn.scan(
            convolve,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=self.depth,
        )
        conv = nn.Conv(self.channels, (3, 3), kernel_init=self.kernel_init)
        x, _ = layers(conv, x)
        return x


def _measure_xiao(quick: bool) -> list[Quantity]:
    size, channels, depth, seeds = (4, 4, 3, 3) if quick else (8, 8, 64, 5)
    x = draw_inputs(1, size, size, channels)

    def measure(init: Any) -> dict[str, np.ndarray]:
        model = _Convolutions(depth, channels, init)
        jacobian: dict[str, np.ndarray] = check(model, x, seeds, seeds).jacobian
        return jacobian

    delta = measure(jaxinit.delta_orthogonal())
    normal = measure(jaxinit.variance_scaling(1, "fan_in", "normal"))
    spread = normal["largest"] ** 2 / normal["mean_square"]
    return [
        near("largest singular value, delta", delta["largest"], 1, within=1e-3),
        near("their mean square, delta", delta["mean_square"], 1, within=1e-3),
        between("largest squared over mean square, Gaussian", spread, depth / 2),
    ]


CLAIMS = (
    Claim(
        name="pennington",
        source="Pennington, Schoenholz, Ganguli 2017, §2.4",
        link="https://arxiv.org/abs/1711.04735",
        claim="In a linear network of L Gaussian layers the variance of squared "
        "singular values, over their squared mean, is L; with "
        "orthogonal layers it is 0.",
        setup="200 wide, L = 4 and 16, 20 seeds; products of weights drawn by "
        "`variance_scaling(1, 'fan_in', 'normal')` and `orthogonal()`, in float64.",
        measure=_measure_pennington,
    ),
    Claim(
        name="saxe",
        source="Saxe, McClelland, Ganguli 2014, §3",
        link="https://arxiv.org/abs/1312.6120",
        claim="A product of orthogonal weights has all singular values 1 at any depth; "
        "that of scaled Gaussian weights has most of them near 0 and a few large ones.",
        setup="32 wide, 64 linear layers, 10 seeds; `check(jacobian=10)` for "
        "`orthogonal()`, products in float64 for the Gaussian.",
        measure=_measure_saxe,
    ),
    Claim(
        name="xiao",
        source="Xiao, Bahri, Sohl-Dickstein, Schoenholz, Pennington 2018, §3",
        link="https://arxiv.org/abs/1806.05393",
        claim="Delta-orthogonal convolutions are isometries at any depth, Gaussian "
        "ones are not.",
        setup="64 linear convolutions 3×3 of 8 channels on 8×8, 5 seeds; "
        "`check(jacobian=5)` with `delta_orthogonal()`.",
        measure=_measure_xiao,
    ),
)
