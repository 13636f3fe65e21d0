"""`compare`: settings in, results out."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit import _check as check
from jaxinit._gain import activation
from jaxinit._initializer import Initializer
from jaxinit.lab import checkpoint, directory, interrupts, processes
from jaxinit.lab.checkpoint import Checkpoint
from jaxinit.lab.comparison import Comparison, Seconds
from jaxinit.lab.data import Task, with_validation
from jaxinit.lab.fitness import check_model, check_size
from jaxinit.lab.grid import Grid, Scores, block_length
from jaxinit.lab.health import health
from jaxinit.lab.log import Log
from jaxinit.lab.log import prepare as log_to
from jaxinit.lab.losses import chance_of, fitting
from jaxinit.lab.model import MLP
from jaxinit.lab.networks import DEPTHS, Network, network
from jaxinit.lab.precision import computing
from jaxinit.lab.probe import Probe, stacked
from jaxinit.lab.rules import Rules, read
from jaxinit.lab.settings import Settings
from jaxinit.lab.tasks import task_of

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
    initializers: Sequence[str | Initializer | Rules] = DEFAULT_INITIALIZERS,
    *,
    data: Task | str | Path | None = None,
    activation: str = "relu",
    depth: int | None = None,
    width: int = 64,
    norm: str = "none",
    seeds: int = 3,
    steps: int = 400,
    learning_rates: Sequence[float] = (3e-4, 1e-3, 3e-3),
    optimizer: str = "adam",
    batch_size: int = 64,
    target_loss: float | None = None,
    task: str | None = None,
    model: str = "mlp",
    devices: int = 1,
    schedule: str = "constant",
    clip: float = 0.0,
    loss: str | None = None,
    dropout: float = 0.0,
    early_stopping: int = 0,
    device: str | None = None,
    dtype: str = "float32",
    chunk: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    save_every: int | None = None,
    log: tuple[str, str | Path] | None = None,
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
        glorot_normal()"; see `jaxinit.lab.rules`.
      data: a task, the path of an .npz file (see `load`) or of a text, or None.
      activation: see `Settings`, like all that follow.
      depth: number of layers or blocks; by default 20 dense layers, 4 convolutions, 6
        residual blocks, 4 of a transformer, 5 of a coordinate network, 1 recurrent.
      width: outputs of every layer but the last.
      norm: "none", "layer" or "batch"; "post" in a transformer.
      seeds: number of seeds.
      steps: number of training steps.
      learning_rates: tried for every initializer alike.
      optimizer: name of an optax optimizer, or a call of it.
      batch_size: rows per step.
      target_loss: the training loss whose first step is reported; by default 0.5, and
        half of chance with another loss than the task's default.
      task: "digits", "diabetes", "photograph", "text" or "memory", instead of data.
      model: see `Settings`; every kernel of two axes or more is drawn by the
        initializer.
      devices: how many devices share the cells.
      schedule: of the learning rate.
      clip: the largest norm of all gradients together; 0 for any.
      loss: "cross_entropy", "binary_cross_entropy" or "focal" for classes, "squared" or
        "absolute" for real targets, or a call of one; the first of them by default.
      dropout: share of hidden units that a step of training drops, at least 0 and below
        1. The masks are drawn from the step and the seed: equal seeds have equal ones.
      early_stopping: 0, or the steps without a better validation loss after which a
        cell is stopped. A fifth of the training rows, 1000 at most, is held out for it,
        and every cell keeps the parameters of its best block. Cells that diverge stop
        at once.
      device: "cpu", "gpu" or "tpu", or None for the one that JAX prefers.
      dtype: see `Settings`; float64 needs jax_enable_x64.
      chunk: cells that each device holds and trains at once, 1 or more; the others wait
        in the memory of the host where the device's would not hold all. By default as
        many as fit, by what XLA says that the program takes; on a CPU a few.
      progress: is called with (steps done, all steps) after each block.
      out: a directory for results.json, plots, a page, and the saves of training.
      resume: go on from the last save in `out`, made with the same settings; from the
        beginning if there is none.
      overwrite: start anew where `out` has results or saves.
      save_every: blocks of training between saves; a block has 25 steps or fewer, the
        most that divide `steps`. None for as many blocks as make 100 steps.
      log: ``("tensorboard", directory)``, for losses to be followed while they fall;
        see `jaxinit.lab.log`. Needs ``pip install 'jaxinit[tensorboard]'``.

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
    rest = optimizer, batch_size, target_loss
    found, settings = prepare(
        data,
        *varied,
        *rest,
        task=task,
        model=model,
        devices=devices,
        schedule=schedule,
        clip=clip,
        loss=loss,
        dropout=dropout,
        early_stopping=early_stopping,
        device=device,
        dtype=dtype,
        chunk=chunk,
    )
    if out is not None:
        from jaxinit.lab.files import write  # a missing plot library shows here
    saves, logs = prepare_files(
        out, log, found, settings, resume, overwrite, save_every
    )
    with saves or contextlib.nullcontext():
        result = train(found, settings, progress, saves, logs=logs)
        if out is None or saves is None:
            return result
        if processes.first():
            write(result, out)
            if not result.interrupted:
                checkpoint.remove(saves.directory)
        processes.meet("the results are written")
    return result


def prepare(
    data: Any,
    initializers: Any,
    activation: Any,
    depth: int | None,
    *settings: Any,
    task: str | None = None,
    model: str = "mlp",
    **others: Any,
) -> tuple[Task, Settings]:
    """Checks everything that can be checked before any time is spent."""
    try:
        if not isinstance(initializers, (tuple, list)):
            rule = "initializers must be a sequence of specs. Put it in brackets."
            raise check.Unfit(rule, TypeError, initializers=initializers)
        for given in initializers:
            if not isinstance(given, (str, Initializer, Rules)):
                rule = "initializers must be specs or what a builder returns."
                if name := getattr(given, "registered", ""):
                    rule += f" Call the builder: {name}()."
                raise check.Unfit(rule, TypeError, initializers=given)
        if not isinstance(data, (Task, str, Path, type(None))):
            rule = "data must be a task or a path. Write arrays by np.savez(path, x=x, "
            rule += "y=y), and give the path."
            raise check.Unfit(rule, TypeError, data=data)
        parsed = tuple(read(i) if isinstance(i, str) else i for i in initializers)
        layers = DEPTHS.get(str(model), 1) if depth is None else depth
        names = [field.name for field in dataclasses.fields(Settings)][3:]
        named = dict(zip(names, settings, strict=False)) | others
        targeted = named["target_loss"] is not None
        if not targeted:
            named["target_loss"] = Settings.target_loss
        checked = Settings(parsed, activation, layers, **named, model=model)
        found = data if isinstance(data, Task) else task_of(task, data)
        found, checked = fitted(found, checked, targeted)
        built = model_of(found, checked)
        if isinstance(built, Network) and ":" in checked.model:
            check_model(built, found, checked.model)
    except check.Unfit as error:
        raise error.at("compare") from None
    key, x = jax.random.key(0), jnp.asarray(found.x_train[:1])
    for init in checked.initializers:  # each raises if it cannot take a kernel's shape
        if isinstance(built, MLP):
            drawn = jax.eval_shape(built.clone(kernel_init=init).init, key, x)
        else:
            drawn = jax.eval_shape(built.drawn(init), key, x)
    try:
        check_size(drawn["params"], checked)
    except check.Unfit as error:
        raise error.at("compare") from None
    return found, checked


def fitted(task: Task, settings: Settings, targeted: bool) -> tuple[Task, Settings]:
    """Fits task and settings to each other: loss, chance, rows held out."""
    loss, early_stopping = fitting(task, settings.loss), settings.early_stopping
    other = loss != fitting(task, None)
    rows = "training rows"
    if early_stopping:
        task = with_validation(task)
        rows += " beside those held out"
        if task.x_valid is None or not len(task.x_valid):
            rule = "the task has too few training rows to hold some out."
            raise check.Unfit(rule, early_stopping=early_stopping)
    if settings.batch_size > len(task.x_train):
        rule = f"the task has {len(task.x_train)} {rows} only."
        raise check.Unfit(rule, batch_size=settings.batch_size)
    if other or early_stopping:
        task = task._replace(chance=chance_of(task, loss))
    target = settings.target_loss
    if other and not targeted:
        target = float(f"{task.chance / 2:.2g}")
    return task, dataclasses.replace(settings, loss=loss, target_loss=target)


def prepare_files(
    out: Any, log: Any, task: Task, settings: Settings, *options: Any
) -> tuple[Checkpoint | None, Log | None]:
    """Checks the directories, as `directory.prepare` and `jaxinit.lab.log.prepare`."""
    resume, overwrite, save_every = options
    try:
        logs = log_to(log, task, settings, resume, overwrite)
        if out is None and log is not None:
            overwrite = False  # is about the log
        options = resume, overwrite, save_every
        return directory.prepare(out, task, settings, *options), logs
    except check.Unfit as error:
        raise error.at("compare") from None


def model_of(task: Task, settings: Settings) -> MLP | Network:
    """Returns the network that the settings describe, without its initializer."""
    function = activation(settings.activation)
    norm: Any = settings.norm  # "post" is a transformer's alone
    sizes, dropout = (settings.depth, settings.width), settings.dropout
    if settings.model != "mlp":
        return network(settings.model, task, *sizes, function, norm, dropout)
    if task.tokens:
        rule = f"takes numbers, and {task.name} has tokens. Choose transformer or lstm."
        raise check.Unfit(rule, model="mlp")
    return MLP(*sizes, task.outputs, function, norm, dropout=dropout)


def train(
    task: Task,
    settings: Settings,
    progress: Callable[[int, int], None] | None = None,
    saves: Checkpoint | None = None,
    observers: Sequence[Callable[[Grid], None]] = (),
    logs: Log | None = None,
) -> Comparison:
    """Runs the grid and gathers what it measured.

    Observers are called with the grid after each block, when its losses are here.
    """
    processes.meet("all have looked at the directories")
    logs = logs if processes.first() else None
    with computing(settings.device, settings.dtype), logs or contextlib.nullcontext():
        if logs is None:
            return _train(task, settings, progress, saves, observers)
        observers = [*observers, logs.after_block]
        result = _train(task, settings, progress, saves, observers)
        logs.finish(result)
        return result


def _train(
    task: Task,
    settings: Settings,
    progress: Callable[[int, int], None] | None,
    saves: Checkpoint | None,
    observers: Sequence[Callable[[Grid], None]],
) -> Comparison:
    start = time.perf_counter()
    grid = Grid(task, model_of(task, settings), settings)
    if saves is not None:
        saves.begin(grid)
    drawn = time.perf_counter()
    length = block_length(settings.steps)
    with interrupts.held() as interrupt:
        try:
            for _ in grid.run():
                if saves is not None:
                    saves.after_block(grid)
                for observe in observers:
                    observe(grid)
                if progress is not None:
                    progress(len(grid.losses) * length, settings.steps)
                interrupt()
        except KeyboardInterrupt as error:  # what has been trained is worth a table
            if jax.process_count() > 1 and not isinstance(error, interrupts.Agreed):
                raise  # the others do not know, and would wait
            if saves is not None and not grid.done:
                saves.save(grid)
    trained = time.perf_counter()
    scores: Scores = grid.scores()
    blocks = len(grid.losses)
    curves = np.array(grid.losses).reshape(blocks, *grid.shape)
    # It compiles a program of its own, which only the files are worth.
    judged = None if saves is None else health(task, grid.model, grid.initial)
    end = time.perf_counter()
    before = 0.0 if saves is None else saves.seconds
    return Comparison(
        task=task,
        settings=settings,
        signals=grid.signals,
        curves=np.moveaxis(curves, 0, -1),
        steps=length * np.arange(1, blocks + 1),
        scores=scores,
        initial=jax.tree.map(np.asarray, grid.initial["params"]),
        final=jax.tree.map(grid.by_cell, grid.kept["params"]),
        interrupted=not grid.done,
        stopped=grid.stopped,
        seconds=Seconds(drawn - start, before + trained - drawn, end - trained),
        probes=stacked([Probe(*map(grid.by_cell, probe)) for probe in grid.probes], 3),
        probe_steps=grid.probe_steps,
        health=judged,
    )
