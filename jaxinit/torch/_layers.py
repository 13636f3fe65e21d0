"""The weights that torch's layers start from by default."""

import math

import jax
import numpy as np
from jax.typing import DTypeLike

from jaxinit import _check as check
from jaxinit import initializers
from jaxinit._draws import scaled
from jaxinit._extent import Extent, normal, symmetric
from jaxinit._initializer import Drawn, Moments, alias
from jaxinit.torch._form import Kernel, Layout, connections, random

# Kaiming's uniform law with a slope of sqrt(5), as torch writes it: the squared gain
# is 2 / (1 + 5), and the bound sqrt(3 / 3 / fan_in).
_SQUARED_GAIN = 1 / 3


@random
def linear(dtype: DTypeLike | None = None, *, layout: Layout = "jax") -> Drawn:
    """Builds an initializer of the kernels of Linear, and of convolutions.

    Law: uniform on (-a, a), a = 1 / sqrt(fan_in); Var[w] = 1 / (3 fan_in).

    `conv` is the same. Grouped kernels have inputs / groups in their shape, so that
    fan_in is right. Draw the bias by `bias` with this ``fan_in``.

    Args:
      dtype: default dtype of the weights.
      layout: "jax", (*window, inputs, outputs), or "torch", (outputs, inputs, *window).

    Returns:
      An `Initializer`.

    Raises:
      ValueError: at the call, if the shape has one axis.

    Example:
      >>> w = jaxinit.torch.linear()(jax.random.key(0), (64, 512))
      >>> bool((abs(w) <= 1 / 8).all())
      True

    References:
      PyTorch, torch.nn.Linear, torch.nn.Conv2d. 2019.
      https://docs.pytorch.org/docs/stable/nn.html
    """
    return scaled(_SQUARED_GAIN, "fan_in", "uniform", connections(layout))


conv = alias("torch.conv", linear)


@random
def conv_transpose(dtype: DTypeLike | None = None, *, layout: Layout = "jax") -> Drawn:
    """Builds an initializer of the kernels of transposed convolutions.

    Law: uniform on (-a, a), a = 1 / sqrt(window outputs); Var[w] = 1 / (3 window
    outputs).

    torch takes the outputs (per group) for fan_in here, since its kernels are laid out
    (inputs, outputs / groups, *window). Draw the bias by `bias` with ``fan_in=window *
    outputs``.

    Args:
      dtype: default dtype of the weights.
      layout: "jax", (*window, inputs, outputs), or "torch", (inputs, outputs, *window).

    Returns:
      An `Initializer`.

    Raises:
      ValueError: at the call, if the shape has one axis.

    Example:
      >>> w = jaxinit.torch.conv_transpose()(jax.random.key(0), (2, 2, 64, 16))
      >>> bool((abs(w) <= 1 / 8).all())
      True

    References:
      PyTorch, torch.nn.ConvTranspose2d. 2019.
      https://docs.pytorch.org/docs/stable/nn.html
    """
    found = connections(layout)
    found = Kernel(-1, -2) if layout == "jax" else found
    return scaled(_SQUARED_GAIN, "fan_in", "uniform", found)


@random
def bias(fan_in: int, dtype: DTypeLike | None = None) -> Drawn:
    """Builds an initializer of the biases of Linear and of convolutions.

    Law: uniform on (-a, a), a = 1 / sqrt(fan_in); Var[w] = 1 / (3 fan_in).

    A bias has its kernel's fan_in, which its own shape does not tell:
    ``bias(fans(kernel_shape)[0])``. torch draws the weight and bias of Bilinear so too,
    with the size of the first input for fan_in.

    Args:
      fan_in: the fan_in of the kernel, 1 or above.
      dtype: default dtype of the weights, real.

    Returns:
      An `Initializer`.

    Raises:
      ValueError: if fan_in is below 1.

    Example:
      >>> b = jaxinit.torch.bias(64)(jax.random.key(0), (512,))
      >>> bool((abs(b) <= 1 / 8).all())
      True

    References:
      PyTorch, torch.nn.Linear, torch.nn.Conv2d. 2019.
      https://docs.pytorch.org/docs/stable/nn.html
    """
    check.at_least(1, fan_in=fan_in)
    return _within(check.real(fan_in=fan_in))


def _within(size: float) -> Drawn:
    bound = 1 / math.sqrt(size)
    return initializers.uniform(low=-bound, high=bound)


