"""Cures: says what to change in a model: input, weights, biases or depth.

`VERDICTS` names the cure of each verdict. A cure is a function of the evidence and of
the indices of the layers concerned, and looks for the cause there.
"""

import math
from collections.abc import Iterator, Sequence

import jax.numpy as jnp
import numpy as np

from jaxinit._gain import ACTIVATIONS
from jaxinit._text import number, percent
from jaxinit.signal._judge.evidence import Evidence
from jaxinit.signal._measure.layers import Measured
from jaxinit.signal._measure.statistics import average, log_size
from jaxinit.signal._recommend import choose_builder, find_weight_variance

_USUAL = 10.0  # an input is usual within this factor of 1
_OFFSET = 3.0  # and when its mean is within this many of its standard deviations
_SAME = 0.02  # relative error up to which a weight variance suits


def cure_drift(evidence: Evidence, where: Sequence[int]) -> str:
    """Finds why the signal changes over the depth: weights, input or depth itself."""
    return (
        _suit_weights(evidence) or _standardize_input(evidence) or _cure_depth(evidence)
    )


def cure_gradient(evidence: Evidence, where: Sequence[int]) -> str:
    """Finds why the gradient changes over the depth: sigmoid, weights or depth."""
    if _find_activation(evidence) == "sigmoid":
        return (
            "sigmoid passes on at most a quarter of the gradient: use tanh or relu in "
            "the hidden layers, or a normalization before it"
        )
    return _suit_weights(evidence) or _cure_depth(evidence)


def cure_symmetry(evidence: Evidence, where: Sequence[int]) -> str:
    """Names an initializer that makes units differ."""
    builder = _suit_weights(evidence) or "use kernel_init=jaxinit.lecun_normal()"
    return f"draw the weights at random: {builder}"


def cure_dead(evidence: Evidence, where: Sequence[int]) -> str:
    """Finds why units are zero for every input."""
    otherwise = "use an activation that has a slope below zero, such as leaky_relu"
    return _join_causes(evidence, where) or otherwise


def cure_saturation(evidence: Evidence, where: Sequence[int]) -> str:
    """Finds why entries lie where the activation is flat."""
    otherwise = "use a normalization before the activation"
    return _join_causes(evidence, where) or otherwise


def cure_attention(evidence: Evidence, where: Sequence[int]) -> str:
    """Finds why attention logits are large: weights, scale or input."""
    here = [evidence.layers[i] for i in where]
    size = max(m.query_size or 1 for m in here)
    gains = [_compute_gain(m) for m in here]
    large = [m.name for m, gain in zip(here, gains, strict=True) if gain > 1.5]
    if large:
        places = ", ".join(large[:4]) + (" and so on" if len(large) > 4 else "")
        builder = f"jaxinit.lecun_normal() (gain 1, not {max(gains):.2g})"
        return f"use kernel_init={builder} in {places}"
    logits = max(average(m.forward["attention_std"]) for m in here)
    product = max(average(m.forward["rms"]) for m in here) ** 2 * math.sqrt(size)
    # The scale is 1 / sqrt(size) or, if it was forgotten, 1: halfway between, in logs.
    if logits > product / size**0.25:
        return (
            f"divide the product of query and key by sqrt({size}), the size of a head"
        )
    return "normalize what enters the attention, or its queries and keys"


def cure_loss(evidence: Evidence, where: Sequence[int]) -> str:
    """Finds why outputs are large: the input, or the weights of the last layer."""
    if standard := _standardize_input(evidence):
        return standard
    m = evidence.layers[where[0]]
    gain, std = _compute_gain(m), average(m.forward["std"])
    if gain <= 1.5:
        return f"use a normalization before {m.name}"
    smaller = average(m.forward["weight_std"]) / std
    return f"use jaxinit.normal({smaller:.1g}) for the weight of {m.name}"


def cure_overflow(evidence: Evidence, where: Sequence[int]) -> str:
    """Finds the source of the first number that is not finite."""
    first, layers, weighted = where[0], evidence.layers, evidence.weighted
    m = layers[first]
    entering = layers[weighted[0]].forward.get("input_nonfinite", 0)
    if (share := average(entering)) > 0:
        return f"clean the input: {percent(share)} of its entries are infinite or none"
    limit = float(jnp.finfo(m.site.output.aval.dtype).max)
    sizes = [log_size(layers[i].forward["rms"]) for i in weighted if i < first]
    sizes += [log_size(layers[i].backward["rms"]) for i in weighted if i > first]
    grown = max((x for x in sizes if math.isfinite(x)), default=0) > math.log(limit) / 2
    large = _compute_gain(m) > _USUAL or grown
    parts = [_standardize_input(evidence), _suit_weights(evidence) if large else None]
    return _join(parts) or (
        f"look at {m.name} and before it for a division by zero, a logarithm, or "
        f"numbers that {m.site.output.aval.dtype} does not hold"
    )


