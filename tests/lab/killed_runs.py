"""Runs that tests kill and continue: their settings, their ends, what they leave."""

import json

import jax
import numpy as np
import pytest

from jaxinit import lab

# Six blocks of five steps, of eight cells; Adam, because it has a state of its own.
SETTINGS = {"depth": 2, "width": 4, "seeds": 2, "steps": 30, "batch_size": 8}
SETTINGS |= {"learning_rates": (0.01, 0.1)}
INITIALIZERS = ["he_normal()", "zeros()"]

# A command with the programs of such runs: as many cells as a chunk has, or more.
WORDS = ["--depth", "2", "--width", "4", "--seeds", "2", "--lr", "0.01", "--lr", "0.1"]
WORDS += ["--init", "he_normal()", "--batch-size", "8"]


class Killed(BaseException):
    """Ends a run on the spot, as far as a process can do that to itself."""


def killer(after):
    """Returns a progress callback that kills when this many steps are done."""

    def progress(done, steps):
        if done >= after:
            raise Killed

    return progress


def run(task, out, *, initializers=INITIALIZERS, **given):
    settings = {**SETTINGS, "data": task, "out": out, "save_every": 2}
    return lab.compare(initializers, **{**settings, **given})


def killed(task, out, after, **given):
    with pytest.raises(Killed):
        run(task, out, progress=killer(after), **given)


def timeless(path):
    """Reads results.json without its times."""
    found = json.loads((path / "results.json").read_text())
    seconds = found.pop("seconds")
    assert set(seconds) == {"initialize", "train", "evaluate"}
    return found


def tree(path):
    """Everything below a directory: names and contents."""
    return {
        str(file.relative_to(path)): file.read_bytes() if file.is_file() else None
        for file in path.rglob("*")
    }


def saves(out):
    return sorted(p.name for p in (out / "checkpoint").iterdir() if p.is_dir())


def assert_same(one, two):
    """All that was measured is equal, bit for bit."""
    names = ("signals", "scores", "initial", "final", "curves", "steps")
    for name in (*names, "probes", "probe_steps"):
        ours, theirs = (jax.tree.leaves(getattr(result, name)) for result in (one, two))
        for a, b in zip(ours, theirs, strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
    assert one.interrupted == two.interrupted
