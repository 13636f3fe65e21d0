"""Recipes that let deep models train without, or with fewer, norms."""

import math
import re
from collections.abc import Sequence
from typing import Any, Literal

from jaxinit import _check as check
from jaxinit.model._rules.conventions import Site, Sites
from jaxinit.model._rules.defining import Law, Part, RecipeRule, meets
from jaxinit.model._rules.reinit import Rule
from jaxinit.model.recipes._form import (
    HEAD,
    KERNEL,
    NORMS,
    Patterns,
    by_fans,
    by_size,
    count,
    every_matrix,
    may_have_head,
    named,
    scale_values,
)

__all__ = ["deepnorm", "deepnorm_alpha", "fixup", "magneto", "t_fixup"]


def deepnorm(
    layers: int | None = None,
    *,
    decoder_layers: int = 0,
    part: Literal["encoder", "decoder"] = "encoder",
    scaled: Patterns | None = None,
) -> list[Rule]:
    """DeepNorm: post-norm transformers of up to a thousand layers.

    The residual stream is multiplied by `deepnorm_alpha` before it is added and normed.

    Law: Xavier normal, Var[w] = 2 gain^2 / (fan_in + fan_out), with gain 1; for
    feed-forward, values and output projections with gain beta: (8 L)^(-1/4) if there is
    an encoder or a decoder alone; with N encoder and M decoder layers
    0.87 (N^4 M)^(-1/16) in the encoder and (12 M)^(-1/4) in the decoder. Biases 0,
    norms 1 and 0, embeddings N(0, 1 / width).

    The authors' later code, torchscale, has 1.15 in place of 0.87, and gain 1 / sqrt(2)
    for queries, keys and values before beta; here the paper's numbers stand.

    Args:
      layers: the number N of the encoder's layers, or L of a model with one part; by
        default half the kernels that write into the residual stream, by the structure
        of a model with one part.
      decoder_layers: the number M for a decoder beside the encoder; 0 for none.
      part: which of two parts the rules are for.
      scaled: patterns of the kernels that get beta; by default values, attention's
        outputs and MLPs, by their usual names. In one kernel for queries, keys and
        values the structure of the model tells which part gets it.

    Raises:
      ValueError: if a number of layers or the part is out of range.

    Example:
      >>> kernel = {"kernel": np.zeros((64, 64), np.float32)}
      >>> attention = dict.fromkeys(("key", "out", "query", "value"), kernel)
      >>> params = {"attn": attention, "mlp": {"fc1": kernel, "fc2": kernel}}
      >>> rows = jaxinit.preview(params, recipes.deepnorm(layers=32)).rows
      >>> [row.std / rows[0].std for row in rows]  # key, out, query, value, fc1, fc2
      [1.0, 0.25, 1.0, 0.25, 0.25, 0.25]

    References:
      Wang, Ma, Dong, Huang, Zhang, Wei. DeepNet: Scaling Transformers to 1,000 Layers.
      2022. https://arxiv.org/abs/2203.00555
    """
    _check_parts("deepnorm", layers, decoder_layers, part)

    def beta(layers: float) -> float:
        return _deepnorm(layers, decoder_layers, part)[1]

    return scale_values("deepnorm", "normal", layers, beta, lambda layers: 1.0, scaled)


def deepnorm_alpha(
    layers: int,
    *,
    decoder_layers: int = 0,
    part: Literal["encoder", "decoder"] = "encoder",
) -> float:
    """Computes DeepNorm's factor on the residual stream: norm(alpha x + f(x)).

    Law: (2 L)^(1/4) for one part; for two, 0.81 (N^4 M)^(1/16) in the encoder and
    (3 M)^(1/4) in the decoder.

    Args:
      layers: as for `deepnorm`.
      decoder_layers: as for `deepnorm`.
      part: as for `deepnorm`.

    Returns:
      alpha.

    Raises:
      ValueError: as `deepnorm`.

    Example:
      >>> recipes.deepnorm_alpha(layers=8)
      2.0

    References:
      As `deepnorm`.
    """
    _check_parts("deepnorm", layers, decoder_layers, part)
    return _deepnorm(layers, decoder_layers, part)[0]


