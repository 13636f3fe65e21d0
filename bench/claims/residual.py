"""Claims of residual networks and norms at initialization."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import jaxinit
from bench.claims.claim import Claim, Quantity, between, geometric_mean, near
from bench.claims.networks import KEY, check, draw_inputs

_GAUSSIAN = jaxinit.variance_scaling(1, "fan_in", "normal")


class _Block(nn.Module):
    """A block x + branch, of one kind: "plain", "batch" or "free" of norms."""

    kind: str
    channels: int
    number: int = 0  # blocks before it
    alpha: float = 0.5

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images to images of the same shape."""
        conv = nn.Conv(
            self.channels,
            (3, 3),
            use_bias=False,
            padding="CIRCULAR",
            kernel_init=_GAUSSIAN,
        )
        if self.kind == "batch":
            each = tuple(range(x.ndim - 1))
            spread = jnp.std(x, axis=each) + 1e-6
            return x + conv(nn.relu((x - x.mean(axis=each)) / spread) * math.sqrt(2))
        if self.kind == "plain":
            return x + conv(nn.relu(x) * math.sqrt(2))
        kernel = self.param(
            "kernel", _GAUSSIAN, (3, 3, self.channels, self.channels), x.dtype
        )
        inputs = kernel.size / self.channels
        center = kernel - kernel.mean(axis=(0, 1, 2))
        kernel = center / (jnp.std(kernel, axis=(0, 1, 2)) * math.sqrt(inputs))
        beta = math.sqrt(1 + self.number * self.alpha**2)
        signal = jaxinit.gain(_center_relu) * nn.relu(x / beta)
        wrapped = jnp.pad(signal, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="wrap")
        branch = jax.lax.conv_general_dilated(
            wrapped, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return x + self.alpha * branch


def _center_relu(z: jax.Array) -> jax.Array:
    """Centers relu as weights of mean 0 do: less its mean for normal inputs."""
    return jax.nn.relu(z) - 1 / math.sqrt(2 * math.pi)


class _Blocks(nn.Module):
    kind: str
    channels: int
    depth: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images to images of the same shape."""
        for number in range(self.depth):
            x = _Block(self.kind, self.channels, number)(x)
        return x


def _measure_variances(kind: str, quick: bool) -> np.ndarray:  # [blocks, seeds]
    size, channels, depth, seeds = (4, 8, 3, 3) if quick else (8, 32, 16, 10)
    x = draw_inputs(8, size, size, channels)
    report = check(_Blocks(kind, channels, depth), x, seeds)
    blocks = [layer for layer in report.layers if layer.path.startswith("_Block")]
    modules = [layer for layer in blocks if layer.kind == "module"]
    variances: np.ndarray = np.stack([x.values("rms") for x in modules]) ** 2
    return variances


def _measure_brock(quick: bool) -> list[Quantity]:
    variance = _measure_variances("free", quick)
    depth = len(variance)
    return [
        near(
            "gain of relu",
            jaxinit.gain(_center_relu),
            1.7129,
            within=1e-3,
            says="√(2 / (1 − 1/π))",
        ),
        near(
            f"variance behind {depth} blocks, α = ½",
            variance[-1],
            1 + depth / 4,
            within=0.1,
            says="1 + l α²",
        ),
    ]


def _measure_de(quick: bool) -> list[Quantity]:
    plain, batch = (_measure_variances(kind, quick) for kind in ("plain", "batch"))
    depth = len(plain)
    factor = (plain[-1] / plain[0]) ** (1 / (depth - 1))
    return [
        near("factor of the variance per block, no norm", factor, 2, within=0.1),
        near(
            f"variance behind {depth} blocks, batch norm",
            batch[-1],
            1 + depth,
            within=0.1,
            says="1 + l",
        ),
    ]


class _Plain(nn.Module):
    """Relu layers of a scalar, with residual connections if asked; one output."""

    depth: int
    width: int
    residual: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps inputs to outputs.

        # [points, 1] -> [points, 1]
        """
        he = jaxinit.variance_scaling(2, "fan_in", "normal")
        bias = jaxinit.normal(math.sqrt(2 / self.width))
        x = nn.Dense(self.width, kernel_init=he, bias_init=bias)(x)
        for _ in range(self.depth - 1):
            z = x
            if self.residual:  # batch norm on the branch
                z = (x - x.mean(axis=0)) / (jnp.std(x, axis=0) + 1e-6)
            z = nn.Dense(self.width, kernel_init=he, bias_init=bias)(nn.relu(z))
            x = x + 0.1 * z if self.residual else z
        return nn.Dense(1, kernel_init=he)(nn.relu(x))


def _correlate_gradients(depth: int, residual: bool, quick: bool) -> np.ndarray:
    """Computes the correlation of df/dx at neighbors on a line, for each seed."""
    width, points, seeds = (16, 32, 3) if quick else (200, 256, 20)
    depth = min(depth, 3) if quick else depth
    x = jnp.linspace(-2, 2, points)[:, None]
    model = _Plain(depth, width, residual)

    def run(key: jax.Array) -> jax.Array:
        params = model.init(key, x)
        return jax.grad(lambda x: model.apply(params, x).sum())(x)[:, 0]

    program = jax.jit(run)
    keys = jax.random.split(jax.random.key(KEY), seeds)
    gradients = [np.asarray(program(key), np.float64) for key in keys]
    return np.array([np.corrcoef(g[1:], g[:-1])[0, 1] for g in gradients])


def _measure_balduzzi(quick: bool) -> list[Quantity]:
    shallow, deep, residual = (
        _correlate_gradients(depth, skip, quick)
        for depth, skip in ((1, False), (24, False), (50, True))
    )
    what = "correlation of neighbors' gradients"
    return [
        between(f"{what}, 1 layer", shallow, 0.9, says="brown noise"),
        between(f"{what}, 24 layers", deep, high=0.6, says="toward white noise"),
        between(f"{what}, 50 residual layers", residual, 0.7),
        between("50 residual layers less 24 plain ones", residual - deep, 0.1),
    ]


class _Encoder(nn.Module):
    """A transformer's blocks on vectors, with a norm behind or before each branch."""

    depth: int
    width: int
    before: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps sequences to sequences of logits."""
        xavier = jaxinit.glorot_normal()

        def attend(x: jax.Array) -> jax.Array:
            y: jax.Array = nn.SelfAttention(1, kernel_init=xavier)(x)
            return y

        def feed(name: str) -> Callable[[jax.Array], jax.Array]:
            hidden = nn.Dense(self.width, kernel_init=xavier, name=f"{name}_in")
            out = nn.Dense(self.width, kernel_init=xavier, name=f"{name}_out")
            return lambda x: out(nn.relu(hidden(x)))

        for number in range(self.depth):
            for branch in (attend, feed(f"feed{number}")):
                if self.before:
                    x = x + branch(nn.LayerNorm()(x))
                else:
                    x = nn.LayerNorm()(x + branch(x))
        if self.before:
            x = nn.LayerNorm()(x)
        return nn.Dense(self.width, kernel_init=xavier, name="logits")(x)


def _measure_xiong(quick: bool) -> list[Quantity]:
    width, seeds = (16, 3) if quick else (64, 10)
    depths = (1, 2) if quick else (4, 16)
    x = draw_inputs(4, 8, width)

    def cross_entropy(z: jax.Array) -> jax.Array:
        labels = jnp.arange(z.shape[0] * z.shape[1]).reshape(z.shape[:2]) % z.shape[2]
        chosen = jnp.take_along_axis(jax.nn.log_softmax(z), labels[..., None], -1)
        return -chosen.mean()

    def measure(before: bool, depth: int) -> np.ndarray:
        report = jaxinit.check(
            _Encoder(depth, width, before),
            x,
            key=jax.random.key(KEY),
            seeds=seeds,
            loss=cross_entropy,
            jacobian=0,
        )
        path = f"feed{depth - 1}_out"
        (layer,) = (layer for layer in report.layers if layer.path.endswith(path))
        return layer.values("gradient_weight_std")

    pre, post = ([measure(before, d) for d in depths] for before in (True, False))
    what = "gradient of the last feed-forward weight"
    ratio: dict[str, Any] = {"statistic": geometric_mean}
    fall = math.sqrt(depths[1] / depths[0])
    few, many = f"{depths[0]} blocks", f"{depths[1]} blocks"
    return [
        near(
            f"{what}, pre-LN, {few} over {many}",
            pre[0] / pre[1],
            fall,
            within=0.15,
            says="√4",
            **ratio,
        ),
        near(
            f"{what}, post-LN, {few} over {many}",
            post[0] / post[1],
            1,
            within=0.15,
            **ratio,
        ),
        between(f"{what}, {many}, post-LN over pre-LN", post[1] / pre[1], 2, **ratio),
    ]


CLAIMS = (
    Claim(
        name="brock",
        source="Brock, De, Smith 2021, §3–4, Figs. 1–2",
        link="https://arxiv.org/abs/2101.08692",
        claim="With standardized weights relu's gain is √(2 / (1 − 1/π)), and blocks "
        "h + α f(h/β) without norms give the variance 1 + l α².",
        setup="`gain` of relu less its mean; 16 blocks of one 3×3 convolution of 32 "
        "channels on 8 images of 8×8, circular, α = ½, 10 seeds; `check`.",
        measure=_measure_brock,
    ),
    Claim(
        name="de",
        source="De, Smith 2020, §3; Zhang, Dauphin, Ma 2019, §2",
        link="https://arxiv.org/abs/2002.10444",
        claim="Without norms the variance of residual networks doubles at each block; "
        "batch norm on the branches makes it 1 + l.",
        setup="as `brock`, blocks h + conv(√2 relu(h)), without and with batch norm.",
        measure=_measure_de,
    ),
    Claim(
        name="balduzzi",
        source="Balduzzi, Frean, Leary, Lewis, Ma, McWilliams 2017, Fig. 1, §3",
        link="https://arxiv.org/abs/1702.08591",
        claim="Gradients at neighboring inputs decorrelate with depth in plain relu "
        "networks, like white noise, far less in residual ones, like brown noise.",
        setup="df/dx of scalar relu networks 200 wide at 256 points in [−2, 2], 20 "
        "seeds: 1 layer, 24 layers, 50 residual layers (batch norm, branch × 0.1); "
        "lag-1 autocorrelation. Biases N(0, 2/n): without them nothing bends but at 0.",
        measure=_measure_balduzzi,
    ),
    Claim(
        name="xiong",
        source="Xiong, Yang, He, et al. 2020, Theorem 1, Fig. 3",
        link="https://arxiv.org/abs/2002.04745",
        claim="At initialization the last layer's feed-forward gradient does not "
        "depend on the depth L of a post-LN transformer; with pre-LN it falls as 1/√L.",
        setup="4 and 16 blocks of 64, one head, as wide within, Xavier; 4 "
        "sequences of 8 vectors, cross-entropy, 10 seeds; `check`.",
        measure=_measure_xiong,
    ),
)
