"""Checkpoints: the state of training on disk, and how a run continues from it.

A save holds the variables, the optimizer state and the losses of the grid. Orbax writes
it into a temporary directory, which is renamed once it is complete. Saves are named by
the blocks done; the last two are kept. Beside them lies a record of what the run was
asked to do: only the same run continues from its saves. A save has a digest of its
content and of the record, so that a save that is damaged or of another run is refused.

    DIR/checkpoint/run.json   the record
    DIR/checkpoint/12         the save after twelve blocks
"""

import contextlib
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
from jaxinit._lock import Lock
from jaxinit.lab._atomic import write_bytes
from jaxinit.lab._train import processes
from jaxinit.lab._train._environment import describe_device, read_versions
from jaxinit.lab._train.grid import Grid
from jaxinit.lab._train.probe import Probe, stack, unstack
from jaxinit.lab._tried.data import Task
from jaxinit.lab._tried.rules import Rules
from jaxinit.lab._tried.settings import Settings

_KEPT = 2  # saves; the older one serves if a crash has spoiled the newer one
# What the values of a run depend on besides settings and data.
_PACKAGES = ("jaxinit", "jax", "jaxlib", "flax", "optax", "numpy")
_FLAGS = (
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_enable_x64",
    "jax_threefry_partitionable",
)
_OS_ERROR = re.compile(r"os_error_code='(\d+)'")
AFRESH = "overwrite=True (--overwrite) starts anew"


class Unreadable(ValueError):
    """There are saves, but none can be read."""


class Checkpoint(contextlib.AbstractContextManager["Checkpoint"]):
    """The saves of one run; as a context, it releases its lock on the directory.

    Attributes:
      directory: where the saves are.
      resumes: whether there are saves to continue from.
      seconds: time of training before the save that the run continued from.
    """

    def __init__(
        self,
        directory: Path,
        record: dict[str, Any],
        every: int,
        resumes: bool,
        lock: Lock | None,
    ):
        """Stores what `_directory.prepare` has checked; writes nothing yet."""
        self._lock = lock
        self.directory = directory.absolute()
        self.resumes = resumes
        self.seconds = 0.0
        self._record = record
        self._every = every
        self._since = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        """Lets another run write to the directory."""
        if self._lock is not None:
            self._lock.close()

    def begin(self, grid: Grid) -> None:
        """Gives the grid the state of the last readable save, or starts a new record.

        Raises:
          Unreadable: if there are saves, but none can be read; they stay.
        """
        if self.resumes:
            self._restore_last(grid)
        elif processes.is_first():
            remove(self.directory)
            self.directory.mkdir(parents=True)
            text = json.dumps(
                {**self._record, "digest": compute_digest(self._record)}, indent=1
            )
            write_bytes(self.directory / "run.json", text.encode())
        self._since = time.perf_counter()

    def _restore_last(self, grid: Grid) -> None:
        saves, failed = list_saves(self.directory), []
        for blocks in reversed(saves):
            path = self.directory / str(blocks)
            try:
                self._restore(grid, path)
            except Exception as error:  # orbax raises many kinds for a broken file
                failed.append(f"cannot read the save {path} ({check.brief(error)})")
            else:
                for said in failed:
                    warnings.warn(f"{said}; the one before it is taken.", stacklevel=4)
                self._keep([save for save in saves if save <= blocks])
                return
        rule = f"none of the saves can be read; {AFRESH}. The last one: {failed[0]}."
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
          OSError: if the save cannot be written; earlier ones stay.
        """
        from orbax.checkpoint.args import StandardSave

        blocks, saves = len(grid.losses), list_saves(self.directory)
        if blocks == 0 or blocks in saves:
            return
        self._keep(saves)  # an interrupted save would be in the way of this one
        content = {
            "state": _number_leaves(grid.state),
            "losses": np.stack([np.asarray(loss) for loss in grid.losses]),
            "probes": stack(grid.probes)._asdict(),
            "seconds": np.array(self.seconds + time.perf_counter() - self._since),
        }
        path = self.directory / str(blocks)
        content["digest"] = self._digest(path, content)
        try:
            checkpointer().save(path, args=StandardSave(content))
        except ValueError as error:  # as orbax reports a full disk
            code = _OS_ERROR.search(str(error))
            if code is None:
                raise
            number = int(code[1])
            raise OSError(number, os.strerror(number), str(path)) from error
        self._keep(list_saves(self.directory)[-_KEPT:])

    def _keep(self, saves: list[int]) -> None:
        """Removes all other saves, and what a kill has left of unfinished ones."""
        if not processes.is_first():
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
            "state": _number_leaves(grid.state),
            "losses": losses,
            "probes": probes,
            "seconds": np.zeros(()),
            "digest": np.zeros(hashlib.sha256().digest_size, np.uint8),
        }
        content = checkpointer().restore(path, args=StandardRestore(like))
        if (content.pop("digest") != self._digest(path, content)).any():
            raise ValueError("it does not hold what was saved")
        leaves, tree = jax.tree.flatten(grid.state)
        new = [content["state"].get(str(i), leaf) for i, leaf in enumerate(leaves)]
        grid.state = jax.tree.unflatten(tree, new)
        grid.losses = tuple(content["losses"])
        grid.probes = unstack(Probe(**content["probes"]))
        self.seconds = float(content["seconds"])

    def _digest(self, path: Path, content: dict[str, Any]) -> np.ndarray:
        """Computes the digest of a save's content and name, and of the run's record."""
        digest = hashlib.sha256(f"{path.name} {compute_digest(self._record)}".encode())
        for leaf_path, leaf in jax.tree_util.tree_leaves_with_path(content):
            if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                leaf = jax.random.key_data(leaf)
            digest.update(jax.tree_util.keystr(leaf_path).encode())
            _add(digest, np.asarray(leaf))
        return np.frombuffer(digest.digest(), np.uint8)


def remove(directory: Path) -> None:
    """Removes all saves at once: a kill cannot leave half of them, like a run."""
    away = directory.with_name(f"{directory.name}.removed")
    for path in (away, directory):  # first the rest that an earlier kill left
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path.replace(away))
        else:
            path.unlink(missing_ok=True)


def describe_run(task: Task, settings: Settings) -> dict[str, Any]:
    """Returns the record of what a run is asked to do, as JSON types."""
    digest = hashlib.sha256()
    data: dict[str, Any] = {}
    for name, value in task._asdict().items():
        if isinstance(value, np.ndarray):
            _add(digest, value)
        else:
            data[name] = value
    specs = [_write_spec(init) for init in settings.initializers]
    asked = {**vars(settings), "initializers": specs}
    asked["target_loss"] = asked.pop("target_loss")  # last: the loss may decide it
    described = {
        "settings": asked,
        "data": {**data, "digest": digest.hexdigest()},
        "environment": {
            **{name: read_versions().get(name) for name in _PACKAGES},
            **{name: getattr(jax.config, name) for name in _FLAGS},
            "device": describe_device(settings.device)["kind"],
        },
    }
    plain: dict[str, Any] = json.loads(json.dumps(described, default=repr))
    return plain


@functools.cache
def checkpointer() -> Any:
    """Returns orbax's writer and reader; importing it takes a second."""
    from orbax.checkpoint import Checkpointer, StandardCheckpointHandler

    return Checkpointer(StandardCheckpointHandler())