def _check_parts(
    recipe: str, layers: int | None, decoder_layers: int, part: str
) -> None:
    """Checks the arguments of a recipe for an encoder, a decoder, or both."""
    if count(recipe, least=0, decoder_layers=decoder_layers) or layers is not None:
        count(recipe, layers=layers)
    _check_part(recipe, part)


def _deepnorm(first: float, second: int, part: str) -> tuple[float, float]:
    """Returns alpha and beta of a part of a model."""
    if not second:
        return (2 * first) ** 0.25, (8 * first) ** -0.25
    if part == "encoder":
        both = (first**4 * second) ** (1 / 16)
        return 0.81 * both, 0.87 / both
    return (3 * second) ** 0.25, (12 * second) ** -0.25


def _check_part(recipe: str, part: str) -> None:
    try:
        check.choice(("encoder", "decoder"), part=part)
    except check.Unfit as error:
        raise error.at(f"recipes.{recipe}") from None


def magneto(
    layers: int | None = None,
    *,
    decoder_layers: int = 0,
    part: Literal["encoder", "decoder"] = "encoder",
    scaled: Patterns | None = None,
    cross: Patterns | None = None,
) -> list[Rule]:
    """Magneto: transformers with a second norm within each branch.

    Sub-LN puts it before attention's output projection and before the second kernel of
    the MLP, so that these kernels need not be small.

    Law: Xavier normal, Var[w] = 2 gain^2 / (fan_in + fan_out), with gain 1; for
    feed-forward, values and output projections with gain sqrt(log(2 L)) if there is an
    encoder or a decoder alone; with N encoder and M decoder layers
    sqrt(log(3 M) log(2 N) / 3) in the encoder and sqrt(log(3 M)) in the decoder.
    Biases 0, norms 1 and 0, embeddings N(0, 1 / width).

    The authors' code, torchscale, multiplies by the same gains what its layers were
    drawn from, torch's default; and leaves the decoder's attention to the encoder at
    gain 1, as this recipe does. Its output layer is N(0, 1 / width).

    Args:
      layers: the number N of the encoder's layers, or L of a model with one part; by
        default half the kernels that write into the residual stream, by the structure
        of a model with one part.
      decoder_layers: the number M for a decoder beside the encoder; 0 for none.
      part: which of two parts the rules are for.
      scaled: patterns of the kernels with the gain; by default as for `deepnorm`.
      cross: patterns of the kernels of a decoder's attention to the encoder; by default
        by names such as ``cross_attention`` and ``encoder_attn``, for the decoder of a
        model with two parts.

    Raises:
      ValueError: if a number of layers or the part is out of range.

    Example:
      >>> kernel = {"kernel": np.zeros((64, 64), np.float32)}
      >>> attention = dict.fromkeys(("key", "out", "query", "value"), kernel)
      >>> params = {"attn": attention, "mlp": {"fc1": kernel, "fc2": kernel}}
      >>> rows = jaxinit.preview(params, recipes.magneto(layers=12)).rows
      >>> [round(row.std / rows[0].std, 3) for row in rows[:4]]  # sqrt(log(24))
      [1.0, 1.783, 1.0, 1.783]

    References:
      Wang, Ma, Huang and others. Magneto: A Foundation Transformer. 2023.
      https://arxiv.org/abs/2210.06423
    """
    _check_parts("magneto", layers, decoder_layers, part)

    def gain(layers: float) -> float:
        if not decoder_layers:
            return math.sqrt(math.log(2 * layers))
        decoder = math.log(3 * decoder_layers)
        encoder = decoder * math.log(2 * layers) / 3
        return math.sqrt(encoder if part == "encoder" else decoder)

    plain = by_fans(1.0, "fan_avg", "normal")
    both = bool(decoder_layers) and part == "decoder"
    rules: list[Rule] = [RecipeRule(_CROSS, plain)] * both
    if cross is not None:
        rules = named("magneto", plain, cross, (), name="cross")
    return [
        *rules,
        *scale_values("magneto", "normal", layers, gain, lambda layers: 1.0, scaled),
    ]


