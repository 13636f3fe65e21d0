"""How low-rank adapters begin: from chance, from the weight or from its gradient.

Weights are [..., inputs, outputs], as in JAX: an adapter (a, b) adds scale a b, a being
[..., inputs, rank] and b [..., rank, outputs]. Axes before the last two count layers.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxinit import _check as check
from jaxinit.initializers import normal, variance_scaling
from jaxinit.lora._adapter import Adapter, as_array, gather, read

_OVERSAMPLED = 10  # directions beyond the rank that a randomized SVD looks at


def lora(
    key: jax.Array,
    w: ArrayLike,
    rank: int,
    alpha: float | None = None,
    *,
    rank_stabilized: bool = False,
    law: str = "uniform",
) -> Adapter:
    """Begins an adapter that adds nothing: a is random, b is zero.

    Law: a uniform on (-1 / sqrt(inputs), 1 / sqrt(inputs)), or N(0, 1 / rank^2); b = 0.

    Args:
      key: a PRNG key.
      w: [..., inputs, outputs] the weight.
      rank: the rank of the adapter, from 1 to the smaller size of w.
      alpha: the scale is alpha / rank; by default 1.
      rank_stabilized: whether the scale is alpha / sqrt(rank) (rsLoRA).
      law: "uniform", as in the authors' code, or "normal", as in the paper.

    Returns:
      The weight, which stays as it is, and its adapter.

    Raises:
      TypeError: if rank is not an integer.
      ValueError: if w is no matrix, rank does not fit it, alpha is 0 or law unknown.

    Example:
      >>> adapter = jaxinit.lora.lora(jax.random.key(0), jnp.ones((64, 32)), 4, 8.0)
      >>> adapter.scale, adapter.a.shape, float(abs(adapter.b).max())
      (2.0, (64, 4), 0.0)

    References:
      Hu, Shen, Wallis, Allen-Zhu, Li, Wang, Wang, Chen. LoRA: Low-Rank Adaptation of
      Large Language Models. 2021. https://arxiv.org/abs/2106.09685
      Kalajdzievski. A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA.
      2023. https://arxiv.org/abs/2312.03732
    """
    form = read("lora", w, rank, alpha, rank_stabilized)
    try:
        key = check.key(key)
        check.choice(("uniform", "normal"), law=law)
    except check.Unfit as error:
        raise error.at("lora.lora") from None
    wide = form.dtype
    init = normal(1 / rank)
    if law == "uniform":
        init = variance_scaling(1 / 3, "fan_in", "uniform", batch_axis=_stack(form.w))
    a = init(key, (*form.w.shape[:-1], rank), wide)
    return form.keep(a, jnp.zeros((*form.w.shape[:-2], rank, form.outputs), wide))


def _stack(w: jax.Array) -> tuple[int, ...]:
    """Returns the axes that count layers."""
    return tuple(range(w.ndim - 2))


def orthogonal(
    key: jax.Array,
    w: ArrayLike,
    rank: int,
    alpha: float | None = None,
    *,
    rank_stabilized: bool = False,
) -> Adapter:
    """Begins an adapter that adds nothing though neither half is zero.

    Law: a = N Q1 / 10 and b = Q2^T M / 10, N and M standard normal, Q1 and Q2 the odd
    and the even rows of one random orthogonal matrix, so that a b = 0.

    Args:
      key: a PRNG key.
      w: [..., inputs, outputs] the weight.
      rank: the rank of the adapter, even.
      alpha: the scale is alpha / rank; by default 1.
      rank_stabilized: whether the scale is alpha / sqrt(rank).

    Returns:
      The weight, which stays as it is to rounding, and its adapter.

    Raises:
      TypeError: if rank is not an integer.
      ValueError: if w is no matrix, rank is odd or does not fit w, or alpha is 0.

    Example:
      >>> adapter = jaxinit.lora.orthogonal(jax.random.key(0), jnp.ones((64, 32)), 4)
      >>> bool(abs(adapter.a @ adapter.b).max() < 1e-6 < abs(adapter.b).max())
      True

    References:
      Hugging Face. PEFT: parameter-efficient fine-tuning, init_lora_weights
      "orthogonal". 2025. https://github.com/huggingface/peft
    """
    form = read("orthogonal", w, rank, alpha, rank_stabilized)
    try:
        key = check.key(key)
        if rank % 2:
            raise check.Unfit("rank must be even.", rank=rank)
    except check.Unfit as error:
        raise error.at("lora.orthogonal") from None
    wide, stack = form.dtype, form.w.shape[:-2]
    turn, left, right = jax.random.split(key, 3)
    rows = jnp.linalg.qr(jax.random.normal(turn, (*stack, rank, rank), wide))[0]
    first, second = rows[..., ::2, :], rows[..., 1::2, :]
    a = jax.random.normal(left, (*stack, form.inputs, rank // 2), wide) @ first
    b = second.mT @ jax.random.normal(right, (*stack, rank // 2, form.outputs), wide)
    return form.keep(a / 10, b / 10)


def pissa(
    w: ArrayLike,
    rank: int,
    alpha: float | None = None,
    *,
    rank_stabilized: bool = False,
    key: jax.Array | None = None,
    iterations: int = 4,
) -> Adapter:
    """Begins an adapter with the principal part of a weight, which trains fastest.

    a = U sqrt(S / scale), b = sqrt(S / scale) V^T of the largest singular values; the
    weight loses scale a b.

    Args:
      w: [..., inputs, outputs] the weight.
      rank: the rank of the adapter, from 1 to the smaller size of w.
      alpha: the scale is alpha / rank; by default 1.
      rank_stabilized: whether the scale is alpha / sqrt(rank).
      key: with one, the singular vectors are those of a randomized SVD, which costs a
        few products with w and not a factorization of it; by default they are exact.
      iterations: passes of a randomized SVD over w, 0 or above: more of them separate
        singular values that lie close together.

    Returns:
      What is left of the weight, and its adapter; their sum is the weight in both ways.

    Raises:
      TypeError: if rank or iterations is not an integer.
      ValueError: if w is no matrix, rank does not fit it, or alpha is 0.

    Example:
      >>> w = jax.random.normal(jax.random.key(0), (64, 32))
      >>> adapter = jaxinit.lora.pissa(w, 4)
      >>> bool(jnp.allclose(adapter.merged, w, atol=1e-5))
      True

    References:
      Meng, Wang, Zhang. PiSSA: Principal Singular Values and Singular Vectors
      Adaptation of Large Language Models. 2024. https://arxiv.org/abs/2404.02948
      Halko, Martinsson, Tropp. Finding structure with randomness. 2009.
      https://arxiv.org/abs/0909.4061
    """
    form = read("pissa", w, rank, alpha, rank_stabilized)
    u, s, vt = _leading(form.wide, rank, key, iterations, "pissa")
    root = jnp.sqrt(s / form.scale) if form.scale > 0 else None
    if root is None:
        raise check.Unfit("alpha must be above 0.", alpha=alpha).at("lora.pissa")
    return form.split(u * root[..., None, :], root[..., :, None] * vt)


def _leading(
    w: jax.Array, rank: int, key: jax.Array | None, iterations: int, method: str
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the leading left singular vectors, singular values and right ones."""
    try:
        check.at_least(0, iterations=iterations)
        used = None if key is None else check.key(key)
    except check.Unfit as error:
        raise error.at(f"lora.{method}") from None
    if used is None:
        u, s, vt = jnp.linalg.svd(w, full_matrices=False)
    else:
        u, s, vt = _randomized(
            used, w, min(rank + _OVERSAMPLED, *w.shape[-2:]), iterations
        )
    return u[..., :rank], s[..., :rank], vt[..., :rank, :]


