"""The table of builders: one row or more for each, which every contract runs on.

A row holds an initializer, a shape it takes, and facts about its entries that are
worked out here apart from the package: law, mean, variance and range.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy import linalg, signal, stats

import jaxinit as ji
import jaxinit.torch as jt
from jaxinit._initializer import REGISTRY

jni = jax.nn.initializers
OWN = {
    name: builder
    for name, builder in REGISTRY.items()
    if builder.__module__.startswith("jaxinit.") and builder.registered == name
}


class Row(NamedTuple):
    init: ji.Initializer
    shape: tuple[int, ...]
    mean: float
    variance: float
    low: float = -math.inf
    high: float = math.inf
    law: Any = None  # a frozen SciPy law of independent entries
    jax: Callable[..., Any] | None = None  # whose jitted values are ours, bit for bit
    random: bool = True
    complex_: bool = True  # whether complex dtypes are taken
    traits: str = ""  # "reused": entries are not independent

    @property
    def name(self) -> str:
        return f"{self.init!r}{list(self.shape)}"


def normal_row(init, shape, stddev, peer, mean=0.0, **rest):
    law = stats.norm(mean, stddev)
    return Row(init, shape, mean, stddev**2, law=law, jax=peer, **rest)


def uniform_row(init, shape, low, high, peer, **rest):
    law = stats.uniform(low, high - low)
    return Row(init, shape, law.mean(), law.var(), low, high, law, peer, **rest)


def truncated_row(init, shape, stddev, peer, lower=-2.0, upper=2.0, mean=0.0, **rest):
    """A row of a normal law of this stddev before truncation."""
    law = stats.truncnorm(lower, upper, loc=mean, scale=stddev)
    low, high = mean + lower * stddev, mean + upper * stddev
    return Row(init, shape, law.mean(), law.var(), low, high, law, peer, **rest)


def widened(variance):
    """The stddev before truncation to two of it that gives this variance."""
    return math.sqrt(variance / stats.truncnorm(-2, 2).var())


def scaled_row(init, shape, variance, distribution, peer):
    """A row of variance scaling."""
    if distribution == "truncated_normal":
        return truncated_row(init, shape, widened(variance), peer)
    if distribution == "normal":
        return normal_row(init, shape, math.sqrt(variance), peer)
    edge = math.sqrt(3 * variance)
    return uniform_row(init, shape, -edge, edge, peer)


def share_row(init, shape, share, gain=1.0):
    """A row where a share of the entries is the gain and the rest is zero."""
    mean, variance = gain * share, gain**2 * (share - share**2)
    return Row(init, shape, mean, variance, 0, gain, random=False)


_WAVE = np.sin(-2 * np.pi * np.outer(np.arange(16), np.arange(9)) / 16)
_HANN = signal.get_window("hann", 16, False)
STFT = _WAVE * _HANN[:, None] / np.linalg.norm(_HANN)
# Draws of more axes take several times longer to compile, so that few rows have them.
DENSE, KERNEL, KERNEL_2D = (96, 160), (9, 24, 40), (3, 3, 24, 40)
IN, OUT = 9 * 24, 9 * 40  # fans of both kernels
GELU = 1 / 0.42521  # squared gain; tests/test_gain.py has its quadrature by SciPy

DETERMINISTIC = [
    Row(ji.zeros(), DENSE, 0, 0, 0, 0, jax=jni.zeros, random=False),
    Row(ji.ones(), DENSE, 1, 0, 1, 1, jax=jni.ones, random=False),
    Row(
        ji.constant(-0.3),
        DENSE,
        -0.3,
        0,
        -0.3,
        -0.3,
        jax=jni.constant(-0.3),
        random=False,
    ),
    Row(
        ji.constant([1.0, 3.0]),
        (50, 2),
        *(2, 1, 1, 3),
        jax=jni.constant(jax.numpy.array([1.0, 3.0])),
        random=False,
    ),
    Row(ji.identity(), (96, 96), 1 / 96, 1 / 96 - 1 / 96**2, 0, 1, random=False),
    share_row(ji.identity(0.5), (3, 3, 8, 16), 1 / 144, 0.5),
    share_row(ji.identity(shift=3), (96, 96), 1 / 96),
    # Four groups of ten outputs and six inputs each.
    share_row(ji.dirac(groups=4), (3, 3, 6, 40), 24 / (9 * 6 * 40)),
    Row(ji.layer_scale(), (96,), 1e-5, 0, 1e-5, 1e-5, random=False),
    Row(ji.lstm_bias(), DENSE, 1 / 4, 3 / 16, 0, 1, random=False),
    Row(
        ji.from_array(np.arange(48).reshape(16, 3)),
        (16, 3),
        *(47 / 2, (48**2 - 1) / 12, 0, 47),
        random=False,
    ),
    # Of each window axis the weights are 1/4, 3/4, 3/4, 1/4, in 8 of 8 x 16 kernels.
    Row(
        ji.bilinear(),
        (4, 4, 8, 16),
        *(4 / 256, 25 / 16 / 256 - (4 / 256) ** 2, 0, 9 / 16),
        random=False,
    ),
    Row(ji.stft("imag"), (16, 1, 9), STFT.mean(), STFT.var(), random=False),
]
DISTRIBUTIONS = [
    uniform_row(ji.uniform(), DENSE, 0, 0.01, jni.uniform(), complex_=False),
    uniform_row(ji.uniform(low=-3, high=1), DENSE, -3, 1, None, complex_=False),
    normal_row(ji.normal(), DENSE, 0.01, jni.normal()),
    normal_row(ji.normal(0.5, mean=2.0), DENSE, 0.5, None, mean=2.0),
    truncated_row(
        ji.truncated_normal(), DENSE, 0.01, jni.truncated_normal(), complex_=False
    ),
    truncated_row(
        ji.truncated_normal(0.3, lower=-1.0, upper=2.5),
        DENSE,
        0.3,
        jni.truncated_normal(0.3, lower=-1.0, upper=2.5),
        lower=-1.0,
        upper=2.5,
        complex_=False,
    ),
    truncated_row(
        ji.truncated_normal(2.0, lower=2.0, upper=3.0, mean=1.0),
        DENSE,
        2.0,
        None,
        lower=2.0,
        upper=3.0,
        mean=1.0,
        complex_=False,
    ),
]


def scaling(scale, mode, n, law):
    init = ji.variance_scaling(scale, mode, law)
    return scaled_row(
        init, DENSE, scale / n, law, jni.variance_scaling(scale, mode, law)
    )


CORRECTED = 0.3 / stats.truncnorm(-2, 2).std()
BOUNDED = [
    truncated_row(
        ji.truncated_normal(0.5, mean=1.0, low=0.25, high=3.0),
        DENSE,
        0.5,
        None,
        lower=-1.5,
        upper=4.0,
        mean=1.0,
        complex_=False,
    ),
    truncated_row(
        ji.truncated_normal(0.3, corrected=True), DENSE, CORRECTED, None, complex_=False
    ),
]
SCALINGS = [
    scaling(0.7, "fan_out", 160, "truncated_normal"),
    scaling(3.0, "fan_geo_avg", math.sqrt(96 * 160), "normal"),
    scaling(2.0, "fan_avg", 128, "uniform"),
]
TRUNCATED, UNIFORM = "truncated_normal", "uniform"
PRESETS = [
    scaled_row(ji.glorot_uniform(), DENSE, 1 / 128, UNIFORM, jni.glorot_uniform()),
    scaled_row(ji.glorot_normal(), DENSE, 1 / 128, TRUNCATED, jni.glorot_normal()),
    scaled_row(ji.lecun_uniform(), DENSE, 1 / 96, UNIFORM, jni.lecun_uniform()),
    scaled_row(ji.lecun_normal(), DENSE, 1 / 96, TRUNCATED, jni.lecun_normal()),
    scaled_row(ji.he_uniform(), DENSE, 2 / 96, UNIFORM, jni.he_uniform()),
    scaled_row(ji.he_normal(), KERNEL_2D, 2 / IN, TRUNCATED, jni.he_normal()),
    scaled_row(
        ji.he_normal(-1, 0, (1,)),
        (40, 5, 24),
        2 / 24,
        TRUNCATED,
        jni.he_normal(-1, 0, (1,)),
    ),
    scaled_row(ji.he_normal(gain="gelu"), DENSE, GELU / 96, TRUNCATED, None),
    scaled_row(
        ji.he_normal(mode="fan_out", groups=4, strides=2),
        KERNEL,
        *(2 / (OUT / 4 / 2), TRUNCATED, None),
    ),
    scaled_row(
        ji.glorot_uniform(strides=(2,), transposed=True),
        KERNEL,
        *(2 / (IN / 2 + OUT), UNIFORM, None),
    ),
    scaled_row(ji.uniform_unit_scaling(1.5), DENSE, 2.25 / 96, UNIFORM, None),
]
# Small, since matrices compile by their blocks; test_matrices.py has larger ones.
STRUCTURED = [
    Row(ji.orthogonal(), (16, 40), 0, 1 / 40, traits="reused"),
    Row(ji.orthogonal(2.0, 0, gain="relu"), (40, 2, 8), 0, 8 / 40, traits="reused"),
    Row(
        ji.orthogonal(method="qr"),
        (160, 64),
        *(0, 1 / 160),
        jax=jni.orthogonal(),
        traits="reused",
    ),
    Row(ji.orthogonal(batch_axis=0), (6, 24, 16), 0, 1 / 24, traits="reused"),
    Row(ji.stacked(ji.orthogonal(), 1), (24, 3, 16), 0, 1 / 24, traits="reused"),
    scaled_row(ji.stacked(ji.he_normal()), (6, 40, 64), 2 / 40, TRUNCATED, None),
    Row(ji.delta_orthogonal(3.0), (3, 8, 16), 0, 9 / 3 / 16, traits="reused"),
    Row(
        ji.delta_orthogonal(method="qr"),
        KERNEL,
        *(0, 1 / 9 / 40),
        jax=jni.delta_orthogonal(),
        traits="reused",
    ),
    Row(ji.sparse(0.75, 0.2), (96, 160), 0, 0.04 / 4, traits="reused"),
    Row(ji.scaled_uniform_orthogonal(1.5), (16, 64), 0, 2.25 / 16, traits="reused"),
    Row(ji.conv_orthogonal(2.0), (2, 2, 8, 16), 0, 4 / 4 / 16, traits="reused"),
    Row(ji.conv_orthogonal(), (2, 8, 16), 0, 1 / 2 / 16, traits="reused"),
    Row(
        ji.scaled_uniform_orthogonal(gain="relu"),
        (3, 8, 16),
        *(0, 2 / 8 / 3),
        traits="reused",
    ),
]


def half_he(key, shape, dtype):
    return jni.he_normal()(key, shape, dtype) * 0.5


def moved_glorot(key, shape, dtype):
    return (1 - jni.glorot_uniform()(key, shape, dtype) * 3) / 7


MOVED = 3 / 7 * math.sqrt(3 / 128)  # half the width of the law
COMPUTED = [
    truncated_row(ji.he_normal() * 0.5, DENSE, widened(1 / 2 / 96), half_he),
    uniform_row(
        (1 - ji.glorot_uniform() * 3) / 7,
        DENSE,
        1 / 7 - MOVED,
        1 / 7 + MOVED,
        moved_glorot,
        complex_=False,
    ),
    normal_row(-ji.normal(0.5) + 2, DENSE, 0.5, None, mean=2.0),
    Row(ji.ones() * 3 - 1, DENSE, 2, 0, 2, 2, random=False),
]


def log_row(init, shape, low, high):
    law = stats.loguniform(low, high)
    return Row(init, shape, law.mean(), law.var(), low, high, law, complex_=False)


PLANE = np.arange(60.0).reshape(6, 10)
TAKEN = PLANE[::2][:, [0, 3, 6, 9]]
SINES = np.arange(40)[:, None] * 10_000.0 ** (-np.arange(32) / 32)
WAVES = np.concatenate([np.sin(SINES), np.cos(SINES)], 1)
# Of the Hadamard matrix of size 64, 24 rows and 40 columns, in the middle of 3 taps.
SIGNS = linalg.hadamard(64)[:24, :40] / 8 / 3
CONVEX = 6 * (math.pi - 1) + 3 * math.sqrt(3) + 2 * math.pi - 6  # for a fan of 2
RAISED = math.log(1 + CONVEX / 6 / math.pi)  # squared stddev of the logarithm
LOGNORMAL = stats.lognorm(
    math.sqrt(RAISED), scale=math.sqrt(3 * math.pi / CONVEX) * math.exp(-RAISED / 2)
)
FIELDS = [
    uniform_row(ji.fan_uniform(2.0), DENSE, -2 / 96, 2 / 96, None, complex_=False),
    uniform_row(ji.siren(first=True), DENSE, -1 / 96, 1 / 96, None, complex_=False),
    uniform_row(ji.siren(), DENSE, -1 / 120, 1 / 120, None),
    normal_row(ji.fourier_features(), DENSE, 10.0, None),
    log_row(ji.log_uniform(2**-10, 2**-3), DENSE, 2**-10, 2**-3),
    normal_row(ji.spectral(), (160, 96), math.sqrt(0.6 / 160), None),
    Row(
        ji.convex(),
        (2, 40_000),
        LOGNORMAL.mean(),
        1 / 2,
        0,
        law=LOGNORMAL,
        complex_=False,
    ),
    Row(ji.convex_bias(2), (96,), -math.sqrt(6 / CONVEX), 0, -1, 0, random=False),
    Row(ji.permutation(), (3, 32, 32), 1 / 32, 31 / 32**2, 0, 1, traits="reused"),
    Row(
        ji.hadamard(),
        (3, 24, 40),
        *(SIGNS.mean(), (SIGNS**2).mean() * 3 - SIGNS.mean() ** 2, -1 / 8, 1 / 8),
        random=False,
    ),
    Row(ji.sinusoidal(), (40, 64), WAVES.mean(), WAVES.var(), -1, 1, random=False),
    Row(ji.linspace(3, 6), (5, 7), 4.5, 1.0, 3, 6, random=False),
    Row(ji.selected(PLANE), (3, 4), TAKEN.mean(), TAKEN.var(), 0, 57, random=False),
]


def mapped_row(init, shape, function, low, high, **rest):
    """A row of a monotonic function of a uniform number."""
    law = stats.uniform(low, high - low)
    mean = law.expect(function)
    variance = law.expect(lambda u: (function(u) - mean) ** 2)
    ends = sorted((float(function(low)), float(function(high))))
    return Row(init, shape, mean, variance, *ends, complex_=False, **rest)


def unsoftplus(logs):
    steps = np.exp(np.maximum(logs, math.log(1e-4)))
    return np.log(np.expm1(steps))


LEGS = np.array([[-1, 0, 0], [-(3**0.5), -2, 0], [-(5**0.5), -(15**0.5), -3]])
LOG_STEPS = math.log(0.001), math.log(0.1)
LINES = -0.5 + 1j * np.pi * np.arange(8)
STATES = [
    Row(
        ji.ssm.mamba_a_log(),
        (6, 16),
        *(np.log(np.r_[1:17]).mean(), np.log(np.r_[1:17]).var(), 0, math.log(16)),
        random=False,
    ),
    mapped_row(ji.ssm.mamba2_a_log(), DENSE, np.log, 1, 16),
    mapped_row(ji.ssm.mamba_dt_bias(), DENSE, unsoftplus, *LOG_STEPS),
    uniform_row(ji.ssm.mamba_dt_kernel(), (16, 512), -1 / 4, 1 / 4, None),
    uniform_row(ji.ssm.log_dt(), DENSE, *LOG_STEPS, None, complex_=False),
    Row(ji.ssm.s4d("real"), (3, 32), -16.5, (32**2 - 1) / 12, -32, -1, random=False),
    Row(ji.ssm.hippo_legs(), (3, 3), LEGS.mean(), LEGS.var(), -4, 0, random=False),
    mapped_row(
        ji.ssm.lru_nu_log(0.9, 0.999),
        DENSE,
        lambda r: np.log(-np.log(r) / 2),
        0.9**2,
        0.999**2,
    ),
    mapped_row(ji.ssm.lru_theta_log(), DENSE, np.log, 2e-7 * math.pi, 2 * math.pi),
    mapped_row(
        ji.ssm.rg_lru_a(), DENSE, lambda r: np.log(r**-0.5 - 1), 0.9**2, 0.999**2
    ),
    Row(
        ji.chrono(100),
        DENSE,
        0,
        stats.uniform(1, 98).expect(lambda u: np.log(u) ** 2) / 2,
        -math.log(99),
        math.log(99),
        traits="reused",
        complex_=False,
    ),
]
STRIPES = (True, False, True, True)
COMBINED = [
    Row(
        ji.concatenated([ji.normal(1.0), ji.normal(2.0, mean=1.0)], sizes=[32, 96]),
        (96, 128),
        *(0.75, 0.25 + 0.75 * 5 - 0.75**2),
    ),
    Row(ji.concatenated([ji.he_normal(), ji.zeros()], 0), (96, 64), 0, 1 / 48),
    Row(ji.blocks(ji.he_normal(), 4), (64, 160), 0, 2 / 16 / 4),
    Row(ji.looks_linear(ji.orthogonal()), (32, 16), 0, 1 / 16, traits="reused"),
    Row(ji.normalized(ji.normal(), norm=2.0), DENSE, 0, 4 / 96, -2, 2),
    Row(ji.centered(ji.he_normal()), (3, 64, 80), 0, 2 / 64 / 3),
    Row(ji.repeated(ji.he_normal(), 4), (48, 160), 0, 2 / 48, traits="reused"),
    Row(
        ji.repeated(ji.he_normal(), tiled=True, axis=0) / 3,
        (3, 40, 64),
        0,
        2 / 360,
        traits="reused",
    ),
    truncated_row(ji.transposed(ji.he_normal()), DENSE, widened(2 / 160), None),
    Row(ji.masked(ji.normal(2.0), STRIPES), (4000, 4), 0, 3),
    Row(ji.orthogonal(groups=4), (16, 64), 0, 1 / 16, traits="reused"),
]
OWN_WAYS = {  # the others compose these, or, as method="qr", take those of JAX
    *(ji.orthogonal(), ji.sparse(0.75, 0.2), ji.stacked(ji.he_normal())),
}
TORCH_DENSE = (160, 96)
EDGE = 1 / 8  # of the layers whose fan_in is 64
TORCH = [
    Row(jt.zeros(), DENSE, 0, 0, 0, 0, random=False),
    Row(jt.ones(), DENSE, 1, 0, 1, 1, random=False),
    Row(jt.constant(0.3), DENSE, 0.3, 0, 0.3, 0.3, random=False),
    share_row(jt.eye(), (96, 96), 1 / 96),
    share_row(jt.dirac(2, layout="torch"), (40, 12, 4, 4), 24 / (40 * 12 * 16)),
    uniform_row(jt.uniform(-1, 3), DENSE, -1, 3, None, complex_=False),
    normal_row(jt.normal(2.0, 0.5), DENSE, 0.5, None, mean=2.0),
    truncated_row(
        jt.trunc_normal(1.0, 0.5, 0.25, 3.0),
        *(DENSE, 0.5, None),
        lower=-1.5,
        upper=4.0,
        mean=1.0,
        complex_=False,
    ),
    scaled_row(jt.xavier_uniform(layout="torch"), TORCH_DENSE, 2 / 256, UNIFORM, None),
    scaled_row(jt.xavier_normal("relu"), DENSE, 4 / 256, "normal", None),
    scaled_row(jt.kaiming_uniform(0.2), DENSE, 2 / 1.04 / 96, UNIFORM, None),
    scaled_row(
        jt.kaiming_normal(mode="fan_out", layout="torch"),
        *(TORCH_DENSE, 2 / 160, "normal", None),
    ),
    Row(jt.orthogonal(layout="torch"), (40, 8, 3), 0, 1 / 40, traits="reused"),
    Row(jt.sparse(0.75, 0.2), (96, 160), 0, 0.04 / 4, traits="reused"),
    uniform_row(jt.linear(), (64, 160), -EDGE, EDGE, None),
    uniform_row(jt.conv_transpose(), (240, 64), -EDGE, EDGE, None),
    uniform_row(jt.bias(64), DENSE, -EDGE, EDGE, None, complex_=False),
    uniform_row(jt.rnn(64), DENSE, -EDGE, EDGE, None, complex_=False),
    uniform_row(jt.attention(), (96, 96), -EDGE, EDGE, None, complex_=False),
    Row(jt.embedding(padding_idx=0), DENSE, 0, 95 / 96),
]
ROWS = [
    *DETERMINISTIC,
    *DISTRIBUTIONS,
    *BOUNDED,
    *SCALINGS,
    *PRESETS,
    *STRUCTURED,
    *COMPUTED,
    *COMBINED,
    *FIELDS,
    *STATES,
    *TORCH,
]
RANDOM = [row for row in ROWS if row.random]
# One row of each way to draw, for what depends on the draw and not on the scale.
DRAWS = [DISTRIBUTIONS[0], DISTRIBUTIONS[2], *SCALINGS, *STRUCTURED]
# What the default run leaves out where a contract compiles several programs: rows that
# draw as one of these does, at another scale, shape or layout.
MAIN = [
    *(DETERMINISTIC[i] for i in (0, 3, 7, 12)),
    *(DISTRIBUTIONS[0], DISTRIBUTIONS[2], BOUNDED[0], SCALINGS[0]),
    *(row for row in STRUCTURED if row.init in OWN_WAYS),
    TORCH[-1],  # with a row of zeros
]
# What it has at least: a law of entries with bounds, and matrices.
FEW = [SCALINGS[0], STRUCTURED[0]]
# All but matrices in other forms, which take long to compile even one by one.
SOON = [row for row in ROWS if row.traits != "reused" or row in MAIN]
