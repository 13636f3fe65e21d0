"""Parameterizations by width and depth: CompleteP, depth-muP, u-muP."""

from typing import Any, Unpack

from jaxinit import _check as check
from jaxinit.scaling import _tables as tables
from jaxinit.scaling._build import Reading, build
from jaxinit.scaling._parameterize import Applied, Attention, Parameterization
from jaxinit.scaling._scale import Scale


def completep(
    base: Any,
    target: Any,
    *inputs: Any,
    alpha: float = 1.0,
    forward: Applied = "absorbed",
    attention: Attention = "root",
    **reading: Unpack[Reading],
) -> Scale:
    """Scales by CompleteP: as muP in width, and in depth.

    With L, how much the number of residual branches grows, and the factors of `mup`:
    each branch is multiplied by L^-alpha, and in branches Adam's learning rates by
    L^(alpha - 1), ε by L^-alpha. SGD's rates, L^(2 alpha - 1), and Muon's, as Adam's,
    are derived.

    Args:
      base: the small model, as for `mup`.
      target: the large model, likewise. Every layer that is added must lie in a
        residual branch.
      *inputs: example inputs of both models; none for structures.
      alpha: the exponent: 1, CompleteP; 1/2 is `depth_mup`.
      forward: ``"absorbed"`` or ``"model"``, as for `mup`. The last product of a
        branch, or the gain behind it, absorbs the branch's factor.
      attention: as for `mup`.
      **reading: other keyword arguments of `structure`.

    Returns:
      A `Scale`.

    Raises:
      ValueError: as `mup`; if alpha is not from 1/2 to 1; or if a layer is added that
        lies in no residual branch.
      TypeError: if an argument has the wrong type.

    Example:
      >>> def make(layers):
      ...     def init(key):
      ...         return {str(i): jnp.ones((8, 8)) for i in range(layers)}
      ...     def apply(p, x):
      ...         for w in p.values():
      ...             x = x + jnp.tanh(x) @ w
      ...         return x
      ...     return init, apply
      >>> scale = scaling.completep(make(2), make(8), jnp.ones((4, 8)), forward="model")
      >>> print(scale.forward)
      # branch: 0–7
      x = x + branch(x) * 0.25

    References:
      Dey, Zhang, Noci, Li, Bordelon, Bergsma, Pehlevan, Hanin, Hestness. Don't be lazy:
      CompleteP enables compute-efficient deep transformers. 2025.
      https://arxiv.org/abs/2505.01618
    """
    try:
        alpha = check.real(alpha=alpha)
        if not 0.5 <= alpha <= 1:
            raise check.Unfit("alpha must be from 0.5 to 1.", alpha=alpha)
    except check.Unfit as error:
        raise error.at("scaling.completep") from None
    how = Parameterization(
        name="completep", table=tables.mup, alpha=alpha, attention=attention
    )
    return build(how, base, target, inputs, forward, reading)


def depth_mup(
    base: Any,
    target: Any,
    *inputs: Any,
    forward: Applied = "absorbed",
    attention: Attention = "root",
    **reading: Unpack[Reading],
) -> Scale:
    """Scales by depth-muP: as `completep` with ``alpha=1/2``.

    Args:
      base: the small model, as for `completep`.
      target: the large model, likewise.
      *inputs: example inputs of both models; none for structures.
      forward: ``"absorbed"`` or ``"model"``, as for `completep`.
      attention: as for `mup`.
      **reading: other keyword arguments of `structure`.

    Returns:
      A `Scale`.

    Raises:
      ValueError: as `completep`.
      TypeError: if an argument has the wrong type.

    Example:
      >>> model = lambda key: {"w": jnp.ones((4, 3))}, lambda p, x: x @ p["w"]
      >>> scaling.depth_mup(model, model, jnp.ones((8, 4)))["w"].std
      1.0

    References:
      Yang, Yu, Zhu, Hayou. Tensor Programs VI: Feature Learning in Infinite-Depth
      Neural Networks. 2023. https://arxiv.org/abs/2310.02244
    """
    how = Parameterization(
        name="depth_mup", table=tables.mup, alpha=0.5, attention=attention
    )
    return build(how, base, target, inputs, forward, reading)


def u_mup(
    base: Any,
    target: Any,
    *inputs: Any,
    forward: Applied = "absorbed",
    attention: Attention = "root",
    **reading: Unpack[Reading],
) -> Scale:
    """Scales by the part of u-muP that depends on width and depth.

    If the model applies the factors, it multiplies products of hidden weights by
    m_in^-1/2, those of the readout by 1 / m_in and branches by L^-1/2; all weights keep
    their standard deviation. Adam's rates are m_in^-1/2 for hidden weights, m_out^-1/2
    for embeddings and 1 for all else, times L^-1/2 in branches. All else is derived.
    In effect it is `depth_mup`, but for the embedding's learning rate.

    Unit-scaled operations, which have other factors in the backward pass, and the
    factors by which u-muP tunes, are no part of this.

    Args:
      base: the small model, as for `completep`.
      target: the large model, likewise.
      *inputs: example inputs of both models; none for structures.
      forward: ``"absorbed"`` or ``"model"``, as for `completep`.
      attention: as for `mup`.
      **reading: other keyword arguments of `structure`.

    Returns:
      A `Scale`.

    Raises:
      ValueError: as `completep`.
      TypeError: if an argument has the wrong type.

    Example:
      >>> model = lambda key: {"w": jnp.ones((4, 3))}, lambda p, x: x @ p["w"]
      >>> scaling.u_mup(model, model, jnp.ones((8, 4)))["w"].std
      1.0

    References:
      Blake, Eichenberg, Dean, Balles, Prince, Deiseroth, Cruz-Salinas, Luschi,
      Weinbach, Orr. u-muP: The Unit-Scaled Maximal Update Parametrization. 2024.
      https://arxiv.org/abs/2407.17465
    """
    how = Parameterization(
        name="u_mup", table=tables.u_mup, alpha=0.5, attention=attention
    )
    return build(how, base, target, inputs, forward, reading)
