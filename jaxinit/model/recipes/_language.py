"""Language models as rules."""

import math
from typing import Any

from jaxinit import initializers as init
from jaxinit._initializer import Initializer
from jaxinit.model._rules.conventions import Site
from jaxinit.model._rules.defining import Law, RecipeRule
from jaxinit.model._rules.patterns import matches
from jaxinit.model._rules.reinit import Rule
from jaxinit.model.recipes._form import (
    ATTENTION_OUT,
    BIAS,
    EMBEDDING,
    GAIN,
    KERNEL,
    MLP_OUT,
    NORMS,
    POSITION,
    SIZES,
    Patterns,
    by_fans,
    by_size,
    count,
    deviation,
    every_matrix,
    learned,
    named,
    parts,
)

__all__ = ["bert", "gemma", "gpt2", "gpt_neox", "llama", "megatron", "ngpt", "t5"]

_RELATIVE = ("**/rel*/embedding", "**/rel*bias*/*")


def _is_relative(path: str, leaf: Any) -> bool:
    """Returns whether a parameter is a table of relative positions, by its name."""
    return any(matches(glob, path.replace(".", "/"), leaf) for glob in _RELATIVE)


_is_relative.__name__ = "relative positions"


def gpt2(
    layers: int | None = None, *, std: float = 0.02, residual: Patterns | None = None
) -> list[Rule]:
    """GPT-2: small normal weights, smaller where they add to the residual stream.

    Law: N(0, std^2); projections into the residual stream N(0, std^2 / (2 L)); biases
    0, norms 1 and 0. A fixed table of sines stays as it is.

    The paper divides by the square root of the number N of residual layers and says no
    more; it has since been read as N = 2 L, two branches a block. The code that came
    with it has no such factor, and draws positions from N(0, 0.01^2).

    Args:
      layers: the number of blocks L; by default half the kernels that write into the
        residual stream, by the model's structure.
      std: standard deviation of the weights.
      residual: patterns of the kernels whose output is added to the stream; by default
        the outputs of attention and of MLPs, by their usual names.

    Raises:
      ValueError: if layers is below 1, or std negative.

    Example:
      >>> kernel = {"kernel": np.zeros((64, 64), np.float32)}
      >>> block = {"attn": {"out": kernel, "query": kernel}, "mlp": {"fc2": kernel}}
      >>> out, query, _ = jaxinit.preview(block, recipes.gpt2(layers=8)).rows
      >>> query.std, out.std == query.std / 4
      (0.02, True)

    References:
      Radford, Wu, Child, Luan, Amodei, Sutskever. Language Models are Unsupervised
      Multitask Learners. 2019. https://github.com/openai/gpt-2
    """
    return _scaled("gpt2", layers, std, residual)


def llama(
    layers: int | None = None, *, std: float = 0.02, residual: Patterns | None = None
) -> list[Rule]:
    """LLaMA as trained by Megatron: as `gpt2`, a custom that Megatron-LM set.

    Law: N(0, std^2); projections into the residual stream N(0, std^2 / (2 L)); biases
    0, norms 1 and 0.

    LLaMA's own initial weights are not published. Hugging Face's classes draw all
    kernels from N(0, 0.02^2): ``residual=()`` does so.

    Args:
      layers: the number of blocks L; by default half the kernels that write into the
        residual stream, by the model's structure.
      std: standard deviation of the weights.
      residual: patterns of the kernels whose output is added to the stream; by default
        the outputs of attention and of MLPs, by their usual names.

    Raises:
      ValueError: if layers is below 1, or std negative.

    Example:
      >>> kernel = {"kernel": np.zeros((64, 64), np.float32)}
      >>> block = {"attn": {"out": kernel, "query": kernel}, "mlp": {"fc2": kernel}}
      >>> out, query, _ = jaxinit.preview(block, recipes.llama(8, residual=())).rows
      >>> query.std == out.std == 0.02
      True

    References:
      Shoeybi, Patwary, Puri, LeGresley, Casper, Catanzaro. Megatron-LM. 2019.
      https://arxiv.org/abs/1909.08053
      Touvron and others. LLaMA. 2023. https://arxiv.org/abs/2302.13971
    """
    return _scaled("llama", layers, std, residual)


megatron = llama


def _scaled(
    recipe: str, layers: int | None, std: float, residual: Patterns | None
) -> list[Rule]:
    """Makes the rules of normal weights, smaller by 1 / sqrt(2 L) in the stream."""
    spread = deviation(recipe, std)

    def scale(layers: float) -> Initializer:
        return init.normal(spread / math.sqrt(2 * layers))

    scaled = by_size(recipe, scale, SIZES, layers=layers)
    return _normal(recipe, scaled, init.normal(spread), residual)