@random
def rnn(hidden_size: int, dtype: DTypeLike | None = None) -> Drawn:
    """Builds an initializer of every weight and bias of RNN, LSTM and GRU.

    Law: uniform on (-a, a), a = 1 / sqrt(hidden_size); Var[w] = 1 / (3 hidden_size).

    `lstm` and `gru` are the same; torch's cells have this law too. torch has two biases
    for each gate, Flax one: their sum has twice the variance and is not uniform.

    Args:
      hidden_size: the number of hidden units, 1 or above.
      dtype: default dtype of the weights, real.

    Returns:
      An `Initializer`.

    Raises:
      ValueError: if hidden_size is below 1.

    Example:
      >>> w = jaxinit.torch.lstm(64)(jax.random.key(0), (32, 256))
      >>> bool((abs(w) <= 1 / 8).all())
      True

    References:
      PyTorch, torch.nn.LSTM, torch.nn.GRU. 2019.
      https://docs.pytorch.org/docs/stable/nn.html
    """
    check.at_least(1, hidden_size=hidden_size)
    return _within(check.real(hidden_size=hidden_size))


lstm = alias("torch.lstm", rnn)
gru = alias("torch.gru", rnn)


@random
def embedding(padding_idx: int | None = None, dtype: DTypeLike | None = None) -> Drawn:
    """Builds an initializer of the table of Embedding: normal, and zero for padding.

    Law: normal, N(0, 1), and 0 in the row of padding; Var[w] = 1 - 1 / rows with
    padding, else 1.

    Args:
      padding_idx: the row that is zero, counted from the end if negative; by default
        none.
      dtype: default dtype of the weights, float or complex.

    Returns:
      An `Initializer`.

    Raises:
      ValueError: at the call, if the shape does not have two axes, or lacks the row.

    Example:
      >>> w = jaxinit.torch.embedding(padding_idx=0)(jax.random.key(0), (50, 8))
      >>> bool((w[0] == 0).all() and (w[1:] != 0).all())
      True

    References:
      PyTorch, torch.nn.Embedding. 2019.
      https://docs.pytorch.org/docs/stable/nn.html
    """
    row = None if padding_idx is None else check.integer(padding_idx=padding_idx)
    own = initializers.normal(1.0)

    def fits(shape: tuple[int, ...]) -> None:
        if len(shape) != 2:
            raise check.Unfit("needs a shape of two axes.", shape=shape)
        if row is not None and not -shape[0] <= row < shape[0]:
            raise check.Unfit(f"has no row padding_idx={row}.", shape=shape)

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
        fits(shape)
        weight = own._draw(key, shape, dtype)
        return weight if row is None else weight.at[row].set(0)

    def moments(shape: tuple[int, ...]) -> Moments:
        fits(shape)
        return Moments(0.0, 1.0 if row is None else 1 - 1 / shape[0])

    return draw, moments, lambda shape: normal(0.0, 1.0)


@random
def attention(
    packed: bool = False, dtype: DTypeLike | None = None, *, layout: Layout = "jax"
) -> Drawn:
    """Builds an initializer of the query, key and value kernels of MultiheadAttention.

    Law: uniform on (-a, a), a = sqrt(6 / (fan_in + fan_out)); Var[w] = 2 / (fan_in +
    fan_out), where fan_out counts the outputs of all three.

    torch keeps the three in one weight if their inputs have one size, and so draws each
    from a narrower law than `xavier_uniform`: a = sqrt(6 / (4 d)) for d to d. If the
    inputs differ in size it has three weights: then use `xavier_uniform`. Draw the
    output's kernel by `linear`; all biases are zero.

    Args:
      packed: whether the kernel has query, key and value side by side, as (d, 3 d); if
        not, it is one of the three, as (d, d), as in Flax.
      dtype: default dtype of the weights.
      layout: "jax", (inputs, outputs), or "torch", (outputs, inputs).

    Returns:
      An `Initializer`.

    Raises:
      ValueError: at the call, if the shape has one axis.

    Example:
      >>> w = jaxinit.torch.attention()(jax.random.key(0), (96, 96))
      >>> bool((abs(w) <= 1 / 8).all())
      True

    References:
      PyTorch, torch.nn.MultiheadAttention. 2019.
      https://docs.pytorch.org/docs/stable/nn.html
    """
    check.boolean(packed=packed)
    found = connections(layout)

    def bound(shape: tuple[int, ...]) -> float:
        fan_in, fan_out = found.fans(shape)
        return math.sqrt(6 / (fan_in + (1 if packed else 3) * fan_out))

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
        edge = bound(shape)
        return initializers.uniform(low=-edge, high=edge)._draw(key, shape, dtype)

    def extent(shape: tuple[int, ...]) -> Extent:
        return symmetric(bound(shape), bound(shape))

    return draw, lambda shape: Moments(0.0, bound(shape) ** 2 / 3), extent
