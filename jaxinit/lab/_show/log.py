"""Logs for TensorBoard: a run of its own for each initializer at each learning rate.

    DIR/07 he_normal()/lr 0.001/events.out.tfevents...

A run has the training loss, averaged over seeds and a block, at the last step of each
block, and in the end the scores, averaged over seeds. The names of the files end in a
digest of what the comparison was asked to do: only the same comparison continues them.
"""

import contextlib
import hashlib
import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np

from jaxinit import _check as check
from jaxinit.lab._result.outcome import Outcome
from jaxinit.lab._train import checkpoint
from jaxinit.lab._train.grid import Grid, block_length
from jaxinit.lab._tried.data import Task
from jaxinit.lab._tried.settings import Settings

KINDS = ("tensorboard",)
_OURS = "*/lr */events.out.tfevents.*.jaxinit-*"
_STRANGE = re.compile(r"[^\w .,()='+-]")  # what some file systems refuse in a name
_LONGEST_NAME = 80  # characters
_SECONDS = 30  # between writes to disk, as often as TensorBoard looks


class Log(contextlib.AbstractContextManager["Log"]):
    """The event files of one comparison; as a context, it closes them."""

    def __init__(self, directory: Path, digest: str):
        """Stores what `prepare` has checked; writes nothing yet."""
        from tensorboardX import RecordWriter
        from tensorboardX.proto import event_pb2, summary_pb2

        self.directory = directory
        self._digest = digest
        self._writer, self._events, self._summaries = (
            RecordWriter,
            event_pb2,
            summary_pb2,
        )
        self._runs: list[Any] | None = None  # a writer for each, by initializer, rate
        self._blocks = 0  # written so far
        self._flushed = time.monotonic()

    def __exit__(self, *error: object) -> None:
        """Closes the files."""
        for run in self._runs or ():
            run.close()

    def after_block(self, grid: Grid) -> None:
        """Writes the losses of the blocks that are not written yet."""
        if self._runs is None:
            self._runs = self._open(grid)
        length = block_length(grid.steps)
        for losses in grid.losses[self._blocks :]:
            self._blocks += 1
            step, by_cell = self._blocks * length, np.reshape(losses, grid.shape)
            self._write(step, {"training/loss": by_cell})
        if time.monotonic() - self._flushed > _SECONDS:
            for run in self._runs:
                run.flush()
            self._flushed = time.monotonic()

    def finish(self, result: Outcome) -> None:
        """Writes the scores."""
        if self._runs is None:  # no block has been trained
            return
        score = "accuracy" if result.task.kind == "classification" else "r2"
        scores = {
            "final/training_loss": result.scores.loss,
            f"final/test_{score}": result.scores.test,
            "final/diverged": result.diverged,
        }
        self._write(result.steps_done, scores)

    def _open(self, grid: Grid) -> list[Any]:
        """Removes earlier logs of the comparison, and opens a file for each run."""
        for file in self.directory.glob(_OURS):
            file.unlink()
            with contextlib.suppress(OSError):  # where others have written, too
                file.parent.rmdir()
                file.parent.parent.rmdir()
        name = f"events.out.tfevents.{int(time.time())}.jaxinit-{self._digest}"
        runs = []
        for i, init in enumerate(grid.settings.initializers):
            spec = _STRANGE.sub("_", f"{i:02} {init!r}")[:_LONGEST_NAME].strip()
            for rate in grid.settings.learning_rates:
                run = self.directory / spec / f"lr {rate}"
                run.mkdir(parents=True, exist_ok=True)
                runs.append(self._writer(str(run / name)))
        event, log = self._events.Event, self._events.SessionLog
        for run in runs:
            now = {"wall_time": time.time()}
            run.write(event(file_version="brain.Event:2", **now).SerializeToString())
            # Makes an open TensorBoard forget the steps that a resumed run repeats.
            start = event(step=0, session_log=log(status=log.START), **now)
            run.write(start.SerializeToString())
        return runs

    def _write(self, step: int, scalars: dict[str, np.ndarray]) -> None:
        """Writes means over seeds. # each [initializers, seeds, learning rates]."""
        summary, event = self._summaries.Summary, self._events.Event
        with np.errstate(all="ignore"):  # of diverged cells
            means = [
                (tag, np.asarray(array, np.float64).mean(axis=1).astype(np.float32))
                for tag, array in scalars.items()
            ]
        for index, run in enumerate(self._runs or ()):
            values = [
                summary.Value(tag=tag, simple_value=float(mean.ravel()[index]))
                for tag, mean in means
            ]
            means_at_step = event(
                step=step, wall_time=time.time(), summary=summary(value=values)
            )
            run.write(means_at_step.SerializeToString())


def prepare(
    log: Any, task: Task, settings: Settings, resume: bool, overwrite: bool
) -> Log | None:
    """Checks that a run may log to its directory; writes nothing.

    Args:
      log: the kind of log, which is "tensorboard", and the directory; or None.
      task: the data.
      settings: the settings.
      resume: whether a run is continued; its logs are written anew.
      overwrite: whether to remove logs of other comparisons.

    Returns:
      The log, or None.

    Raises:
      Unfit: if log is not such a pair, or the directory has logs that it may not touch.
      ModuleNotFoundError: if tensorboardX is missing.
    """
    if log is None:
        return None
    if not isinstance(log, (tuple, list)) or len(log) != 2:
        rule = "log must be a kind and a directory, such as ('tensorboard', 'runs')."
        raise check.Unfit(rule, TypeError, log=log)
    kind, directory = log
    check.choice(KINDS, log=kind)
    if not isinstance(directory, (str, Path)):
        raise check.Unfit("the directory of a log must be a path.", TypeError, log=log)
    directory = Path(directory)
    asked = json.dumps(checkpoint.describe_run(task, settings), sort_keys=True)
    digest = hashlib.sha256(asked.encode()).hexdigest()[:8]
    afresh = "overwrite=True (--overwrite) starts anew"
    others = [f for f in directory.glob(_OURS) if not f.name.endswith(digest)]
    if resume and others:
        rule = f"the directory has logs of another run; {afresh}."
        raise check.Unfit(rule, log=str(directory))
    if not (resume or overwrite) and any(directory.rglob("events.out.tfevents.*")):
        rule = f"the directory has logs; resume=True (--resume) goes on, {afresh}."
        raise check.Unfit(rule, log=str(directory))
    return Log(directory, digest)