def _normal(
    recipe: str, scaled: Any, weights: Any, residual: Patterns | None
) -> list[Rule]:
    """Makes the rules of two normal laws."""
    usual = [
        (ATTENTION_OUT, "output projection of attention"),
        (MLP_OUT, "output projection of an MLP"),
    ]
    return [
        *named(recipe, scaled, residual, usual, name="residual"),
        RecipeRule(KERNEL, weights, every_matrix(recipe)),
        RecipeRule(EMBEDDING, learned(weights)),
        RecipeRule(POSITION, learned(weights)),
        *NORMS,
    ]


def gpt_neox(
    layers: int | None = None,
    width: int | None = None,
    *,
    residual: Patterns | None = None,
) -> list[Rule]:
    """GPT-NeoX: "small init", and "Wang init" where it adds to the residual stream.

    Law: N(0, 2 / (5 width)); into the residual stream N(0, 4 / (L^2 width)), whose
    standard deviation is 2 / (L sqrt(width)); biases 0, norms 1 and 0. A fixed table
    of sines stays as it is.

    Paper and code agree. The first law comes from Nguyen and Salazar, who use it for
    every matrix.

    Args:
      layers: the number of blocks L; by default half the kernels that write into the
        residual stream, by the model's structure.
      width: the width of the residual stream; by default as the structure tells.
      residual: patterns of the kernels whose output is added to the stream; by default
        the outputs of attention and of MLPs, by their usual names.

    Raises:
      ValueError: if layers or width is below 1.

    Example:
      >>> kernel = {"kernel": np.zeros((64, 64), np.float32)}
      >>> block = {"attn": {"out": kernel, "query": kernel}, "mlp": {"fc2": kernel}}
      >>> out, query, _ = jaxinit.preview(block, recipes.gpt_neox(8, width=64)).rows
      >>> out.std == 2 / (8 * 64**0.5), abs(query.std**2 - 2 / (5 * 64)) < 1e-9
      (True, True)

    References:
      Nguyen, Salazar. Transformers without Tears. 2019.
      https://arxiv.org/abs/1910.05895
      Black and others. GPT-NeoX-20B. 2022. https://arxiv.org/abs/2204.06745
    """

    def scale(layers: float, width: int) -> Initializer:
        return init.normal(2 / (layers * math.sqrt(width)))

    def spread(width: int) -> Initializer:
        return init.normal(math.sqrt(2 / (5 * width)))

    scaled = by_size("gpt_neox", scale, SIZES, layers=layers, width=width)
    weights = by_size("gpt_neox", spread, SIZES, width=width)
    return _normal("gpt_neox", scaled, weights, residual)


def ngpt(
    layers: int | None = None,
    width: int | None = None,
    *,
    residual: Patterns | None = None,
) -> list[Rule]:
    """nGPT: transformers on the unit sphere.

    Law: N(0, 1 / width); projections into the residual stream N(0, 1 / (2 L width));
    biases 0. Gains stay as they are, and a fixed table of sines.

    That is how the authors' code begins. Then, before the first step and after each, it
    divides the vectors of every matrix that run along the model's width by their norms.
    A model drawn by this recipe still needs that, and after it the standard deviations
    no longer matter.

    The recipe does not know the learned scalings either, which their code stores in
    units of its own: the steps alpha are 0.05 and s_qk and s_z are 1, each stored as
    1 / sqrt(width) beside a constant factor; s_uv is 1, times sqrt(width).

    Args:
      layers: the number of blocks L; by default half the kernels that write into the
        residual stream, by the model's structure.
      width: the width of the residual stream; by default as the structure tells.
      residual: patterns of the kernels whose output is added to the stream; by default
        the outputs of attention and of MLPs, by their usual names.

    Raises:
      ValueError: if layers or width is below 1.

    Example:
      >>> kernel = {"kernel": np.zeros((64, 64), np.float32)}
      >>> block = {"attn": {"out": kernel, "query": kernel}, "mlp": {"fc2": kernel}}
      >>> out, query, _ = jaxinit.preview(block, recipes.ngpt(8, width=64)).rows
      >>> query.std, out.std
      (0.125, 0.03125)

    References:
      Loshchilov, Hsieh, Sun, Ginsburg. nGPT: Normalized Transformer with Representation
      Learning on the Hypersphere. 2024. https://arxiv.org/abs/2410.01131
    """

    def scale(layers: float, width: int) -> Initializer:
        return init.normal(1 / math.sqrt(2 * layers * width))

    def spread(width: int) -> Initializer:
        return init.normal(1 / math.sqrt(width))

    scaled = by_size("ngpt", scale, SIZES, layers=layers, width=width)
    weights = by_size("ngpt", spread, SIZES, width=width)
    return [RecipeRule(GAIN, None), *_normal("ngpt", scaled, weights, residual)]


