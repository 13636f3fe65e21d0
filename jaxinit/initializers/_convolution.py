"""Convolutions that keep the norm of a signal."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxinit import _check as check
from jaxinit import random
from jaxinit._gain import Gain
from jaxinit._initializer import Drawn, Moments, initializer
from jaxinit.initializers._orthogonal import factor_of, spread


def _projection(key: jax.Array, size: int, dtype: np.dtype) -> jax.Array:
    """Draws an orthogonal projection, onto a subspace of random dimension."""
    basis, chosen = jax.random.split(key)
    q = random.orthonormal(basis, size, size, dtype)
    q = q * jax.random.bernoulli(chosen, np.float32(0.5), (1, size)).astype(dtype)
    return random.matmul(q, q.T.conj())


def _kernel(
    key: jax.Array, window: int, rank: int, inputs: int, outputs: int, dtype: np.dtype
) -> jax.Array:
    """Draws an orthogonal convolution as a product of convolutions of two taps each.

    Along one axis, the taps P and I - P for a projection P are such a convolution; for
    several axes the taps are products. Composing window - 1 of them, with orthonormal
    rows in front, gives the kernel. # [window] * rank + [inputs, outputs]
    """
    rows, *steps = jax.random.split(key, 1 + (window - 1) * rank)
    taps = {(0,) * rank: random.orthonormal(rows, inputs, outputs, dtype)}
    eye = jnp.eye(outputs, dtype=dtype)
    for step in range(window - 1):
        pairs = []
        for axis_key in steps[step * rank : (step + 1) * rank]:
            projection = _projection(axis_key, outputs, dtype)
            pairs.append((projection, eye - projection))
        grown: dict[tuple[int, ...], jax.Array] = {}
        for shift in itertools.product((0, 1), repeat=rank):
            block = pairs[0][shift[0]]
            for axis in range(1, rank):
                block = random.matmul(block, pairs[axis][shift[axis]])
            for place, tap in taps.items():
                to = tuple(p + s for p, s in zip(place, shift, strict=True))
                term = random.matmul(tap, block)
                grown[to] = grown[to] + term if to in grown else term
        taps = grown
    ordered = [taps[place] for place in itertools.product(range(window), repeat=rank)]
    return jnp.stack(ordered).reshape(*[window] * rank, inputs, outputs)


@initializer
def conv_orthogonal(
    scale: float = 1.0, dtype: DTypeLike | None = None, *, gain: Gain = 1.0
) -> Drawn:
    """Builds an initializer of orthogonal convolutions in 1, 2 or 3 dimensions.

    Law: a product of random two-tap convolutions and a Haar matrix;
    Var[w] = (scale gain)^2 / (taps fan_out), on average over the taps.

    The convolution keeps the norm of every signal under circular padding, as
    `delta_orthogonal` does, but fills all taps. Kernels are laid out (*window, inputs,
    outputs), as in Flax, with a window of equal sizes and outputs >= inputs.

    Args:
      scale: the factor on the norm of the signal.
      dtype: default dtype of the weights, float or complex.
      gain: a further factor: a number, the name of an activation, (name, parameter) or
        a function, as in `jaxinit.gain`.

    Returns:
      An `Initializer`.

    Raises:
      ValueError: at the call, if the shape does not have 3 to 5 axes, its window
        differs between axes, or it has more inputs than outputs.

    Example:
      >>> w = conv_orthogonal()(jax.random.key(0), (3, 3, 4, 8))
      >>> abs(float((w**2).sum()) - 4) < 1e-4  # the norm of each of four inputs
      True

    References:
      Xiao, Bahri, Sohl-Dickstein, Schoenholz, Pennington. Dynamical Isometry and a Mean
      Field Theory of CNNs, algorithm 1. 2018. https://arxiv.org/abs/1806.05393
    """
    factor = factor_of(scale, gain)

    def sizes(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
        """Returns window, rank, inputs and outputs."""
        check.kernel(shape)
        *window, inputs, outputs = shape
        if len(set(window)) > 1:
            rule = "needs a window of equal sizes. Use delta_orthogonal()."
            raise check.Unfit(rule, shape=shape)
        if outputs < inputs:
            rule = "needs at least as many outputs as inputs, to keep every direction."
            raise check.Unfit(rule, shape=shape)
        return window[0], len(window), inputs, outputs

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
        found = sizes(shape)
        kernel = random.whole(lambda key: _kernel(key, *found, dtype))(key)
        return jnp.multiply(np.asarray(factor, dtype), kernel)

    def moments(shape: tuple[int, ...]) -> Moments:
        window, rank, _, outputs = sizes(shape)
        return Moments(0.0, factor * factor / (window**rank * outputs))

    return draw, moments, lambda shape: spread(factor, moments(shape))
