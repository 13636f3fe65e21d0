"""Cures: says what to change in a model: input, weights, biases or depth.

`VERDICTS` names the cure of each verdict. A cure is a function of the evidence and of
the indices of the layers concerned, and looks for the cause there.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

import jax.numpy as jnp
import numpy as np

from jaxinit._gain import ACTIVATIONS
from jaxinit._text import number, percent
from jaxinit.signal._judge.evidence import Evidence
from jaxinit.signal._judge.paste import set_biases, set_gains, set_weights
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


def cure_vanishing(evidence: Evidence, where: Sequence[int]) -> str:
    """Finds why the signal is small, or zero for every input."""
    if not {*where} & {*evidence.unfed}:
        return cure_drift(evidence, where)
    if gains := evidence.zero_gains:
        return f"start gains at ones(): {set_gains(evidence, gains)}"
    layers = evidence.layers
    zeros = [i for i in evidence.weighted if not layers[i].forward["weight_std"].any()]
    if not zeros:
        return cure_drift(evidence, where)
    return "draw the weights at random: use " + set_weights(
        evidence, "jaxinit.lecun_normal()", zeros
    )


def cure_collapse(evidence: Evidence, where: Sequence[int]) -> str:
    """Finds why outputs are parallel: the input, weights or depth."""
    offset = _standardize_input(evidence) if is_offset(evidence) else None
    return offset or cure_drift(evidence, where)


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
    builder = _suit_weights(evidence, where) or "use " + set_weights(
        evidence, "jaxinit.lecun_normal()", where
    )
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
        concerned = [i for i, gain in zip(where, gains, strict=True) if gain > 1.5]
        note = f" (gain 1, not {max(gains):.2g}) in {places}"
        builder = "jaxinit.lecun_normal()"
        return f"use {set_weights(evidence, builder, concerned, note)}"
    if standard := _standardize_input(evidence):
        return standard
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
    smaller = f"jaxinit.normal({average(m.forward['weight_std']) / std:.1g})"
    cure = f"use {smaller} for the weight of {m.name}"
    if evidence.framework in ("equinox", "functions"):
        return f"{cure}: {set_weights(evidence, smaller, where)}"
    return cure


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
    parts = [*_blame_biases(evidence, where), *_blame_means(here)]
    return _join([*parts, _standardize_input(evidence), _suit_weights(evidence)])


def _join(parts: Sequence[str | None]) -> str:
    return ", and ".join(part for part in parts if part)


def _suit_weights(evidence: Evidence, where: Sequence[int] = ()) -> str | None:
    """Names weights that suit the activation of most layers, unless they do already.

    If they do, or if only some layers are to blame, those are in ``where``.
    """
    common = _find_common(evidence)
    if common is None:
        every = evidence.weighted
        cure = set_weights(evidence, "jaxinit.lecun_normal()", every)
        return f"use {cure}, or a normalization"
    m, name, gain = common
    needed = _find_needed(m, name)
    if abs(gain**2 - needed) < _SAME * needed:
        return None
    builder = f"jaxinit.{choose_builder(needed)}"
    concerned = where or _list_common(evidence)[1]
    note = f" (gain {math.sqrt(needed):.2g})"
    return f"use {set_weights(evidence, builder, concerned, note)}"


def _find_activation(evidence: Evidence) -> str | None:
    common = _find_common(evidence)
    return common and common[1]


def _standardize_input(evidence: Evidence) -> str | None:
    """Says how to give the input mean 0 and variance 1, unless it is near that."""
    forward = evidence.layers[evidence.weighted[0]].forward
    if "input_rms" not in forward:
        return None
    mean, std = read_moments(forward)
    square = mean**2 + std**2
    usual = 1 / _USUAL <= math.sqrt(square) <= _USUAL and abs(mean) <= _OFFSET * std
    if usual or not square or not math.isfinite(square):
        return None
    if not std:
        return f"give inputs that differ: all entries are {number(mean)}"
    shift = f"(x {'-' if mean > 0 else '+'} {abs(mean):.3g})"
    centered = "x" if abs(mean) < 0.1 * std else shift
    return f"standardize the input: {centered} / {std:.3g}"


def is_offset(evidence: Evidence) -> bool:
    """Returns whether inputs differ by little beside their common mean."""
    forward = evidence.layers[evidence.weighted[0]].forward
    if "input_rms" not in forward:
        return False
    mean, std = read_moments(forward)
    return math.isfinite(mean) and 0 < _OFFSET * std < abs(mean)


def read_moments(forward: Mapping[str, np.ndarray]) -> tuple[float, float]:
    """Returns mean and standard deviation of a layer's input."""
    with np.errstate(invalid="ignore"):
        mean = average(forward["input_mean"])
        square = average(forward["input_rms"]) ** 2
    return mean, math.sqrt(max(square - mean**2, 0.0))


def _blame_biases(evidence: Evidence, where: Sequence[int]) -> Iterator[str]:
    """Names the biases, if they are large beside the outputs they are part of."""
    forward = {i: evidence.layers[i].forward for i in where}
    large = [
        i
        for i, of in forward.items()
        if "bias_rms" in of and average(of["bias_rms"]) > 0.5 * average(of["rms"])
    ]
    if large:
        named = [i for i in large if evidence.layers[i].bias]
        how = f": {set_biases(evidence, named)}" if named else ""
        yield f"start the biases at zeros(){how}"


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
    name, members = _list_common(evidence)
    layers = [evidence.layers[i] for i in members]
    gain = float(np.median([_compute_gain(m) for m in layers]))
    return (layers[0], name, gain) if math.isfinite(gain) else None


def _list_common(evidence: Evidence) -> tuple[str, list[int]]:
    """Lists the layers before the activation that most layers have."""
    by_name: dict[str, list[int]] = {}
    for i in evidence.weighted[:-1] or evidence.weighted:
        name = evidence.layers[i].activation or "linear"
        by_name.setdefault(name, []).append(i)
    return max(by_name.items(), key=lambda item: len(item[1]))


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
