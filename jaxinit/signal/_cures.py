"""Cures: what to change in a model, chosen by what is the cause in it."""

import math
from collections.abc import Iterator, Sequence

import jax.numpy as jnp
import numpy as np

from jaxinit._gain import ACTIVATIONS
from jaxinit._number import number, percent
from jaxinit.signal._averages import average, log_size
from jaxinit.signal._findings import Condition
from jaxinit.signal._measure import Measured
from jaxinit.signal._recommend import builder_of, weight_variance

_USUAL = 10.0  # an input is usual within this factor of 1
_OFFSET = 3.0  # and where its mean is within so many of its standard deviations
_SAME = 0.02  # of a weight variance, within which it suits


def cure_of(
    condition: Condition,
    where: Sequence[int],
    measured: Sequence[Measured],
    names: Sequence[str],
    weighted: Sequence[int],
) -> str:
    """Says what to change: what is wrong with the input, the weights or the biases.

    Args:
      condition: what is wrong.
      where: the layers concerned.
      measured: all layers.
      names: theirs.
      weighted: which of them have weights.
    """
    here = [measured[i] for i in where]
    standard = _standardized(measured, weighted)
    suited = _suited(measured, weighted)
    if condition == "saturated attention":
        return _of_attention(here, [names[i] for i in where])
    if condition == "loss above chance":
        return _of_loss(here[0], names[where[0]], standard)
    if condition == "non-finite":
        return _of_overflow(measured, names, where[0], weighted)
    if condition == "symmetric":
        builder = suited or "use kernel_init=jaxinit.lecun_normal()"
        return f"draw the weights at random: {builder}"
    if condition in ("dead", "saturated"):
        parts = [*_of_biases(here), *_of_means(here), standard, suited]
        return _joined(parts) or _otherwise(condition)
    gradient = condition.endswith("gradient")
    if gradient and _activation(measured, weighted) == "sigmoid":
        return (
            "sigmoid passes on at most a quarter of the gradient: use tanh or relu in "
            "the hidden layers, or a normalization before it"
        )
    if suited:
        return suited
    if standard and not gradient:
        return standard
    if (name := _activation(measured, weighted)) is None or len(weighted) < 4:
        return "use smaller weights in the layers named, or a normalization"
    return (
        f"the weights suit {name} already: add a normalization or residual paths, "
        "or make the network less deep"
    )


def weights_of(measured: Sequence[Measured], weighted: Sequence[int]) -> str:
    """Says which gain the weights have and which the activation needs."""
    found = _common(measured, weighted)
    if found is None or not found[2]:
        return ""
    m, name, gain = found
    needed = math.sqrt(_needed(m, name))
    return f": weights of gain {gain:.2g} before {name}, which needs {needed:.2g}"


def _joined(parts: Sequence[str | None]) -> str:
    return ", and ".join(part for part in parts if part)


def _otherwise(condition: Condition) -> str:
    if condition == "dead":
        return "use an activation that has a slope below zero, such as leaky_relu"
    return "use a normalization before the activation"


def _suited(measured: Sequence[Measured], weighted: Sequence[int]) -> str | None:
    """Names weights that suit the activation of most layers, unless they do already."""
    found = _common(measured, weighted)
    if found is None:
        return "use kernel_init=jaxinit.lecun_normal(), or a normalization"
    m, name, gain = found
    needed = _needed(m, name)
    if abs(gain**2 - needed) < _SAME * needed:
        return None
    return (
        f"use kernel_init=jaxinit.{builder_of(needed)} (gain {math.sqrt(needed):.2g})"
    )


def _activation(measured: Sequence[Measured], weighted: Sequence[int]) -> str | None:
    found = _common(measured, weighted)
    return found and found[1]


def _standardized(measured: Sequence[Measured], weighted: Sequence[int]) -> str | None:
    """Says how to give the input mean 0 and variance 1, unless it is near that."""
    forward = measured[weighted[0]].forward
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


def _of_biases(here: Sequence[Measured]) -> Iterator[str]:
    """Names the biases, where they are larger than what they are added to."""
    sizes = [
        (average(m.forward["bias_rms"]), average(m.forward["rms"]))
        for m in here
        if "bias_rms" in m.forward
    ]
    if any(bias > 0.5 * size for bias, size in sizes):
        yield "start the biases at zeros()"


