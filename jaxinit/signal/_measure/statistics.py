"""Statistics of the values at one layer, and of their gradients."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit.signal._trace.links import find_chains
from jaxinit.signal._trace.site import Placed, Product, Site, Values

_GRID = np.linspace(-8, 8, 321)  # where an activation's steepest slope is looked for
_FLAT = 0.05  # the share of the steepest slope below which an activation is saturated
_ALIKE = 1e-5  # of the units' root mean square: projections this close count as equal
_SAMPLE = 256  # the number of an output's entries that are kept for histograms


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
    attention_saturated: Array | None = None
    attention_std: Array | None = None
    expected_loss: Array | None = None
    chance_loss: Array | None = None


class Backward(NamedTuple):
    """Statistics of a layer's gradients, as `Layer` explains them."""

    nonfinite: Array
    norm: Array
    rms: Array
    std: Array
    weight_alike: Array | None
    weight_std: Array | None


class Both(NamedTuple):
    """The statistics of a layer, and the rms by tap of a convolution's weight."""

    forward: Forward
    backward: Backward
    taps: Array | None


def measure_layer(
    site: Site, values: Mapping[str, jax.Array], gradients: Mapping[str, jax.Array]
) -> Both:
    """Computes the statistics of one layer from the parts of its site."""
    y, g = values["output"], gradients["output"]
    y = y.astype(wide(y))
    sample = _sample(real(y))
    output, gradient = _compute_moments(y), _compute_moments(g)
    weight = dw = taps = None
    if "weight" in values:
        weight = _compute_moments(values["weight"])
        dw = _compute_moments(gradients["weight"])
    if isinstance(site, Product) and site.kind == "conv":
        axes = site.eqn.params["dimension_numbers"].rhs_spec[:2]
        taps = rms(values["weight"], axes)
    activated = None
    if site.activation is not None:
        activated = _measure_activation(site, values["output"])
    examples = y.shape[0] if y.ndim > 1 else 1

    def alike(parts: Mapping[str, jax.Array]) -> jax.Array | None:
        if not isinstance(site, Product):
            return None
        return _compute_alike(parts["weight"], site.weight_unit_axes)

    forward = Forward(
        **output._asdict(),
        zeros=(y == 0).mean(),
        nonfinite=(~jnp.isfinite(y)).mean(),
        distance=_compute_distance(y),
        alike=_compute_alike(y, site.unit_axes),
        activation_zeros=activated and activated.zeros,
        dead=activated and activated.dead,
        saturated=activated and activated.saturated,
        bias_rms=_compute_moments(values["bias"]).rms if "bias" in values else None,
        weight_mean=weight and weight.mean,
        weight_std=weight and weight.std,
        weight_alike=alike(values),
        sample=sample,
    )
    backward = Backward(
        std=gradient.std,
        rms=gradient.rms,
        nonfinite=(~jnp.isfinite(g)).mean(),
        norm=gradient.rms * math.sqrt(y.size / examples),
        weight_std=dw and dw.rms,
        weight_alike=alike(gradients),
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
) -> dict[int, Values]:
    """Computes root mean squares by position at the ends of chains of convolutions.

    They are those of the first layer's ``input`` and of the last one's ``gradient``.
    """
    fields: dict[int, Values] = {}
    for chain in find_chains(sites):
        first, last = chain[0], chain[-1]
        if first.kind == "conv":
            axes = first.eqn.params["dimension_numbers"].lhs_spec[:2]
            fields[first.number] = {"input": rms(values[first.number]["input"], axes)}
        if last.kind == "conv":
            axes = last.eqn.params["dimension_numbers"].out_spec[:2]
            gradient = gradients[last.number]["output"]
            fields[last.number] = {"gradient": rms(gradient, axes)}
    return fields


def rms(x: jax.Array, axes: tuple[int, ...] | None = None) -> jax.Array:
    """Computes the root mean square over some axes, by default over all."""
    u, scale, _ = _scale(x)
    return scale * jnp.sqrt(_square(u).mean(axes))


def measure_input(x: jax.Array) -> dict[str, jax.Array]:
    """Computes the statistics of the input of a layer that follows no other layer."""
    mean = _compute_moments(x).mean
    nonfinite = (~jnp.isfinite(x)).mean()
    return {"input_rms": rms(x), "input_mean": mean, "input_nonfinite": nonfinite}


