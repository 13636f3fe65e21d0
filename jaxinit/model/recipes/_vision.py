"""Vision models as rules."""

import math
import re
from typing import Any, Literal

from jaxinit import _check as check
from jaxinit import initializers as init
from jaxinit import torch
from jaxinit.model._rules.conventions import Site, Sites
from jaxinit.model._rules.defining import Law, Part, RecipeRule, meets
from jaxinit.model._rules.readings import Reading
from jaxinit.model._rules.reinit import Rule
from jaxinit.model.recipes._form import (
    BIAS,
    GAIN,
    HEAD,
    KERNEL,
    NORMS,
    POSITION,
    TOKEN,
    Patterns,
    by_fans,
    every_matrix,
    has_unknown,
    learned,
    listed,
    may_have_head,
    named,
    parts,
    settle,
)
from jaxinit.model.recipes._torch import bias_law, kernel_law

__all__ = ["dcgan", "detection_head", "resnet", "vit"]

_PATCHES = Part("patches", "kernel", lambda site: site.is_patches)
_POSITIONS = Part("positions", "embedding", lambda site: "pos" in site.owner.lower())
_JOINT = parts("queries, keys and values", "joint")
_SEPARATE = parts("query, key, value", "query", "key", "value")
_XAVIER = by_fans(1.0, "fan_avg", "uniform")
_KERNELS: dict[str, Any] = {
    "": torch.trunc_normal(std=0.02),
    **dict.fromkeys(("jax", "jax_nlhb", "moco"), _XAVIER),
}


def _lecun(site: Site) -> Any:
    """Returns lecun's law of a kernel."""
    return settle(site, lambda reading: init.lecun_normal(**reading.axes))


def vit(
    scheme: Literal["", "jax", "jax_nlhb", "moco"] = "jax",
    *,
    head: Patterns | None = None,
    patches: Patterns | None = None,
    mlp: Patterns | None = None,
    qkv: Patterns | None = None,
) -> list[Rule]:
    """Vision transformers, by the schemes of timm.

    Law: "" N(0, 0.02^2) dense kernels, zero biases, and the patches' kernel and bias as
    torch's default, uniform on ±1 / sqrt(fan_in). "jax" as the paper's code: Xavier
    uniform kernels, lecun normal patches, MLP biases N(0, 1e-12), a zero head.
    "jax_nlhb" also makes the head's bias -log(classes). "moco" Xavier uniform kernels,
    a joint query-key-value kernel counting as three, and patches uniform on ±sqrt(6 /
    (fan_in + width)). Positions and the class token are N(0, 0.02^2), in "jax" the
    token is 0; a fixed table of sines stays as it is.

    timm's bounds of truncated laws are -2 and 2, a hundred standard deviations: nothing
    is cut. Its later versions draw the class token from N(0, 1e-12) in every scheme,
    as does MoCo's code, which has fixed sines for positions. In "jax" a joint kernel
    has Xavier's law for all its outputs, as in timm; the paper's code has three.

    Args:
      scheme: one of the four.
      head: patterns of the classifier's module, ``"**/head"``; by default its usual
        names. For "jax" and "jax_nlhb".
      patches: patterns of the kernel that embeds patches; by default its usual names.
        For every scheme.
      mlp: patterns of the biases in MLPs. For "jax" and "jax_nlhb".
      qkv: patterns of joint kernels of queries, keys and values. For "moco".

    Raises:
      ValueError: if the scheme is unknown, or does not use an argument that is given.

    Example:
      >>> patches = {"kernel": np.zeros((4, 4, 3, 64), np.float32)}
      >>> head = {"kernel": np.zeros((64, 10), np.float32)}
      >>> fc1 = {"kernel": np.zeros((64, 256), np.float32), "bias": np.zeros(256)}
      >>> params = {"head": head, "mlp": {"fc1": fc1}, "patch_embed": patches}
      >>> rows = jaxinit.preview(params, recipes.vit(scheme="jax")).rows
      >>> head, bias, _, patches = (row.law for row in rows)
      >>> head, bias, patches
      (0.0, normal(stddev=1e-06), lecun_normal())

    References:
      Dosovitskiy and others. An Image is Worth 16x16 Words. 2020.
      https://arxiv.org/abs/2010.11929
      Chen, Xie, He. An Empirical Study of Training Self-Supervised Vision Transformers.
      2021. https://arxiv.org/abs/2104.02057
    """
    ours = scheme in ("jax", "jax_nlhb")
    try:
        check.choice(("", "jax", "jax_nlhb", "moco"), scheme=scheme)
        for name, given, used in (
            ("head", head, ours),
            ("mlp", mlp, ours),
            ("qkv", qkv, scheme == "moco"),
        ):
            if given is not None and not used:
                rule = f"is not used by the scheme {scheme!r}."
                raise check.Unfit(f"{name} {rule}", ValueError, **{name: given})
    except check.Unfit as error:
        raise error.at("recipes.vit") from None

    usual = [(_PATCHES, "kernel that embeds patches")]
    laws = {"": Law(kernel_law), "moco": Law(_moco_patches)}
    law = laws.get(scheme, Law(_lecun))
    embeds = named("vit", law, patches, usual, has_unknown, name="patches")
    bias: Any = 0.0
    if scheme == "":
        bias = Law(lambda site: bias_law(site) if _is_of(site, embeds) else 0.0)
    return [
        RecipeRule(TOKEN, 0.0 if ours else init.normal(0.02)),
        RecipeRule(POSITION, learned(init.normal(0.02))),
        RecipeRule(_POSITIONS, learned(init.normal(0.02))),
        *(_head(scheme, head) if ours else []),
        *embeds,
        *(_mlp_biases(mlp) if ours else []),
        *(_joint(qkv) if scheme == "moco" else []),
        RecipeRule(KERNEL, _KERNELS[scheme], every_matrix("vit")),
        RecipeRule(GAIN, 1.0),
        RecipeRule(BIAS, bias),
    ]


