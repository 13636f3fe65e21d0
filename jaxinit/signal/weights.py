"""Judges weights that were drawn before, such as those of several initializers."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from jaxinit._adapt.functions import Model
from jaxinit.signal._judge.findings import Finding
from jaxinit.signal._judge.judge import judge
from jaxinit.signal._judge.verdicts import LIMIT
from jaxinit.signal._measure.seeds import measure_weights


def find_in_weights(
    apply: Callable[..., Any],
    stored: Sequence[Sequence[Any]],
    inputs: tuple[Any, ...],
    key: jax.Array,
) -> list[tuple[Finding, ...]]:
    """Finds what is wrong with a model under weights that were drawn before.

    The model is compiled once for all weights.

    Args:
      apply: the model: ``output = apply(params, rest, key, *inputs)``.
      stored: for each initializer, a pair (params, rest) for each seed.
      inputs: the inputs, whose first axis is over examples.
      key: the key of the model's noise and of the gradient at its output.

    Returns:
      The findings for each initializer, the cause first.
    """
    first = stored[0][0]
    layers = measure_weights(Model(lambda key: first, apply), inputs, stored, key)
    return [judge(measured, LIMIT)[1] for measured in layers]
