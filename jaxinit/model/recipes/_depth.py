"""Recipes that let deep models train without, or with fewer, norms."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

from jaxinit import _check as check
from jaxinit import initializers as init
from jaxinit._initializer import Initializer
from jaxinit.model._rules import Rule
from jaxinit.model.recipes._form import (
    NORMS,
    Patterns,
    at_least_one,
    by_fans,
    each,
)

_FEED_FORWARD = tuple(
    f"**/{name}/kernel"
    for name in (
        "fc1",
        "fc2",
        "up",
        "down",
        "gate",
        "wi*",
        "wo",
        "c_fc",
        "mlp*",
        "Dense_*",
    )
)
_VALUES = tuple(
    f"**/{name}/kernel"
    for name in ("value", "v", "v_proj", "out", "o_proj", "out_proj")
)


def deepnorm(
    layers: int,
    *,
    decoder_layers: int = 0,
    part: Literal["encoder", "decoder"] = "encoder",
    scaled: Patterns = (*_VALUES, *_FEED_FORWARD),
) -> list[Rule]:
    """DeepNorm: post-norm transformers of up to a thousand layers.

    The residual stream is multiplied by `deepnorm_alpha` before it is added and normed.

    Law: Xavier normal, Var[w] = 2 gain^2 / (fan_in + fan_out), with gain 1, for
    feed-forward, values and output projections gain beta: (8 L)^(-1/4) where there is
    an encoder or a decoder alone; with N encoder and M decoder layers
    0.87 (N^4 M)^(-1/16) in the encoder and (12 M)^(-1/4) in the decoder. Biases 0,
    norms 1 and 0, embeddings N(0, 1 / width).

    Args:
      layers: of the encoder N, or of the model L if it has one part.
      decoder_layers: M, of a decoder beside the encoder; 0 for none.
      part: which of two the rules are for.
      scaled: patterns of the kernels that get beta.

    Raises:
      ValueError: if a number of layers or the part is out of range.

    References:
      Wang, Ma, Dong, Huang, Zhang, Wei. DeepNet: Scaling Transformers to 1,000 Layers.
      2022. https://arxiv.org/abs/2203.00555
    """
    _, beta = _deepnorm(layers, decoder_layers, part)
    return [
        *each(scaled, by_fans(beta**2, "fan_avg", "normal")),
        ("kernel", by_fans(1.0, "fan_avg", "normal")),
        ("embedding", _by_width(1.0)),
        *NORMS,
    ]


def deepnorm_alpha(
    layers: int,
    *,
    decoder_layers: int = 0,
    part: Literal["encoder", "decoder"] = "encoder",
) -> float:
    """Computes what DeepNorm multiplies the residual stream by: norm(alpha x + f(x)).

    Law: (2 L)^(1/4) for one part; of two, 0.81 (N^4 M)^(1/16) in the encoder and
    (3 M)^(1/4) in the decoder.

    Args:
      layers: as for `deepnorm`.
      decoder_layers: as for `deepnorm`.
      part: as for `deepnorm`.

    Returns:
      alpha.

    Raises:
      ValueError: as `deepnorm`.

    References:
      As `deepnorm`.
    """
    return _deepnorm(layers, decoder_layers, part)[0]


def _deepnorm(layers: int, decoder_layers: int, part: str) -> tuple[float, float]:
    """Returns alpha and beta."""
    try:
        first = check.at_least(1, layers=layers)
        second = check.at_least(0, decoder_layers=decoder_layers)
        check.choice(("encoder", "decoder"), part=part)
    except check.Unfit as error:
        raise error.at("recipes.deepnorm") from None
    if not second:
        return (2 * first) ** 0.25, (8 * first) ** -0.25
    if part == "encoder":
        both = (first**4 * second) ** (1 / 16)
        return 0.81 * both, 0.87 / both
    return (3 * second) ** 0.25, (12 * second) ** -0.25


def _by_width(factor: float) -> Callable[..., Initializer]:
    """Makes the rule of embeddings: factor / sqrt(width)."""

    def build(path: str, leaf: Any, siblings: Mapping[str, Any]) -> Initializer:
        return init.normal(factor / math.sqrt(leaf.shape[-1]))

    return build


def t_fixup(
    layers: int,
    *,
    part: Literal["encoder", "decoder"] = "encoder",
    scaled: Patterns = (*_VALUES, *_FEED_FORWARD),
) -> list[Rule]:
    """T-Fixup: transformers without layer norm and without warm-up.

    Law: Xavier uniform kernels; embeddings N(0, 1 / width); then values, output
    projections, feed-forward kernels and embeddings are multiplied by
    0.67 N^(-1/4) in the encoder of N layers, (9 N)^(-1/4) in the decoder. Biases 0.

    Args:
      layers: the number of blocks N.
      part: which of two the rules are for.
      scaled: patterns of the kernels that are multiplied.

    Raises:
      ValueError: if layers or part is out of range.

    References:
      Huang, Perez, Ba, Volkovs. Improving Transformer Optimization Through Better
      Initialization. 2020. https://proceedings.mlr.press/v119/huang20f.html
    """
    try:
        count = check.at_least(1, layers=layers)
        check.choice(("encoder", "decoder"), part=part)
    except check.Unfit as error:
        raise error.at("recipes.t_fixup") from None
    factor = 0.67 * count**-0.25 if part == "encoder" else (9 * count) ** -0.25

    return [
        *each(scaled, by_fans(factor**2, "fan_avg", "uniform")),
        ("kernel", by_fans(1.0, "fan_avg", "uniform")),
        ("embedding", _by_width(factor)),
        *NORMS,
    ]


def fixup(
    layers: int,
    *,
    convolutions: int = 2,
    last: Patterns = ("**/*conv2/kernel", "**/Conv_1/kernel"),
    head: Patterns = ("**/head/*", "**/fc/*", "Dense_0/*"),
    branch: Patterns = ("**/*lock*/**/kernel",),
    skip: Patterns = ("**/*proj*/kernel", "**/*skip*/kernel", "**/downsample*/kernel"),
) -> list[Rule]:
    """Fixup: residual networks without norms.

    Law: the last convolution of each branch and the classifier 0; the others in a
    branch N(0, 2 / fan_in) times L^(-1 / (2 m - 2)); all other kernels N(0, 2 /
    fan_in); scalar biases 0 and scales 1.

    Args:
      layers: the number of residual branches L.
      convolutions: in a branch, m.
      last: patterns of the last kernel of each branch.
      head: patterns of the classifier's parameters.
      branch: patterns of the kernels within branches.
      skip: patterns of kernels in blocks that are beside the branch.

    Raises:
      ValueError: if layers is below 1, or convolutions below 2.

    References:
      Zhang, Dauphin, Ma. Fixup Initialization: Residual Learning Without
      Normalization. 2019. https://arxiv.org/abs/1901.09321
    """
    count = at_least_one("fixup", layers=layers)
    try:
        check.at_least(2, convolutions=convolutions)
    except check.Unfit as error:
        raise error.at("recipes.fixup") from None
    factor = count ** (-1 / (2 * convolutions - 2))
    he = by_fans(2.0, "fan_in", "normal")
    return [
        *each((*last, *head), 0.0),
        *each(skip, he),
        *each(branch, by_fans(2.0 * factor**2, "fan_in", "normal")),
        ("kernel", he),
        *NORMS,
    ]
