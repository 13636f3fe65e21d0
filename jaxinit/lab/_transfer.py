"""`transfer`: whether the best learning rate stays as a network grows."""

import functools
import gc
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxinit import _check as check
from jaxinit._initializer import Initializer
from jaxinit.lab._result.drift import average_ends, find_diverged
from jaxinit.lab._show.transferred import TransferResult
from jaxinit.lab._train import _interrupts as interrupts
from jaxinit.lab._train._finished import Finished
from jaxinit.lab._train.grid import Grid, block_length
from jaxinit.lab._tried._precision import compute_in
from jaxinit.lab._tried._sweep import LEFT_OUT, Sweep, design_sweep
from jaxinit.lab._tried.data import Task
from jaxinit.lab._tried.rules import Rules
from jaxinit.lab._tried.settings import spell_out


class Moment(NamedTuple):
    """How far a transfer has come.

    Attributes:
      parameterization: what is trained.
      size: the width or depth that is trained.
      done: steps done, of all networks.
      steps: all steps.
      result: what is trained to the end.
    """

    parameterization: str
    size: int
    done: int
    steps: int
    result: TransferResult


@functools.partial(spell_out, without=LEFT_OUT)
def transfer(
    model: str | Callable[[int], Any] = "mlp",
    *,
    data: Task | str | Path | None = None,
    task: str | None = None,
    widths: Sequence[int] | None = None,
    depths: Sequence[int] | None = None,
    base: int | None = None,
    parameterizations: Sequence[str | Callable[..., Any]] = ("sp", "mup"),
    initializer: str | Initializer | Rules = "he_normal()",
    lr: tuple[float, float] = (2.0**-12, 2.0**-2),
    lr_step: float = 2.0,
    progress: Callable[[int, int], None] | None = None,
    **settings: Any,  # model is one of Given, too
) -> TransferResult:
    """Trains a network at several widths and learning rates: does the best rate stay?

    A parameterization transfers if the learning rate that is best for a small network
    is best for a large one. Each network is trained with every seed at every rate of a
    grid, all side by side in one compiled program, on the same rows in the same order.
    An interrupt (KeyboardInterrupt) ends training after the present block of steps, and
    the results of all networks that are trained to the end are returned.

    Args:
      model: one of the lab's networks, by name; or a function of the width (with
        `depths`, of the depth) that returns a model of Flax Linen or NNX, or its name,
        "package.module:factory".
      data: a task, the path of an .npz file (see `load`) or of a text, or None.
      task: a task by its name, such as "digits", instead of data.
      widths: the widths; by default 64, 128, 256 and 512.
      depths: the depths, in place of widths; ``width=`` is then that of all.
      base: the width or depth at which all parameterizations are the same; by default
        the smallest.
      parameterizations: "sp", the standard one, where one learning rate is for all
        parameters; functions of `jaxinit.scaling` by name, or called with literals,
        such as "completep(alpha=0.5)"; or functions of what `structure` says of the
        base and of the network to be trained, which return what these return.
      initializer: what draws the kernels of the base, or rules for its parameters, as
        in `compare`; a parameterization changes their scales as the network grows.
      lr: the lowest and the highest learning rate. The highest is tried if it is the
        lowest times a power of lr_step; else the rates end below it.
      lr_step: each learning rate over the one before.
      progress: a function called after each block with (steps done, all steps).
      **settings: fields of `Settings`, by name; those of the network are for the lab's
        own. Unless given, the depth depends on the model.

    Returns:
      The results: the best rate of each width, how far it moves when the width doubles,
      with an interval; ``plot()`` draws the losses, ``save(directory)`` writes a page.

    Raises:
      ValueError: if a setting, a spec or the data is not usable, or a parameterization
        does not apply to the network.
      TypeError: if something is of a wrong type.

    Example:
      >>> from jaxinit import lab
      >>> sizes = {"widths": (8, 16), "depth": 2, "lr": (0.01, 0.04)}
      >>> result = lab.transfer(parameterizations=["sp"], **sizes, seeds=1, steps=2)
      >>> [row.size for row in result.rows]
      [8, 16]
    """
    function: Any = progress
    if function is not None and not callable(function):
        rule = "progress must be a function of the steps done and of all steps."
        raise check.Unfit(rule, TypeError, progress=function).at("transfer")
    sweep = design_sweep(
        model=model,
        data=data,
        task=task,
        widths=widths,
        depths=depths,
        base=base,
        parameterizations=parameterizations,
        initializer=initializer,
        lr=lr,
        lr_step=lr_step,
        settings=settings,
    )

    def observe(moment: Moment) -> None:
        if progress is not None:
            progress(moment.done, moment.steps)

    return train_sweep(sweep, observe)


def train_sweep(
    sweep: Sweep,
    observe: Callable[[Moment], None],
    finished: Finished | None = None,
) -> TransferResult:
    """Trains all networks, the small ones first, and gathers their losses.

    Args:
      sweep: what is trained.
      observe: called after each block of steps.
      finished: networks that were trained before, which are left out; those that are
        trained now are added.
    """
    start = time.perf_counter()
    curves = dict(finished.curves) if finished else {}
    result = _gather(sweep, curves, start)
    settings = sweep.settings
    with compute_in(settings.device, settings.dtype), interrupts.defer() as interrupt:
        try:
            for key, curve in _run(sweep, curves.keys()):
                done = curve.shape[-1] * block_length(settings.steps)
                whole = done == settings.steps
                done += len(curves) * settings.steps
                if whole:
                    curves[key] = curve
                    result = _gather(sweep, curves, start)
                    if finished is not None:
                        finished.add(key, curve)
                steps = len(sweep.experiments) * settings.steps
                observe(Moment(*key, done, steps, result))
                interrupt()
        except KeyboardInterrupt as error:  # what is done is worth a table
            if jax.process_count() > 1 and not isinstance(error, interrupts.Agreed):
                raise  # the other processes do not know, and would wait
    return result


def _run(
    sweep: Sweep, trained: Collection[tuple[str, int]]
) -> Iterator[tuple[tuple[str, int], np.ndarray]]:
    """Trains all networks but some; yields the losses so far after each block.

    # each [seeds, rates, blocks]
    """
    left = {k: each for k, each in sweep.experiments.items() if k not in trained}
    for key, experiment in left.items():
        grid = Grid(experiment, probed=False)
        for _ in grid.run():
            losses = np.array(grid.losses).reshape(-1, *grid.shape[1:])
            yield key, np.moveaxis(losses, 0, -1)
        del grid  # its programs refer to it: without a collection, two are in memory
        gc.collect()


def _gather(
    sweep: Sweep, curves: dict[tuple[str, int], np.ndarray], start: float
) -> TransferResult:
    """Makes the results of the losses of each block. # each [seeds, rates, blocks]."""
    last_steps, losses, diverged = 0, {}, {}
    for key, by_block in curves.items():
        losses[key], last_steps = average_ends(by_block, sweep.settings.steps)
        diverged[key] = find_diverged(by_block, losses[key], sweep.task.chance)
    return TransferResult(
        sweep=sweep,
        losses=losses,
        diverged=diverged,
        last_steps=last_steps,
        seconds=time.perf_counter() - start,
    )
