"""Biases of recurrent cells whose gates lie side by side."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxinit import _check as check
from jaxinit import random
from jaxinit._draws import needs_real
from jaxinit._extent import exactly, of_values, symmetric
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


def _read_order(order: str) -> str:
    """Returns the letters of the gates, in their order."""
    if isinstance(order, str) and sorted(order) == sorted("ifgo"):
        return order
    return GATE_ORDERS[check.choice((*GATE_ORDERS, "ifgo"), order=order)]


def _check_gates(shape: tuple[int, ...]) -> None:
    if not shape or shape[-1] % 4:
        rule = "needs four gates side by side, each of the same size, in the last axis."
        raise check.Unfit(rule, shape=shape)


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
    gates = np.array([biases[gate] for gate in _read_order(order)])

    def fill(key: Any, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
        _check_gates(shape)
        row = np.repeat(exactly(gates, dtype, "a bias"), shape[-1] // 4)
        return jnp.broadcast_to(jnp.asarray(row), shape)

    def moments(shape: tuple[int, ...]) -> Moments:
        _check_gates(shape)
        with np.errstate(over="ignore"):
            return Moments(float(gates.mean()), float(gates.var()))

    return fill, moments, lambda shape: of_values(gates)


@initializer
def chrono(
    longest: float,
    shortest: float = 2.0,
    order: str = "flax",
    dtype: DTypeLike | None = None,
) -> Drawn:
    """Builds an initializer of an LSTM's bias for dependencies of a known length.

    Law: log(u - 1) at the forget gate, u uniform on [shortest, longest), minus that of
    the same unit at the input gate, 0 at the others; Var[w] = E[log(u - 1)^2] / 2.

    A unit whose forget gate has the bias log(t - 1) forgets in about t steps. The last
    axis has the four gates side by side, as for `lstm_bias`.

    Args:
      longest: the number of steps that dependencies reach over, above shortest.
      shortest: the number of steps of the shortest, 2 or above.
      order: the order of the gates, as for `lstm_bias`.
      dtype: default dtype of the weights, real.

    Returns:
      An `Initializer`.

    Raises:
      ValueError: if shortest is below 2 or longest not above it, or order is unknown;
        at the call, if the size of the last axis is not a multiple of four.

    Example:
      >>> i, f, g, o = chrono(100)(jax.random.key(0), (32,)).reshape(4, 8)
      >>> bool((f == -i).all()), bool((jax.nn.sigmoid(f) < 0.99).all())
      (True, True)

    References:
      Tallec, Ollivier. Can recurrent neural networks warp time? 2018.
      https://arxiv.org/abs/1804.11188
    """
    low, high = check.real(shortest=shortest), check.real(longest=longest)
    check.squared(longest=longest)
    if low < 2:
        raise check.Unfit("shortest must be 2 or above.", shortest=shortest)
    if not low < high:
        raise check.Unfit(f"longest must be above {low:g}.", longest=longest)
    gates = _read_order(order)

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
        _check_gates(shape)
        needs_real(dtype)
        units = (*shape[:-1], shape[-1] // 4)
        open_ = jnp.log(random.uniform(key, units, dtype, low - 1, high - 1))
        parts = {"f": open_, "i": -open_}
        none = jnp.zeros_like(open_)
        return jnp.concatenate([parts.get(gate, none) for gate in gates], -1)

    def moments(shape: tuple[int, ...]) -> Moments:
        _check_gates(shape)
        ends = np.array([low - 1, high - 1])
        # The integral of log(x)^2 is x (log(x)^2 - 2 log(x) + 2).
        areas = ends * (np.log(ends) ** 2 - 2 * np.log(ends) + 2)
        return Moments(0.0, float(areas[1] - areas[0]) / (high - low) / 2)

    far = float(np.log(high - 1))
    return draw, moments, lambda shape: symmetric(far, far)
