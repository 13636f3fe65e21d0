"""Statistics of the values at one layer, and of their gradients."""

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


def measure_layer(
    site: Site, values: Mapping[str, Array], gradients: Mapping[str, Array], xp: Any
) -> Both:
    """Computes the statistics of one layer from the parts of its site.

    As in all functions here, `xp` is `jax.numpy`, or `numpy` for its own arrays. Those
    behind an activation are computed by `measure_activation`.
    """
    y, g = values["output"], gradients["output"]
    y = _widen(y)
    sample = _sample(real(y, xp))
    output, gradient = compute_moments(y, xp), compute_moments(g, xp)
    weight = dw = taps = None
    if "weight" in values:
        weight = compute_moments(values["weight"], xp)
        dw = compute_moments(gradients["weight"], xp)
    if isinstance(site, Product) and site.kind == "conv":
        axes = site.eqn.params["dimension_numbers"].rhs_spec[:2]
        taps = rms(values["weight"], xp, axes)
    bias = compute_moments(values["bias"], xp).rms if "bias" in values else None
    examples = y.shape[0] if y.ndim > 1 else 1

    def alike(of_gradient: bool, of_inputs: bool = False) -> Array | None:
        if not isinstance(site, Product):
            return None
        w, axes = (
            (gradients if of_gradient else values)["weight"],
            site.weight_unit_axes,
        )
        if of_inputs:
            axes = tuple(axis for axis in range(w.ndim) if axis not in axes)
        return _compute_alike(w, axes, xp, of_gradient)

    forward = Forward(
        **output._asdict(),
        zeros=(y == 0).mean(),
        nonfinite=(~xp.isfinite(y)).mean(),
        distance=_compute_distance(y, xp),
        alike=_compute_alike(y, site.unit_axes, xp),
        activation_zeros=None,
        dead=None,
        saturated=None,
        bias_rms=bias,
        weight_mean=None if weight is None else weight.mean,
        weight_std=None if weight is None else weight.std,
        weight_alike=alike(False),
        sample=sample,
    )
    backward = Backward(
        input_alike=alike(True, of_inputs=True),
        std=gradient.std,
        rms=gradient.rms,
        nonfinite=(~xp.isfinite(g)).mean(),
        norm=gradient.rms * math.sqrt(y.size / examples),
        weight_std=None if dw is None else dw.rms,
        weight_alike=alike(True),
    )
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
            fields[first.number] = {
                "input": rms(values[first.number]["input"], xp, axes)
            }
        if last.kind == "conv":
            axes = last.eqn.params["dimension_numbers"].out_spec[:2]
            gradient = gradients[last.number]["output"]
            fields[last.number] = {"gradient": rms(gradient, xp, axes)}
    return fields


def rms(x: Array, xp: Any, axes: tuple[int, ...] | None = None) -> Array:
    """Computes the root mean square over some axes, by default over all."""
    u, scale, _ = _scale(x, xp)
    return scale * xp.sqrt(_square(u, xp).mean(axes))


def measure_input(x: Array, xp: Any) -> dict[str, Array]:
    """Computes the statistics of the input of a layer that follows no other layer."""
    moments = compute_moments(x, xp)
    nonfinite = (~xp.isfinite(x)).mean().astype(moments.largest.dtype)
    return {
        "input_rms": rms(x, xp),
        "input_mean": moments.mean,
        "input_nonfinite": nonfinite,
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


def _scale(x: Array, xp: Any) -> tuple[Array, Array, Array]:
    """Scales entries so that no square leaves the range of floats.

    Returns:
      The scaled entries, the scale, and the largest entry.
    """
    x = _widen(x)
    largest = xp.abs(x).max(initial=0)
    scale = _replace_zero(largest, xp)
    return x / scale.astype(x.dtype), scale, largest


def _replace_zero(scale: Array, xp: Any) -> Array:
    """Replaces what nothing can be divided by: 0, infinity and nan."""
    return xp.where((scale > 0) & xp.isfinite(scale), scale, scale.dtype.type(1))


class _Moments(NamedTuple):
    mean: Array
    std: Array
    rms: Array
    fourth: Array
    largest: Array


def compute_moments(x: Array, xp: Any) -> _Moments:
    """Computes moments of the entries; of complex ones E|x - Ex|^2 and |Ex|."""
    u, scale, largest = _scale(x, xp)
    mean = u.mean()
    square = _square(u - mean, xp)
    variance, size = square.mean(), xp.abs(mean)
    return _Moments(
        mean=scale * (size if xp.iscomplexobj(x) else mean),
        std=scale * xp.sqrt(variance),
        rms=scale * xp.sqrt(variance + size**2),
        fourth=(square**2).mean() / variance**2,
        largest=largest,
    )


def _sample(y: Array) -> Array:
    """Takes entries at a stride that shares no factor with the number of units."""
    flat = y.reshape(-1)
    stride = max(1, flat.size // _SAMPLE)
    while stride > 1 and math.gcd(stride, y.shape[-1]) > 1:
        stride -= 1
    return flat[::stride][:_SAMPLE]


def _compute_distance(y: Array, xp: Any) -> Array:
    """Computes one minus the mean cosine between an example's output and the next."""
    if y.ndim < 2 or y.shape[0] < 2:
        return xp.full((), np.nan, real(y, xp).dtype)
    flat = real(y, xp).reshape(y.shape[0], -1)  # the product of two rows is Re<a, b>
    scale = xp.abs(flat).max(1, keepdims=True)
    flat = flat / xp.where(scale > 0, scale, scale.dtype.type(1))
    direction = flat / xp.sqrt((flat**2).sum(1, keepdims=True))
    apart = ((direction[1:] - direction[:-1]) ** 2).sum()
    around = ((direction[0] - direction[-1]) ** 2).sum()
    return (apart + around) / (2 * len(direction))


def _compute_alike(
    x: Array, unit_axes: tuple[int, ...], xp: Any, of_gradient: bool = False
) -> Array:
    """Computes the share of units that equal another one; compares one projection."""
    if x.ndim == 0:
        return xp.zeros((), real(x, xp).dtype)
    units = math.prod(x.shape[axis] for axis in unit_axes)
    last = tuple(range(-len(unit_axes), 0))
    x = xp.moveaxis(x, unit_axes, last).reshape(-1, units)
    x = xp.moveaxis(real(x[..., None], xp), -1, 0).reshape(-1, units)
    if units < 2:
        return xp.zeros((), x.dtype)
    scale = xp.abs(x).max()
    x = x / xp.where(scale > 0, scale, scale.dtype.type(1))
    weights = xp.sin(xp.arange(1, x.shape[0] + 1, dtype=x.dtype) ** 2)
    projected = xp.sort(_multiply(weights, x, xp))
    size = xp.sqrt((projected**2).mean())
    near = xp.diff(projected) <= _ALIKE * size
    if of_gradient:  # zeros among others are of units that wait, behind a closed gate
        near = near & ((projected[1:] != 0) | (size == 0))
    return near.mean()


def _multiply(row: Array, x: Array, xp: Any) -> Array:
    """Computes the product of a row and a matrix."""
    if xp is jnp:
        return row @ x
    # NumPy would share the product among threads, which wait longer than they work.
    runs = [slice(start, start + _RUN) for start in range(0, len(row), _RUN)]
    return sum(np.einsum("i,ij->j", row[run], x[run]) for run in runs)


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
        return (
            -math.inf if np.nanmax(logs, initial=-math.inf) == -math.inf else math.inf
        )
    return float(finite.mean())