@jax.jit(static_argnums=(2, 3))
def _randomized(key: jax.Array, w: jax.Array, width: int, iterations: int) -> Any:
    """Computes a singular value decomposition within the range of a random product."""
    seen = w @ jax.random.normal(key, (*w.shape[:-2], w.shape[-1], width), w.dtype)
    basis = jnp.linalg.qr(seen)[0]
    for _ in range(iterations):
        back = jnp.linalg.qr(w.mT @ basis)[0]
        basis = jnp.linalg.qr(w @ back)[0]
    u, s, vt = jnp.linalg.svd(basis.mT @ w, full_matrices=False)
    return basis @ u, s, vt


def olora(
    w: ArrayLike,
    rank: int,
    alpha: float | None = None,
    *,
    rank_stabilized: bool = False,
) -> Adapter:
    """Begins an adapter with orthonormal outputs, by a QR factorization of a weight.

    w^T = Q R: b = the first columns of Q, transposed, a = the first rows of R,
    transposed; the weight loses scale a b.

    Args:
      w: [..., inputs, outputs] the weight.
      rank: the rank of the adapter, from 1 to the smaller size of w.
      alpha: the scale is alpha / rank; by default 1.
      rank_stabilized: whether the scale is alpha / sqrt(rank).

    Returns:
      What is left of the weight, and its adapter.

    Raises:
      TypeError: if rank is not an integer.
      ValueError: if w is no matrix, rank does not fit it, or alpha is 0.

    Example:
      >>> w = jax.random.normal(jax.random.key(0), (64, 32))
      >>> adapter = jaxinit.lora.olora(w, 4)
      >>> bool(jnp.allclose(adapter.b @ adapter.b.T, jnp.eye(4), atol=1e-5))
      True

    References:
      Büyükakyüz. OLoRA: Orthonormal Low-Rank Adaptation of Large Language Models. 2024.
      https://arxiv.org/abs/2406.01775
    """
    form = read("olora", w, rank, alpha, rank_stabilized)
    q, r = jnp.linalg.qr(form.wide.mT)
    return form.split(r[..., :rank, :].mT, q[..., :rank].mT)