def _of_means(here: Sequence[Measured]) -> Iterator[str]:
    """Names the weights, where their mean outweighs what differs between them."""
    if any(
        abs(average(m.forward["weight_mean"])) * math.sqrt(m.site.fan_in)
        > average(m.forward["weight_std"])
        for m in here
    ):
        yield "draw the weights with mean zero"


def _of_attention(here: Sequence[Measured], names: Sequence[str]) -> str:
    """Finds why the logits of attention are large: weights, scale or input."""
    size = max(m.query_size or 1 for m in here)
    gains = [_gain(m) for m in here]
    large = [name for name, gain in zip(names, gains, strict=True) if gain > 1.5]
    if large:
        where = ", ".join(large[:4]) + (" and so on" if len(large) > 4 else "")
        builder = f"jaxinit.lecun_normal() (gain 1, not {max(gains):.2g})"
        return f"use kernel_init={builder} in {where}"
    logits = max(average(m.forward["attention_std"]) for m in here)
    product = max(average(m.forward["rms"]) for m in here) ** 2 * math.sqrt(size)
    if logits > product / size**0.25:  # it is 1 / sqrt(size) of that, or 1
        return (
            f"divide the product of query and key by sqrt({size}), the size of a head"
        )
    return "normalize what enters the attention, or its queries and keys"


def _of_loss(m: Measured, name: str, standard: str | None) -> str:
    """Finds why outputs are large: the input, or the weights of the last layer."""
    if standard:
        return standard
    gain, std = _gain(m), average(m.forward["std"])
    if gain <= 1.5:
        return f"use a normalization before {name}"
    smaller = average(m.forward["weight_std"]) / std
    return f"use jaxinit.normal({smaller:.1g}) for the weight of {name}"


def _of_overflow(
    measured: Sequence[Measured],
    names: Sequence[str],
    first: int,
    weighted: Sequence[int],
) -> str:
    """Finds where the first number that is not finite comes from."""
    m = measured[first]
    entering = measured[weighted[0]].forward.get("input_nonfinite", 0)
    if (share := average(entering)) > 0:
        return f"clean the input: {percent(share)} of its entries are infinite or none"
    limit = float(jnp.finfo(m.site.output.aval.dtype).max)
    sizes = [log_size(measured[i].forward["rms"]) for i in weighted if i < first]
    sizes += [log_size(measured[i].backward["rms"]) for i in weighted if i > first]
    grown = max((x for x in sizes if math.isfinite(x)), default=0) > math.log(limit) / 2
    large = _gain(m) > _USUAL or grown
    parts = [_standardized(measured, weighted), large and _suited(measured, weighted)]
    return _joined([part for part in parts if part]) or (
        f"look at {names[first]} and before it for a division by zero, a logarithm, or "
        f"numbers that {m.site.output.aval.dtype} does not hold"
    )


def _common(
    measured: Sequence[Measured], weighted: Sequence[int]
) -> tuple[Measured, str, float] | None:
    """Finds the activation of most layers, and the gain of their weights."""
    by_name: dict[str, list[Measured]] = {}
    for i in weighted[:-1] or weighted:
        by_name.setdefault(measured[i].activation or "linear", []).append(measured[i])
    name, members = max(by_name.items(), key=lambda item: len(item[1]))
    gain = float(np.median([_gain(m) for m in members]))
    return (members[0], name, gain) if math.isfinite(gain) else None


def _needed(m: Measured, name: str) -> float:
    """Returns Var[W] * fan_in that suits an activation."""
    activation = name if name in ACTIVATIONS else m.site.activation
    assert activation is not None
    try:
        return weight_variance(activation)[0]
    except (ValueError, TypeError):
        return 1.0


def _gain(m: Measured) -> float:
    """Returns the gain of a layer's weight; 0 for a module."""
    if "weight_std" not in m.forward:
        return 0.0
    return math.sqrt(m.site.fan_in) * average(m.forward["weight_std"])
