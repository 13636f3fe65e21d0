"""Kernels of signal processing: interpolation and short-time Fourier transforms."""

import functools
from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from jaxinit import _check as check
from jaxinit._extent import Extent, exactly, of_values, symmetric
from jaxinit._initializer import Drawn, Moments, initializer


def _moments(array: np.ndarray, share: float = 1.0) -> Moments:
    """Returns the moments where a share of the entries is the array's, the rest 0."""
    with np.errstate(all="ignore"):  # some values may not be finite
        mean = share * array.mean()
        return Moments(float(mean), float(share * (array**2).mean() - mean**2))


def _tent(size: int) -> np.ndarray:  # [size]
    """Computes the weights of linear interpolation by the factor (size + 1) // 2."""
    factor = (size + 1) // 2
    weights: np.ndarray = 1 - np.abs(np.arange(size) - (size - 1) / 2) / factor
    return weights


@initializer(random=False)
def bilinear(dtype: DTypeLike | None = None) -> Drawn:
    """Builds an initializer of transposed convolutions that interpolate linearly.

    Law: w = product over window axes of 1 - |i - (k - 1) / 2| / f, f = ceil(k / 2) for
    a size of k, where input and output index agree, else 0; Var[w] = mean of w^2 less
    the squared mean of w.

    With strides f the layer upsamples each channel f times: the weights are symmetric
    and those that meet in one output sum to 1, so that constants stay constant. The
    usual window is 2 f or 2 f - 1. Kernels of 1 to 3 window axes are laid out (*window,
    inputs, outputs); one input feeds every output, as in a depthwise convolution.

    Args:
      dtype: default dtype of the weights.

    Returns:
      An `Initializer`; it ignores the key.

    Raises:
      ValueError: at the call, if the shape does not have 3 to 5 axes.

    Example:
      >>> bilinear()(None, (4, 1, 1)).ravel().tolist()
      [0.25, 0.75, 0.75, 0.25]

    References:
      Long, Shelhamer, Darrell. Fully Convolutional Networks for Semantic Segmentation.
      2014. https://arxiv.org/abs/1411.4038
    """

    def window(shape: tuple[int, ...]) -> np.ndarray:
        check.kernel(shape)
        return functools.reduce(np.multiply.outer, map(_tent, shape[:-2]))

    def fill(key: Any, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
        taps = jnp.asarray(exactly(window(shape), dtype, "a weight"))[..., None, None]
        same = jnp.eye(shape[-2], shape[-1], dtype=bool) | (shape[-2] == 1)
        return jnp.where(same, taps, np.zeros((), dtype))

    def moments(shape: tuple[int, ...]) -> Moments:
        check.kernel(shape)
        inputs, outputs = shape[-2:]
        share = 1.0 if inputs == 1 else min(inputs, outputs) / (inputs * outputs)
        return _moments(window(shape), share)

    return fill, moments, lambda shape: of_values([0.0, window(shape).max(initial=0)])


Side = Literal["real", "imag"]
Scaling = Literal["density", "spectrum"]
_WINDOWS: dict[str, Callable[[int], np.ndarray]] = {  # symmetric windows of a size
    "bartlett": np.bartlett,
    "blackman": np.blackman,
    "boxcar": np.ones,
    "hamming": np.hamming,
    "hann": np.hanning,
}


@initializer(random=False)
def stft(
    side: Side,
    window: str | ArrayLike | None = "hann",
    scaling: Scaling | None = "density",
    periodic: bool = False,
    dtype: DTypeLike | None = None,
) -> Drawn:
    """Builds an initializer of a convolution that is a short-time Fourier transform.

    Law: w[t, 0, k] = window[t] cos(2 pi t k / n) / c, or -sin for the imaginary side,
    n = 2 (frequencies - 1), c = |window|_2 by density, |window|_1 by spectrum;
    Var[w] = mean of w^2 less the squared mean of w.

    The kernel has the shape (frame, 1, frequencies): a convolution of one channel,
    whose strides are the hop and whose outputs are the frequencies 0 to n / 2.

    Args:
      side: "real" or "imag": which part of the transform is computed.
      window: "hann", "hamming", "blackman", "bartlett" or "boxcar", or its values as an
        array of the frame's length, or None for no window.
      scaling: "density" or "spectrum": the norm of the window to divide by; None does
        not divide. Without a window nothing is scaled.
      periodic: whether a named window is made one value longer and loses its last
        value, as spectra need; else it is symmetric.
      dtype: default dtype of the weights.

    Returns:
      An `Initializer`; it ignores the key.

    Raises:
      ValueError: if a name is unknown; at the call, if the shape is not (frame, 1,
        frequencies) with two frequencies or more, or the window has another length.
      TypeError: if the window is not an array of numbers.

    Example:
      >>> x = np.arange(8.0)
      >>> imag = np.asarray(stft("imag", window=None)(None, (8, 1, 5)))
      >>> bool(abs(x @ imag[:, 0] - np.fft.rfft(x).imag).max() < 1e-4)
      True

    References:
      Allen, Rabiner. A unified approach to short-time Fourier analysis and synthesis.
      1977. https://doi.org/10.1109/PROC.1977.10770
    """
    check.choice(get_args(Side), side=side)
    check.boolean(periodic=periodic)
    if scaling is not None:
        check.choice(get_args(Scaling), scaling=scaling)
    if isinstance(window, str):
        check.choice(tuple(_WINDOWS), window=window)
    elif window is not None:
        window = _vector(window)

    def fill(key: Any, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
        if not jnp.issubdtype(dtype, np.inexact):
            raise check.Unfit("needs a float or complex dtype.", dtype=dtype.name)
        turns = np.arange(n := _period(shape)) / n
        table = (
            np.cos(2 * np.pi * turns) if side == "real" else -np.sin(2 * np.pi * turns)
        )
        wave = jnp.asarray(table.astype(dtype))[_turns(shape[0], shape[2], n)]
        taps = _weights(shape, window, scaling, periodic).astype(dtype)
        return (wave * np.broadcast_to(taps[:, None], wave.shape))[:, None]

    def moments(shape: tuple[int, ...]) -> Moments:
        _period(shape)
        return _moments(np.asarray(fill(None, shape, np.dtype(np.float32)), float))

    def extent(shape: tuple[int, ...]) -> Extent:
        _period(shape)
        taps = _weights(shape, window, scaling, periodic)
        largest = float(np.abs(taps).max(initial=0))
        return symmetric(largest, largest)

    return fill, moments, extent


_MOST = 2**23  # frequencies, so that the products below stay under 2^32


def _period(shape: tuple[int, ...]) -> int:
    """Returns the length n of the transform."""
    if len(shape) != 3 or shape[1] != 1 or shape[2] < 2:
        rule = "needs a shape (frame, 1, frequencies), with two frequencies or more."
        raise check.Unfit(rule, shape=shape)
    if shape[2] > _MOST:
        raise check.Unfit(f"has at most {_MOST} frequencies.", shape=shape)
    return 2 * (shape[2] - 1)


def _weights(
    shape: tuple[int, ...],
    window: str | np.ndarray | None,
    scaling: Scaling | None,
    periodic: bool,
) -> np.ndarray:  # [frame]
    """Computes the window, divided by its norm."""
    frame = shape[0]
    if window is None:
        return np.ones(frame)
    if isinstance(window, str):
        window = _WINDOWS[window](frame + periodic)[:frame]
    if window.size != frame:
        rule = f"the window has {window.size} values, not one for each of the frame."
        raise check.Unfit(rule, shape=shape)
    if scaling is None or not frame:
        return window
    size = np.linalg.norm(window, 2 if scaling == "density" else 1)
    if not size:
        raise check.Unfit("the window is zero there. Use scaling=None.", shape=shape)
    return np.asarray(window / size)


def _turns(frame: int, frequencies: int, n: int) -> jax.Array:  # [frame, frequencies]
    """Computes t k mod n, exactly, from the three base-256 digits of t mod n."""
    t, k = np.arange(frame, dtype=np.int64) % n, np.arange(frequencies, dtype=np.int64)
    total = jnp.zeros((), np.uint32)
    for shift in (0, 8, 16):
        digit = ((t >> shift) & 255).astype(np.uint32)
        part = jnp.asarray(((k << shift) % n).astype(np.uint32))
        total += digit[:, None] * part[None] % n
    return total % n


def _vector(window: ArrayLike) -> np.ndarray:
    """Returns the values of a window."""
    try:
        values = np.asarray(window, float)
    except (TypeError, ValueError, OverflowError):
        values = np.zeros(())
    if values.ndim != 1:
        rule = "window must be a name, None, or a row of real numbers."
        raise check.Unfit(rule, TypeError, window=window)
    return values
