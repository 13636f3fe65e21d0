"""Predicts signal and gradient by theory, along layers that follow each other."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxinit import _check as check
from jaxinit._gain import ACTIVATIONS
from jaxinit.signal._measure.layers import Measured
from jaxinit.signal._measure.statistics import average
from jaxinit.signal._trace.links import find_chains
from jaxinit.signal._trace.site import Product
from jaxinit.signal.theory._profile import prepare_expectations
from jaxinit.signal.theory._propagation import (
    Convolution,
    Dense,
    propagate_gradients,
    propagate_variances,
)


def predict_layers(measured: Sequence[Measured]) -> dict[int, dict[str, float]]:
    """Predicts the sizes of signal and gradient; layers go by their index."""
    place = {m.site.number: i for i, m in enumerate(measured)}
    by_index: dict[int, dict[str, float]] = {}
    for chain in find_chains((m.site, m.step) for m in measured):
        at = [place[site.number] for site in chain]
        predictions = _predict_chain([measured[i] for i in at])
        by_index |= zip(at, predictions, strict=bool(predictions))
    return by_index


@np.errstate(over="ignore", invalid="ignore")
def _predict_chain(chain: Sequence[Measured]) -> list[dict[str, float]]:
    """Predicts a chain from its input, its weights and its last gradient."""
    first, last = chain[0], chain[-1]
    if "input_rms" not in first.forward:
        return []
    moment = _average_squares(first.fields.get("input", first.forward["input_rms"]))
    layers = [_map_layer(m, chain[i - 1] if i else None) for i, m in enumerate(chain)]
    sizes = [number for layer in layers for number in (layer.weight, layer.bias)]
    if not np.isfinite([*sizes, np.sum(moment)]).all() or not all(sizes[::2]):
        return []
    functions: list[Any] = []
    for m in chain:
        name = m.activation
        known = name is None or name in ACTIVATIONS
        functions.append((name or "identity") if known else m.site.activation)
    try:
        of = prepare_expectations(functions, [None] * len(functions))
        variances, _ = propagate_variances(of, layers, moment)
        end = _average_squares(last.fields.get("gradient", last.backward["rms"]))
        gradients = propagate_gradients(of, layers, variances, end)
    except (check.Unfit, ValueError, TypeError):  # an activation without a prediction
        return []
    return [
        {"std": math.sqrt(np.mean(q)), "gradient_std": math.sqrt(np.mean(g))}
        for q, g in zip(variances, gradients, strict=True)
    ]


def _average_squares(rms: np.ndarray) -> Any:
    """Averages squares over seeds: a number, or an array by tap or position."""
    square = np.square(rms, dtype=np.float64).mean(0)
    return square if square.ndim else float(square)


def _map_layer(m: Measured, before: Measured | None) -> Dense:
    """Makes the theory's map of a layer, behind another one or a chain's input."""
    weight = average(m.forward["weight_std"] ** 2) * m.site.fan_in
    bias = average(np.square(m.forward.get("bias_rms", 0.0), dtype=np.float64))
    units = math.prod(m.shape[axis] for axis in m.site.unit_axes)
    if m.site.kind == "dense":
        return Dense(weight, bias, units / m.site.fan_in)
    assert isinstance(m.site, Product)
    shares = _average_squares(m.fields["weight"])
    groups = m.site.eqn.params["feature_group_count"]
    ratio = units / groups * shares.size / m.site.fan_in
    window = _find_window(m.site, m.shape, before, shares.shape)
    return Convolution(weight, bias, ratio, shares / shares.sum(), *window)


def _find_window(
    site: Product,
    out_shape: tuple[int, ...],
    before: Measured | None,
    taps: tuple[int, ...],
) -> tuple[tuple[int, ...], tuple[np.ndarray, ...]]:
    """Finds the ``sizes`` and ``places`` of a `Convolution`."""
    params = site.eqn.params
    axes = params["dimension_numbers"].lhs_spec[2:]
    shape = site.input.aval.shape  # after padding, where places are known
    moved = site.places or tuple(map(np.arange, shape))
    places = []
    for axis, out_axis, count, stride, (low, _), spread, dilation in zip(
        axes,
        params["dimension_numbers"].out_spec[2:],
        taps,
        params["window_strides"],
        params["padding"],
        params["lhs_dilation"],
        params["rhs_dilation"],
        strict=True,
    ):
        outputs = np.arange(out_shape[out_axis])[:, None]
        at = stride * outputs + dilation * np.arange(count) - low
        at, between = np.divmod(at, spread)
        inside = (between == 0) & (at >= 0) & (at < shape[axis])
        places.append(np.where(inside, moved[axis].take(at, mode="clip"), -1))
    source = before.shape if before and site.places else shape
    return tuple(source[axis] for axis in axes), tuple(places)
