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

    All cells train side by side in one compiled program, on the same rows in the same
    order; a seed changes the initial weights only. An interrupt (KeyboardInterrupt)
    ends the training early and returns what was reached by then.

    Several processes of `jax.distributed` that make the same call share the cells of
    one comparison; give `devices` all devices of all. Each returns the results; the
    first alone writes to `out`, which all must be able to read. An interrupt of one
    ends the training of all.

    With `out` nothing is lost: training is saved on the way, and with `resume` a run
    that was interrupted or killed goes on from its last save, and gives bit for bit
    what it would have given, but for times. The saves go when the results are written.

    Args:
      initializers: specs or initializers of the kernels, or rules for all parameters of
        a model but "mlp", such as "recipes.fixup(6)" or "**/h/kernel: identity();
        glorot_normal()", where the first part that fits a parameter wins.
      data: a task, the path of an .npz file (see `load`) or of a text, or None.
      task: "digits", "diabetes", "photograph", "text" or "memory", instead of data.
      progress: is called with (steps done, all steps) after each block.
      out: a directory for results.json, plots, a page, and the saves of training.
      resume: go on from the last save in `out`, made with the same settings; from the
        beginning if there is none.
      overwrite: start anew where `out` has results or saves.
      save_every: blocks of training between saves; a block has 25 steps or fewer, the
        most that divide `steps`. None for as many blocks as make 100 steps.
      log: ``("tensorboard", directory)``, for losses to be followed while they fall.
        Needs ``pip install 'jaxinit[tensorboard]'``.
      **settings: the fields of `Settings`, by name. The depth fits the model, unless it
        is given, and the target loss the loss.

    Returns:
      The results: ``rows()`` is the table; `jaxinit.lab.files.write` writes all.

    Raises:
      ValueError: if a setting, a spec or the data is not usable, an initializer cannot
        take the shape of a kernel, or `out` has results or saves that the run may not
        touch.

    Example:
      >>> from jaxinit import lab
      >>> result = lab.compare(["he_normal()"], depth=3, seeds=1, steps=2)
      >>> result.rows()[0].initializer
      'he_normal()'
    """
    given: Any = progress
    if given is not None and not callable(given):
        rule = "progress must be a function of the steps done and of all steps."
        raise check.Unfit(rule, TypeError, progress=given).at("compare")
    experiment = design(initializers, data, task, **settings)
    saves, logs = open_files(experiment, out, log, resume, overwrite, save_every)
    observers = [] if progress is None else [_telling(progress)]
    with saves or contextlib.nullcontext():
        watching = contextlib.nullcontext(observers)
        result, _ = run(experiment, out, saves, logs, watching=watching)
        if out is not None:
            processes.meet("the results are written")
    return result


def _telling(progress: Callable[[int, int], None]) -> Observer:
    """Makes an observer of training of a function of steps done and of all steps."""
    return lambda grid: progress(
        len(grid.losses) * block_length(grid.steps), grid.steps
    )
