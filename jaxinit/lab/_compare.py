"""`compare`: settings in, results out."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxinit import _check as check
from jaxinit._gain import activation
from jaxinit._initializer import Initializer
from jaxinit._spec import parse
from jaxinit.lab.comparison import Comparison, Seconds
from jaxinit.lab.data import Task, digits, load
from jaxinit.lab.grid import Grid, Scores, block_length
from jaxinit.lab.model import MLP
from jaxinit.lab.settings import Settings

# In the order in which the table tells the story: symmetry, wrong scale, right scale
# for a linear layer, right scale for relu, and structure.
DEFAULT_INITIALIZERS = (
    "zeros()",
    "constant(0.01)",
    "normal(0.02)",
    "normal(1.0)",
    "variance_scaling(1.0, 'fan_in', 'normal')",
    "glorot_normal()",
    "lecun_uniform()",
    "he_normal()",
    "truncated_normal(0.2)",
    "orthogonal(gain='relu')",
    "sparse(0.8, stddev=0.4)",
    "identity()",
)


def compare(
    initializers: Sequence[str | Initializer] = DEFAULT_INITIALIZERS,
    *,
    data: Task | str | Path | None = None,
    activation: str = "relu",
    depth: int = 20,
    width: int = 64,
    norm: str = "none",
    seeds: int = 3,
    steps: int = 400,
    learning_rates: Sequence[float] = (3e-4, 1e-3, 3e-3),
    optimizer: str = "adam",
    batch_size: int = 64,
    target_loss: float = 0.5,
    progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Trains a deep network under every initializer, seed and learning rate.

    All cells train side by side in one compiled program, on the same rows in the same
    order; a seed changes the initial weights only. An interrupt (KeyboardInterrupt)
    ends the training early and returns what was reached by then.

    Args:
      initializers: specs or initializers of the kernels.
      data: a task, the path of an .npz file (see `load`), or None for the digits.
      activation: see `Settings`, like all that follow.
      depth: number of dense layers.
      width: outputs of every layer but the last.
      norm: "none", "layer" or "batch".
      seeds: number of seeds.
      steps: number of training steps.
      learning_rates: tried for every initializer alike.
      optimizer: name of an optax optimizer.
      batch_size: rows per step.
      target_loss: the training loss whose first step is reported.
      progress: is called with (steps done, all steps) after each block.

    Returns:
      The results: ``rows()`` is the table; `jaxinit.lab.files.write` writes all.

    Raises:
      ValueError: if a setting, a spec or the data is not usable, or an initializer
        cannot take the shape of a kernel.

    Example:
      >>> from jaxinit import lab
      >>> result = lab.compare(["he_normal()"], depth=3, seeds=1, steps=2)
      >>> result.rows()[0].initializer
      'he_normal()'
    """
    varied = (
        initializers,
        activation,
        depth,
        width,
        norm,
        seeds,
        steps,
        learning_rates,
    )
    return train(*prepare(data, *varied, optimizer, batch_size, target_loss), progress)


def prepare(
    data: Any,
    initializers: Any,
    *settings: Any,
) -> tuple[Task, Settings]:
    """Checks everything that can be checked before any time is spent."""
    try:
        if isinstance(initializers, str):
            rule = "initializers must be a sequence of specs. Put it in brackets."
            raise check.Unfit(rule, TypeError, initializers=initializers)
        for given in initializers:
            if not isinstance(given, (str, Initializer)):
                rule = "initializers must be specs or what a builder returns."
                raise check.Unfit(rule, TypeError, initializers=given)
        if not isinstance(data, (Task, str, Path, type(None))):
            raise check.Unfit("data must be a task or a path.", TypeError, data=data)
        parsed = tuple(parse(i) if isinstance(i, str) else i for i in initializers)
        checked = Settings(parsed, *settings)
        if data is None:
            task = digits()
        else:
            task = data if isinstance(data, Task) else load(data)
        if checked.batch_size > len(task.x_train):
            rule = f"the task has {len(task.x_train)} training rows only."
            raise check.Unfit(rule, batch_size=checked.batch_size)
    except check.Unfit as error:
        raise error.at("compare") from None
    model = model_of(task, checked)
    for init in checked.initializers:  # each raises if it cannot take a kernel's shape
        jax.eval_shape(
            model.clone(kernel_init=init).init, jax.random.key(0), task.x_train[:1]
        )
    return task, checked


def model_of(task: Task, settings: Settings) -> MLP:
    """Returns the network that the settings describe, without its initializer."""
    function = activation(settings.activation)
    return MLP(settings.depth, settings.width, task.outputs, function, settings.norm)


def train(
    task: Task, settings: Settings, progress: Callable[[int, int], None] | None = None
) -> Comparison:
    """Runs the grid and gathers what it measured."""
    start = time.perf_counter()
    grid = Grid(
        task,
        model_of(task, settings),
        settings.initializers,
        settings.seeds,
        settings.learning_rates,
        settings.optimizer,
        settings.batch_size,
        settings.steps,
    )
    drawn = time.perf_counter()
    losses: list[np.ndarray] = []
    length = block_length(settings.steps)
    try:
        for loss in grid.run():
            losses.append(loss)
            if progress is not None:
                progress(len(losses) * length, settings.steps)
    except KeyboardInterrupt:
        pass  # what has been trained by now is worth a table
    trained = time.perf_counter()
    scores: Scores = grid.scores()
    curves = np.array(losses).reshape(len(losses), *grid.shape)
    end = time.perf_counter()
    return Comparison(
        task=task,
        settings=settings,
        signals=grid.signals,
        curves=np.moveaxis(curves, 0, -1),
        steps=length * np.arange(1, len(losses) + 1),
        scores=scores,
        initial=jax.tree.map(np.asarray, grid.initial["params"]),
        final=jax.tree.map(grid.by_cell, grid.variables["params"]),
        interrupted=len(losses) * length < settings.steps,
        seconds=Seconds(drawn - start, trained - drawn, end - trained),
    )
