"""The form of the table of architectures, and how plain parameters are made."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Architecture(NamedTuple):
    """A model, and what each of its parameters does, written by hand.

    Attributes:
      model: as `structure` takes it.
      inputs: example inputs.
      expected: by pattern of paths, the role, and fan_in and fan_out if it has any. A
        parameter has the first pattern that fits.
      branches: the number of residual branches.
      keywords: other arguments of `structure`.
    """

    model: Any
    inputs: tuple[Any, ...]
    expected: dict[str, Any]
    branches: int = 0
    keywords: dict[str, Any] = {}


def data(*shape):
    return np.zeros(shape, np.float32)


def ids(*shape):
    return np.zeros(shape, np.int32)


def make(**shapes):
    """Returns a function of a key that makes parameters of these shapes."""
    return lambda key: {name: jnp.zeros(shape) for name, shape in shapes.items()}


def rms(x, gain):
    """Returns rows of unit mean square, with a gain."""
    return x * jax.lax.rsqrt((x**2).mean(-1, keepdims=True) + 1e-6) * gain
