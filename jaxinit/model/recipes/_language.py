"""Language models as rules."""

import math
from collections.abc import Mapping
from typing import Any

from jaxinit import initializers as init
from jaxinit._initializer import Initializer
from jaxinit.model._rules import Rule
from jaxinit.model.recipes._form import (
    NORMS,
    RESIDUAL,
    Patterns,
    at_least_one,
    by_fans,
    each,
)

_WEIGHTS = ("kernel", "embedding", "pos*", "wpe", "wte")


def gpt2(
    layers: int, *, std: float = 0.02, residual: Patterns = RESIDUAL
) -> list[Rule]:
    """GPT-2: small normal weights, smaller where they add to the residual stream.

    Law: N(0, std^2); projections into the residual stream N(0, std^2 / (2 L)); biases
    0, norms 1 and 0.

    Args:
      layers: the number of blocks L.
      std: standard deviation of the weights.
      residual: patterns of the kernels whose output is added to the stream.

    Raises:
      ValueError: if layers is below 1.

    References:
      Radford, Wu, Child, Luan, Amodei, Sutskever. Language Models are Unsupervised
      Multitask Learners. 2019.
    """
    scaled = init.normal(std / math.sqrt(2 * at_least_one("gpt2", layers=layers)))
    weights = init.normal(std)
    return [
        *each(residual, scaled),
        *each(_WEIGHTS, weights),
        *NORMS,
    ]


def llama(
    layers: int, *, std: float = 0.02, residual: Patterns = RESIDUAL
) -> list[Rule]:
    """LLaMA as trained by Megatron: as `gpt2`, which Megatron-LM made the custom.

    Args:
      layers: the number of blocks L.
      std: standard deviation of the weights.
      residual: patterns of the kernels whose output is added to the stream.

    Raises:
      ValueError: if layers is below 1.

    References:
      Shoeybi, Patwary, Puri, LeGresley, Casper, Catanzaro. Megatron-LM. 2019.
      https://arxiv.org/abs/1909.08053
      Touvron and others. LLaMA. 2023. https://arxiv.org/abs/2302.13971
    """
    at_least_one("llama", layers=layers)
    return gpt2(layers, std=std, residual=residual)


megatron = llama


def gpt_neox(layers: int, width: int, *, residual: Patterns = RESIDUAL) -> list[Rule]:
    """GPT-NeoX: "small init", and "Wang init" where it adds to the residual stream.

    Law: N(0, 2 / (5 width)); into the residual stream N(0, 4 / (L^2 width)), whose
    standard deviation is 2 / (L sqrt(width)); biases 0, norms 1 and 0.

    Args:
      layers: the number of blocks L.
      width: of the residual stream.
      residual: patterns of the kernels whose output is added to the stream.

    Raises:
      ValueError: if layers or width is below 1.

    References:
      Nguyen, Salazar. Transformers without Tears. 2019.
      https://arxiv.org/abs/1910.05895
      Black and others. GPT-NeoX-20B. 2022. https://arxiv.org/abs/2204.06745
    """
    depth = at_least_one("gpt_neox", layers=layers)
    at_least_one("gpt_neox", width=width)
    return [
        *each(residual, init.normal(2 / (depth * math.sqrt(width)))),
        *each(_WEIGHTS, init.normal(math.sqrt(2 / (5 * width)))),
        *NORMS,
    ]


def t5(
    head_dim: int,
    *,
    query: Patterns = ("**/query/kernel", "**/q/kernel"),
    relative: Patterns = ("**/rel*/embedding", "**/rel*bias*/*"),
) -> list[Rule]:
    """T5: the variance of each kernel is 1 / fan_in, of the queries less.

    Attention is not divided by sqrt(head_dim): the queries' weights are.

    Law: kernels N(0, 1 / fan_in); queries N(0, 1 / (fan_in head_dim)); embeddings
    N(0, 1); the relative positions' bias N(0, 1 / width), where width is that of the
    model, here as many as its outputs (heads) times head_dim; norms 1, biases 0.

    Args:
      head_dim: outputs of one head.
      query: patterns of the queries' kernels.
      relative: patterns of the relative positions' tables.

    Raises:
      ValueError: if head_dim is below 1.

    References:
      Raffel and others. Exploring the Limits of Transfer Learning with a Unified
      Text-to-Text Transformer. 2020. https://arxiv.org/abs/1910.10683
    """
    at_least_one("t5", head_dim=head_dim)

    def table(path: str, leaf: Any, siblings: Mapping[str, Any]) -> Initializer:
        return init.normal(1 / math.sqrt(leaf.shape[-1] * head_dim))

    return [
        *each(query, by_fans(1 / head_dim, "fan_in", "normal")),
        *each(relative, table),
        ("kernel", by_fans(1.0, "fan_in", "normal")),
        ("embedding", init.normal(1.0)),
        *NORMS,
    ]


def bert(*, std: float = 0.02) -> list[Rule]:
    """BERT: truncated normal weights.

    Law: N(0, std^2) cut off at ±2 std, whose standard deviation is 0.88 std; biases 0,
    norms 1 and 0.

    Args:
      std: standard deviation before the cut.

    References:
      Devlin, Chang, Lee, Toutanova. BERT. 2018. https://arxiv.org/abs/1810.04805
    """
    weights = init.truncated_normal(std)
    return [*each(("kernel", "embedding", "pos*"), weights), *NORMS]