def _head(scheme: str, head: Patterns | None) -> list[Rule]:
    """Makes the rules of the classifier: 0, except that the scheme sets its bias."""

    def law(site: Site) -> float:
        if site.kind != "bias":
            return 1.0 if site.kind == "gain" else 0.0
        return -math.log(site.shape[-1]) if scheme == "jax_nlhb" else 0.0

    modules = None if head is None else [f"{module}/*" for module in listed(head)]
    usual = [(HEAD, "kernel of the classifier")]
    biases = [RecipeRule(parts("head's bias", "head", kind="bias"), Law(law))]
    rules = named("vit", Law(law), modules, usual, may_have_head, name="head")
    return rules if modules else [*rules, *biases]


def _mlp_biases(mlp: Patterns | None) -> list[Rule]:
    """Makes the rule of the biases in MLPs."""
    biased = Part("bias of a kernel", "bias", lambda site: site.kernel is not None)

    def has_biases(sites: Sites) -> bool:
        return any(map(biased.meets, sites.values()))

    usual = [(parts("MLP's bias", "mlp in", "mlp out", kind="bias"), "bias of an MLP")]
    return named("vit", init.normal(1e-6), mlp, usual, has_biases, name="mlp")


def _joint(qkv: Patterns | None) -> list[Rule]:
    """Makes the rules of queries, keys and values, in one kernel or in three."""
    words = "kernel of queries, keys and values"
    joint = named("vit", Law(_of_three), qkv, [(_JOINT, words)], name="qkv")
    if qkv is not None:
        return joint
    group = joint[0].group if isinstance(joint[0], RecipeRule) else None
    return [*joint, RecipeRule(_SEPARATE, _KERNELS["moco"], group)]


def _of_three(site: Site) -> Any:
    """Returns Xavier's law for a kernel that joins three, with the outputs of one."""

    def build(reading: Reading) -> Any:
        inputs, outputs = reading.fans(site.shape)
        outputs /= 1 if "groups" in reading.axes else 3  # a structure counts one's
        bound = math.sqrt(6 / (outputs + inputs))
        return init.uniform(low=-bound, high=bound)

    return settle(site, build)


def _moco_patches(site: Site) -> Any:
    """Returns MoCo's law for the patches' kernel, by the window's inputs and width.

    Unlike Xavier's, it does not count the window among the outputs.
    """

    def build(reading: Reading) -> Any:
        width = site.shape[reading.axes.get("out_axis", -1)]
        bound = math.sqrt(6 / (reading.fans(site.shape)[0] + width))
        return init.uniform(low=-bound, high=bound)

    return settle(site, build)


def _is_of(site: Site, rules: list[Rule]) -> bool:
    """Returns whether a bias stands beside a kernel that these rules are for."""
    kernel = site.kernel
    return kernel is not None and any(meets(pattern, kernel) for pattern, _ in rules)


