"""Vision models as rules."""

import math
from collections.abc import Mapping
from typing import Any, Literal

from jaxinit import _check as check
from jaxinit import initializers as init
from jaxinit._initializer import Initializer
from jaxinit.model._rules import Rule
from jaxinit.model.recipes._form import NORMS, Patterns, by_fans, each


def vit(
    scheme: Literal["", "jax", "jax_nlhb", "moco"] = "jax",
    *,
    head: str = "**/head",
    patches: Patterns = ("**/*patch*/kernel", "**/embedding/kernel"),
    mlp: Patterns = ("**/*mlp*/**/bias", "**/*Mlp*/**/bias"),
    qkv: Patterns = ("**/qkv/kernel",),
) -> list[Rule]:
    """Vision transformers, by the schemes of timm.

    Law: "" truncated N(0, 0.02^2) kernels, zero biases. "jax" as the paper's code:
    Xavier uniform kernels, lecun normal patches, MLP biases N(0, 1e-12), a zero head.
    "jax_nlhb" also gives the head's bias -log(classes). "moco" Xavier uniform kernels,
    of a joint query-key-value kernel as of three, and patches as Xavier of their fans.
    Positions and the class token are N(0, 0.02^2), in "jax" the token is 0.

    Args:
      scheme: one of the four.
      head: pattern of the classifier's module.
      patches: patterns of the kernel that embeds patches.
      mlp: patterns of the biases in MLPs.
      qkv: patterns of joint kernels of queries, keys and values.

    Raises:
      ValueError: if the scheme is none.

    References:
      Dosovitskiy and others. An Image is Worth 16x16 Words. 2020.
      https://arxiv.org/abs/2010.11929
      Chen, Xie, He. An Empirical Study of Training Self-Supervised Vision Transformers.
      2021. https://arxiv.org/abs/2104.02057
    """
    try:
        check.choice(("", "jax", "jax_nlhb", "moco"), scheme=scheme)
    except check.Unfit as error:
        raise error.at("recipes.vit") from None
    tokens = [
        ("cls*", 0.0 if scheme.startswith("jax") else init.normal(0.02)),
        ("pos*", init.normal(0.02)),
    ]
    if scheme == "":
        return [*tokens, ("kernel", init.truncated_normal(0.02)), *NORMS]
    xavier = by_fans(1.0, "fan_avg", "uniform")
    if scheme == "moco":

        def joint(path: str, leaf: Any, siblings: Mapping[str, Any]) -> Initializer:
            inputs, outputs = leaf.shape
            bound = math.sqrt(6 / (outputs / 3 + inputs))
            return init.uniform(low=-bound, high=bound)

        return [*tokens, *each(qkv, joint), ("kernel", xavier), *NORMS]

    def classes(path: str, leaf: Any, siblings: Mapping[str, Any]) -> float:
        return -math.log(leaf.shape[-1]) if scheme == "jax_nlhb" else 0.0

    return [
        *tokens,
        (f"{head}/kernel", 0.0),
        (f"{head}/bias", classes),
        *each(patches, init.lecun_normal()),
        *each(mlp, init.normal(1e-6)),
        ("kernel", xavier),
        *NORMS,
    ]


def resnet(
    *,
    last_norm: Patterns = ("**/bn3/scale", "**/norm3/scale", "**/BatchNorm_2/scale"),
    head: Patterns = ("**/head/kernel", "**/fc/kernel", "Dense_0/kernel"),
) -> list[Rule]:
    """Residual networks: each block begins as the identity.

    Law: convolutions N(0, 2 / fan_out); the classifier N(0, 0.01^2); norms 1 and 0, but
    the scale of the last norm of each block 0.

    Args:
      last_norm: patterns of the last scale in a block; for blocks of two convolutions
        ``("**/bn2/scale",)``.
      head: patterns of the classifier's kernel.

    References:
      He, Zhang, Ren, Sun. Delving Deep into Rectifiers. 2015.
      https://arxiv.org/abs/1502.01852
      Goyal and others. Accurate, Large Minibatch SGD. 2017.
      https://arxiv.org/abs/1706.02677
    """
    return [
        *each(last_norm, 0.0),
        *each(head, init.normal(0.01)),
        ("kernel", by_fans(2.0, "fan_out", "normal")),
        *NORMS,
    ]


def dcgan() -> list[Rule]:
    """DCGAN: small normal weights, norms about 1.

    Law: kernels N(0, 0.02^2), norms' scales N(1, 0.02^2), biases 0.

    References:
      Radford, Metz, Chintala. Unsupervised Representation Learning with Deep
      Convolutional GANs. 2015. https://arxiv.org/abs/1511.06434
    """
    return [
        ("kernel", init.normal(0.02)),
        ("scale", init.normal(0.02, mean=1.0)),
        ("bias", 0.0),
    ]


def detection_head(
    prior: float = 0.01, *, classes: Patterns = ("**/cls*/bias", "**/class*/bias")
) -> list[Rule]:
    """A detection head: at first every place is background.

    Law: kernels N(0, 0.01^2); biases 0, but those of the class scores
    -log((1 - prior) / prior), so that each sigmoid gives prior.

    Args:
      prior: probability of an object at initialisation, between 0 and 1, both out.
      classes: patterns of the biases of class scores.

    Raises:
      ValueError: if prior is out of range.

    References:
      Lin, Goyal, Girshick, He, Dollar. Focal Loss for Dense Object Detection. 2017.
      https://arxiv.org/abs/1708.02002
    """
    try:
        if not 0 < check.real(prior=prior) < 1:
            raise check.Unfit("prior must lie between 0 and 1, both out.", prior=prior)
    except check.Unfit as error:
        raise error.at("recipes.detection_head") from None
    return [
        *each(classes, -math.log((1 - prior) / prior)),
        ("kernel", init.normal(0.01)),
        *NORMS,
    ]
