"""torch's initializers of structured weights: eye, dirac, orthogonal, sparse."""

from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxinit import _check as check
from jaxinit import initializers
from jaxinit._gain import Gain
from jaxinit._initializer import Drawn, Moments
from jaxinit.torch._form import Layout, fixed, random


def _two_axes(shape: tuple[int, ...]) -> None:
    if len(shape) != 2:
        raise check.Unfit("needs a shape of two axes.", shape=shape)


@fixed
def eye(dtype: DTypeLike | None = None) -> Drawn:
    """Builds an initializer of the identity matrix, for shapes of two axes.

    Law: w = 1 on the diagonal, else 0; Var[w] = p - p^2, p = 1 / max(rows, columns).

    Args:
      dtype: default dtype of the weights, any number type.

    Returns:
      An `Initializer`; it ignores the key.

    Raises:
      ValueError: at the call, if the shape does not have two axes.

    Example:
      >>> jaxinit.torch.eye()(None, (2, 3)).tolist()
      [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]

    References:
      PyTorch, torch.nn.init.eye_. 2019.
      https://docs.pytorch.org/docs/stable/nn.init.html
    """
    own = initializers.identity()

    def fill(key: Any, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
        _two_axes(shape)
        return own._draw(key, shape, dtype)

    def moments(shape: tuple[int, ...]) -> Moments | None:
        _two_axes(shape)
        return own.moments(shape)

    return fill, moments, own._extent


@fixed
def dirac(
    groups: int = 1, dtype: DTypeLike | None = None, *, layout: Layout = "jax"
) -> Drawn:
    """Builds an initializer of convolutions that return their input, group by group.

    Law: w = 1 at tap k // 2 of each window axis where an output's index in its group is
    the input's, else 0; Var[w] = p - p^2, p the share of ones.

    For odd windows as `jaxinit.dirac`; the middle of an even one is the later tap.

    Args:
      groups: the number of groups that the outputs fall into.
      dtype: default dtype of the weights, any number type.
      layout: "jax", (*window, inputs / groups, outputs), or "torch", (outputs, inputs /
        groups, *window).

    Returns:
      An `Initializer`; it ignores the key.

    Raises:
      ValueError: if groups is below 1; at the call, if the shape does not have 3 to 5
        axes, or groups do not divide the outputs.

    Example:
      >>> w = jaxinit.torch.dirac(layout="torch")(None, (2, 2, 3))
      >>> w[:, :, 1].tolist()
      [[1.0, 0.0], [0.0, 1.0]]

    References:
      PyTorch, torch.nn.init.dirac_. 2019.
      https://docs.pytorch.org/docs/stable/nn.init.html
    """
    check.at_least(1, groups=groups)
    check.choice(get_args(Layout), layout=layout)
    same = initializers.dirac(groups)

    def as_jax(shape: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the shape in JAX's layout, checked as it was given."""
        check.kernel(shape)
        outputs = shape[-1 if layout == "jax" else 0]
        if outputs % groups:
            rule = f"groups={groups} do not divide the {outputs} outputs."
            raise check.Unfit(rule, shape=shape)
        return shape if layout == "jax" else (*shape[2:], shape[1], shape[0])

    def fill(key: Any, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
        weight = same._draw(key, as_jax(shape), dtype)
        later = [axis for axis in range(weight.ndim - 2) if weight.shape[axis] % 2 == 0]
        weight = jnp.roll(weight, [1] * len(later), later)
        return weight if layout == "jax" else jnp.moveaxis(weight, (-1, -2), (0, 1))

    return fill, lambda shape: same.moments(as_jax(shape)), same._extent


@random
def orthogonal(
    gain: Gain = 1.0, dtype: DTypeLike | None = None, *, layout: Layout = "jax"
) -> Drawn:
    """Builds an initializer of orthogonal matrices, outputs against all other axes.

    Law: Haar, as `jaxinit.orthogonal`; Var[w] = gain^2 / max(outputs, the rest).

    Args:
      gain: the length of the rows or columns: a number, or as in `jaxinit.gain`.
      dtype: default dtype of the weights, float or complex.
      layout: "jax", outputs last, or "torch", outputs first.

    Returns:
      An `Initializer`.

    Raises:
      ValueError: at the call, if the shape has fewer than two axes.

    Example:
      >>> w = jaxinit.torch.orthogonal()(jax.random.key(0), (64, 32))
      >>> bool(abs(w.T @ w - jnp.eye(32)).max() < 1e-5)
      True

    References:
      PyTorch, torch.nn.init.orthogonal_. 2019.
      https://docs.pytorch.org/docs/stable/nn.init.html
    """
    check.choice(get_args(Layout), layout=layout)
    return initializers.orthogonal(column_axis=-1 if layout == "jax" else 0, gain=gain)


@random
def sparse(
    sparsity: float,
    std: float = 0.01,
    dtype: DTypeLike | None = None,
    *,
    layout: Layout = "jax",
) -> Drawn:
    """Builds an initializer of normal weights, a share of which is zero per input.

    Law: N(0, std^2), and 0 in ceil(sparsity outputs) of the weights of each input;
    Var[w] = std^2 (1 - zeros / outputs).

    torch counts the zeros in each column of (outputs, inputs), the weights of one
    input. `jaxinit.sparse` counts them among the weights of one output.

    Args:
      sparsity: the share of zeros, from 0 to 1.
      std: standard deviation of the others, 0 or above.
      dtype: default dtype of the weights, float or complex.
      layout: "jax", (inputs, outputs), or "torch", (outputs, inputs).

    Returns:
      An `Initializer`.

    Raises:
      ValueError: if sparsity is not in [0, 1] or std is negative; at the call, if the
        shape does not have two axes.

    Example:
      >>> w = jaxinit.torch.sparse(0.9)(jax.random.key(0), (4, 100))
      >>> (w == 0).sum(axis=1).tolist()
      [90, 90, 90, 90]

    References:
      PyTorch, torch.nn.init.sparse_. 2019.
      https://docs.pytorch.org/docs/stable/nn.init.html
    """
    check.choice(get_args(Layout), layout=layout)
    sparsity = check.fraction(sparsity=sparsity)
    own = initializers.sparse(sparsity, check.not_negative(std=std))

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
        _two_axes(shape)
        if layout == "torch":
            return own._draw(key, shape, dtype)
        return own._draw(key, shape[::-1], dtype).T

    def moments(shape: tuple[int, ...]) -> Moments | None:
        _two_axes(shape)
        return own.moments(shape if layout == "torch" else shape[::-1])

    return draw, moments, own._extent
