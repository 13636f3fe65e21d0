"""Biases of recurrent cells whose gates lie side by side."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxinit import _check as check
from jaxinit._extent import exactly, of_values
from jaxinit._initializer import Drawn, Moments, initializer

# The order of the input (i), forget (f), cell (g) and output (o) gates in the weights
# of each framework: "flax" means the cells that keep the gates in one weight.
GATE_ORDERS = {
    "flax": "ifgo",
    "torch": "ifgo",
    "cudnn": "ifgo",
    "keras": "ifgo",
    "mxnet": "ifgo",
    "paddle": "ifgo",
    "haiku": "igfo",
    "tensorflow": "igfo",
    "onnx": "iofg",
}


@initializer(random=False)
def lstm_bias(
    forget: float = 1.0,
    order: str = "flax",
    dtype: DTypeLike | None = None,
    *,
    input: float = 0.0,
    cell: float = 0.0,
    output: float = 0.0,
) -> Drawn:
    """Builds an initializer of an LSTM's bias: by default 1 at the forget gate.

    Law: w = forget, input, cell or output, by gate; Var[w] = the variance of these
    four.

    A forget gate that starts open lets the cell remember, and gradients reach back. The
    last axis has the four gates side by side, as in `flax.nnx.OptimizedLSTMCell`. Where
    each gate has a bias of its own, as in Linen, give `ones` to that of the forget
    gate. Haiku and TensorFlow 1 add the 1 in the cell already, and torch adds two
    biases: there give one of them ``forget=0``.

    Args:
      forget: bias of the forget gate.
      order: the order of the gates along the last axis: the letters i, f, g, o, or the
        name of a framework, "flax", "torch", "cudnn", "keras", "mxnet" and "paddle"
        (ifgo), "haiku" and "tensorflow" (igfo, of version 1) or "onnx" (iofg).
      dtype: default dtype of the weights, any number type.
      input: bias of the input gate.
      cell: bias of the cell's candidate.
      output: bias of the output gate.

    Returns:
      An `Initializer`; it ignores the key.

    Raises:
      ValueError: if order is unknown; at the call, if the size of the last axis is not
        a multiple of four.

    Example:
      >>> lstm_bias()(None, (8,)).tolist()
      [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]

    References:
      Gers, Schmidhuber, Cummins. Learning to Forget: Continual Prediction with LSTM.
      2000. https://doi.org/10.1162/089976600300015015
      Jozefowicz, Zaremba, Sutskever. An Empirical Exploration of Recurrent Network
      Architectures. 2015. https://proceedings.mlr.press/v37/jozefowicz15.html
    """
    biases = {
        "i": check.real(input=input),
        "f": check.real(forget=forget),
        "g": check.real(cell=cell),
        "o": check.real(output=output),
    }
    if not isinstance(order, str) or sorted(order) != sorted(biases):
        order = GATE_ORDERS[check.choice((*GATE_ORDERS, "ifgo"), order=order)]
    gates = np.array([biases[gate] for gate in order])

    def fits(shape: tuple[int, ...]) -> None:
        if not shape or shape[-1] % 4:
            rule = "needs four gates side by side, each of the same size, in the last "
            raise check.Unfit(rule + "axis.", shape=shape)

    def fill(key: Any, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
        fits(shape)
        row = np.repeat(exactly(gates, dtype, "a bias"), shape[-1] // 4)
        return jnp.broadcast_to(jnp.asarray(row), shape)

    def moments(shape: tuple[int, ...]) -> Moments:
        fits(shape)
        with np.errstate(over="ignore"):
            return Moments(float(gates.mean()), float(gates.var()))

    return fill, moments, lambda shape: of_values(gates)