def real(x: jax.Array) -> jax.Array:
    """Returns x as real numbers in float32 or wider; both parts of complex numbers."""
    if jnp.iscomplexobj(x):
        return jnp.stack([x.real, x.imag], axis=-1)
    return x.astype(wide(x))


def _square(x: jax.Array) -> jax.Array:
    """Computes the square of the modulus."""
    if jnp.iscomplexobj(x):
        return jnp.square(x.real) + jnp.square(x.imag)
    return x**2


def _scale(x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Scales entries so that no square leaves the range of floats.

    Returns:
      The scaled entries, the scale, and the largest entry.
    """
    x = x.astype(wide(x))
    largest = jnp.abs(x).max(initial=0)
    scale = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)
    return x / scale.astype(x.dtype), scale, largest


class _Moments(NamedTuple):
    mean: jax.Array
    std: jax.Array
    rms: jax.Array
    fourth: jax.Array
    largest: jax.Array


class _Activated(NamedTuple):
    zeros: jax.Array
    dead: jax.Array
    saturated: jax.Array


def _compute_moments(x: jax.Array) -> _Moments:
    """Computes moments of the entries; of complex ones E|x - Ex|^2 and |Ex|."""
    u, scale, largest = _scale(x)
    mean = u.mean()
    square = _square(u - mean)
    variance, size = square.mean(), jnp.abs(mean)
    return _Moments(
        mean=scale * (size if jnp.iscomplexobj(x) else mean),
        std=scale * jnp.sqrt(variance),
        rms=scale * jnp.sqrt(variance + size**2),
        fourth=(square**2).mean() / variance**2,
        largest=largest,
    )


def _sample(y: jax.Array) -> jax.Array:
    """Takes entries at a stride that shares no factor with the number of units."""
    flat = y.reshape(-1)
    stride = max(1, flat.size // _SAMPLE)
    while stride > 1 and math.gcd(stride, y.shape[-1]) > 1:
        stride -= 1
    return flat[::stride][:_SAMPLE]


def _compute_distance(y: jax.Array) -> jax.Array:
    """Computes one minus the mean cosine between an example's output and the next."""
    if y.ndim < 2 or y.shape[0] < 2:
        return jnp.full((), jnp.nan, real(y).dtype)
    flat = real(y).reshape(y.shape[0], -1)  # the product of two rows is Re<a, b>
    scale = jnp.abs(flat).max(1, keepdims=True)
    flat = flat / jnp.where(scale > 0, scale, 1)
    direction = flat / jnp.sqrt((flat**2).sum(1, keepdims=True))
    apart = ((direction[1:] - direction[:-1]) ** 2).sum()
    around = ((direction[0] - direction[-1]) ** 2).sum()
    return (apart + around) / (2 * len(direction))


def _compute_alike(x: jax.Array, unit_axes: tuple[int, ...]) -> jax.Array:
    """Computes the share of units that equal another one; compares one projection."""
    if x.ndim == 0:
        return jnp.zeros((), real(x).dtype)
    units = math.prod(x.shape[axis] for axis in unit_axes)
    x = jnp.moveaxis(x, unit_axes, range(-len(unit_axes), 0)).reshape(-1, units)
    x = jnp.moveaxis(real(x[..., None]), -1, 0).reshape(-1, units)
    if units < 2:
        return jnp.zeros((), x.dtype)
    scale = jnp.abs(x).max()
    x = x / jnp.where(scale > 0, scale, 1)
    weights = jnp.sin(jnp.arange(1, x.shape[0] + 1, dtype=x.dtype) ** 2)
    projected = jnp.sort(weights @ x)
    size = jnp.sqrt((projected**2).mean())
    near = jnp.diff(projected) <= _ALIKE * size
    return near.mean()


def _measure_activation(site: Site, y: jax.Array) -> _Activated:
    """Computes the shares of zero, dead and saturated units behind an activation."""
    activation = site.activation
    assert activation is not None
    a, slope = jax.jvp(activation, (y,), (jnp.ones_like(y),))
    grid = jnp.asarray(_GRID, y.dtype)
    steepest = jnp.abs(jax.jvp(activation, (grid,), (jnp.ones_like(grid),))[1]).max()
    zero = a == 0
    axes = {axis % y.ndim for axis in site.unit_axes}
    others = tuple(axis for axis in range(y.ndim) if axis not in axes)
    return _Activated(
        zeros=zero.mean(),
        dead=zero.all(others).mean(),
        saturated=((jnp.abs(slope) < _FLAT * steepest) & ~zero).mean(),
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
