"""The training step of one cell, and the rows that each step sees."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

from jaxinit.lab._tried._network import Network

Loss = Callable[[jax.Array, jax.Array], jax.Array]
_ORDER_SEED = 0  # of the order of the data: the same for every cell, whatever its seed


def make_step(
    model: Network,
    loss: Loss,
    optimizer: Callable[[jax.Array], optax.GradientTransformationExtraArgs],
    x: jax.Array,
    y: jax.Array,
) -> Callable[[Any, Any, Any], Any]:
    """Returns a function that takes one training step of one cell.

    Args:
      model: the model in training.
      loss: computes the loss from outputs and targets.
      optimizer: builds the optimizer for a learning rate.
      x: all inputs.
      y: their targets.

    Returns:
      A function of the cell's own (learning rate, seed), its (variables, state of the
      optimizer) and the step's (row numbers, key). It returns the new (variables,
      state) and the loss. Cells of one seed drop the same units, whatever their
      initializer and rate.
    """

    def step(own: Any, carry: Any, order: Any) -> Any:
        (variables, state), (rate, seed) = carry, own
        rows, key = order[0], jax.random.fold_in(order[1], seed)
        params = variables["params"]
        fixed = {k: v for k, v in variables.items() if k != "params"}

        def compute_loss(params: Any) -> Any:
            z, updated = model.train({**fixed, "params": params}, x[rows], key)
            return loss(z, y[rows]), updated

        differentiate = jax.value_and_grad(compute_loss, has_aux=True)
        (value, updated), gradient = differentiate(params)
        change, state = optimizer(rate).update(gradient, state, params, value=value)
        params = optax.apply_updates(params, change)
        return (dict(updated) | {"params": params}, state), value

    return step


def batches(rows: int, batch_size: int, steps: int) -> np.ndarray:  # [steps, batch]
    """Draws the row indices of each step: a new permutation every epoch."""
    generator = np.random.default_rng(_ORDER_SEED)
    per_epoch = rows // batch_size
    epochs = [
        generator.permutation(rows)[: per_epoch * batch_size].reshape(
            per_epoch, batch_size
        )
        for _ in range(-(-steps // per_epoch))
    ]
    return np.concatenate(epochs)[:steps]