def list_saves(directory: Path) -> list[int]:
    """Returns the blocks done at each save; unfinished saves have longer names."""
    if not directory.is_dir():
        return []
    names = (path.name for path in directory.iterdir())
    return sorted(int(name) for name in names if re.fullmatch("[0-9]+", name))


def _number_leaves(tree: Any) -> dict[str, Any]:
    """Returns the leaves by number, without the empty ones, which orbax refuses."""
    return {str(i): leaf for i, leaf in enumerate(jax.tree.leaves(tree)) if leaf.size}


def compute_digest(record: dict[str, Any]) -> str:
    """Computes the digest of a record."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _write_spec(init: Initializer | Rules) -> str:
    """Returns the spec, with a digest of its arrays, which a spec abbreviates."""
    if isinstance(init, Rules):  # read from text, where there are no arrays
        return repr(init)
    arrays = _find_arrays(init)
    digest = hashlib.sha256()
    for array in arrays:
        _add(digest, array)
    return f"{init!r} {digest.hexdigest()}" if arrays else repr(init)


def _find_arrays(value: Any) -> list[Any]:
    """Returns the arrays that an initializer holds, those of its parts included."""
    if isinstance(value, Initializer):
        value = tuple(value.source.arguments.values())
    if isinstance(value, tuple):
        return [array for part in value for array in _find_arrays(part)]
    return [value] if hasattr(value, "tobytes") else []


def _add(digest: Any, array: np.ndarray) -> None:
    """Adds an array to a digest."""
    digest.update(f"{array.dtype.str}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).tobytes())
