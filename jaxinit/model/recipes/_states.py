"""State spaces as rules."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit import _check as check
from jaxinit import initializers as init
from jaxinit.model._rules._traced import TracedSite
from jaxinit.model._rules.conventions import Site, Sites
from jaxinit.model._rules.defining import Law, Part, RecipeRule
from jaxinit.model._rules.reinit import Rule
from jaxinit.model.recipes._form import (
    BIAS,
    EMBEDDING,
    GAIN,
    KERNEL,
    Patterns,
    by_fans,
    by_size,
    count,
    deviation,
    every_matrix,
    named,
    torch_bias,
)

__all__ = ["mamba"]


@dataclasses.dataclass(frozen=True)
class log_uniform:  # noqa: N801  (printed in tables as what it draws)
    """Logarithms of numbers that are uniform between two others."""

    low: float
    high: float

    def __call__(self, key: jax.Array, shape: Any, dtype: Any = jnp.float32) -> Any:
        """Draws them."""
        wide = dtype if jnp.finfo(dtype).bits > 32 else jnp.float32
        numbers = jax.random.uniform(key, shape, wide, self.low, self.high)
        return jnp.log(numbers).astype(dtype)


@dataclasses.dataclass(frozen=True)
class softplus_bias:  # noqa: N801
    """Biases whose softplus is a step, the logarithm of which is uniform."""

    low: float
    high: float
    least: float = 1e-4

    def __call__(self, key: jax.Array, shape: Any, dtype: Any = jnp.float32) -> Any:
        """Draws them: softplus(step + log(1 - exp(-step))) = step."""
        wide = dtype if jnp.finfo(dtype).bits > 32 else jnp.float32
        ends = math.log(self.low), math.log(self.high)
        logarithms = jax.random.uniform(key, shape, wide, *ends)
        steps = jnp.exp(jnp.maximum(logarithms, math.log(self.least)))
        return (steps + jnp.log(-jnp.expm1(-steps))).astype(dtype)


def mamba(
    layers: int | None = None,
    *,
    residuals: int = 1,
    std: float = 0.02,
    steps: tuple[float, float] = (0.001, 0.1),
    residual: Patterns | None = None,
    rates: Patterns | None = None,
    step: Patterns | None = None,
) -> list[Rule]:
    """Mamba and Mamba-2: state spaces whose steps depend on the data.

    Law: kernels uniform on ±1 / sqrt(fan_in), those that write into the residual stream
    divided by sqrt(residuals L); embeddings N(0, std^2). The rates' logarithms A_log
    are log(1), log(2), ... log(N) along their last axis, the states of a channel
    (Mamba), or log(U(1, 16)) if they are a vector, one rate for each head (Mamba-2).
    The bias of the steps has a softplus whose logarithm is uniform between those of
    both steps, and 0.0001 at least; other biases are 0, those of convolutions uniform
    on ±1 / sqrt(fan_in). D is 1, norms 1 and 0.

    This is what the authors' code leaves, which is torch's default for what it does not
    name. The kernel that projects to the steps has U(±1 / sqrt(rank)) there too.

    Args:
      layers: the number of blocks L; by default the kernels that write into the
        residual stream, by the model's structure, are residuals L.
      residuals: the number of branches in a block: 2 if it has an MLP.
      std: standard deviation of embeddings.
      steps: the smallest and the largest step.
      residual: patterns of the kernels whose output is added to the stream; by default
        their usual names, such as ``out_proj``.
      rates: patterns of the rates' logarithms; by default parameters named ``A_log``.
      step: patterns of the steps' biases; by default those of ``dt_proj``, and
        parameters named ``dt_bias``.

    Raises:
      ValueError: if a number is out of range; in `reinit`, if a part is not found, or
        there are more states than channels.

    Example:
      >>> mixer = {"A_log": np.zeros((32, 4), np.float32), "dt_bias": np.zeros(32)}
      >>> mixer |= {"out_proj": {"kernel": np.zeros((32, 16), np.float32)}}
      >>> key = jax.random.key(0)
      >>> drawn = jaxinit.reinit(key, mixer, recipes.mamba(layers=8))
      >>> [round(float(rate), 3) for rate in jnp.exp(drawn["A_log"][0])]
      [1.0, 2.0, 3.0, 4.0]
      >>> bool(jax.nn.softplus(drawn["dt_bias"]).max() < 0.101)
      True

    References:
      Gu, Dao. Mamba: Linear-Time Sequence Modeling with Selective State Spaces. 2023.
      https://arxiv.org/abs/2312.00752
      Dao, Gu. Transformers are SSMs. 2024. https://arxiv.org/abs/2405.21060
    """
    each = count("mamba", residuals=residuals)
    ends = _read_steps(steps)

    def scale(layers: float) -> Law:
        return by_fans(1 / (3 * each * layers), "fan_in", "uniform")

    def read(sites: Sites) -> float | None:
        return getattr(sites, "writes", 0) / each or None

    small = by_size("mamba", scale, {"layers": read}, layers=layers)
    writes = [(_WRITES, "kernel that writes into the residual stream")]
    rate = [(_RATES, "logarithm of the rates, A_log")]
    words = "bias of the steps"
    biases = [(_STEPS, words), (_LOOSE_STEPS, words)]
    return [
        *named("mamba", Law(_rates), rates, rate, name="rates"),
        *named("mamba", softplus_bias(*ends), step, biases, name="step"),
        *named("mamba", small, residual, writes, name="residual"),
        RecipeRule(KERNEL, by_fans(1 / 3, "fan_in", "uniform"), every_matrix("mamba")),
        RecipeRule(EMBEDDING, init.normal(deviation("mamba", std))),
        RecipeRule(_SKIPS, 1.0),
        RecipeRule(GAIN, 1.0),
        RecipeRule(BIAS, Law(_convolution_bias)),
    ]


def _read_steps(steps: Any) -> tuple[float, float]:
    try:
        if not isinstance(steps, (tuple, list)) or len(steps) != 2:
            rule = "steps must be two numbers, the smallest and the largest step."
            raise check.Unfit(rule, TypeError, steps=steps)
        low, high = (check.real(steps=step) for step in steps)
        if not 0 < low < high:
            rule = "the smallest step must be above 0 and below the largest."
            raise check.Unfit(rule, steps=steps)
    except check.Unfit as error:
        raise error.at("recipes.mamba") from None
    return low, high


def _rates(site: Site) -> Any:
    """Returns the law of the logarithms of rates."""
    if len(site.shape) == 1:
        return log_uniform(1.0, 16.0)
    *channels, states = site.shape
    if states > max(channels, default=0):
        raise ValueError(
            f"sizes {site.shape} are read as (channels, states), and here are more "
            f"states than channels. Give it a rule of its own: ({site.path!r}, array)."
        )
    return np.broadcast_to(np.log(np.arange(1.0, states + 1)), site.shape)


def _is_step(site: Site) -> bool:
    """Returns whether a bias is that of the steps, behind which stands a softplus."""
    if not isinstance(site, TracedSite):
        return site.name == "dt_bias" or site.owner in ("dt_proj", "dt")
    kernel = site.kernel
    if not isinstance(kernel, TracedSite) or kernel.row.activation != "softplus":
        return False
    # A kernel that makes more than steps may have a bias for all of its outputs too.
    peers = [x for x in site.sites.values() if x.kind == "bias" and x.kernel is kernel]
    return site.shape == min((peer.shape for peer in peers), key=math.prod)


def _is_skip(site: Site) -> bool:
    """Returns whether a parameter is D, which multiplies what bypasses the states."""
    if not isinstance(site, TracedSite):
        return site.name == "D"
    sites: Any = site.sites
    near = sites.branches.get(site.row.branch, ())
    ours = any("state" in each.row.roles for each in near)
    return ours and "gain" in site.row.roles and not site.row.of


def _is_rate(site: Site) -> bool:
    if isinstance(site, TracedSite):
        return "state" in site.row.roles
    return site.name == "A_log"


_RATES = Part("A_log", "unknown", _is_rate)
_STEPS = Part("steps' bias", "bias", _is_step)
_LOOSE_STEPS = Part("steps' bias", "unknown", lambda site: site.name == "dt_bias")
_SKIPS = Part("D", "unknown", _is_skip)
_WRITES = Part(
    "output projection",
    "kernel",
    lambda site: (
        site.part in ("attention out", "mlp out")
        or (site.owner == "out_proj" and not isinstance(site, TracedSite))
    ),
)


def _convolution_bias(site: Site) -> Any:
    """Returns the law of a bias: 0, and torch's default behind a convolution."""
    kernel = site.kernel
    if kernel is None:
        return 0.0
    windowed = len(kernel.shape) > 2
    if isinstance(kernel, TracedSite):
        windowed = bool(kernel.row.window)
    return torch_bias(site) if windowed else 0.0
