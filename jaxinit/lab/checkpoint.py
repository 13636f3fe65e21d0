"""Checkpoints: the state of training on disk, and how a run goes on from it.

A save holds what the grid has trained: variables, optimizer state and losses, as orbax
writes them: into a temporary directory that is renamed when all is there. Saves are
named by the blocks done; the last two are kept. Beside them is a record, what the run
was asked for: only the same run goes on from its saves.

    DIR/checkpoint/run.json   the record
    DIR/checkpoint/12         the save after twelve blocks
"""

import functools
import hashlib
import json
import os
import re
import shutil
import time
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxinit import _check as check
from jaxinit._initializer import Initializer
from jaxinit.lab import processes
from jaxinit.lab._atomic import write_bytes
from jaxinit.lab.data import Task
from jaxinit.lab.environment import device, versions
from jaxinit.lab.grid import Grid, block_length
from jaxinit.lab.probe import Probe, apart, stacked
from jaxinit.lab.rules import Rules
from jaxinit.lab.settings import Settings

_KEPT = 2  # saves; the older one serves if a crash has spoilt the newer one
# Steps between saves if nothing else is asked for. A save of the default run is 95 MB
# and takes 0.6 s, where 100 of its steps take 5 s (two cores).
_STEPS_BETWEEN = 100
# What the values of a run depend on beside settings and data.
_PACKAGES = ("jaxinit", "jax", "jaxlib", "flax", "optax", "numpy")
_FLAGS = (
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_enable_x64",
    "jax_threefry_partitionable",
)
_OS_ERROR = re.compile(r"os_error_code='(\d+)'")
_AFRESH = "overwrite=True (--overwrite) starts anew"


class Unreadable(ValueError):
    """There are saves, but none that can be read."""


class Checkpoint:
    """The saves of one run.

    Attributes:
      directory: where the saves are.
      resumes: whether there are saves to go on from.
      seconds: time of training before the save that the run went on from.
    """

    def __init__(
        self, directory: Path, record: dict[str, Any], every: int, resumes: bool
    ):
        """Is called by `prepare`; nothing is written yet."""
        self.directory = directory.absolute()
        self.resumes = resumes
        self.seconds = 0.0
        self._record = record
        self._every = every
        self._since = time.perf_counter()

    def begin(self, grid: Grid) -> None:
        """Gives the grid the state of the last readable save, or clears the place.

        Raises:
          Unreadable: if there are saves, but none that can be read; they stay.
        """
        if self.resumes:
            self._restore_last(grid)
        elif processes.first():
            remove(self.directory)
            self.directory.mkdir(parents=True)
            text = json.dumps(self._record, indent=1)
            write_bytes(self.directory / "run.json", text.encode())
        self._since = time.perf_counter()

    def _restore_last(self, grid: Grid) -> None:
        saves = _saves(self.directory)
        for blocks in reversed(saves):
            path = self.directory / str(blocks)
            try:
                self._restore(grid, path)
            except Exception as error:  # orbax raises many kinds for a broken file
                said = f"cannot read the save {path} ({check.brief(error)})."
                warnings.warn(said, stacklevel=4)
            else:
                self._keep([save for save in saves if save <= blocks])
                return
        rule = f"none of the saves can be read; {_AFRESH}."
        raise Unreadable(
            str(check.Unfit(rule, out=str(self.directory.parent)).at("compare"))
        )

    def after_block(self, grid: Grid) -> None:
        """Saves, if it is time to."""
        if len(grid.losses) % self._every == 0 and not grid.done:
            self.save(grid)

    def save(self, grid: Grid) -> None:
        """Saves the state of the grid, and removes the saves before the last two.

        Raises:
          OSError: if the save cannot be written; those before stay.
        """
        from orbax.checkpoint.args import StandardSave

        blocks, saves = len(grid.losses), _saves(self.directory)
        if blocks == 0 or blocks in saves:
            return
        self._keep(saves)  # an interrupted save is in the way of the same one
        found = {
            "state": _numbered(grid.state),
            "losses": np.stack([np.asarray(loss) for loss in grid.losses]),
            "probes": stacked(grid.probes)._asdict(),
            "seconds": np.array(self.seconds + time.perf_counter() - self._since),
        }
        path = self.directory / str(blocks)
        try:
            checkpointer().save(path, args=StandardSave(found))
        except ValueError as error:  # as orbax reports a full disk
            code = _OS_ERROR.search(str(error))
            if code is None:
                raise
            number = int(code[1])
            raise OSError(number, os.strerror(number), str(path)) from error
        self._keep(_saves(self.directory)[-_KEPT:])

    def _keep(self, saves: list[int]) -> None:
        """Removes all other saves, and what a kill has left of those begun."""
        if not processes.first():
            return
        names = set(map(str, saves))
        for path in self.directory.iterdir():
            if path.is_dir() and path.name not in names:
                shutil.rmtree(path)

    def _restore(self, grid: Grid, path: Path) -> None:
        from orbax.checkpoint.args import StandardRestore

        saved = checkpointer().metadata(path).item_metadata
        losses, probes = (
            jax.tree.map(lambda array: np.empty(array.shape, array.dtype), saved[name])
            for name in ("losses", "probes")
        )
        like = {
            "state": _numbered(grid.state),
            "losses": losses,
            "probes": probes,
            "seconds": np.zeros(()),
        }
        found = checkpointer().restore(path, args=StandardRestore(like))
        leaves, tree = jax.tree.flatten(grid.state)
        new = [found["state"].get(str(i), leaf) for i, leaf in enumerate(leaves)]
        grid.state = jax.tree.unflatten(tree, new)
        grid.losses = tuple(found["losses"])
        grid.probes = apart(Probe(**found["probes"]))
        self.seconds = float(found["seconds"])


