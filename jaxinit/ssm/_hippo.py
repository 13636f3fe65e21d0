"""HiPPO-LegS: the state matrix that keeps a history in Legendre polynomials."""

from typing import NamedTuple

import numpy as np
from jax.typing import DTypeLike

from jaxinit import _check as check
from jaxinit._draws import tabulated
from jaxinit._initializer import Drawn
from jaxinit.ssm._form import fixed


class Hippo(NamedTuple):
    """HiPPO-LegS of N states, and its normal-plus-low-rank and diagonal forms.

    With S = A + P P^T, which is normal: S = V diag(diagonal) V^H, in float64.

    Attributes:
      a: [N, N] the state matrix A.
      b: [N] the input vector B.
      p: [N] P, the low-rank part.
      diagonal: [N / 2] the eigenvalues of S with a negative imaginary part, one of each
        conjugate pair, in order: those of S4D-LegS, S5 and DSS.
      vectors: [N, N / 2] their orthonormal eigenvectors, columns of V.
    """

    a: np.ndarray
    b: np.ndarray
    p: np.ndarray
    diagonal: np.ndarray
    vectors: np.ndarray


def hippo(states: int) -> Hippo:
    """Computes HiPPO-LegS and its forms, in float64.

    A[n, k] is -sqrt((2n + 1)(2k + 1)) below the diagonal, -(n + 1) on it and 0 above;
    B[n] = sqrt(2n + 1); P[n] = sqrt(n + 1/2).

    Args:
      states: the number of states N, even.

    Returns:
      The matrices, as a `Hippo`.

    Raises:
      TypeError: if states is not an integer.
      ValueError: if states is odd or below 2.

    Example:
      >>> legs = jaxinit.ssm.hippo(64)
      >>> s = legs.a + np.outer(legs.p, legs.p)
      >>> bool(np.allclose(s @ legs.vectors, legs.vectors * legs.diagonal))
      True

    References:
      Gu, Dao, Ermon, Rudra, Ré. HiPPO: Recurrent Memory with Optimal Polynomial
      Projections. 2020. https://arxiv.org/abs/2008.07669
      Gu, Goel, Ré. Efficiently Modeling Long Sequences with Structured State Spaces.
      2021. https://arxiv.org/abs/2111.00396
    """
    try:
        count = check.at_least(2, states=states)
        if count % 2:
            raise check.Unfit("states must be even: they come in pairs.", states=states)
    except check.Unfit as error:
        raise error.at("ssm.hippo") from None
    a, n = _legs(count), np.arange(count)
    p = np.sqrt(n + 0.5)
    # S = -I/2 + K, K skew-symmetric: -iK is Hermitian, with exact real eigenvalues.
    skew = a + np.outer(p, p) + np.eye(count) / 2
    values, vectors = np.linalg.eigh(-1j * (skew - skew.T) / 2)
    half = count // 2  # eigh sorts: the first half has negative imaginary parts
    return Hippo(
        a=a,
        b=np.sqrt(2 * n + 1.0),
        p=p,
        diagonal=-0.5 + 1j * values[:half],
        vectors=vectors[:, :half],
    )


def _legs(states: int) -> np.ndarray:  # [states, states]
    n = np.arange(states)
    roots = np.sqrt(2 * n + 1.0)
    legs = np.outer(-roots, roots)
    np.copyto(legs, 0.0, where=~np.tri(states, dtype=bool))
    np.fill_diagonal(legs, -(n + 1.0))
    return legs


@fixed
def hippo_legs(dtype: DTypeLike | None = None) -> Drawn:
    """Builds an initializer of the state matrix of HiPPO-LegS.

    Law: w[n, k] = -sqrt((2n + 1)(2k + 1)) for n > k, -(n + 1) for n = k, else 0; Var[w]
    = that of these.

    Args:
      dtype: default dtype of the weights.

    Returns:
      An `Initializer`; it ignores the key. Axes before the last two repeat the matrix.

    Raises:
      ValueError: at the call, if the last two axes are not of one size.

    Example:
      >>> (jaxinit.ssm.hippo_legs()(None, (2, 2)) ** 2).round().tolist()
      [[1.0, 0.0], [3.0, 4.0]]

    References:
      Gu, Dao, Ermon, Rudra, Ré. HiPPO: Recurrent Memory with Optimal Polynomial
      Projections. 2020. https://arxiv.org/abs/2008.07669
    """

    def matrix(shape: tuple[int, ...]) -> np.ndarray:
        if len(shape) < 2 or shape[-1] != shape[-2]:
            rule = "needs a square matrix in the last two axes."
            raise check.Unfit(rule, shape=shape)
        return _legs(shape[-1])

    return tabulated(matrix)