def mica(
    w: ArrayLike,
    rank: int,
    alpha: float | None = None,
    *,
    rank_stabilized: bool = False,
) -> Adapter:
    """Begins an adapter that writes where a weight writes least, and adds nothing.

    b = the output directions of the smallest singular values, a = 0. Only a is to be
    trained.

    Args:
      w: [..., inputs, outputs] the weight.
      rank: the rank of the adapter, from 1 to the smaller size of w.
      alpha: the scale is alpha / rank; by default 1.
      rank_stabilized: whether the scale is alpha / sqrt(rank).

    Returns:
      The weight, which stays as it is, and its adapter.

    Raises:
      TypeError: if rank is not an integer.
      ValueError: if w is no matrix, rank does not fit it, or alpha is 0.

    Example:
      >>> w = jnp.diag(jnp.array([3.0, 2.0, 1.0]))
      >>> abs(jaxinit.lora.mica(w, 1).b).round(3).tolist()
      [[0.0, 0.0, 1.0]]

    References:
      Hugging Face. PEFT: parameter-efficient fine-tuning, init_lora_weights "mica".
      2026. https://arxiv.org/abs/2604.01694
    """
    form = read("mica", w, rank, alpha, rank_stabilized)
    _, _, vt = jnp.linalg.svd(form.wide, full_matrices=False)
    zeros = jnp.zeros((*form.w.shape[:-1], rank), form.dtype)
    return form.keep(zeros, vt[..., -rank:, :])


def lora_ga(
    w: ArrayLike,
    gradient: ArrayLike,
    rank: int,
    alpha: float | None = None,
    *,
    rank_stabilized: bool = True,
    gamma: float = 16.0,
    key: jax.Array | None = None,
    iterations: int = 4,
) -> Adapter:
    """Begins an adapter whose first step is nearest to that of the full weight.

    With the gradient G^T = U S V^T: a = V^T's first rows, transposed, b = columns rank
    to 2 rank of U, transposed, both times outputs^(1/4) / sqrt(gamma); the weight loses
    scale a b.

    Args:
      w: [..., inputs, outputs] the weight.
      gradient: [..., inputs, outputs] the gradient of the loss by it, over a batch or
        several.
      rank: the rank of the adapter; twice the rank must not exceed the smaller size.
      alpha: the scale is alpha / sqrt(rank); by default 1.
      rank_stabilized: whether it is that, as in the paper, and not alpha / rank.
      gamma: divides the product of both halves, above 0; 16 in the authors' code. PEFT
        multiplies b by its singular values too, which the paper does not.
      key: with one, the SVD is randomized, as for `pissa`.
      iterations: passes of a randomized SVD, as for `pissa`.

    Returns:
      What is left of the weight, and its adapter.

    Raises:
      TypeError: if rank is not an integer.
      ValueError: if w is no matrix, the gradient has another shape, rank does not fit,
        alpha is 0, or gamma not above 0.

    Example:
      >>> w, g = jax.random.normal(jax.random.key(0), (2, 64, 32))
      >>> adapter = jaxinit.lora.lora_ga(w, g, 4)
      >>> bool(jnp.allclose(adapter.merged, w, atol=1e-5))
      True

    References:
      Wang, Yu, Li. LoRA-GA: Low-Rank Adaptation with Gradient Approximation. 2024.
      https://arxiv.org/abs/2407.05000
    """
    form = read("lora_ga", w, rank, alpha, rank_stabilized)
    try:
        slope = as_array(gradient=gradient)
        if not jnp.issubdtype(slope.dtype, np.floating):
            raise check.Unfit("gradient must hold floats.", gradient=gradient)
        if slope.shape != form.w.shape:
            rule = f"gradient must have the shape of w, {form.w.shape}."
            raise check.Unfit(rule, gradient=gradient)
        if 2 * rank > min(form.w.shape[-2:]):
            rule = f"rank must be at most {min(form.w.shape[-2:]) // 2}, half the "
            raise check.Unfit(rule + "smaller size of w.", rank=rank)
        if check.real(gamma=gamma) <= 0:
            raise check.Unfit("gamma must be above 0.", gamma=gamma)
    except check.Unfit as error:
        raise error.at("lora.lora_ga") from None
    # Inputs come first here: U are the directions of the inputs, V those of outputs.
    u, _, vt = _leading(
        gather(slope.astype(form.dtype)), 2 * rank, key, iterations, "lora_ga"
    )
    size = form.outputs**0.25 / math.sqrt(gamma)
    return form.split(size * u[..., :rank], size * vt[..., rank:, :])