def prepare(
    out: str | Path | None,
    task: Task,
    settings: Settings,
    resume: bool,
    overwrite: bool,
    save_every: int | None,
) -> Checkpoint | None:
    """Checks that a run may write to its directory; writes nothing.

    Args:
      out: the directory of the results, or None for a run without files.
      task: the data.
      settings: the settings.
      resume: whether to go on from the last save.
      overwrite: whether to start anew where there are results or saves.
      save_every: blocks between saves; None for as many as make 100 steps.

    Returns:
      The saves, or None without a directory.

    Raises:
      Unfit: if the directory has results or saves and neither option is given, if the
        results are complete, or if the saves are of another run.
    """
    check.boolean(resume=resume)
    check.boolean(overwrite=overwrite)
    if out is None:
        options: dict[str, Any] = {"resume": resume, "overwrite": overwrite}
        for name, value in {**options, "save_every": save_every}.items():
            if value is not None and value is not False:
                rule = f"{name} needs out (--out), the directory of the results."
                raise check.Unfit(rule, **{name: value})
        return None
    if resume and overwrite:
        raise check.Unfit("resume and overwrite exclude each other.", resume=resume)
    if save_every is None:
        every = max(1, _STEPS_BETWEEN // block_length(settings.steps))
    else:
        every = check.at_least(1, save_every=save_every)
    if not isinstance(out, (str, Path)):
        raise check.Unfit("out must be a path.", TypeError, out=out)
    out = Path(out)
    directory = out / "checkpoint"
    given = record(task, settings)
    if not (resume or overwrite):
        _refuse_used(out, directory)
    resumes = resume and _belongs(directory, given)
    if resume and not resumes and _complete(out / "results.json"):
        rule = f"the results are complete, nothing is left to resume; {_AFRESH}."
        raise check.Unfit(rule, out=str(out))
    return Checkpoint(directory, given, every, resumes)


def remove(directory: Path) -> None:
    """Removes all saves; the record goes first, so that no half is taken for a run."""
    (directory / "run.json").unlink(missing_ok=True)
    if directory.exists():
        shutil.rmtree(directory)


def record(task: Task, settings: Settings) -> dict[str, Any]:
    """Returns what a run is asked for, as JSON types."""
    digest = hashlib.sha256()
    data: dict[str, Any] = {}
    for name, value in task._asdict().items():
        if isinstance(value, np.ndarray):
            _add(digest, value)
        else:
            data[name] = value
    specs = [_spec(init) for init in settings.initializers]
    asked = {**vars(settings), "initializers": specs}
    asked["target_loss"] = asked.pop("target_loss")  # last, as the loss may decide it
    found = {
        "settings": asked,
        "data": {**data, "digest": digest.hexdigest()},
        "environment": {
            **{name: versions().get(name) for name in _PACKAGES},
            **{name: getattr(jax.config, name) for name in _FLAGS},
            "device": device(settings.device)["kind"],
        },
    }
    plain: dict[str, Any] = json.loads(json.dumps(found, default=repr))
    return plain


@functools.cache
def checkpointer() -> Any:
    """Returns orbax's writer and reader; importing it takes a second."""
    from orbax.checkpoint import Checkpointer, StandardCheckpointHandler

    return Checkpointer(StandardCheckpointHandler())


def _saves(directory: Path) -> list[int]:
    """Returns the blocks of each save; those begun only have longer names."""
    if not directory.is_dir():
        return []
    return sorted(int(path.name) for path in directory.iterdir() if path.name.isdigit())


def _numbered(tree: Any) -> dict[str, Any]:
    """Returns the leaves by number, without the empty ones, which orbax refuses."""
    return {str(i): leaf for i, leaf in enumerate(jax.tree.leaves(tree)) if leaf.size}


def _refuse_used(out: Path, directory: Path) -> None:
    """Raises where there is something to lose."""
    for name, what, path in (
        ("the saves of a run that has not ended", "it", directory),
        ("results", "a run that has not ended", out / "results.json"),
    ):
        if path.exists():
            cure = f"resume=True (--resume) goes on with {what}, {_AFRESH}"
            raise check.Unfit(f"the directory has {name}; {cure}.", out=str(out))


def _belongs(directory: Path, given: dict[str, Any]) -> bool:
    """Returns whether there are saves, raising if they are of another run."""
    try:
        saved = json.loads((directory / "run.json").read_bytes())
    except FileNotFoundError:
        return False
    for name, ours in given["settings"].items():
        difference = _difference(name, saved["settings"].get(name), ours)
        if difference is not None:
            name, theirs, ours = difference
            rule = f"the saved run has {check.show(theirs)}; {_AFRESH}."
            raise check.Unfit(rule, **{name: ours})
    if saved["data"] != given["data"]:
        rule = "the saved run has other data, "
        rule += f"{check.show(saved['data'].get('name'))}; {_AFRESH}."
        raise check.Unfit(rule, data=given["data"]["name"])
    for name, ours in given["environment"].items():
        theirs = saved["environment"].get(name)
        if theirs != ours:
            rule = f"the saved run has {name} {theirs}, where this one has {ours}; "
            raise check.Unfit(f"{rule}{_AFRESH}.", out=str(directory.parent))
    return bool(_saves(directory))


def _difference(name: str, theirs: Any, ours: Any) -> tuple[str, Any, Any] | None:
    """Returns the first setting that differs: name, and what it is on both sides."""
    if theirs == ours:
        return None
    if isinstance(theirs, list) and isinstance(ours, list):
        for i, pair in enumerate(zip(theirs, ours, strict=False)):
            if pair[0] != pair[1]:
                return f"{name}[{i}]", *pair
        return f"len({name})", len(theirs), len(ours)
    return name, theirs, ours


def _complete(path: Path) -> bool:
    """Returns whether there are results that no interrupt has cut short."""
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return False
    except ValueError:  # no file of ours: nothing that may be lost
        return True
    return not (isinstance(found, dict) and found.get("interrupted") is True)


def _spec(init: Initializer | Rules) -> str:
    """Returns the spec, and a digest of the arrays that a spec only hints at."""
    if isinstance(init, Rules):  # read from text, where there are no arrays
        return repr(init)
    arrays = [value for value in init.arguments.values() if hasattr(value, "tobytes")]
    digest = hashlib.sha256()
    for array in arrays:
        _add(digest, array)
    return f"{init!r} {digest.hexdigest()}" if arrays else repr(init)


def _add(digest: Any, array: np.ndarray) -> None:
    """Adds an array to a digest."""
    digest.update(f"{array.dtype.str}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).tobytes())
