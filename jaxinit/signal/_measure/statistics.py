"""Statistics of the values at layers of one form, and of their gradients.

Arrays have a leading axis of rows: the layers, and the steps of those in loops. NumPy
takes many rows in a call, whose cost is more than that of a small array.
"""

import functools
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit.signal._trace.gates import measure_saturation
from jaxinit.signal._trace.links import find_chains
from jaxinit.signal._trace.site import Placed, Product, Site, Values

_ALIKE = 1e-5  # of the units' root mean square: projections this close count as equal
_SAMPLE = 256  # the number of an output's entries that are kept for histograms
_RUN = 512  # entries that float32 may add one after another

Array = Any  # a JAX array for one seed, a NumPy array for many


class Forward(NamedTuple):
    """Statistics of a layer's values, as `Layer` explains them; None if not present."""

    activation_zeros: Array | None
    alike: Array
    bias_rms: Array | None
    dead: Array | None
    distance: Array
    fourth: Array
    largest: Array
    mean: Array
    nonfinite: Array
    rms: Array
    saturated: Array | None
    std: Array
    weight_alike: Array | None
    weight_mean: Array | None
    weight_std: Array | None
    zeros: Array
    sample: Array
    # These are measured by site, apart from the loop over equal layers.
    input_rms: Array | None = None
    input_mean: Array | None = None
    input_nonfinite: Array | None = None
    gate_saturated: Array | None = None
    attention_saturated: Array | None = None
    attention_std: Array | None = None
    expected_loss: Array | None = None
    chance_loss: Array | None = None


class Backward(NamedTuple):
    """Statistics of a layer's gradients, as `Layer` explains them."""

    input_alike: Array | None
    nonfinite: Array
    norm: Array
    rms: Array
    std: Array
    weight_alike: Array | None
    weight_std: Array | None


class Activated(NamedTuple):
    """Shares of the entries and units behind an activation."""

    zeros: Array
    dead: Array
    saturated: Array


class Both(NamedTuple):
    """The statistics of a layer, and the rms by tap of a convolution's weight."""

    forward: Forward
    backward: Backward
    taps: Array | None


def measure_layers(
    site: Site, values: Mapping[str, Array], gradients: Mapping[str, Array], xp: Any
) -> Both:
    """Computes the statistics of layers from the parts of their sites.

    The site is one of them: they have equal forms. As in all functions here, `xp` is
    `jax.numpy`, or `numpy` for its own arrays. Statistics of what is behind an
    activation are computed by `measure_activation`.
    """
    y, g = _widen(values["output"]), _widen(gradients["output"])
    sample = _sample(real(y, xp))
    output, scaled = _measure(y, xp)
    gradient, _ = _measure(g, xp)
    examples = y.shape[1] if y.ndim > 2 else 1
    forward = Forward(
        **output._asdict(),
        zeros=_share(y == 0, xp),
        nonfinite=_share_nonfinite(y, output.largest, xp),
        distance=_compute_distance(y, xp),
        alike=_compute_alike(y, scaled, site.unit_axes, xp),
        activation_zeros=None,
        dead=None,
        saturated=None,
        bias_rms=None,
        weight_mean=None,
        weight_std=None,
        weight_alike=None,
        sample=sample,
    )
    backward = Backward(
        input_alike=None,
        std=gradient.std,
        rms=gradient.rms,
        nonfinite=_share_nonfinite(g, gradient.largest, xp),
        norm=gradient.rms * math.sqrt(math.prod(y.shape[1:]) / examples),
        weight_std=None,
        weight_alike=None,
    )
    taps = None
    if isinstance(site, Product):
        units = site.weight_unit_axes
        w, dw = values["weight"], gradients["weight"]
        inputs = tuple(sorted({*range(w.ndim - 1)} - {*units}))
        weight, scaled = _measure(w, xp)
        slope, sloping = _measure(dw, xp)
        forward = forward._replace(
            weight_mean=weight.mean,
            weight_std=weight.std,
            weight_alike=_compute_alike(w, scaled, units, xp),
        )
        backward = backward._replace(
            weight_std=slope.rms,
            weight_alike=_compute_alike(dw, sloping, units, xp, of_gradient=True),
            input_alike=_compute_alike(dw, sloping, inputs, xp, of_gradient=True),
        )
        if site.kind == "conv":
            taps = rms(w, xp, site.eqn.params["dimension_numbers"].rhs_spec[:2])
    if "bias" in values:
        forward = forward._replace(bias_rms=compute_moments(values["bias"], xp).rms)
    # All statistics have one dtype, whatever the layer's.
    forward, backward = jax.tree.map(
        lambda number: number.astype(sample.dtype), (forward, backward)
    )
    return Both(forward, backward, taps)


