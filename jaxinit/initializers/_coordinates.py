"""Weights of networks of coordinates: sine layers, random features, positions."""

from typing import Any, Literal, get_args

import jax
import numpy as np
from jax.typing import DTypeLike

from jaxinit import _check as check
from jaxinit import random
from jaxinit._axes import Axes, Connections, positions
from jaxinit._draws import needs_real, scaled, tabulated
from jaxinit._extent import Extent, symmetric
from jaxinit._fill import Independent
from jaxinit._initializer import Drawn, Moments, initializer
from jaxinit.initializers._distribution import normal

Layout = Literal["interleaved", "halves"]


def _over_fan(
    scale: float, mode: Literal["fan_in", "fan_out"], connections: Connections
) -> Drawn:
    """Returns the draw of uniform weights on (-a, a), a = scale / fan."""
    connections.check()

    def edge(shape: tuple[int, ...]) -> float:
        return scale / connections.fans(shape)[mode == "fan_out"]

    def unit(key: jax.Array, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
        needs_real(dtype)
        return random.uniform(key, shape, dtype, -1, 1)

    def factor(shape: tuple[int, ...], dtype: np.dtype) -> Any:
        return np.asarray(edge(shape), dtype)[()]

    def extent(shape: tuple[int, ...]) -> Extent:
        return symmetric(edge(shape), edge(shape))

    def moments(shape: tuple[int, ...]) -> Moments:
        return Moments(0.0, edge(shape) ** 2 / 3)

    return Independent(unit, factor), moments, extent


@initializer
def fan_uniform(
    scale: float = 1.0,
    mode: Literal["fan_in", "fan_out"] = "fan_in",
    in_axis: Axes = -2,
    out_axis: Axes = -1,
    batch_axis: Axes = (),
    dtype: DTypeLike | None = None,
) -> Drawn:
    """Builds an initializer of uniform weights whose ends fall with the fan itself.

    Law: uniform on (-a, a), a = scale / n, n = fan_in or fan_out; Var[w] = scale^2 /
    (3 n^2).

    The first layer of SIREN has it with scale 1. Laws that fall with the root of the
    fan are those of `variance_scaling`.

    Args:
      scale: the end for a fan of 1, 0 or above.
      mode: what n is, "fan_in" or "fan_out".
      in_axis: see `variance_scaling`, like every axis.
      out_axis: see `variance_scaling`.
      batch_axis: see `variance_scaling`.
      dtype: default dtype of the weights, real.

    Returns:
      An `Initializer`.

    Raises:
      ValueError: if scale is negative, or mode is unknown; at the call, if the shape
        lacks an axis.

    Example:
      >>> w = fan_uniform()(jax.random.key(0), (4, 512))
      >>> bool((abs(w) < 1 / 4).all())
      True

    References:
      Sitzmann, Martel, Bergman, Lindell, Wetzstein. Implicit Neural Representations
      with Periodic Activation Functions. 2020. https://arxiv.org/abs/2006.09661
    """
    check.squared(scale=scale)
    check.choice(("fan_in", "fan_out"), mode=mode)
    return _over_fan(scale, mode, Connections(in_axis, out_axis, batch_axis))


@initializer
def siren(
    omega: float = 30.0,
    in_axis: Axes = -2,
    out_axis: Axes = -1,
    batch_axis: Axes = (),
    dtype: DTypeLike | None = None,
    *,
    first: bool = False,
) -> Drawn:
    """Builds an initializer of layers whose activation is sin(omega (W x + b)).

    Law: uniform on (-a, a), a = sqrt(6 / fan_in) / omega, and a = 1 / fan_in in the
    first layer; Var[w] = a^2 / 3.

    What enters a sine is then close to N(0, 1) in every layer after the first, at any
    depth. The authors leave biases at torch's default, `torch.bias`.

    Args:
      omega: the frequency by which every layer multiplies, above 0.
      in_axis: see `variance_scaling`, like every axis.
      out_axis: see `variance_scaling`.
      batch_axis: see `variance_scaling`.
      dtype: default dtype of the weights, real.
      first: whether the layer is the first, whose inputs are coordinates in [-1, 1].

    Returns:
      An `Initializer`.

    Raises:
      ValueError: if omega is not above 0; at the call, if the shape lacks an axis.

    Example:
      >>> w = siren(first=True)(jax.random.key(0), (2, 256))
      >>> bool(0.49 < abs(w).max() < 0.5)
      True

    References:
      Sitzmann, Martel, Bergman, Lindell, Wetzstein. Implicit Neural Representations
      with Periodic Activation Functions. 2020. https://arxiv.org/abs/2006.09661
    """
    squared = check.squared(omega=omega)
    check.boolean(first=first)
    if not squared:
        raise check.Unfit("omega must be above 0.", omega=omega)
    connections = Connections(in_axis, out_axis, batch_axis)
    if first:
        return _over_fan(1.0, "fan_in", connections)
    return scaled(2 / squared, "fan_in", "uniform", connections)


@initializer
def fourier_features(stddev: float = 10.0, dtype: DTypeLike | None = None) -> Drawn:
    """Builds an initializer of the frequencies of random Fourier features.

    Law: normal, N(0, stddev^2); Var[w] = stddev^2.

    For features (cos 2 pi B x, sin 2 pi B x), whose B is drawn once and not trained.
    The standard deviation sets how fine the details are that can be learned, and is to
    be tuned: the paper has 10 for images.

    Args:
      stddev: standard deviation of the frequencies, in cycles per unit of the
        coordinates; 0 or above.
      dtype: default dtype of the weights, float or complex.

    Returns:
      An `Initializer`.

    Raises:
      ValueError: if stddev is negative.

    Example:
      >>> b = fourier_features(5.0)(jax.random.key(0), (2, 4096))
      >>> abs(float(b.std()) - 5) < 0.2
      True

    References:
      Tancik, Srinivasan, Mildenhall, Fridovich-Keil, Raghavan, Singhal, Ramamoorthi,
      Barron, Ng. Fourier Features Let Networks Learn High Frequency Functions in Low
      Dimensional Domains. 2020. https://arxiv.org/abs/2006.10739
    """
    return normal(stddev)


@initializer(random=False)
def sinusoidal(
    layout: Layout = "interleaved",
    min_scale: float = 1.0,
    max_scale: float = 10_000.0,
    dtype: DTypeLike | None = None,
    *,
    position_axis: int = -2,
    feature_axis: int = -1,
) -> Drawn:
    """Builds an initializer of sines and cosines of the position, at many wavelengths.

    Law: w = sin(p / s) and cos(p / s) of position p, scales s geometric from min_scale
    up to max_scale; Var[w] = that of the table.

    Tables of positions are given in two layouts, which differ in their scales too:

    - "interleaved", of the paper: features 2i and 2i + 1 are sin and cos at
      s_i = min_scale (max_scale / min_scale)^(2i / d), for d features;
    - "halves", of Flax's examples and of Tensor2Tensor: all sines, then all cosines, at
      s_i = min_scale (max_scale / min_scale)^(i / (d / 2 - 1)), so that the last scale
      is max_scale itself. A feature that is left over when d is odd is 0.

    Args:
      layout: "interleaved" or "halves".
      min_scale: the smallest scale, the wavelength over 2 pi; above 0.
      max_scale: the largest, above min_scale.
      dtype: default dtype of the weights.
      position_axis: the axis of the positions, which count from 0.
      feature_axis: the axis of the features. Along all other axes the table repeats.

    Returns:
      An `Initializer`; it ignores the key.

    Raises:
      ValueError: if layout is unknown, or the scales are out of order; at the call, if
        the shape lacks an axis.

    Example:
      >>> sinusoidal()(None, (512, 64))[0, :4].tolist()
      [0.0, 1.0, 0.0, 1.0]

    References:
      Vaswani et al. Attention Is All You Need, section 3.5. 2017.
      https://arxiv.org/abs/1706.03762
    """
    check.choice(get_args(Layout), layout=layout)
    low, high = check.real(min_scale=min_scale), check.real(max_scale=max_scale)
    check.squared(max_scale=max_scale)
    if not check.squared(min_scale=min_scale):
        raise check.Unfit("min_scale must be above 0.", min_scale=min_scale)
    if not low < high:
        raise check.Unfit(f"max_scale must be above {low:g}.", max_scale=max_scale)
    check.axis(position_axis=position_axis)
    check.axis(feature_axis=feature_axis)

    def places(shape: tuple[int, ...]) -> tuple[int, int]:
        (position,) = positions(shape, position_axis=position_axis)
        (feature,) = positions(shape, feature_axis=feature_axis)
        if position == feature:
            raise check.Unfit("positions and features share an axis.", shape=shape)
        return position, feature

    def table(shape: tuple[int, ...]) -> np.ndarray:  # [positions, features]
        length, features = (shape[place] for place in places(shape))
        pairs = -(-features // 2) if layout == "interleaved" else features // 2
        last = features / 2 if layout == "interleaved" else pairs - 1
        shares = np.arange(pairs) / max(last, 1)
        angles = np.outer(np.arange(length), (low / high) ** shares / low)
        waves = np.stack([np.sin(angles), np.cos(angles)])  # [2, positions, pairs]
        order = (1, 2, 0) if layout == "interleaved" else (1, 0, 2)
        whole = waves.transpose(order).reshape(length, 2 * pairs)[:, :features]
        return np.pad(whole, [(0, 0), (0, features - whole.shape[1])])

    def spread(shape: tuple[int, ...]) -> np.ndarray:
        position, feature = places(shape)
        values = table(shape) if position < feature else table(shape).T
        rest = [axis for axis in range(len(shape)) if axis not in (position, feature)]
        return np.expand_dims(values, rest)

    fill, moments, _ = tabulated(spread)
    return fill, moments, lambda shape: symmetric(1.0, 1.0)
