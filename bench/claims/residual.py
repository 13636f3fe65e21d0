"""Claims of residual networks and norms at initialization."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import jaxinit
from bench.claims.claim import Claim, Quantity, between, geometric_mean, near
from bench.claims.networks import KEY, check, draw_inputs, read

_GAUSSIAN = jaxinit.variance_scaling(1, "fan_in", "normal")
_HE = jaxinit.variance_scaling(2, "fan_in", "normal")
_XAVIER = jaxinit.glorot_normal()
_ALPHA = 0.5  # of blocks without norms


class _Convolution(nn.Module):
    """A circular convolution of 3×3, with standardized weights if asked."""

    channels: int
    standardized: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images to images of the same shape."""
        shape = (3, 3, self.channels, self.channels)
        kernel = self.param("kernel", _GAUSSIAN, shape, x.dtype)
        if self.standardized:
            center = kernel - kernel.mean(axis=(0, 1, 2))
            fan_in = kernel.size / self.channels
            kernel = center / (jnp.std(kernel, axis=(0, 1, 2)) * math.sqrt(fan_in))
        wrapped = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="wrap")
        axes = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            wrapped, kernel, (1, 1), "VALID", dimension_numbers=axes
        )


class _Block(nn.Module):
    """A block x + branch, of one kind: "plain", "batch" or "free" of norms."""

    kind: str
    channels: int

    @nn.compact
    def __call__(self, x: jax.Array, beta: jax.Array) -> tuple[jax.Array, None]:
        """Maps images to images of the same shape, in the form that `nn.scan` takes."""
        signal = x
        if self.kind == "batch":
            each = tuple(range(x.ndim - 1))
            signal = (x - x.mean(axis=each)) / (jnp.std(x, axis=each) + 1e-6)
        free = self.kind == "free"
        gain = jaxinit.gain(_center_relu if free else "relu")
        branch = _Convolution(self.channels, free)(gain * nn.relu(signal / beta))
        return x + (_ALPHA if free else 1.0) * branch, None


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
        before = jnp.arange(self.depth, dtype=x.dtype)
        beta = (
            jnp.sqrt(1 + before * _ALPHA**2) if self.kind == "free" else 1 + 0 * before
        )
        x, _ = _scan(_Block, self.depth)(self.kind, self.channels)(x, beta)
        return x


def _measure_variances(kind: str, quick: bool) -> np.ndarray:  # [blocks, seeds]
    size, channels, depth, seeds = (4, 8, 3, 3) if quick else (8, 32, 16, 10)
    x = draw_inputs(8, size, size, channels)
    report = check(_Blocks(kind, channels, depth), x, seeds)
    variances: np.ndarray = read(report, "rms", "module") ** 2
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


class _Step(nn.Module):
    """A relu layer, on a branch with batch norm if asked, as `nn.scan` takes it."""

    width: int
    residual: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, None]:
        """Maps signals of all points to the next ones."""
        z = (x - x.mean(axis=0)) / (jnp.std(x, axis=0) + 1e-6) if self.residual else x
        z = nn.Dense(self.width, kernel_init=_HE, bias_init=_bias(self.width))(
            nn.relu(z)
        )
        return (x + 0.1 * z if self.residual else z), None


def _bias(fan_in: int) -> Any:
    """Draws biases by the law of the weights, so that kinks lie all over the line."""
    return jaxinit.normal(math.sqrt(2 / fan_in))


class _Line(nn.Module):
    """Relu layers of a scalar, with residual connections if asked; one output."""

    depth: int
    width: int
    residual: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps inputs to outputs.

        # [points, 1] -> [points, 1]
        """
        x = nn.Dense(self.width, kernel_init=_HE, bias_init=_bias(1))(x)
        if self.depth > 1:
            x, _ = _scan(_Step, self.depth - 1)(self.width, self.residual)(x)
        return nn.Dense(1, kernel_init=_HE)(nn.relu(x))


def _correlate_gradients(depth: int, residual: bool, quick: bool) -> np.ndarray:
    """Computes the correlation of df/dx at neighbors on a line, for each seed."""
    width, points, seeds = (16, 32, 3) if quick else (200, 256, 20)
    depth = min(depth, 3) if quick else depth
    x = jnp.linspace(-2, 2, points)[:, None]
    model: Any = _Line(depth, width, residual)

    def run(key: jax.Array) -> Any:
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


class _Mixer(nn.Module):
    """A transformer's block, with a norm behind or before each branch."""

    width: int
    before: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, None]:
        """Maps sequences to sequences, in the form that `nn.scan` takes."""
        hidden = nn.Dense(self.width, kernel_init=_XAVIER, name="inner")
        outer = nn.Dense(self.width, kernel_init=_XAVIER, name="outer")
        attend = nn.MultiHeadDotProductAttention(1, kernel_init=_XAVIER)
        branches: tuple[Any, ...] = (attend, lambda x: outer(nn.relu(hidden(x))))
        for branch in branches:
            if self.before:
                x = x + branch(nn.LayerNorm()(x))
            else:
                x = nn.LayerNorm()(x + branch(x))
        return x, None


class _Encoder(nn.Module):
    depth: int
    width: int
    before: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps sequences of vectors to sequences of logits."""
        x, _ = _scan(_Mixer, self.depth)(self.width, self.before, name="blocks")(x)
        if self.before:
            x = nn.LayerNorm()(x)
        return nn.Dense(self.width, kernel_init=_XAVIER)(x)


def _scan(block: Any, depth: int) -> Any:
    """Stacks blocks with parameters of their own."""
    return nn.scan(
        block,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        length=depth,
    )


def _measure_xiong(quick: bool) -> list[Quantity]:
    width, seeds = (16, 3) if quick else (64, 10)
    depths = (1, 2) if quick else (6, 24)
    x = draw_inputs(4, 8, width)
    labels = jnp.arange(32).reshape(4, 8) % width

    def measure(before: bool, depth: int) -> np.ndarray:
        model: Any = _Encoder(depth, width, before)

        def compute_loss(params: Any) -> Any:
            z = jax.nn.log_softmax(model.apply(params, x))
            return -jnp.take_along_axis(z, labels[..., None], -1).mean()

        def run(key: jax.Array) -> Any:
            gradient = jax.grad(compute_loss)(model.init(key, x))
            last = gradient["params"]["blocks"]["outer"]["kernel"][-1]
            return jnp.linalg.norm(last)

        keys = jax.random.split(jax.random.key(KEY), seeds)
        return np.asarray(jax.lax.map(run, keys), np.float64)

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
        "lag-1 autocorrelation. Biases N(0, 2/fan_in), as the weights.",
        tried="biases of the first layer N(0, 2/200): kinks then lie within 0.1 of the "
        "origin, and neighbors' gradients correlate by 0.87 (0.81 to 0.92) behind 24 "
        "layers.",
        measure=_measure_balduzzi,
    ),
    Claim(
        name="xiong",
        source="Xiong, Yang, He, et al. 2020, Theorem 1, Fig. 3",
        link="https://arxiv.org/abs/2002.04745",
        claim="At initialization the last layer's feed-forward gradient does not "
        "depend on the depth L of a post-LN transformer; with pre-LN it falls as 1/√L.",
        setup="6 and 24 blocks of 64, one head, as wide within, Xavier; 4 "
        "sequences of 8 vectors, cross-entropy, 10 seeds. The gradient is JAX's: "
        "`check` has none at the weights of scanned layers.",
        measure=_measure_xiong,
        tried="nothing else. The ratio of post-LN at two depths is 1 within its noise: "
        "10 seeds are too few for an interval within 15 %.",
    ),
)
