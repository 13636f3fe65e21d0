"""Parameterizations by width: muP, standard, and their kin.

All take a small and a large model, and differ in their tables, which stand in
`_tables`.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Unpack

from jaxinit import _check as check
from jaxinit.scaling import _tables as tables
from jaxinit.scaling._build import Reading, build
from jaxinit.scaling._parameterize import Applied, Attention, Parameterization
from jaxinit.scaling._scale import Scale
from jaxinit.scaling._tables import Alignment


def mup(
    base: Any,
    target: Any,
    *inputs: Any,
    forward: Applied = "absorbed",
    form: Literal[3, 8, 9] = 8,
    attention: Attention = "root",
    **reading: Unpack[Reading],
) -> Scale:
    """Scales by muP, the maximal update parameterization: in width alone.

    With m_in and m_out, how much the widths grow that inputs and outputs of a weight
    run along, the factors of form 8 on what the base has are

    =================================  ==========  =======  ===========  ======  =======
    weight                             std         forward  SGD          Adam    ε
    =================================  ==========  =======  ===========  ======  =======
    embedding, input, bias, gain       1           1        m_out        1       1/m_out
    hidden: both axes grow             m_in^-1/2   1        m_out/m_in   1/m_in  1/m_out
    readout: only its inputs grow      1           1/m_in   m_in         1       1/m_in
    products of queries and keys                   sqrt(d_base/d) for a head's size d,
                                                   besides 1/sqrt(d), which is there
    =================================  ==========  =======  ===========  ======  =======

    The columns of ε and Muon, and weight decay, are derived, but for decay and ε of
    hidden weights, which CompleteP has as well. The other forms give the same training.

    Args:
      base: the small model, whose learning rates were tuned: as `structure` takes it,
        or its `Structure`.
      target: the large model, likewise. Its parameters are those of the base; where
        blocks are added, layer i of n stands for layer i · n_base // n.
      *inputs: example inputs of both models, as for `structure`; none for structures.
      forward: ``"absorbed"``, initial weights and rates make up for factors of the
        forward pass, and the model stays as it is; or ``"model"``, the model multiplies
        by them, as ``scale.forward`` says.
      form: the table of Tensor Programs V: 3, 8 or 9. They differ in what the model
        multiplies, and agree where it is absorbed.
      attention: what the model divides products of queries and keys by: ``"root"``,
        the square root of a head's size; ``"size"``, the size, which is what muP asks
        for; or ``"nothing"``, as T5. Where the size grows, a factor makes up for it.
      **reading: other keyword arguments of `structure`.

    Returns:
      A `Scale`: it prints as the filled table; ``rules(recipe)`` are rules for
      `reinit`, ``adamw(3e-4)`` and its like are optimizers of optax.

    Raises:
      ValueError: if an argument does not fit; a parameter has no like in the other
        model; widths grow by different factors; or a weight with two uses, as a tied
        embedding, cannot have the factors of both.
      TypeError: if an argument has the wrong type.

    Example:
      >>> def make(n):
      ...     def init(key):
      ...         return {"a": jnp.ones((64, n)), "b": jnp.ones((n, n)), "c": jnp.ones((n, 9))}
      ...     return init, lambda p, x: jnp.tanh(jnp.tanh(x @ p["a"]) @ p["b"]) @ p["c"]
      >>> print(scaling.mup(make(32), make(128), jnp.ones((8, 64))))
      path  role     grows           std   SGD  Adam  Muon     ε  decay
      ────  ───────  ─────────────  ────  ────  ────  ────  ────  ─────
      a     input    out ×4            1     4     1     2  0.25      1
      b     hidden   in ×4, out ×4   0.5     1  0.25     1  0.25      4
      c     readout  in ×4          0.25  0.25  0.25  0.25     1      4
      <BLANKLINE>
      Factors on what the base model has.

    References:
      Yang, Hu, Babuschkin, Sidor, Liu, Farhi, Ryder, Pachocki, Chen, Gao. Tensor
      Programs V: Tuning Large Neural Networks via Zero-Shot Hyperparameter Transfer.
      2022. https://arxiv.org/abs/2203.03466
    """  # noqa: E501
    if isinstance(form, bool) or form not in (3, 8, 9):
        rule = "form must be one of 3, 8, 9."
        raise check.Unfit(rule, form=form).at("scaling.mup")
    table = functools.partial(tables.mup, form=form)
    how = Parameterization(name="mup", table=table, attention=attention)
    return build(how, base, target, inputs, forward, reading)


def standard(
    base: Any,
    target: Any,
    *inputs: Any,
    alignment: Alignment = "full",
    **reading: Unpack[Reading],
) -> Scale:
    """Scales by the standard parameterization, with learning rates by layer.

    The model stays as it is, and so do laws of fans; what changes are learning rates.
    By their authors' experiments this does as well as muP or better, at the price of
    learning rates of embedding, hidden weights and readout that are tuned apart, once,
    in the base. Factors on what the base has, as in `mup`:

    ==================  ==========  ===================  ===============  ==========
    weight              std         Adam (no alignment)  SGD (none)       ε
    ==================  ==========  ===================  ===============  ==========
    embedding, input,   1           1                    m_out^1/2        m_out^-1/2
    bias, gain
    hidden              m_in^-1/2   1/m_in (m_in^-1/2)   m^-1/2 (1)       m_out^-1/2
    readout             m_in^-1/2   1/m_in (m_in^-1/2)   1/m_in (m^-1/2)  1
    ==================  ==========  ===================  ===============  ==========

    The columns of SGD, ε and Muon, and weight decay, are derived.

    Args:
      base: the small model, as for `mup`.
      target: the large model, likewise.
      *inputs: example inputs of both models; none for structures.
      alignment: ``"full"``, updates are aligned with the activations that they meet,
        the cautious choice; or ``"none"``.
      **reading: other keyword arguments of `structure`.

    Returns:
      A `Scale`.

    Raises:
      ValueError: as `mup`; an embedding that is the readout too is refused, as the two
        uses need different learning rates.
      TypeError: if an argument has the wrong type.

    Example:
      >>> def make(n):
      ...     def init(key):
      ...         return {"a": jnp.ones((64, n)), "b": jnp.ones((n, n)), "c": jnp.ones((n, 9))}
      ...     return init, lambda p, x: jnp.tanh(jnp.tanh(x @ p["a"]) @ p["b"]) @ p["c"]
      >>> scale = scaling.standard(make(32), make(128), jnp.ones((8, 64)))
      >>> [scale[path].lr["adam"] for path in "abc"]
      [1.0, 0.25, 0.25]

    References:
      Everett, Xiao, Wortsman, Alemi, Novak, Liu, Gur, Sohl-Dickstein, Kaelbling, Lee,
      Pennington. Scaling Exponents Across Parameterizations and Optimizers. 2024.
      https://arxiv.org/abs/2407.05872
    """  # noqa: E501
    return _build_aligned("standard", base, target, inputs, alignment, reading)


def ntk(
    base: Any,
    target: Any,
    *inputs: Any,
    forward: Applied = "absorbed",
    alignment: Alignment = "full",
    **reading: Unpack[Reading],
) -> Scale:
    """Scales by the parameterization of the neural tangent kernel.

    As `standard` in effect, and the same where factors are absorbed. If the model
    applies them, it multiplies the products of hidden weights and readouts by
    m_in^-1/2; all weights keep their standard deviation, and Adam's rate of hidden
    weights and readouts is times m_in^-1/2 with full alignment, 1 with none. All else
    is derived.

    Args:
      base: the small model, as for `mup`.
      target: the large model, likewise.
      *inputs: example inputs of both models; none for structures.
      forward: ``"absorbed"`` or ``"model"``, as for `mup`.
      alignment: ``"full"`` or ``"none"``, as for `standard`.
      **reading: other keyword arguments of `structure`.

    Returns:
      A `Scale`.

    Raises:
      ValueError: as `mup`.
      TypeError: if an argument has the wrong type.

    Example:
      >>> model = lambda key: {"w": jnp.ones((4, 3))}, lambda p, x: x @ p["w"]
      >>> scaling.ntk(model, model, jnp.ones((8, 4)))["w"].std
      1.0

    References:
      Jacot, Gabriel, Hongler. Neural Tangent Kernel. 2018.
      https://arxiv.org/abs/1806.07572
      Everett and others. Scaling Exponents Across Parameterizations and Optimizers.
      2024. https://arxiv.org/abs/2407.05872
    """
    return _build_aligned("ntk", base, target, inputs, alignment, reading, forward)


def mean_field(
    base: Any,
    target: Any,
    *inputs: Any,
    forward: Applied = "absorbed",
    alignment: Alignment = "full",
    **reading: Unpack[Reading],
) -> Scale:
    """Scales by the mean-field parameterization.

    As `mup` in effect, with full alignment and but for attention, and the same where
    factors are absorbed. If the model applies them, it multiplies the products of
    hidden weights by m_in^-1/2 and those of the readout by 1 / m_in; all weights keep
    their standard deviation, and Adam's rates are, with full alignment, 1 but for
    hidden weights, m_in^-1/2; with none, 1 but for the readout, m_in^1/2. All else is
    derived.

    Args:
      base: the small model, as for `mup`.
      target: the large model, likewise.
      *inputs: example inputs of both models; none for structures.
      forward: ``"absorbed"`` or ``"model"``, as for `mup`.
      alignment: ``"full"`` or ``"none"``, as for `standard`.
      **reading: other keyword arguments of `structure`.

    Returns:
      A `Scale`.

    Raises:
      ValueError: as `mup`.
      TypeError: if an argument has the wrong type.

    Example:
      >>> model = lambda key: {"w": jnp.ones((4, 3))}, lambda p, x: x @ p["w"]
      >>> scaling.mean_field(model, model, jnp.ones((8, 4)))["w"].std
      1.0

    References:
      Mei, Montanari, Nguyen. A Mean Field View of the Landscape of Two-Layer Neural
      Networks. 2018. https://arxiv.org/abs/1804.06561
      Everett and others. Scaling Exponents Across Parameterizations and Optimizers.
      2024. https://arxiv.org/abs/2407.05872
    """
    name = "mean_field"
    return _build_aligned(name, base, target, inputs, alignment, reading, forward)


def spectral(base: Any, target: Any, *inputs: Any, **reading: Unpack[Reading]) -> Scale:
    """Scales by the spectral condition, by the sizes of each weight alone.

    Law: standard deviation (1 / sqrt(fan_in)) · min(1, sqrt(fan_out / fan_in)), SGD's
    learning rate in proportion to fan_out / fan_in, Adam's to 1 / fan_in; embeddings
    and vectors have fan_in 1. It is `mup` in form 3, for widths that may grow by
    different factors; features of the data and classes count as well. Attention is left
    as it is. ε, Muon and weight decay are derived.

    Args:
      base: the small model, as for `mup`.
      target: the large model, likewise.
      *inputs: example inputs of both models; none for structures.
      **reading: other keyword arguments of `structure`.

    Returns:
      A `Scale`.

    Raises:
      ValueError: as `mup`, but for widths.
      TypeError: if an argument has the wrong type.

    Example:
      >>> def make(n, wide):
      ...     def init(key):
      ...         return {"a": jnp.ones((4, n)), "b": jnp.ones((n, wide)), "c": jnp.ones((wide, 1))}
      ...     return init, lambda p, x: jnp.tanh(jnp.tanh(x @ p["a"]) @ p["b"]) @ p["c"]
      >>> scale = scaling.spectral(make(16, 32), make(32, 256), jnp.ones((8, 4)))
      >>> scale["b"].lr["adam"], scale["c"].lr["adam"]
      (0.5, 0.125)

    References:
      Yang, Simon, Bernstein. A Spectral Condition for Feature Learning. 2023.
      https://arxiv.org/abs/2310.17813
    """  # noqa: E501
    how = Parameterization(name="spectral", table=tables.spectral, unequal=True)
    return build(how, base, target, inputs, "absorbed", reading)


_ALIGNED = {
    "standard": tables.standard,
    "ntk": tables.ntk,
    "mean_field": tables.mean_field,
}


def _build_aligned(
    name: str,
    base: Any,
    target: Any,
    inputs: Sequence[Any],
    alignment: Any,
    reading: Mapping[str, Any],
    forward: Applied = "absorbed",
) -> Scale:
    try:
        check.choice(("full", "none"), alignment=alignment)
    except check.Unfit as error:
        raise error.at(f"scaling.{name}") from None
    table = functools.partial(_ALIGNED[name], alignment=alignment)
    how = Parameterization(name=name, table=table)
    return build(how, base, target, inputs, forward, reading)
