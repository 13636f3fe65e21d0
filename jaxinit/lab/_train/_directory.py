"""The directory of a run: who may write there, and whether its saves are the run's."""

import json
from pathlib import Path
from typing import Any

from jaxinit import _check as check
from jaxinit._lock import Lock
from jaxinit.lab._atomic import read_bytes
from jaxinit.lab._train import processes
from jaxinit.lab._train.checkpoint import (
    AFRESH,
    Checkpoint,
    compute_digest,
    describe_run,
    list_saves,
)
from jaxinit.lab._train.grid import block_length
from jaxinit.lab._tried.data import Task
from jaxinit.lab._tried.settings import Settings

# Steps between saves by default. A save of the default run is 95 MB
# and takes 0.6 s, where 100 of its steps take 5 s (two cores).
_STEPS_BETWEEN = 100


def prepare(
    out: str | Path | None,
    task: Task,
    settings: Settings,
    resume: bool,
    overwrite: bool,
    save_every: int | None,
) -> Checkpoint | None:
    """Creates and locks the directory of a run, and checks that it may write there.

    Args:
      out: the directory of the results, or None for a run without files.
      task: the data.
      settings: the settings.
      resume: whether to continue from the last save.
      overwrite: whether to start anew where there are results or saves.
      save_every: blocks between saves; None for as many as make 100 steps.

    Returns:
      The saves, or None without a directory.

    Raises:
      Unfit: if another run is at work in the directory, if it has results or saves and
        neither option is given, if the results are complete, or if the saves belong to
        another run.
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
    if not isinstance(out, (str, Path)) or not str(out):
        raise check.Unfit("out must be a path.", TypeError, out=out)
    asked, lock = describe_run(task, settings), _lock_directory(Path(out))
    try:
        directory = Path(out) / "checkpoint"
        resumes = _may_resume(Path(out), directory, asked, resume, overwrite)
    except BaseException:
        if lock is not None:
            lock.close()
        raise
    return Checkpoint(
        directory=directory, record=asked, every=every, resumes=resumes, lock=lock
    )


def _lock_directory(out: Path) -> Lock | None:
    """Creates the directory and locks it; the first process does so for all."""
    lock, alone = None, True
    if processes.is_first():
        try:
            out.mkdir(parents=True, exist_ok=True)
            lock = Lock(out)
        except BlockingIOError:
            alone = False
        except OSError as error:
            rule = f"cannot write to {out}: {error.strerror}."
            raise check.Unfit(rule, out=str(out)) from None
    if not processes.take_least(alone):
        rule = "another run is at work in the directory. Wait for its end, or give "
        raise check.Unfit(f"{rule}another directory.", out=str(out))
    return lock


def _may_resume(
    out: Path, directory: Path, asked: dict[str, Any], resume: bool, overwrite: bool
) -> bool:
    """Returns whether there are saves to continue from; raises for another's files."""
    if not (resume or overwrite):
        _refuse_used(out, directory)
    if resume and _belongs(directory, asked):
        return True
    if resume and _is_complete(out / "results.json"):
        rule = f"the results are complete, nothing is left to resume; {AFRESH}."
        raise check.Unfit(rule, out=str(out))
    return False


def _refuse_used(out: Path, directory: Path) -> None:
    """Raises if the directory has saves or results, which would be lost."""
    for name, what, path in (
        ("the saves of a run that has not ended", "it", directory),
        ("results", "a run that has not ended", out / "results.json"),
    ):
        if path.exists():
            cure = f"resume=True (--resume) goes on with {what}, {AFRESH}"
            raise check.Unfit(f"the directory has {name}; {cure}.", out=str(out))


def _belongs(directory: Path, asked: dict[str, Any]) -> bool:
    """Returns whether there are saves; raises if they belong to another run."""
    saved = _read_record(directory)
    if saved is None:
        return False
    refuse_other(saved, asked, directory.parent)
    return bool(list_saves(directory))


def refuse_other(saved: dict[str, Any], asked: dict[str, Any], out: Path) -> None:
    """Raises if two records, as `describe_run` writes them, are of different runs."""
    for name, ours in asked["settings"].items():
        difference = _find_difference(name, saved["settings"].get(name), ours)
        if difference is not None:
            name, theirs, ours = difference
            rule = f"the saved run has {check.show(theirs)}; {AFRESH}."
            raise check.Unfit(rule, **{name: ours})
    if saved["data"] != asked["data"]:
        rule = "the saved run has other data, "
        rule += f"{check.show(saved['data'].get('name'))}; {AFRESH}."
        raise check.Unfit(rule, data=asked["data"]["name"])
    for name, ours in asked["environment"].items():
        theirs = saved["environment"].get(name)
        if theirs != ours:
            rule = f"the saved run has {name} {theirs}, where this one has {ours}; "
            raise check.Unfit(f"{rule}{AFRESH}.", out=str(out))


def _read_record(directory: Path) -> dict[str, Any] | None:
    """Returns the record, or None if there are neither record nor saves.

    Raises:
      Unfit: if there are saves without a record, or the record is damaged.
    """
    path = directory / "run.json"
    try:
        saved: dict[str, Any] = json.loads(read_bytes(path))
        if saved.pop("digest") == compute_digest(saved):
            return saved
        said = "damaged"
    except FileNotFoundError:
        if not list_saves(directory):
            return None
        said = "missing"
    except OSError as error:
        said = f"unreadable ({error.strerror})"
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError):
        said = "damaged"
    rule = f"{path}, which says what the saves are of, is {said}. Put it back from a "
    rule += f"copy; {AFRESH}."
    raise check.Unfit(rule, out=str(directory.parent))


def _find_difference(name: str, theirs: Any, ours: Any) -> tuple[str, Any, Any] | None:
    """Returns the first entry that differs: its name, and its value on either side."""
    if theirs == ours:
        return None
    if isinstance(theirs, list) and isinstance(ours, list):
        for i, pair in enumerate(zip(theirs, ours, strict=False)):
            if pair[0] != pair[1]:
                return f"{name}[{i}]", *pair
        return f"len({name})", len(theirs), len(ours)
    return name, theirs, ours


def _is_complete(path: Path) -> bool:
    """Returns whether there are results of a run that was not interrupted."""
    try:
        results = json.loads(read_bytes(path))
    except FileNotFoundError:
        return False
    except (OSError, ValueError, RecursionError):  # not ours: perhaps worth keeping
        return True
    return not (isinstance(results, dict) and results.get("interrupted") is True)