def describe_weights(evidence: Evidence) -> str:
    """Says which gain the weights have, and which one the activation needs."""
    common = _find_common(evidence)
    if common is None or not common[2]:
        return ""
    m, name, gain = common
    needed = math.sqrt(_find_needed(m, name))
    return f": weights of gain {gain:.2g} before {name}, which needs {needed:.2g}"


def _cure_depth(evidence: Evidence) -> str:
    name = _find_activation(evidence)
    if name is None or len(evidence.weighted) < 4:
        return "use smaller weights in the layers named, or a normalization"
    return (
        f"the weights suit {name} already: add a normalization or residual paths, "
        "or make the network less deep"
    )


def _join_causes(evidence: Evidence, where: Sequence[int]) -> str:
    """Names all causes that put units where an activation has no slope."""
    here = [evidence.layers[i] for i in where]
    parts = [*_blame_biases(here), *_blame_means(here)]
    return _join([*parts, _standardize_input(evidence), _suit_weights(evidence)])


def _join(parts: Sequence[str | None]) -> str:
    return ", and ".join(part for part in parts if part)


def _suit_weights(evidence: Evidence) -> str | None:
    """Names weights that suit the activation of most layers, unless they do already."""
    common = _find_common(evidence)
    if common is None:
        return "use kernel_init=jaxinit.lecun_normal(), or a normalization"
    m, name, gain = common
    needed = _find_needed(m, name)
    if abs(gain**2 - needed) < _SAME * needed:
        return None
    builder = f"jaxinit.{choose_builder(needed)}"
    return f"use kernel_init={builder} (gain {math.sqrt(needed):.2g})"


def _find_activation(evidence: Evidence) -> str | None:
    common = _find_common(evidence)
    return common and common[1]


def _standardize_input(evidence: Evidence) -> str | None:
    """Says how to give the input mean 0 and variance 1, unless it is near that."""
    forward = evidence.layers[evidence.weighted[0]].forward
    if "input_rms" not in forward:
        return None
    with np.errstate(invalid="ignore"):
        mean = average(forward["input_mean"])
        square = average(forward["input_rms"]) ** 2
    std = math.sqrt(max(square - mean**2, 0.0))
    usual = 1 / _USUAL <= math.sqrt(square) <= _USUAL and abs(mean) <= _OFFSET * std
    if usual or not square or not math.isfinite(square):
        return None
    if not std:
        return f"give inputs that differ: all entries are {number(mean)}"
    shift = f"(x {'-' if mean > 0 else '+'} {abs(mean):.3g})"
    centered = "x" if abs(mean) < 0.1 * std else shift
    return f"standardize the input: {centered} / {std:.3g}"


def _blame_biases(here: Sequence[Measured]) -> Iterator[str]:
    """Names the biases, if they are large beside the outputs they are part of."""
    sizes = [
        (average(m.forward["bias_rms"]), average(m.forward["rms"]))
        for m in here
        if "bias_rms" in m.forward
    ]
    if any(bias > 0.5 * size for bias, size in sizes):
        yield "start the biases at zeros()"


def _blame_means(here: Sequence[Measured]) -> Iterator[str]:
    """Names the weights, if their mean outweighs their deviation from it."""
    if any(
        abs(average(m.forward["weight_mean"])) * math.sqrt(m.site.fan_in)
        > average(m.forward["weight_std"])
        for m in here
    ):
        yield "draw the weights with mean zero"


def _find_common(evidence: Evidence) -> tuple[Measured, str, float] | None:
    """Finds the activation of most layers, and the gain of their weights."""
    by_name: dict[str, list[Measured]] = {}
    for i in evidence.weighted[:-1] or evidence.weighted:
        m = evidence.layers[i]
        by_name.setdefault(m.activation or "linear", []).append(m)
    name, members = max(by_name.items(), key=lambda item: len(item[1]))
    gain = float(np.median([_compute_gain(m) for m in members]))
    return (members[0], name, gain) if math.isfinite(gain) else None


def _find_needed(m: Measured, name: str) -> float:
    """Returns the Var[W] * fan_in that suits an activation."""
    activation = name if name in ACTIVATIONS else m.site.activation
    assert activation is not None
    try:
        return find_weight_variance(activation)[0]
    except (ValueError, TypeError):
        return 1.0


def _compute_gain(m: Measured) -> float:
    """Returns the gain of a layer's weight; 0 for a module."""
    if "weight_std" not in m.forward:
        return 0.0
    return math.sqrt(m.site.fan_in) * average(m.forward["weight_std"])
