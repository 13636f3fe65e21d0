"""Weights that are tables: ramps, permutations, Hadamard matrices, larger weights."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from jaxinit import _check as check
from jaxinit._axes import positions
from jaxinit._draws import tabulated
from jaxinit._extent import Extent, exactly, of_values, symmetric
from jaxinit._initializer import Drawn, Moments, initializer


@initializer(random=False)
def linspace(
    low: float, high: float, axis: int = -1, dtype: DTypeLike | None = None
) -> Drawn:
    """Builds an initializer of evenly spaced numbers along an axis.

    Law: w = low + (high - low) i / (n - 1) at index i of n; Var[w] = (high - low)^2
    (n + 1) / (12 (n - 1)).

    For biases that differ by unit, head or channel on purpose, such as those of the
    gates of xLSTM, 3 to 6 over the heads. Along all other axes the numbers repeat.

    Args:
      low: the first number.
      high: the last number, included; it may be below low.
      axis: the axis along which they run. Of one entry it is low.
      dtype: default dtype of the weights.

    Returns:
      An `Initializer`; it ignores the key.

    Raises:
      TypeError: if low or high is not a real number.
      ValueError: at the call, if the shape lacks the axis.

    Example:
      >>> linspace(3, 6)(None, (4,)).tolist()
      [3.0, 4.0, 5.0, 6.0]

    References:
      Beck, Pöppel, Spanring, Auer, Prudnikova, Kopp, Klambauer, Brandstetter,
      Hochreiter. xLSTM: Extended Long Short-Term Memory. 2024.
      https://arxiv.org/abs/2405.04517
    """
    first, last = check.real(low=low), check.real(high=high)
    check.axis(axis=axis)

    def values(shape: tuple[int, ...]) -> np.ndarray:  # [1, ..., n, ..., 1]
        (place,) = positions(shape, axis=axis)
        ramp = np.linspace(first, last, shape[place])
        rest = [i for i in range(len(shape)) if i != place]
        spread: np.ndarray = np.expand_dims(ramp, rest)
        return spread

    fill, moments, _ = tabulated(values)
    return fill, moments, lambda shape: of_values([first, last])


@initializer
def permutation(dtype: DTypeLike | None = None) -> Drawn:
    """Builds an initializer of random permutation matrices.

    Law: w = 1 at one random place of each row and each column, else 0; Var[w] =
    (n - 1) / n^2.

    The last two axes are a square matrix, all orders of whose rows are equally likely;
    axes before them count independent matrices. A layer so begun reorders its inputs,
    as between the couplings of a normalizing flow. ``centered(permutation())`` is such
    a convolution.

    Args:
      dtype: default dtype of the weights, float or complex.

    Returns:
      An `Initializer`.

    Raises:
      ValueError: at the call, if the last two axes are not of one size.

    Example:
      >>> w = permutation()(jax.random.key(0), (5, 5))
      >>> w.sum(0).tolist(), w.sum(1).tolist()
      ([1.0, 1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0, 1.0])

    References:
      Dinh, Sohl-Dickstein, Bengio. Density estimation using Real NVP. 2016.
      https://arxiv.org/abs/1605.08803
    """

    def size(shape: tuple[int, ...]) -> int:
        if len(shape) < 2 or shape[-1] != shape[-2]:
            raise check.Unfit(
                "needs a square matrix in the last two axes.", shape=shape
            )
        return shape[-1]

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
        n = size(shape)
        keys = jax.random.split(key, math.prod(shape[:-2]))
        orders = jax.vmap(lambda key: jax.random.permutation(key, n))(keys)
        return jax.nn.one_hot(orders, n, dtype=dtype).reshape(shape)

    def moments(shape: tuple[int, ...]) -> Moments:
        return Moments(1 / size(shape), (size(shape) - 1) / size(shape) ** 2)

    return draw, moments, lambda shape: Extent((0.0, 1.0), 1.0)


@initializer(random=False)
def hadamard(gain: float = 1.0, dtype: DTypeLike | None = None) -> Drawn:
    """Builds an initializer of identities that Hadamard matrices widen (ZerO).

    Law: the identity for fan_out <= fan_in, else entries H[i, j] / sqrt(p) of the
    Hadamard matrix of size p, the power of 2 from fan_out up, in the middle tap, 0
    elsewhere; Var[w] = mean of w^2 less the squared mean of w.

    Nothing is drawn, and yet units differ: a widening layer that only copied its inputs
    would train few of its directions. Kernels are laid out (*window, inputs, outputs).

    Args:
      gain: the factor on all weights.
      dtype: default dtype of the weights.

    Returns:
      An `Initializer`; it ignores the key.

    Raises:
      ValueError: at the call, if the shape has fewer than two axes.

    Example:
      >>> hadamard()(None, (2, 4)).tolist()
      [[0.5, 0.5, 0.5, 0.5], [0.5, -0.5, 0.5, -0.5]]

    References:
      Zhao, Schäfer, Anandkumar. ZerO Initialization: Initializing Neural Networks with
      only Zeros and Ones. 2021. https://arxiv.org/abs/2110.12661
    """
    factor = check.real(gain=gain)
    check.squared(gain=abs(factor))

    def matrix(shape: tuple[int, ...]) -> np.ndarray:  # [inputs, outputs]
        if len(shape) < 2:
            raise check.Unfit("needs two axes, inputs and outputs.", shape=shape)
        inputs, outputs = shape[-2:]
        if outputs <= inputs:
            return factor * np.eye(inputs, outputs)
        bits = (outputs - 1).bit_length()
        both = np.arange(inputs)[:, None] & np.arange(outputs)
        odd = np.zeros_like(both)
        for bit in range(bits):
            odd ^= both >> bit & 1
        signs: np.ndarray = factor * (1.0 - 2.0 * odd) * 2 ** (-bits / 2)
        return signs

    def fill(key: Any, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
        middle = jnp.asarray(exactly(matrix(shape), dtype, "a weight"))
        if 0 in shape:
            return jnp.zeros(shape, dtype)
        center = tuple((size - 1) // 2 for size in shape[:-2])
        return jnp.zeros(shape, dtype).at[center].set(middle)

    def moments(shape: tuple[int, ...]) -> Moments:
        middle, taps = matrix(shape), math.prod(shape[:-2])
        with np.errstate(over="ignore"):
            mean, square = middle.mean() / taps, (middle**2).mean() / taps
            return Moments(float(mean), float(square - mean**2))

    def extent(shape: tuple[int, ...]) -> Extent:
        middle = np.abs(matrix(shape))
        return symmetric(abs(factor), float(middle.max(initial=0.0)))

    return fill, moments, extent


@initializer(random=False)
def selected(array: ArrayLike, dtype: DTypeLike | None = None) -> Drawn:
    """Builds an initializer that takes evenly spaced entries of a larger weight.

    Law: w = array at indices i n / s of each axis, n its size in the array and s in the
    shape; Var[w] = that of the entries taken.

    Weight selection: a smaller model of the same family starts from a trained one. The
    indices are multiples of n / s where s divides n, else s integers nearest to equal
    steps from 0 to n - 1. Of the blocks take the first, one each; draw the head anew.

    Args:
      array: the weight of the larger model, of any number type.
      dtype: default dtype of the weights; by default that of floats, not the array's.

    Returns:
      An `Initializer`; it ignores the key.

    Raises:
      TypeError: if the array is not numeric.
      ValueError: at the call, if the shape has other axes than the array, or a larger
        size.

    Example:
      >>> selected(np.arange(6.0))(None, (3,)).tolist()
      [0.0, 2.0, 4.0]

    References:
      Xu, Chen, Vishniakov, Yin, Shen, Darrell, Liu, Liu. Initializing Models with
      Larger Ones. 2023. https://arxiv.org/abs/2311.18823
    """
    whole = np.asarray(array)
    if not jnp.issubdtype(whole.dtype, np.number):
        raise check.Unfit("array must hold numbers.", TypeError, array=array)

    def take(shape: tuple[int, ...]) -> np.ndarray:
        if len(shape) != whole.ndim or any(map(int.__gt__, shape, whole.shape)):
            rule = (
                f"the array has shape {whole.shape}, and nothing smaller can be taken."
            )
            raise check.Unfit(rule, shape=shape)
        indices = [
            np.arange(s) * (n // s) if s and n % s == 0 else np.linspace(0, n - 1, s)
            for n, s in zip(whole.shape, shape, strict=True)
        ]
        taken: np.ndarray = whole[np.ix_(*(np.rint(i).astype(int) for i in indices))]
        return taken

    return tabulated(take, "array")
