"""The directory of a run: who may write there, and whether its saves are of the run."""

import json
from pathlib import Path
from typing import Any

from jaxinit import _check as check
from jaxinit.lab._atomic import read_bytes
from jaxinit.lab._train import processes
from jaxinit.lab._train._lock import Lock
from jaxinit.lab._train.checkpoint import (
    AFRESH,
    Checkpoint,
    digest_of,
    record,
    saves_in,
)
from jaxinit.lab._train.grid import block_length
from jaxinit.lab._tried.data import Task
from jaxinit.lab._tried.settings import Settings

# Steps between saves if nothing else is asked for. A save of the default run is 95 MB
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
    """Checks that a run may write to its directory, which it makes, and locks it.

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
      Unfit: if another run is at work in the directory, if it has results or saves and
        neither option is given, if the results are complete, or if the saves are of
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
    given, lock = record(task, settings), _locked(Path(out))
    try:
        directory = Path(out) / "checkpoint"
        resumes = _may_resume(Path(out), directory, given, resume, overwrite)
    except BaseException:
        if lock is not None:
            lock.close()
        raise
    return Checkpoint(directory, given, every, resumes, lock)


def _locked(out: Path) -> Lock | None:
    """Makes the directory and locks it, which the first process does for all."""
    lock, alone = None, True
    if processes.first():
        try:
            out.mkdir(parents=True, exist_ok=True)
            lock = Lock(out)
        except BlockingIOError:
            alone = False
        except OSError as error:
            rule = f"cannot write to {out}: {error.strerror}."
            raise check.Unfit(rule, out=str(out)) from None
    if not processes.least(alone):
        rule = "another run is at work in the directory. Wait for its end, or give "
        raise check.Unfit(f"{rule}another directory.", out=str(out))
    return lock


def _may_resume(
    out: Path, directory: Path, given: dict[str, Any], resume: bool, overwrite: bool
) -> bool:
    """Returns whether there are saves to go on from, raising if that is no answer."""
    if not (resume or overwrite):
        _refuse_used(out, directory)
    if resume and _belongs(directory, given):
        return True
    if resume and _complete(out / "results.json"):
        rule = f"the results are complete, nothing is left to resume; {AFRESH}."
        raise check.Unfit(rule, out=str(out))
    return False


def _refuse_used(out: Path, directory: Path) -> None:
    """Raises where there is something to lose."""
    for name, what, path in (
        ("the saves of a run that has not ended", "it", directory),
        ("results", "a run that has not ended", out / "results.json"),
    ):
        if path.exists():
            cure = f"resume=True (--resume) goes on with {what}, {AFRESH}"
            raise check.Unfit(f"the directory has {name}; {cure}.", out=str(out))


def _belongs(directory: Path, given: dict[str, Any]) -> bool:
    """Returns whether there are saves, raising if they are of another run."""
    saved = _read_record(directory)
    if saved is None:
        return False
    for name, ours in given["settings"].items():
        difference = _difference(name, saved["settings"].get(name), ours)
        if difference is not None:
            name, theirs, ours = difference
            rule = f"the saved run has {check.show(theirs)}; {AFRESH}."
            raise check.Unfit(rule, **{name: ours})
    if saved["data"] != given["data"]:
        rule = "the saved run has other data, "
        rule += f"{check.show(saved['data'].get('name'))}; {AFRESH}."
        raise check.Unfit(rule, data=given["data"]["name"])
    for name, ours in given["environment"].items():
        theirs = saved["environment"].get(name)
        if theirs != ours:
            rule = f"the saved run has {name} {theirs}, where this one has {ours}; "
            raise check.Unfit(f"{rule}{AFRESH}.", out=str(directory.parent))
    return bool(saves_in(directory))


def _read_record(directory: Path) -> dict[str, Any] | None:
    """Returns the record, or None if there is nothing that belongs to one.

    Raises:
      Unfit: if there are saves and the record is missing, or it is damaged.
    """
    path = directory / "run.json"
    try:
        saved: dict[str, Any] = json.loads(read_bytes(path))
        if saved.pop("digest") == digest_of(saved):
            return saved
        said = "damaged"
    except FileNotFoundError:
        if not saves_in(directory):
            return None
        said = "missing"
    except OSError as error:
        said = f"unreadable ({error.strerror})"
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError):
        said = "damaged"
    rule = f"{path}, which says what the saves are of, is {said}. Put it back from a "
    rule += f"copy; {AFRESH}."
    raise check.Unfit(rule, out=str(directory.parent))


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
        found = json.loads(read_bytes(path))
    except FileNotFoundError:
        return False
    except (OSError, ValueError, RecursionError):  # no file of ours: it may be of worth
        return True
    return not (isinstance(found, dict) and found.get("interrupted") is True)
