"""A run: an experiment in, results and their files out."""

import contextlib
import importlib
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxinit import _check as check
from jaxinit.lab._result.health import diagnose
from jaxinit.lab._result.outcome import Seconds
from jaxinit.lab._show.comparison import Comparison
from jaxinit.lab._show.log import Log
from jaxinit.lab._show.log import prepare as log_to
from jaxinit.lab._train import _directory as directory
from jaxinit.lab._train import _interrupts as interrupts
from jaxinit.lab._train import checkpoint, processes
from jaxinit.lab._train.checkpoint import Checkpoint
from jaxinit.lab._train.grid import Grid, Scores, block_length
from jaxinit.lab._train.probe import Probe, stack
from jaxinit.lab._tried._precision import compute_in
from jaxinit.lab._tried.experiment import Experiment

# Called after each block, once its losses are on the host.
Observer = Callable[[Grid], None]


def open_files(
    experiment: Experiment,
    out: Any,
    log: Any,
    resume: bool = False,
    overwrite: bool = False,
    save_every: int | None = None,
) -> tuple[Checkpoint | None, Log | None]:
    """Checks the directories given to `compare`, and locks the one for the results.

    Returns:
      The saves and the log, each None if not asked for; the caller closes the saves.

    Raises:
      ValueError: if a directory has files that the run may not touch.
      TypeError: if something is of a wrong type.
      ModuleNotFoundError: if a library that writes the files is missing.
    """
    if out is not None:
        importlib.import_module("jaxinit.lab.files")
    task, settings = experiment.task, experiment.settings
    try:
        logs = log_to(log, task, settings, resume, overwrite)
        if out is None and log is not None:
            overwrite = False  # it concerns the log alone
        saves = directory.prepare(
            out,
            task,
            settings,
            resume=resume,
            overwrite=overwrite,
            save_every=save_every,
        )
        return saves, logs
    except check.Unfit as error:
        raise error.at("compare") from None


def run(
    experiment: Experiment,
    out: str | Path | None = None,
    saves: Checkpoint | None = None,
    logs: Log | None = None,
    *,
    watching: AbstractContextManager[Sequence[Observer]] | None = None,
    show: Callable[[Comparison], None] | None = None,
    command: str = "",
) -> tuple[Comparison, list[Path]]:
    """Trains, writes the results, and removes the saves, which the results replace.

    Args:
      experiment: the experiment to train.
      out: the directory of the results, or None.
      saves: the saves that `open_files` returned.
      logs: the log that it returned.
      watching: a context that yields the observers and ends with the training.
      show: called with the results before they are written, in the first process only.
      command: the command that repeats the run.

    Returns:
      The results, and the files that this process has written.
    """
    with watching or contextlib.nullcontext(()) as observers:
        result = train(experiment, saves, logs, observers)
    files: list[Path] = []
    if not processes.is_first():
        return result, files
    if show is not None:
        show(result)
    if out is not None and saves is not None:
        from jaxinit.lab.files import write

        files = write(result, out, command)
        if not result.interrupted:
            checkpoint.remove(saves.directory)
    return result, files


def train(
    experiment: Experiment,
    saves: Checkpoint | None,
    logs: Log | None,
    observers: Sequence[Observer],
) -> Comparison:
    """Runs the grid and gathers what it measured."""
    processes.meet("all have looked at the directories")
    logs = logs if processes.is_first() else None
    settings = experiment.settings
    with compute_in(settings.device, settings.dtype), logs or contextlib.nullcontext():
        if logs is None:
            return _train(experiment, saves, observers)
        result = _train(experiment, saves, [logs.after_block, *observers])
        logs.finish(result)
        return result


def _train(
    experiment: Experiment, saves: Checkpoint | None, observers: Sequence[Observer]
) -> Comparison:
    start = time.perf_counter()
    grid = Grid(experiment)
    if saves is not None:
        saves.begin(grid)
    drawn = time.perf_counter()
    with interrupts.defer() as interrupt:
        try:
            for _ in grid.run():
                if saves is not None:
                    saves.after_block(grid)
                for observe in observers:
                    observe(grid)
                interrupt()
        except KeyboardInterrupt as error:  # the results so far are worth a table
            if jax.process_count() > 1 and not isinstance(error, interrupts.Agreed):
                raise  # the other processes do not know, and would wait
            if saves is not None and not grid.done:
                saves.save(grid)
    trained = time.perf_counter()
    scores: Scores = grid.scores()
    blocks, length = len(grid.losses), block_length(grid.steps)
    curves = np.array(grid.losses).reshape(blocks, *grid.shape)
    # One more program to compile: worth its time only if files are written.
    verdicts = None if saves is None else diagnose(grid.task, grid.model, grid.initial)
    end = time.perf_counter()
    before = 0.0 if saves is None else saves.seconds
    return Comparison(
        task=experiment.task,
        settings=experiment.settings,
        signals=grid.signals,
        curves=np.moveaxis(curves, 0, -1),
        steps=length * np.arange(1, blocks + 1),
        scores=scores,
        initial=jax.tree.map(np.asarray, grid.initial["params"]),
        final=jax.tree.map(grid.by_cell, grid.final_variables["params"]),
        interrupted=not grid.done,
        stopped=grid.stopped,
        seconds=Seconds(drawn - start, before + trained - drawn, end - trained),
        probes=stack([Probe(*map(grid.by_cell, probe)) for probe in grid.probes], 3),
        probe_steps=grid.probe_steps,
        health=verdicts,
    )