def compute_fields(
    sites: Iterable[Placed],
    values: Mapping[int, Values],
    gradients: Mapping[int, Values],
    xp: Any,
) -> dict[int, Values]:
    """Computes root mean squares by position at the ends of chains of convolutions.

    They are those of the first layer's ``input`` and of the last one's ``gradient``.
    """
    fields: dict[int, Values] = {}
    for chain in find_chains(sites):
        first, last = chain[0], chain[-1]
        if first.kind == "conv":
            axes = first.eqn.params["dimension_numbers"].lhs_spec[:2]
            x = values[first.number]["input"]
            fields[first.number] = {"input": rms(x[None], xp, axes)[0]}
        if last.kind == "conv":
            axes = last.eqn.params["dimension_numbers"].out_spec[:2]
            gradient = gradients[last.number]["output"]
            fields[last.number] = {"gradient": rms(gradient[None], xp, axes)[0]}
    return fields


def rms(x: Array, xp: Any, axes: tuple[int, ...]) -> Array:
    """Computes the root mean square of each row over some of its axes."""
    scaled, scale, _ = _scale(x, xp)
    squares = _square(scaled.reshape(x.shape), xp)
    mean = squares.mean(tuple(axis + 1 for axis in axes))
    return scale.reshape(-1, *[1] * (mean.ndim - 1)) * xp.sqrt(mean)


def measure_inputs(x: Array, xp: Any) -> dict[str, Array]:
    """Computes the statistics of inputs of layers that follow no other layer."""
    moments = compute_moments(x, xp)
    scaled, scale, _ = _scale(x, xp)
    nonfinite = _share_nonfinite(x, moments.largest, xp)
    return {
        "input_rms": scale * xp.sqrt(_average(_square(scaled, xp), xp)),
        "input_mean": moments.mean,
        "input_nonfinite": nonfinite.astype(moments.largest.dtype),
    }


def real(x: Array, xp: Any = jnp) -> Array:
    """Returns x as real numbers in float32 or wider; both parts of complex numbers."""
    if xp.iscomplexobj(x):
        return xp.stack([x.real, x.imag], axis=-1)
    return _widen(x)


def _widen(x: Array) -> Array:
    return x.astype(wide(x), copy=False)


def _square(x: Array, xp: Any) -> Array:
    """Computes the square of the modulus."""
    if xp.iscomplexobj(x):
        return xp.square(x.real) + xp.square(x.imag)
    return x**2


def _flatten(x: Array) -> Array:
    return x.reshape(x.shape[0], -1)


def _scale(x: Array, xp: Any) -> tuple[Array, Array, Array]:
    """Scales entries so that no square leaves the range of floats.

    Returns:
      The scaled entries of each row, its scale, and its largest entry.
    """
    x = _flatten(_widen(x))
    largest = xp.abs(x).max(1, initial=0)
    scale = _replace_zero(xp.where(xp.isfinite(largest), largest, 0), xp)
    return x / scale.astype(x.dtype)[:, None], scale, largest


def _replace_zero(scale: Array, xp: Any) -> Array:
    """Replaces what nothing can be divided by: 0 and nan."""
    return xp.where(scale > 0, scale, scale.dtype.type(1))


class _Moments(NamedTuple):  # each [rows]
    mean: Array
    std: Array
    rms: Array
    fourth: Array
    largest: Array


def compute_moments(x: Array, xp: Any) -> _Moments:
    """Computes moments by row; of complex numbers E|x - Ex|^2 and |Ex|."""
    return _measure(x, xp)[0]


def _measure(x: Array, xp: Any) -> tuple[_Moments, Array]:
    """Computes moments by row, and the entries scaled as for squares."""
    scaled, scale, largest = _scale(x, xp)
    mean = _average(scaled, xp)
    square = _square(scaled - mean[:, None], xp)
    variance, size = _average(square, xp), xp.abs(mean)
    moments = _Moments(
        mean=scale * (size if xp.iscomplexobj(x) else mean),
        std=scale * xp.sqrt(variance),
        rms=scale * xp.sqrt(variance + size**2),
        fourth=_average(_square(square, xp), xp) / variance**2,
        largest=largest,
    )
    return moments, scaled


def _average(x: Array, xp: Any) -> Array:
    """Computes the mean of each row, for NumPy without its checks."""
    if xp is jnp:
        return x.mean(1)
    return np.add.reduce(x, 1) / x.dtype.type(x.shape[1])


def _share(which: Array, xp: Any) -> Array:
    """Computes the share of entries of each row that hold."""
    if xp is jnp:
        return _flatten(which).mean(1)
    return np.array([np.count_nonzero(row) for row in which]) / which[0].size


def _share_nonfinite(x: Array, largest: Array, xp: Any) -> Array:
    """Computes the share of entries of each row that are not finite."""
    if xp is np and np.isfinite(largest).all():
        return np.zeros_like(largest)
    return _share(~xp.isfinite(x), xp)


