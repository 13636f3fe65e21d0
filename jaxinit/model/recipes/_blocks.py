"""Recipes whose laws depend on the number of the block, counted from the inputs."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

from jaxinit import _check as check
from jaxinit import initializers as init
from jaxinit._initializer import Initializer
from jaxinit.model._rules._traced import TracedSite
from jaxinit.model._rules._vocabulary import join
from jaxinit.model._rules.conventions import Site
from jaxinit.model._rules.defining import Law, Part, RecipeRule, meets
from jaxinit.model._rules.patterns import Pattern, is_pattern
from jaxinit.model._rules.readings import Reading
from jaxinit.model._rules.reinit import Rule
from jaxinit.model.recipes._form import (
    ATTENTION_OUT,
    EMBEDDING,
    HEAD,
    KERNEL,
    MLP_OUT,
    NORMS,
    POSITION,
    SIZES,
    Patterns,
    by_fans,
    by_size,
    deviation,
    every_matrix,
    learned,
    may_have_head,
    named,
    read_width,
    settle,
)

__all__ = ["ds_init", "olmo"]

Blocks = Mapping[Pattern, int]


def ds_init(alpha: float = 1.0, *, blocks: Blocks | None = None) -> list[Rule]:
    """DS-Init: post-norm transformers whose deeper blocks begin smaller.

    Law: Xavier uniform, Var[w] = 2 gain^2 / (fan_in + fan_out), with gain
    alpha / sqrt(l) for all kernels of block number l, counted from 1, and gain 1
    outside of blocks. Biases 0, norms 1 and 0, embeddings N(0, 1 / width).

    This is the paper's law. The authors' code multiplies the variance, and not the
    standard deviation, by alpha / sqrt(l): its weights fall off as l^(-1/4).

    Where the structure of the model is known, a block is a branch with attention, or
    several in a row, and what follows; encoder and decoder are told apart by the number
    of their branches, and each is counted from 1. Else the numbers in names count, as
    in ``layers_0`` or ``blocks.0``.

    Args:
      alpha: gain of the first block, 0 or above.
      blocks: the number of each block by a pattern of its kernels, such as
        ``{"**/first/**": 1, "**/second/**": 2}``; by default as above.

    Raises:
      ValueError: if alpha is negative, or a number below 1; in `reinit`, if blocks
        cannot be counted, or a loop stacks them.

    Example:
      >>> block = {"attn": {"query": {"kernel": np.zeros((64, 64), np.float32)}}}
      >>> params = {f"block_{i}": block for i in range(4)}
      >>> rows = jaxinit.preview(params, recipes.ds_init()).rows
      >>> [round(row.std / rows[0].std, 3) for row in rows]
      [1.0, 0.707, 0.577, 0.5]

    References:
      Zhang, Titov, Sennrich. Improving Deep Transformer with Depth-Scaled
      Initialization and Merged Attention. 2019. https://arxiv.org/abs/1908.11365
    """
    try:
        gain = check.not_negative(alpha=alpha)
    except check.Unfit as error:
        raise error.at("recipes.ds_init") from None

    def scale(number: int) -> Law:
        return by_fans(gain**2 / number, "fan_avg", "uniform")

    inside = Part(
        "block", "kernel", lambda site: _find_block("ds_init", site, blocks) is not None
    )
    usual = [(inside, "kernel of a numbered block")]
    given = _list_patterns("ds_init", blocks)
    width = Law(lambda site: init.normal(1 / math.sqrt(read_width(site))))
    return [
        RecipeRule(EMBEDDING, width),
        *NORMS,
        *named(
            "ds_init", _by_block("ds_init", blocks, scale), given, usual, name="blocks"
        ),
        RecipeRule(KERNEL, by_fans(1.0, "fan_avg", "uniform"), every_matrix("ds_init")),
    ]


_METHODS = ("normal", "normalized", "llama", "llama_depth", "fan_in")
_USES = {
    "layers": ("llama", "normalized"),
    "width": ("normalized",),
    "std": ("normal", "llama", "llama_depth"),
    "residual": ("llama", "llama_depth", "normalized"),
    "head": ("llama", "llama_depth"),
    "blocks": ("llama_depth",),
}


def olmo(
    method: Literal[
        "normal", "normalized", "llama", "llama_depth", "fan_in"
    ] = "normal",
    *,
    layers: int | None = None,
    width: int | None = None,
    std: float | None = None,
    residual: Patterns | None = None,
    head: Patterns | None = None,
    blocks: Blocks | None = None,
) -> list[Rule]:
    """OLMo: normal weights cut off at three standard deviations, by five methods.

    Law: kernels N(0, std^2) cut off at ±3 std, whose standard deviation is 0.987 std;
    biases 0, norms 1 and 0. "normal" has that for embeddings and the output layer too.
    "llama" divides std by sqrt(2 L) where kernels write into the residual stream, and
    in the ungated kernel of a gated MLP; embeddings are N(0, 1), uncut, and the output
    layer has std = 1 / sqrt(width). "llama_depth" is the same with sqrt(2 l) for the
    block of number l, counted from 1. "normalized" has std = 1 / sqrt(width), divided
    by sqrt(2 L) in the residual stream, and embeddings N(0, 1 / width), uncut. "fan_in"
    has std = 1 / sqrt(fan_in) and embeddings N(0, 1), uncut.

    The methods are those of the code, OLMo-core. OLMo 2's report has N(0, 0.02^2) for
    every parameter; the cut is the code's, and so are the other methods. In a mixture
    of experts the code divides router and experts as a whole; here the experts are as
    an MLP.

    Args:
      method: one of the five.
      layers: the number of blocks L, for "llama" and "normalized"; by default half the
        kernels that write into the residual stream, by the model's structure.
      width: the width of the residual stream, for "normalized"; by default as the
        structure tells.
      std: for "normal", "llama" and "llama_depth"; by default 0.02.
      residual: patterns of the kernels whose output is added to the stream; by default
        the outputs of attention and of MLPs, by their usual names. Not for "normal" and
        "fan_in".
      head: patterns of the output layer's kernel, for "llama" and "llama_depth"; by
        default its usual names. A model whose embedding is its output layer has none.
      blocks: as for `ds_init`, for "llama_depth".

    Raises:
      ValueError: if the method is unknown, or does not use an argument that is given,
        or a number is out of range.

    Example:
      >>> kernel = {"kernel": np.zeros((64, 64), np.float32)}
      >>> attention = dict.fromkeys(("key", "out", "query"), kernel)
      >>> block = {"attn": attention, "mlp": {"fc2": kernel}}
      >>> rules = recipes.olmo("llama", layers=8)
      >>> _, out, query, _ = jaxinit.preview(block, rules).rows
      >>> round(query.std, 4), round(query.std / out.std, 4)
      (0.0197, 4.0)

    References:
      OLMo Team. 2 OLMo 2 Furious. 2025. https://arxiv.org/abs/2501.00656
      OLMo-core. InitMethod. https://github.com/allenai/OLMo-core
    """
    chosen = {"layers": layers, "width": width, "std": std, "residual": residual}
    try:
        check.choice(_METHODS, method=method)
        for name, value in (chosen | {"head": head, "blocks": blocks}).items():
            if value is not None and method not in _USES[name]:
                rule = f"{name} is not used by the method {method!r}."
                raise check.Unfit(rule, ValueError, **{name: value})
    except check.Unfit as error:
        raise error.at("recipes.olmo") from None
    spread = deviation("olmo", 0.02 if std is None else std)
    kernels, embeddings, scaled = _olmo(method, spread, layers, width, blocks)
    rules: list[Rule] = []
    if scaled is not None:
        usual = [
            (ATTENTION_OUT, "output projection of attention"),
            (MLP_OUT, "output projection of an MLP"),
        ]
        rules += named("olmo", scaled, residual, usual, name="residual")
    if method.startswith("llama"):
        words = [(HEAD, "kernel of the output layer")]
        rules += named(
            "olmo", Law(_cut_by_fan), head, words, may_have_head, name="head"
        )
        rules.append(RecipeRule(Part("ungated kernel", "kernel", _is_ungated), scaled))
    return [
        *rules,
        RecipeRule(KERNEL, kernels, every_matrix("olmo")),
        RecipeRule(EMBEDDING, embeddings),
        RecipeRule(POSITION, learned(embeddings)),
        *NORMS,
    ]


def _olmo(
    method: str,
    std: float,
    layers: int | None,
    width: int | None,
    blocks: Blocks | None,
) -> tuple[Any, Any, Any]:
    """Returns the laws of kernels, of embeddings, and of the residual stream."""

    def by_layers(layers: float) -> Initializer:
        return _cut(std / math.sqrt(2 * layers))

    def by_both(layers: float, width: int) -> Initializer:
        return _cut(1 / math.sqrt(2 * layers * width))

    def by_width(width: int) -> Initializer:
        return _cut(1 / math.sqrt(width))

    match method:
        case "normal":
            return _cut(std), _cut(std), None
        case "fan_in":
            return Law(_cut_by_fan), init.normal(1.0), None
        case "llama":
            scaled = by_size("olmo", by_layers, SIZES, layers=layers)
            return _cut(std), init.normal(1.0), scaled
        case "llama_depth":
            return _cut(std), init.normal(1.0), _by_block("olmo", blocks, by_layers)
    tables = Law(lambda site: init.normal(1 / math.sqrt(read_width(site))))
    scaled = by_size("olmo", by_both, SIZES, layers=layers, width=width)
    return by_size("olmo", by_width, SIZES, width=width), tables, scaled


def _cut(std: float) -> Initializer:
    return init.truncated_normal(std, lower=-3.0, upper=3.0)


def _cut_by_fan(site: Site) -> Any:
    def build(reading: Reading) -> Initializer:
        return _cut(1 / math.sqrt(reading.fans(site.shape)[0]))

    return settle(site, build)


def _is_ungated(site: Site) -> bool:
    """Returns whether a kernel is multiplied by a gate, and has no activation."""
    if site.part != "mlp in":
        return False
    if not isinstance(site, TracedSite):
        gates = {"w1", "gate", "gate_proj"} & {*site.cousins}
        return site.owner in ("w3", "up", "up_proj") and bool(gates)
    near = [x for x in site.branch if x.part == "mlp in"]
    return site.row.activation is None and any(x.row.activation for x in near)


# The numbers of blocks.


def _list_patterns(recipe: str, blocks: Blocks | None) -> list[Pattern] | None:
    """Returns the patterns of an argument that gives blocks their numbers."""
    if blocks is None:
        return None
    try:
        if not isinstance(blocks, Mapping) or not all(map(is_pattern, blocks)):
            rule = "blocks must be a mapping of patterns to the numbers of blocks."
            raise check.Unfit(rule, TypeError, blocks=blocks)
        for number in blocks.values():
            check.at_least(1, blocks=number)
    except check.Unfit as error:
        raise error.at(f"recipes.{recipe}") from None
    return list(blocks)


def _by_block(recipe: str, blocks: Blocks | None, build: Callable[[int], Any]) -> Law:
    """Makes the law of the kernels of a block from the block's number."""
    _list_patterns(recipe, blocks)

    def of(site: Site) -> Any:
        if site.kind != "kernel":
            return None  # a pattern may fit all that a block has
        number = _find_block(recipe, site, blocks)
        if number is None:
            raise _uncounted(recipe, "it stands in no block with a number")
        law = build(number)
        return law.of(site) if isinstance(law, Law) else law

    return Law(of)


