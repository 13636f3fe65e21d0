"""Early stopping: a cell ends when its validation loss no longer improves.

The loss on the held-out rows is measured after each block. A cell is stopped when this
loss has not improved for some steps, or when it has diverged, so that its loss is not
finite. A stopped cell changes no more. A group of stopped cells is not computed; for
this, the cells of a chunk that still train are packed together.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Stopping(NamedTuple):
    """What early stopping knows about a cell, or about stacked cells.

    Attributes:
      best: the variables of the lowest validation loss; the initial ones if the first
        block diverges.
      loss: that loss.
      step: the step after which it was measured.
      curve: training loss of the last block; nan or infinite if the cell has diverged.
      stopped: the step after which the cell was stopped; 0 while it trains.
    """

    best: Any
    loss: jax.Array
    step: jax.Array
    curve: jax.Array
    stopped: jax.Array


def start(variables: Any) -> Stopping:
    """Returns what is known about cells before their first step."""
    cells = len(jax.tree.leaves(variables)[0])
    infinite = jnp.full(cells, jnp.inf, jnp.float32)
    zero = jnp.zeros(cells, jnp.int32)
    return Stopping(
        best=variables, loss=infinite, step=zero, curve=infinite, stopped=zero
    )


def after_block(
    known: Stopping,
    variables: Any,
    training: jax.Array,
    validation: jax.Array,
    step: jax.Array,
    patience: int,
) -> Stopping:
    """Returns what is known about a cell after it has trained a block.

    Args:
      known: what was known before the block.
      variables: the variables after the block.
      training: mean training loss of the block.
      validation: loss of the variables on the held-out rows.
      step: the block's last step.
      patience: steps without a better validation loss before a cell is stopped.
    """
    # A cell that diverges in a block's last step has a finite training loss; its curve
    # must show the divergence all the same.
    validation, training = (a.astype(jnp.float32) for a in (validation, training))
    curve = jnp.where(jnp.isfinite(validation), training, jnp.nan)
    diverged = ~jnp.isfinite(curve)
    better = ~diverged & (validation < known.loss)
    best = keep(better, variables, known.best)
    loss = jnp.where(better, validation, known.loss)
    since = jnp.where(better, step, known.step)
    stops = diverged | (step - since >= patience)
    stopped = jnp.where(stops, step, 0)
    return Stopping(best=best, loss=loss, step=since, curve=curve, stopped=stopped)


def keep(condition: jax.Array, one: Any, other: Any) -> Any:
    """Selects one of two equal trees."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), one, other)


def map_running(
    function: Callable[[Any], Any], cells: Any, stopped: jax.Array, together: int
) -> Any:
    """Maps a function over the cells that have not stopped.

    Args:
      function: maps a cell to one of the same form.
      cells: arrays with a leading axis of cells.
      stopped: whether each cell has stopped.
      together: cells of a group; it divides the number of cells.

    Returns:
      The cells; those that have stopped are unchanged.
    """

    def one(cell: Any) -> Any:
        stopped, old = cell
        return stopped, keep(stopped, old, function(old))

    def group(cells: Any) -> Any:
        train = one if together == 1 else jax.vmap(one)
        return jax.lax.cond(cells[0].all(), lambda cells: cells, train, cells)

    def pack(array: jax.Array) -> jax.Array:
        packed = array[order]
        return (
            packed if together == 1 else packed.reshape(-1, together, *array.shape[1:])
        )

    def unpack(array: jax.Array) -> jax.Array:
        flat = array if together == 1 else array.reshape(-1, *array.shape[2:])
        return flat[back]

    order = jnp.argsort(stopped, stable=True)
    back = jnp.argsort(order)
    groups = jax.lax.map(group, jax.tree.map(pack, (stopped, cells)))
    return jax.tree.map(unpack, groups)[1]
