"""S4D: diagonal state spaces."""

import math
from typing import Literal, get_args

import numpy as np
from jax.typing import DTypeLike

from jaxinit import _check as check
from jaxinit._initializer import Drawn
from jaxinit.ssm._form import along_last, between, fixed, of_uniform, random

Spectrum = Literal["lin", "inv", "inv2", "quad", "real"]


@fixed
def s4d(spectrum: Spectrum = "lin", dtype: DTypeLike | None = None) -> Drawn:
    """Builds an initializer of the diagonal of S4D's state matrix.

    Law: w = -1/2 + i f(n) at state n along the last axis, and -(n + 1) for "real";
    Var[w] = that of these.

    The last axis has one state of each conjugate pair, N / 2 of N. The frequencies:

    - "lin": f(n) = pi n;
    - "inv": f(n) = (N / pi) (N / (2n + 1) - 1), close to HiPPO-LegS;
    - "inv2": f(n) = (N / pi) (N / (n + 1) - 1);
    - "quad": f(n) = (2n + 1)^2 / pi.

    Layers store the logarithm of minus the real part, log(1/2), and the imaginary part
    apart: ``constant(np.log(0.5))`` and the imaginary part of this.

    Args:
      spectrum: which frequencies, or "real" for a real diagonal.
      dtype: dtype of the weights; complex, but for "real".

    Returns:
      An `Initializer`; it ignores the key.

    Raises:
      ValueError: if spectrum is unknown; at the call, if the shape has no axis, or the
        dtype is real for complex weights.

    Example:
      >>> jaxinit.ssm.s4d("real")(None, (3,)).tolist()
      [-1.0, -2.0, -3.0]

    References:
      Gu, Gupta, Goel, Ré. On the Parameterization and Initialization of Diagonal State
      Space Models. 2022. https://arxiv.org/abs/2206.11893
    """
    check.choice(get_args(Spectrum), spectrum=spectrum)

    def diagonal(count: int) -> np.ndarray:  # [count]
        n, size = np.arange(count), 2 * count
        if spectrum == "real":
            return -(n + 1.0)
        imaginary = {
            "lin": np.pi * n,
            "inv": size / np.pi * (size / (2 * n + 1) - 1),
            "inv2": size / np.pi * (size / (n + 1) - 1),
            "quad": (2 * n + 1) ** 2 / np.pi,
        }[spectrum]
        states: np.ndarray = -0.5 + 1j * imaginary
        return states

    return along_last(diagonal)


@random
def log_dt(
    low: float = 0.001, high: float = 0.1, dtype: DTypeLike | None = None
) -> Drawn:
    """Builds an initializer of the logarithms of time steps, as S4 and S5 store them.

    Law: uniform on [log(low), log(high)); Var[w] = log(high / low)^2 / 12.

    Args:
      low: the smallest step, above 0.
      high: the largest.
      dtype: default dtype of the weights, real.

    Returns:
      An `Initializer`.

    Raises:
      ValueError: if low is not above 0, or high not above low.

    Example:
      >>> steps = jnp.exp(jaxinit.ssm.log_dt()(jax.random.key(0), (64,)))
      >>> bool((steps >= 0.00099).all() and (steps <= 0.1).all())
      True

    References:
      Gu, Goel, Ré. Efficiently Modeling Long Sequences with Structured State Spaces.
      2021. https://arxiv.org/abs/2111.00396
    """
    start, stop = between(low=low, high=high)
    return of_uniform(lambda logs, xp: logs, math.log(start), math.log(stop))