def _sample(y: Array) -> Array:
    """Takes entries at a stride that shares no factor with the number of units."""
    units, flat = y.shape[-1] if y.ndim > 1 else 1, _flatten(y)
    stride = max(1, flat.shape[1] // _SAMPLE)
    while stride > 1 and math.gcd(stride, units) > 1:
        stride -= 1
    return flat[:, ::stride][:, :_SAMPLE]


def _compute_distance(y: Array, xp: Any) -> Array:
    """Computes one minus the mean cosine between an example's output and the next."""
    if y.ndim < 3 or y.shape[1] < 2:
        return xp.full(len(y), np.nan, real(y[:1], xp).dtype)
    flat = real(y, xp).reshape(*y.shape[:2], -1)  # the product of two is Re<a, b>
    flat = flat / _replace_zero(xp.abs(flat).max(2, keepdims=True), xp)
    direction = flat / xp.sqrt((flat**2).sum(2, keepdims=True))
    apart = _flatten((direction[:, 1:] - direction[:, :-1]) ** 2).sum(1)
    around = ((direction[:, 0] - direction[:, -1]) ** 2).sum(1)
    return (apart + around) / (2 * y.shape[1])


def _compute_alike(
    x: Array,
    scaled: Array,
    unit_axes: tuple[int, ...],
    xp: Any,
    of_gradient: bool = False,
) -> Array:
    """Computes the share of units that equal another one; compares one projection.

    Args:
      x: the entries.
      scaled: the same, each row flat and divided by its largest entry.
      unit_axes: the axes of a row that count units.
      xp: the module.
      of_gradient: whether zeros among others do not count: they are those of units that
        wait, behind a closed gate.
    """
    rows, *sizes = x.shape
    units = math.prod(sizes[axis] for axis in unit_axes)
    if not sizes or units < 2:
        return xp.zeros(rows, real(x[:1], xp).dtype)
    axes = tuple(axis % len(sizes) + 1 for axis in unit_axes)
    last = tuple(range(-len(axes), 0))
    x = xp.moveaxis(scaled.reshape(x.shape), axes, last).reshape(rows, -1, units)
    x = xp.moveaxis(real(x[..., None], xp), -1, 1).reshape(rows, -1, units)
    projected = xp.sort(_project(x, xp), axis=1)
    size = xp.sqrt(_average(projected**2, xp))
    near = projected[:, 1:] - projected[:, :-1] <= _ALIKE * size[:, None]
    if of_gradient:
        near = near & ((projected[:, 1:] != 0) | (size == 0)[:, None])
    return _share(near, xp)


def _project(x: Array, xp: Any) -> Array:
    """Multiplies each row's matrix by a vector, from the left."""
    if xp is jnp:
        return _make_weights(x.shape[1], x.dtype, xp) @ x
    weights = _make_weights_once(x.shape[1], x.dtype)
    # NumPy would share the product among threads, which wait longer than they work.
    runs = [slice(start, start + _RUN) for start in range(0, len(weights), _RUN)]
    return sum(np.einsum("i,rij->rj", weights[run], x[:, run]) for run in runs)


def _make_weights(count: int, dtype: Any, xp: Any) -> Array:
    return xp.sin(xp.arange(1, count + 1, dtype=dtype) ** 2)


@functools.lru_cache(maxsize=16)
def _make_weights_once(count: int, dtype: Any) -> np.ndarray:
    weights: np.ndarray = _make_weights(count, dtype, np)
    return weights


def measure_activation(site: Site, y: jax.Array) -> Activated:
    """Computes the shares of zero, dead and saturated units behind an activation.

    They need its derivative, and so a program.
    """
    activation = site.activation
    assert activation is not None
    zero, flat = measure_saturation(activation, y)
    axes = {axis % y.ndim for axis in site.unit_axes}
    others = tuple(axis for axis in range(y.ndim) if axis not in axes)
    return Activated(
        zeros=zero.mean(),
        dead=zero.all(others).mean(),
        saturated=flat.mean(),
    )


@functools.lru_cache(maxsize=64)
def is_float(dtype: Any) -> bool:
    return bool(jnp.issubdtype(dtype, np.inexact))


def wide(x: jax.Array) -> Any:
    """Returns the dtype to compute in: float32 or wider, complex for complex x."""
    enough = is_float(x.dtype) and x.dtype.itemsize >= 4
    return x.dtype if enough else np.dtype(np.float32)


def average(values: object) -> float:
    """Averages a statistic over seeds."""
    return float(np.mean(np.asarray(values, np.float64)))


def log_size(values: np.ndarray) -> float:
    """Averages the logarithm of a size over seeds; infinite if no size is finite."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(np.asarray(values, np.float64))
    finite = logs[np.isfinite(logs)]
    if not finite.size:
        largest = np.nanmax(logs, initial=-math.inf)
        return -math.inf if largest == -math.inf else math.inf
    return float(finite.mean())