def _find_block(recipe: str, site: Site, blocks: Blocks | None) -> int | None:
    """Returns the number of the block that a kernel stands in, from 1, or None."""
    if blocks is not None:
        numbers = (n for pattern, n in blocks.items() if meets(pattern, site))
        return next(numbers, None)
    if not isinstance(site, TracedSite):
        return _read_number(recipe, site)
    branch = site.row.branch
    if branch == 0:
        return None
    sites: Any = site.sites
    if site.path in sites.looped:
        raise _uncounted(
            recipe, "a loop stacks it, and all layers of a stack have one law"
        )
    counted: dict[int, int] | str = sites.blocks
    if isinstance(counted, str):
        raise _uncounted(recipe, counted)
    return counted[branch]


def _uncounted(recipe: str, why: str) -> ValueError:
    return ValueError(
        f"recipes.{recipe} needs the number of the block here, and {why}. Say "
        f"recipes.{recipe}(blocks={{pattern: number, ...}})."
    )


_NUMBERED = re.compile(r"(block|layer|stage|unit|^h|^)_?\d+$", re.IGNORECASE)


def _read_number(recipe: str, site: Site) -> int | None:
    """Returns the number that the name of the block around a kernel has.

    A block is the innermost module of a numbered name that has attention.
    """
    names = site.module.split("/")
    several = False
    for depth, name in enumerate(names[:-1]):
        around = "/".join(names[:depth])
        near = names[max(depth - 1, 0) : depth + 1] if name.isdigit() else [name]
        if not _NUMBERED.search(_singular("".join(near))):
            continue
        peers = site.sites.numbered(around).get(name, [])
        blocks = [peer for peer in peers if _has_attention(site, join(around, peer))]
        if name in blocks and several:
            raise _uncounted(recipe, "numbered blocks stand in several numbered parts")
        if name in blocks:
            return 1 + blocks.index(name)
        several |= len(peers) > 1
    return None


def _has_attention(site: Site, module: str) -> bool:
    return site.sites.attends(module) or site.sites.contains(module) == "attention"


def _singular(name: str) -> str:
    """Returns the name of one of several: "layers_3" becomes "layer_3"."""
    return re.sub(r"s(_?\d+)$", r"\1", name)