def gemma(*, std: float = 0.01) -> list[Rule]:
    """Gemma: the same small normal law for every matrix.

    Law: N(0, std^2), kernels and embeddings alike; biases 0. Norms' scales stay as they
    are: Gemma's own are 0, because its norms multiply by 1 + scale, and 1 where a norm
    multiplies by its scale.

    This is what the published code has, Flax's default normal law. There is no smaller
    law for what is added to the residual stream, and embeddings are multiplied by
    sqrt(width) when they are looked up.

    Args:
      std: standard deviation of the weights.

    Raises:
      ValueError: if std is negative.

    Example:
      >>> params = {"embedder": {"input_embedding": np.zeros((512, 64), np.float32)}}
      >>> params |= {"q_einsum": {"w": np.zeros((4, 64, 16), np.float32)}}
      >>> [row.std for row in jaxinit.preview(params, recipes.gemma()).rows]
      [0.01, 0.01]

    References:
      Gemma Team. Gemma: Open Models Based on Gemini Research and Technology. 2024.
      https://arxiv.org/abs/2403.08295
    """
    weights = init.normal(deviation("gemma", std))
    own = ("**/gating_einsum", "**/mlp/linear", "**/input_embedding")
    return [
        *(RecipeRule(pattern, weights) for pattern in own),
        RecipeRule(KERNEL, weights, every_matrix("gemma")),
        RecipeRule(EMBEDDING, learned(weights)),
        RecipeRule(POSITION, learned(weights)),
        RecipeRule(GAIN, None),
        RecipeRule(BIAS, 0.0),
    ]


def t5(
    head_dim: int,
    *,
    query: Patterns | None = None,
    relative: Patterns | None = None,
) -> list[Rule]:
    """T5: the variance of each kernel is 1 / fan_in, and less for queries.

    Attention is not divided by sqrt(head_dim): the queries' weights are.

    Law: kernels N(0, 1 / fan_in); queries N(0, 1 / (fan_in head_dim)); embeddings
    N(0, 1); the relative positions' bias N(0, 1 / width), where the model's width is
    taken to be the bias's outputs (heads) times head_dim; norms 1, biases 0.

    In the largest models of the paper the width is not heads times head_dim: give the
    table a rule of its own. An output layer that is not the embedding is a kernel like
    others here; Hugging Face draws it from N(0, 1).

    Args:
      head_dim: outputs of one head.
      query: patterns of the queries' kernels; by default their usual names.
      relative: patterns of the relative positions' tables; by default
        ``("**/rel*/embedding", "**/rel*bias*/*")``, which a model need not have.

    Raises:
      ValueError: if head_dim is below 1.

    Example:
      >>> kernel = {"kernel": np.zeros((64, 32), np.float32)}
      >>> block = {"attn": {"key": kernel, "query": kernel}}
      >>> key, query = jaxinit.preview(block, recipes.t5(head_dim=16)).rows
      >>> key.std == 1 / 64**0.5, query.std == key.std / 16**0.5
      (True, True)

    References:
      Raffel and others. Exploring the Limits of Transfer Learning with a Unified
      Text-to-Text Transformer. 2020. https://arxiv.org/abs/1910.10683
    """
    size = count("t5", head_dim=head_dim)
    queries = by_fans(1 / size, "fan_in", "normal")

    def by_heads(site: Site) -> Initializer:
        heads = site.shape[0 if site.name == "rel_embedding" else -1]  # as T5X has it
        return init.normal(1 / math.sqrt(heads * size))

    tables = Law(by_heads)
    usual = [(parts("query", "query"), "kernel of queries")]
    tabled: list[Rule] = [RecipeRule(_is_relative, tables)]
    if relative is not None:
        tabled = named("t5", tables, relative, (), name="relative")
    return [
        *named("t5", queries, query, usual, name="query"),
        *tabled,
        RecipeRule(KERNEL, by_fans(1.0, "fan_in", "normal"), every_matrix("t5")),
        RecipeRule(EMBEDDING, init.normal(1.0)),
        *NORMS,
    ]


def bert(*, std: float = 0.02) -> list[Rule]:
    """BERT: truncated normal weights.

    Law: N(0, std^2) cut off at ±2 std, whose standard deviation is 0.88 std; biases 0,
    norms 1 and 0. A fixed table of sines stays as it is.

    The paper says nothing; the authors' code cuts so. Hugging Face's classes draw from
    N(0, std^2) without a cut.

    Args:
      std: standard deviation before the cut.

    Raises:
      ValueError: if std is negative.

    Example:
      >>> params = {"dense": {"kernel": np.zeros((64, 64), np.float32)}}
      >>> (row,) = jaxinit.preview(params, recipes.bert()).rows
      >>> abs(row.std / 0.02 - 0.88) < 0.001
      True

    References:
      Devlin, Chang, Lee, Toutanova. BERT. 2018. https://arxiv.org/abs/1810.04805
    """
    weights = init.truncated_normal(deviation("bert", std))
    return [
        RecipeRule(KERNEL, weights, every_matrix("bert")),
        RecipeRule(EMBEDDING, learned(weights)),
        RecipeRule(POSITION, learned(weights)),
        *NORMS,
    ]