def resnet(
    *, last_norm: Patterns | None = None, head: Patterns | None = None
) -> list[Rule]:
    """Residual networks: each block begins as the identity.

    Law: convolutions N(0, 2 / fan_out); the classifier N(0, 0.01^2); norms 1 and 0, but
    the scale of the last norm of each block 0.

    This follows Goyal and others. torchvision's networks have the same law for
    convolutions; there the zero scales are an option, and the classifier has torch's
    default.

    Args:
      last_norm: patterns of the last scale in a block; by default that of the last of
        several numbered norms, ``bn1``, ``bn2`` or ``BatchNorm_0``, ``BatchNorm_1``, if
        all blocks have the same number of them.
      head: patterns of the classifier's kernel; by default its usual names, or the last
        dense layer outside of all blocks.

    Raises:
      ValueError: in `reinit`, if one of them is not found.

    Example:
      >>> block = {"conv1": {"kernel": np.zeros((3, 3, 8, 8), np.float32)}}
      >>> block |= {f"bn{i}": {"scale": np.zeros(8)} for i in (1, 2)}
      >>> params = {"block": block, "fc": {"kernel": np.zeros((8, 10), np.float32)}}
      >>> first, last, *_ = jaxinit.preview(params, recipes.resnet()).rows
      >>> first.law, last.law  # the last norm of a block begins at zero
      (1.0, 0.0)

    References:
      He, Zhang, Ren, Sun. Delving Deep into Rectifiers. 2015.
      https://arxiv.org/abs/1502.01852
      Goyal and others. Accurate, Large Minibatch SGD. 2017.
      https://arxiv.org/abs/1706.02677
    """
    last = [(Part("last norm", "gain", _is_last_norm), "last norm of a block")]
    classifier = [(HEAD, "kernel of the classifier")]
    return [
        *named("resnet", 0.0, last_norm, last, _has_norms, name="last_norm"),
        *named(
            "resnet", init.normal(0.01), head, classifier, may_have_head, name="head"
        ),
        RecipeRule(KERNEL, by_fans(2.0, "fan_out", "normal"), every_matrix("resnet")),
        *NORMS,
    ]


def _has_norms(sites: Sites) -> bool:
    return any(site.kind == "gain" for site in sites.values())


def _is_last_norm(site: Site) -> bool:
    """Returns whether a scale belongs to the last norm of a block.

    All blocks must have the same number of norms. A single sequence of layers, not
    named as a block, is a whole model.
    """
    lasts = site.sites.last_norms
    blocks = site.in_block or len(lasts) > 1
    return site.is_last_norm and blocks and len({*lasts.values()}) == 1


def dcgan() -> list[Rule]:
    """DCGAN: small normal weights, norms about 1.

    Law: kernels N(0, 0.02^2), norms' scales N(1, 0.02^2), biases 0.

    The paper has weights from N(0, 0.02^2); the norms' mean of 1 is that of its code.

    Example:
      >>> params = {"conv": {"kernel": np.zeros((4, 4, 3, 64), np.float32)}}
      >>> jaxinit.preview(params, recipes.dcgan()).rows[0].law
      normal(stddev=0.02)

    References:
      Radford, Metz, Chintala. Unsupervised Representation Learning with Deep
      Convolutional GANs. 2015. https://arxiv.org/abs/1511.06434
    """
    return [
        RecipeRule(KERNEL, init.normal(0.02), every_matrix("dcgan")),
        RecipeRule(GAIN, init.normal(0.02, mean=1.0)),
        RecipeRule(BIAS, 0.0),
    ]


def detection_head(
    prior: float = 0.01, *, classes: Patterns | None = None
) -> list[Rule]:
    """A detection head: at first every place is background.

    Law: kernels N(0, 0.01^2); biases 0, but those of the class scores
    -log((1 - prior) / prior), so that each sigmoid gives prior.

    It is for the parameters of heads alone: the backbone of the paper is trained, and
    its pyramid drawn by other laws in the authors' code.

    Args:
      prior: probability of an object at initialization, above 0 and below 1.
      classes: patterns of the biases of class scores; by default those of modules named
        ``cls*`` or ``class*``, except for the towers before them.

    Raises:
      ValueError: if prior is out of range.

    Example:
      >>> layer = {"bias": np.zeros(80), "kernel": np.zeros((64, 80), np.float32)}
      >>> rules = recipes.detection_head(prior=0.01)
      >>> bias, kernel = jaxinit.preview({"cls_score": layer}, rules).rows
      >>> kernel.std, round(float(jax.nn.sigmoid(bias.law)), 4)
      (0.01, 0.01)

    References:
      Lin, Goyal, Girshick, He, Dollar. Focal Loss for Dense Object Detection. 2017.
      https://arxiv.org/abs/1708.02002
    """
    try:
        if not 0 < (share := check.real(prior=prior)) < 1:
            raise check.Unfit("prior must lie between 0 and 1, both out.", prior=prior)
    except check.Unfit as error:
        raise error.at("recipes.detection_head") from None
    scores = math.log(share) - math.log1p(-share)
    usual = [(Part("class scores", "bias", _is_of_scores), "bias of class scores")]
    group = every_matrix("detection_head")
    return [
        *named("detection_head", scores, classes, usual, name="classes"),
        RecipeRule(KERNEL, init.normal(0.01), group),
        *NORMS,
    ]


def _is_of_scores(site: Site) -> bool:
    """Returns whether a bias belongs to class scores, not to a layer before them."""
    tower = re.search(r"tower|conv|subnet|stem|feat|norm|\d$", site.owner)
    return re.match(r"cls|class", site.owner) is not None and tower is None
