"""The directory of a run: its record, its lock, and what is refused."""

import errno
import fcntl
import os
import shutil
import subprocess
import sys
import warnings

import pytest
from commands import refusal
from killed_runs import (
    WORDS,
    Killed,
    assert_same,
    killed,
    run,
    tree,
)
from marks import slow_but

from jaxinit._lock import Lock
from jaxinit.cli import main
from jaxinit.cli._terminal import shorten_warnings
from jaxinit.lab._train import checkpoint
from jaxinit.lab._train.grid import Grid

pytestmark = pytest.mark.usefixtures("quick_compiler", "short_runs")


@pytest.fixture(scope="module")
def abandoned(tmp_path_factory, task):
    """The directory of a run that was killed, with two saves."""
    path = tmp_path_factory.mktemp("killed") / "run"
    killed(task, path, 25, save_every=2)
    return path


@pytest.fixture
def copy(abandoned, tmp_path):
    """Returns a fresh copy of that directory."""
    return lambda: shutil.copytree(abandoned, tmp_path / "run")


# The record.


RECORDS = {
    "empty": b"",
    "cut": lambda data: data[:100],
    "list": b"[]",
    "number": b"1",
    "null": b"null",
    "empty record": b"{}",
    "no text": b"\xff\xfe",
    "deep": b"[" * 100_000,
    "other value": lambda data: data.replace(b'"depth": 2', b'"depth": 3'),
    "other key": lambda data: data.replace(b'"seeds"', b'"seads"'),
    "no environment": lambda data: data.replace(b'"environment"', b'"surroundings"'),
    "missing": None,
}


@pytest.mark.parametrize("damage", RECORDS)
@pytest.mark.slow
def test_a_damaged_record_is_refused_and_nothing_is_lost(task, copy, damage):
    out, change = copy(), RECORDS[damage]
    record = out / "checkpoint" / "run.json"
    if change is None:
        record.unlink()
    else:
        data = record.read_bytes()
        record.write_bytes(change(data) if callable(change) else change)
    before = tree(out)
    with pytest.raises(ValueError, match=r"^compare\(out=.*run.json, which says"):
        run(task, out, resume=True)
    assert tree(out) == before


def test_a_record_that_is_no_file_is_refused(task, copy):
    out = copy()
    record = out / "checkpoint" / "run.json"
    record.unlink()
    os.mkfifo(record)
    with pytest.raises(ValueError, match="is a pipe or a device, and no file"):
        run(task, out, resume=True)
    record.unlink()
    record.mkdir()
    with pytest.raises(ValueError, match=r"is unreadable \(Is a directory\)"):
        run(task, out, resume=True)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\xff", '{"interrupted": 1}'])
def test_damaged_results_are_not_overwritten(task, tmp_path, text):
    (tmp_path / "results.json").write_text(text, "latin-1")
    before = tree(tmp_path)
    with pytest.raises(ValueError, match=r"^compare\(out=.*complete"):
        run(task, tmp_path, resume=True)
    assert tree(tmp_path) == before


def test_a_kill_while_saves_are_removed_leaves_none_that_look_like_a_run(
    copy, monkeypatch
):
    out = copy()
    with monkeypatch.context() as patch, pytest.raises(Killed):

        def die(path):
            shutil_rmtree(os.path.join(path, "4"))
            raise Killed

        shutil_rmtree = shutil.rmtree
        patch.setattr(checkpoint.shutil, "rmtree", die)
        checkpoint.remove(out / "checkpoint")
    assert not (out / "checkpoint").exists()
    checkpoint.remove(out / "checkpoint")  # clears what the kill has left
    assert not tree(out)
    (out / "checkpoint").write_text("no directory")
    checkpoint.remove(out / "checkpoint")
    assert not tree(out)


# Two runs in one directory.

AT_WORK = "another run is at work in the directory. Wait for its end, or give another"


@pytest.mark.parametrize("option", slow_but(["resume"], ["resume", "overwrite", None]))
@pytest.mark.slow
def test_a_directory_takes_one_run_at_a_time(task, whole, tmp_path, option):
    def intrude(done, steps):
        if done == 15:
            before = tree(tmp_path)
            with pytest.raises(ValueError, match=AT_WORK):
                run(task, tmp_path, **({option: True} if option else {}))
            assert tree(tmp_path) == before

    assert_same(run(task, tmp_path, progress=intrude), whole)


@pytest.mark.slow
def test_a_lock_dies_with_its_process(task, whole, copy):
    """And results that are damaged are no reason not to go on."""
    out = copy()
    (out / "results.json").write_text("{")
    code = "import fcntl, os, sys, time; d = os.open(sys.argv[1], os.O_RDONLY);"
    code += "fcntl.flock(d, fcntl.LOCK_EX); print(flush=True); time.sleep(99)"
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(out)], stdout=subprocess.PIPE
    )
    with holder:
        holder.stdout.readline()
        with pytest.raises(ValueError, match=AT_WORK):
            run(task, out, resume=True)
        holder.kill()
    assert_same(run(task, out, resume=True), whole)


def test_a_file_system_without_locks_is_no_hindrance(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", refuse)
        Lock(tmp_path).close()
    Lock(tmp_path / "nowhere").close()
    monkeypatch.setitem(sys.modules, "fcntl", None)  # as on Windows
    Lock(tmp_path).close()


# The command line.


@pytest.mark.slow
def test_the_command_refuses_a_damaged_record(data_file, capsys, tmp_path, monkeypatch):
    out = tmp_path / "run"
    words = ["compare", "--data", str(data_file), *WORDS, "--steps", "20"]
    words += ["--out", str(out), "--save-every", "1"]
    real = Grid.run

    def ended(self):
        yield next(real(self))
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Grid, "run", ended)
        main(words)
    capsys.readouterr()
    record = out / "checkpoint" / "run.json"
    good = record.read_bytes()
    for content in (b"{", good[:-9], good.replace(b"0.01", b"0.02"), None):
        record.unlink() if content is None else record.write_bytes(content)
        before = tree(out)
        line = refusal([*words, "--resume"], capsys)
        assert "run.json, which says what the saves are of, is " in line
        assert tree(out) == before
    record.write_bytes(good)
    held = Lock(out)
    assert AT_WORK in refusal([*words, "--resume"], capsys)
    held.close()
    assert main([*words, "--resume"]) == 0


def test_the_command_prints_warnings_in_one_line():
    with shorten_warnings():
        said = warnings.formatwarning("cannot read", UserWarning, "file.py", 3, "code")
    assert said == "jaxinit: cannot read\n"
    said = warnings.formatwarning("cannot read", UserWarning, "file.py", 3, "code")
    assert "file.py:3" in said