def t_fixup(
    layers: int | None = None,
    *,
    part: Literal["encoder", "decoder"] = "encoder",
    scaled: Patterns | None = None,
) -> list[Rule]:
    """T-Fixup: transformers without layer norm and without warm-up.

    Law: Xavier uniform kernels; embeddings N(0, 1 / width); then values, output
    projections and feed-forward kernels are multiplied by 0.67 N^(-1/4) in the encoder
    of N layers, by (9 N)^(-1/4) in the decoder; embeddings of both by (9 N)^(-1/4).
    Biases 0.

    The authors' code, in fairseq, leaves queries and keys at its own gain 1 / sqrt(2)
    of Xavier's law; the paper, and this recipe, at 1.

    Args:
      layers: the number of blocks N; by default half the kernels that write into the
        residual stream, by the model's structure.
      part: which of two parts the rules are for.
      scaled: patterns of the kernels that are multiplied; by default as for
        `deepnorm`.

    Raises:
      ValueError: if layers or part is out of range.

    Example:
      >>> kernel = {"kernel": np.zeros((64, 64), np.float32)}
      >>> attention = dict.fromkeys(("key", "out", "query", "value"), kernel)
      >>> params = {"attn": attention, "mlp": {"fc1": kernel, "fc2": kernel}}
      >>> rows = jaxinit.preview(params, recipes.t_fixup(layers=16)).rows
      >>> [round(row.std / rows[0].std, 3) for row in rows[:4]]  # 0.67 / 2
      [1.0, 0.335, 1.0, 0.335]

    References:
      Huang, Perez, Ba, Volkovs. Improving Transformer Optimization Through Better
      Initialization. 2020. https://proceedings.mlr.press/v119/huang20f.html
    """
    _check_part("t_fixup", part)

    def tables(layers: float) -> float:
        return float((9 * layers) ** -0.25)

    def factor(layers: float) -> float:
        return 0.67 * layers**-0.25 if part == "encoder" else tables(layers)

    return scale_values("t_fixup", "uniform", layers, factor, tables, scaled)


