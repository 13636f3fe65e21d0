"""`compare`: settings in, results out."""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Unpack

from jaxinit import _check as check
from jaxinit._initializer import Initializer
from jaxinit.lab._show.comparison import Comparison
from jaxinit.lab._train import processes
from jaxinit.lab._train.grid import block_length
from jaxinit.lab._tried.data import Task
from jaxinit.lab._tried.experiment import design
from jaxinit.lab._tried.rules import Rules
from jaxinit.lab._tried.settings import Given, spell_out
from jaxinit.lab.training import Observer, open_files, run

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


@spell_out
def compare(
    initializers: Sequence[str | Initializer | Rules] = DEFAULT_INITIALIZERS,
    *,
    data: Task | str | Path | None = None,
    task: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    save_every: int | None = None,
    log: tuple[str, str | Path] | None = None,
    **settings: Unpack[Given],
) -> Comparison:
    """Trains a deep network under every initializer, seed and learning rate.

    A cell is one training run: an initializer, a seed, a learning rate. All cells train
    side by side in one compiled program, on the same rows in the same order; a seed
    changes the initial weights only. An interrupt (KeyboardInterrupt) ends training
    early, and the results up to then are returned.

    Several processes of `jax.distributed` that make the same call share the cells of
    one comparison; set `devices` to the number of devices of all processes. Each
    process returns the results; only the first writes to `out`, which all must be able
    to read. An interrupt in one process ends training in all.

    With `out` nothing is lost: training is saved as it proceeds, and `resume` continues
    a run that was interrupted or killed from its last save. The results are then bit
    for bit those of an undisturbed run, times aside. Once they are written, the saves
    are removed.

    Args:
      initializers: specs (initializers as text) or initializers for the kernels, or
        rules for all parameters of a model other than "mlp", such as "recipes.fixup(6)"
        or "**/h/kernel: identity(); glorot_normal()", where the first part that matches
        a parameter applies.
      data: a task, the path of an .npz file (see `load`) or of a text, or None.
      task: a task by its name, such as "digits", instead of data; an unknown name lists
        them all.
      progress: a function called after each block with (steps done, all steps).
      out: a directory for results.json, plots, a page, and the saves of training.
      resume: continue from the last save in `out`, which must have the same settings;
        start from the beginning if there is no save.
      overwrite: start anew where `out` has results or saves.
      save_every: blocks of training between saves; the steps of a block are the largest
        divisor of `steps` up to 25. None for as many blocks as make 100 steps.
      log: ``("tensorboard", directory)``, to follow the losses during training.
        Needs ``pip install 'jaxinit[tensorboard]'``.
      **settings: the fields of `Settings`, by name. Unless given, the depth depends on
        the model and the target loss on the loss.

    Returns:
      The results: ``rows()`` is the table; `jaxinit.lab.files.write` writes all.

    Raises:
      ValueError: if a setting, a spec or the data is not usable, an initializer does
        not support the shape of a kernel, or `out` has results or saves that the run
        may not touch.

    Example:
      >>> from jaxinit import lab
      >>> result = lab.compare(["he_normal()"], depth=3, seeds=1, steps=2)
      >>> result.rows()[0].initializer
      'he_normal()'
    """
    function: Any = progress
    if function is not None and not callable(function):
        rule = "progress must be a function of the steps done and of all steps."
        raise check.Unfit(rule, TypeError, progress=function).at("compare")
    experiment = design(initializers, data, task, **settings)
    saves, logs = open_files(experiment, out, log, resume, overwrite, save_every)
    observers = [] if progress is None else [_report_steps(progress)]
    with saves or contextlib.nullcontext():
        watching = contextlib.nullcontext(observers)
        result, _ = run(experiment, out, saves, logs, watching=watching)
        if out is not None:
            processes.meet("the results are written")
    return result


def _report_steps(progress: Callable[[int, int], None]) -> Observer:
    """Returns an observer that calls ``progress`` with steps done and all steps."""
    return lambda grid: progress(
        len(grid.losses) * block_length(grid.steps), grid.steps
    )
