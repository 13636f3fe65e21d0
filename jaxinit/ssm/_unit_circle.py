"""Linear recurrences whose eigenvalues lie in a ring: LRU and RG-LRU."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from jaxinit import _check as check
from jaxinit._initializer import Drawn
from jaxinit.ssm._form import of_uniform, random


def _radii(low: float, high: float) -> tuple[float, float]:
    """Checks two radii, and returns their squares."""
    inner, outer = check.real(min_radius=low), check.real(max_radius=high)
    if not 0 <= inner <= 1 - 1e-7:  # above it float32 has no room for a ring
        raise check.Unfit("min_radius must lie in [0, 0.9999999].", min_radius=low)
    least = max(inner, 1e-3)
    if not least < outer <= 1:
        rule = f"max_radius must be above {least:g}, and at most 1."
        raise check.Unfit(rule, max_radius=high)
    return inner**2, outer**2


@random
def lru_nu_log(
    min_radius: float = 0.0, max_radius: float = 1.0, dtype: DTypeLike | None = None
) -> Drawn:
    """Builds an initializer of the logarithms of the decay rates of an LRU.

    Law: w = log(-log(r)), r^2 uniform on [min_radius^2, max_radius^2); Var[w] = that of
    log(-log(r)).

    The eigenvalues exp(-exp(w) + i exp(theta)) are then uniform in the ring between
    both radii. Set gamma_log by `lru_gamma_log`, which depends on these weights.

    Args:
      min_radius: the inner radius, in [0, 0.9999999].
      max_radius: the outer radius, at most 1. For long sequences 0.9 and 0.999.
      dtype: default dtype of the weights, real.

    Returns:
      An `Initializer`.

    Raises:
      ValueError: if the radii are out of order, or leave [0, 1].

    Example:
      >>> w = jaxinit.ssm.lru_nu_log(0.9, 0.999)(jax.random.key(0), (64,))
      >>> r = jnp.exp(-jnp.exp(w))
      >>> bool((r > 0.9).all() and (r < 0.999).all())
      True

    References:
      Orvieto, Smith, Gu, Fernando, Gulcehre, Pascanu, De. Resurrecting Recurrent Neural
      Networks for Long Sequences. 2023. https://arxiv.org/abs/2303.06349
    """
    low, high = _radii(min_radius, max_radius)
    # Of the draws only 0 and 1 have no logarithm of a logarithm: the nearest others do.
    low, high = max(low, 1e-7), min(high, 1 - 1e-7)
    return of_uniform(lambda squares, xp: xp.log(-0.5 * xp.log(squares)), low, high)


@random
def lru_theta_log(
    max_phase: float = 2 * math.pi, dtype: DTypeLike | None = None
) -> Drawn:
    """Builds an initializer of the logarithms of the phases of an LRU.

    Law: w = log(p), p uniform on (0, max_phase); Var[w] = 1.

    Args:
      max_phase: the largest phase, in radians, in [1e-30, 2 pi]; for long sequences
        pi / 10.
      dtype: default dtype of the weights, real.

    Returns:
      An `Initializer`.

    Raises:
      ValueError: if max_phase is not in [1e-30, 2 pi].

    Example:
      >>> w = jaxinit.ssm.lru_theta_log()(jax.random.key(0), (64,))
      >>> bool((jnp.exp(w) < 2 * jnp.pi).all())
      True

    References:
      Orvieto, Smith, Gu, Fernando, Gulcehre, Pascanu, De. Resurrecting Recurrent Neural
      Networks for Long Sequences. 2023. https://arxiv.org/abs/2303.06349
    """
    most = check.real(max_phase=max_phase)
    if not 1e-30 <= most <= 2 * math.pi:
        raise check.Unfit("max_phase must lie in [1e-30, 2 pi].", max_phase=max_phase)
    return of_uniform(lambda phases, xp: xp.log(phases), most * 1e-7, most)


def lru_gamma_log(nu_log: ArrayLike) -> jax.Array:
    """Computes the logarithms of an LRU's input normalization from its decay rates.

    gamma = sqrt(1 - |lambda|^2), |lambda| = exp(-exp(nu_log)): white noise that enters
    leaves the recurrence with the variance that it had.

    Args:
      nu_log: [...] the logarithms of the rates, as `lru_nu_log` draws them.

    Returns:
      [...] gamma_log, of the dtype of nu_log.

    Raises:
      TypeError: if nu_log is not of real numbers.

    Example:
      >>> nu = jaxinit.ssm.lru_nu_log(0.9, 0.99)(jax.random.key(0), (8,))
      >>> gamma = jnp.exp(jaxinit.ssm.lru_gamma_log(nu))
      >>> bool(jnp.allclose(gamma**2, 1 - jnp.exp(-2 * jnp.exp(nu))))
      True

    References:
      Orvieto, Smith, Gu, Fernando, Gulcehre, Pascanu, De. Resurrecting Recurrent Neural
      Networks for Long Sequences. 2023. https://arxiv.org/abs/2303.06349
    """
    try:
        rates = jnp.asarray(nu_log)
    except (TypeError, ValueError):  # no numbers at all
        rates = jnp.zeros((), bool)
    if not jnp.issubdtype(rates.dtype, np.floating):
        rule = "nu_log must hold real numbers of a float type."
        raise TypeError(f"ssm.lru_gamma_log(nu_log={check.show(nu_log)}): {rule}")
    # Near the unit circle 1 - |lambda|^2 would lose its digits.
    return 0.5 * jnp.log(-jnp.expm1(-2 * jnp.exp(rates)))


@random
def rg_lru_a(
    min_radius: float = 0.9, max_radius: float = 0.999, dtype: DTypeLike | None = None
) -> Drawn:
    """Builds an initializer of the recurrence weight of Griffin's RG-LRU.

    Law: w = log(1 / r - 1), r^2 uniform on [min_radius^2, max_radius^2); Var[w] = that
    of log(1 / r - 1).

    The layer has log(a) = -8 softplus(w) times its gate: r is exp(-softplus(w)), in the
    form in which RecurrentGemma stores it.

    Args:
      min_radius: the inner radius, in [0, 0.9999999].
      max_radius: the outer radius, at most 1.
      dtype: default dtype of the weights, real.

    Returns:
      An `Initializer`.

    Raises:
      ValueError: if the radii are out of order, or leave [0, 1].

    Example:
      >>> w = jaxinit.ssm.rg_lru_a()(jax.random.key(0), (64,))
      >>> r = jnp.exp(-jax.nn.softplus(w))
      >>> bool((r > 0.9).all() and (r < 0.999).all())
      True

    References:
      De et al. Griffin: Mixing Gated Linear Recurrences with Local Attention for
      Efficient Language Models. 2024. https://arxiv.org/abs/2402.19427
    """
    low, high = _radii(min_radius, max_radius)

    def store(squares: Any, xp: Any) -> Any:
        logs = 0.5 * xp.log(squares)  # of r
        return xp.log(xp.expm1(-logs))

    return of_uniform(store, max(low, 1e-8), min(high, 1 - 1e-7))