def fixup(
    layers: int | None = None,
    *,
    convolutions: int = 2,
    mode: Literal["fan_in", "fan_out"] = "fan_in",
    last: Patterns | None = None,
    head: Patterns | None = None,
    branch: Patterns | None = None,
    skip: Patterns | None = None,
) -> list[Rule]:
    """Fixup: residual networks without norms.

    Law: the last convolution of each branch and the classifier 0; the others in a
    branch N(0, 2 / n) times L^(-1 / (2 m - 2)); all other kernels N(0, 2 / n), with n
    the fan_in or fan_out by mode; scalar biases 0 and scales 1.

    The paper has He's law and does not say for which fan; the authors' code has
    fan_out, and leaves the first convolution at torch's default.

    Args:
      layers: the number of residual branches L; by default as the structure tells.
      convolutions: the number m of convolutions in a branch.
      mode: which fan n is.
      last: patterns of the last kernel of each branch; by default the last of m that
        are numbered, ``conv1`` to ``conv2`` or ``Conv_0`` to ``Conv_1``.
      head: patterns of the classifier's parameters; by default by its usual names, or
        the last dense layer outside of all blocks.
      branch: patterns of the kernels within branches; by default those that are
        numbered, and all others in modules named block.
      skip: patterns of kernels in blocks that are beside the branch; by default those
        of modules named proj, skip, shortcut or downsample.

    Raises:
      ValueError: if layers is below 1, convolutions below 2 or the mode is unknown; in
        `reinit`, if a block has another number of convolutions.

    Example:
      >>> kernel = {"kernel": np.zeros((3, 3, 8, 8), np.float32)}
      >>> block = {"conv1": kernel, "conv2": kernel}
      >>> params = {"block": block, "head": {"kernel": np.zeros((8, 10), np.float32)}}
      >>> first, last, head = jaxinit.preview(params, recipes.fixup(layers=4)).rows
      >>> abs(first.std**2 - 2 / (72 * 4)) < 1e-9, last.std, head.std
      (True, 0.0, 0.0)

    References:
      Zhang, Dauphin, Ma. Fixup Initialization: Residual Learning Without
      Normalization. 2019. https://arxiv.org/abs/1901.09321
    """
    many = count("fixup", least=2, convolutions=convolutions)
    try:
        check.choice(("fan_in", "fan_out"), mode=mode)
    except check.Unfit as error:
        raise error.at("recipes.fixup") from None
    he = by_fans(2.0, mode, "normal")

    def scale(layers: float) -> Law:
        return by_fans(2.0 * layers ** (-1 / (many - 1)), mode, "normal")

    branches_of = {"layers": lambda sites: getattr(sites, "residual_branches", None)}
    small = by_size("fixup", scale, branches_of, layers=layers)

    skips: list[Rule] = [RecipeRule(_SKIP, he)]
    if skip is not None:
        skips = named("fixup", he, skip, (), name="skip")

    def is_last(site: Site) -> bool:
        kernels = _list_branch(site, skips) if site.in_branch else []
        return len(kernels) == many and site is kernels[-1]

    def in_branch(site: Site) -> Any:
        if last is None and len(kernels := _list_branch(site, skips)) != many:
            raise ValueError(
                f"{len(kernels)} convolutions stand beside each other here, and "
                f"convolutions={many}. Say recipes.fixup(convolutions=...), or name "
                "those that are beside the branch: recipes.fixup(skip=...)."
            )
        return small.of(site) if isinstance(small, Law) else small

    def has_branches(sites: Sites) -> bool:
        kernels = [site for site in sites.values() if site.kind == "kernel"]
        return sum(site.part != "head" for site in kernels) >= many

    branches = [(_BRANCH, "convolution of a branch")]
    final = Part("last convolution", "kernel", is_last)
    lasts = [(final, f"convolution number {many} of a branch")]
    heads = [(HEAD, "kernel of the classifier")]
    rules = [
        *skips,
        *named("fixup", 0.0, last, lasts, has_branches, name="last"),
        *named("fixup", 0.0, head, heads, may_have_head, name="head"),
        *named("fixup", Law(in_branch), branch, branches, has_branches, name="branch"),
    ]
    if branch is None:
        rules.append(RecipeRule(_IN_BLOCK, small))
    return [*rules, RecipeRule(KERNEL, he, every_matrix("fixup")), *NORMS]


def _list_branch(site: Site, skips: Sequence[Rule]) -> list[Site]:
    """Lists the kernels of a branch, in order, without those that bypass it."""
    return [
        kernel
        for kernel in site.branch
        if not any(meets(pattern, kernel) for pattern, _ in skips)
    ]


_CROSS = Part(
    "attention to the encoder",
    "kernel",
    lambda site: any(
        map(re.compile("cross|enc(oder)?_?(dec|att)", re.I).search, site.ancestors)
    ),
)
_BRANCH = Part("branch", "kernel", lambda site: site.in_branch)
_IN_BLOCK = Part("block", "kernel", lambda site: site.is_in_named_block)


def _is_skip(site: Site) -> bool:
    """Returns whether a module stands beside a branch, by its name.

    Or by that of the module around it, if it is only a number: torch's
    ``downsample/0``.
    """
    near = [site.owner, *(site.ancestors[-1:] if site.owner.isdigit() else ())]
    names = re.compile("proj|skip|shortcut|downsample|identity")
    return any(map(names.search, near))


_SKIP = Part("skip", "kernel", _is_skip)
