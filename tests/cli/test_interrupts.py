"""Ctrl-C: at any moment one line at once and code 130; while training, a save first.

A line has five seconds here, because tests share a machine with others; it takes some
hundredths of one. Moments are told by what the process has done, not by the clock, but
in the sweep, which has no moment that must be met.
"""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from processes import DEVICES, interrupt, python

from jaxinit import _watch
from jaxinit.lab._train import _interrupts as interrupts

pytestmark = pytest.mark.usefixtures("quick_compiler")

AT_ONCE = 5.0  # seconds
LEFT = b"jaxinit: interrupted before there was a result.\n"
PROMISED = "jaxinit: stopping after this block… Ctrl-C again ends at once.\n".encode()
MODEL = """
import pathlib
import jax, jax.numpy as jnp

def long(x):
    for i in range(300):
        x = jnp.sin(x @ x) + i
    return x

def init(key):
    lowered = jax.jit(long).lower(jnp.ones((8, 8)))
    pathlib.Path("compiling").touch()
    lowered.compile()
    return {"w": jax.random.normal(key, (8, 8))}

compiled = init, lambda params, x: x @ params["w"]
"""
TINY = ["--depth", "2", "--width", "4", "--seeds", "1", "--lr", "0.01"]
TINY += ["--batch-size", "8", "--init", "he_normal()"]


@pytest.fixture
def place(tmp_path, arrays):
    """A directory with a model, and with data."""
    (tmp_path / "own.py").write_text(MODEL)
    np.savez(tmp_path / "data.npz", x=arrays[0], y=arrays[1])
    return tmp_path


@pytest.fixture
def pythons_handler():
    """Makes Ctrl-C an exception, as Python does where it is not ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def start():
    """Starts Python, and ends what is left of it after the test."""
    started = []

    def begin(*words, **given):
        given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | given
        started.append(python(*words, **given))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def until(ready, process):
    """Waits for something that a process does."""
    end = time.monotonic() + 100
    while not ready():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.002)


def watched(process):
    """Returns whether a process has a second thread: the first of ours."""
    return len(list(Path(f"/proc/{process.pid}/task").iterdir())) > 1


def has_mapped(process, library):
    return library in Path(f"/proc/{process.pid}/maps").read_text()


def read(stream, size):
    """Reads from a pipe or terminal until there is so much, or no more."""
    said, end = b"", time.monotonic() + AT_ONCE
    while len(said) < size:
        ready, _, _ = select.select([stream], [], [], end - time.monotonic())
        assert ready, f"after {AT_ONCE} s there is {said!r}"
        piece = os.read(stream.fileno(), 4096)
        if not piece:
            break
        said += piece
    return said


def uncached():
    """Returns an environment in which nothing is compiled already, or kept."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("JAX_COMP")}
    return kept | {"JAX_ENABLE_COMPILATION_CACHE": "0"}


def leaves(process, line=LEFT):
    """Interrupts a process, which must say one line and end."""
    begun = time.monotonic()
    interrupt(process)
    said = process.communicate(timeout=AT_ONCE)[1]
    assert (said, process.returncode) == (line, 130)
    assert time.monotonic() - begun < AT_ONCE


linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


# The command line.


@linux
@pytest.mark.parametrize("library", ["_multiarray_umath", "libjax_common"])
def test_while_it_imports(start, library):
    process = start("-m", "jaxinit", "show", "zeros()", "--shape", "2")
    until(lambda: has_mapped(process, library), process)
    leaves(process)


def test_while_xla_compiles(start, place):
    """The compilation goes on in a thread of JAX, which must not lose its client."""
    words = ["check", "own:compiled", "--input", "8x8"]
    process = start("-m", "jaxinit", *words, cwd=place, env=uncached())
    until((place / "compiling").exists, process)
    time.sleep(0.3)
    leaves(process)


# Runs the command with a step of it that says that it has begun, and takes a minute.
SLOW_STEP = """
import pathlib, sys, time
import {module} as module

def slow(*given):
    pathlib.Path("slow").touch()
    time.sleep(60)

module.{name} = slow
from jaxinit.cli import main
sys.exit(main())
"""


def slowed(start, place, module, name, *words):
    """Starts a comparison, one step of which takes a minute."""
    code = SLOW_STEP.format(module=module, name=name)
    words = ["compare", "--data", "data.npz", *TINY, "--out", "out", *words]
    return start("-c", code, *words, cwd=place, env=os.environ | DEVICES)


@pytest.mark.slow
def test_while_the_page_is_written(start, place):
    process = slowed(start, place, "jaxinit.lab.files", "plots", "--steps", "2")
    until((place / "slow").exists, process)
    leaves(process, b"jaxinit: interrupted; --resume goes on with out.\n")
    assert not (place / "out" / "results.json").exists()


@pytest.mark.slow
def test_a_second_ctrl_c_ends_at_once_and_what_is_saved_stays(start, place):
    words = ["--steps", "100000", "--save-every", "1"]
    process = slowed(start, place, "jaxinit.lab._train.grid", "Grid.scores", *words)
    saves = place / "out" / "checkpoint"
    until(lambda: (saves / "2").exists(), process)
    interrupt(process)
    assert read(process.stderr, len(PROMISED)) == PROMISED
    until((place / "slow").exists, process)  # the block has ended, and is saved
    last = max(int(path.name) for path in saves.iterdir() if path.is_dir())
    leaves(process, b"jaxinit: interrupted; --resume goes on with out.\n")
    assert last >= 2 and (saves / str(last)).is_dir()


@pytest.mark.slow
def test_a_terminal_is_left_with_its_cursor(start):
    ours, theirs = pty.openpty()
    env = uncached() | {"TERM": "xterm", "COLUMNS": "200"}
    given = {"stdout": subprocess.DEVNULL, "stderr": theirs, "env": env}
    process = start("-m", "jaxinit", "compare", **given)
    os.close(theirs)
    with open(ours, "rb", buffering=0) as terminal:
        said = b""
        while b"drawing" not in said:
            assert select.select([terminal], [], [], 100)[0], said
            said += os.read(ours, 4096)
        interrupt(process)
        while LEFT.strip() not in said:
            assert select.select([terminal], [], [], AT_ONCE)[0], said
            said += os.read(ours, 4096)
        assert process.wait(AT_ONCE) == 130
    *_, after = said.split(b"\x1b[?25l")  # hidden; then shown again, and all is erased
    assert after.count(b"\x1b[?25h") == 1 and b"\x1b[2K" in after


@pytest.mark.slow
@linux
def test_what_is_started_with_ctrl_c_ignored_is_not_interrupted(start):
    words = ["-m", "jaxinit", "show", "zeros()", "--shape", "2", "--json"]
    process = start(*words, ctrl_c="SIG_IGN")
    until(lambda: has_mapped(process, "jaxlib"), process)
    interrupt(process)
    out, err = process.communicate(timeout=100)
    assert (process.returncode, err) == (0, b"") and b'"entries": 2' in out


# At any moment.

SAID = (
    r"jaxinit: interrupted(; --resume goes on with out| before there was a result)\.\n|"
    r"jaxinit: stopping after this block… Ctrl-C again ends at once\.\n"
    r"(jaxinit: interrupted after \d+ of \d+ steps; what was computed is in out, "
    r"--resume goes on\.\n)?"
)


def said_at(delay, process):
    """Interrupts a command this long after it has begun to watch for it.

    Returns what it said; nothing if it had ended before.
    """
    until(lambda: watched(process), process)
    end = time.monotonic() + delay
    while time.monotonic() < end and process.poll() is None:
        time.sleep(0.01)
    going_on = process.poll() is None
    if going_on:
        interrupt(process)
    said = read(process.stderr, 1) + process.communicate(timeout=120)[1]
    # Behind its last line the interpreter still ends, which may be cut short.
    expected = (130,) if said else (0, 1, -signal.SIGINT)
    assert process.returncode in expected, said
    return said.decode()


@linux
@pytest.mark.slow
@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ((15, 15), ["compare", "--data", "data.npz", *TINY, "--steps", "500"]),
        ((4, 0), ["check", "own:compiled", "--input", "8x8", "--seeds", "2"]),
        ((4, 0), ["show", "he_normal()", "--shape", "90", "90", "--plot", "w.png"]),
    ],
    ids=["compare", "check", "show"],
)
def test_at_any_moment(start, place, counts, words):
    """Of runs that compile, and of runs that find everything compiled."""
    if words[0] == "compare":
        words = [*words, "--out", "out", "--overwrite"]
    command = ["-m", "jaxinit", *words]
    kept = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(place / "programs")}
    said = []
    for count, env in zip(counts, (uncached(), kept), strict=True):
        if not count:
            continue
        begun = time.monotonic()  # the first whole run compiles, the second finds
        whole = start(*command, cwd=place, env=kept)
        assert not whole.communicate(timeout=300)[1]
        lasts = time.monotonic() - begun
        moments = [lasts * (i + 0.5) / count for i in range(count)]
        said += [said_at(m, start(*command, cwd=place, env=env)) for m in moments]
    for line in filter(None, said):
        assert re.fullmatch(SAID, line)
    assert sum(map(bool, said)) >= sum(counts) / 2


# In a program of its own, where Ctrl-C is an exception.


@pytest.mark.usefixtures("pythons_handler")
def test_the_first_interrupt_waits_until_it_is_asked_for():
    done = []
    with pytest.raises(KeyboardInterrupt), interrupts.defer() as ask:
        ask()
        signal.raise_signal(signal.SIGINT)
        done.append("block")
        ask()
    assert done == ["block"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("pythons_handler")
def test_the_second_interrupt_does_not_wait():
    with pytest.raises(KeyboardInterrupt), interrupts.defer():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("pythons_handler")
def test_an_interrupt_in_a_callback_is_not_lost():
    class Dropped:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt), interrupts.defer() as ask:
        Dropped()
        ask()


@pytest.mark.usefixtures("pythons_handler")
def test_other_handlers_of_interrupts_stay():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interrupts.defer() as ask:
        signal.raise_signal(signal.SIGINT)
        ask()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


# What watches.


@pytest.mark.parametrize(
    ("words", "whole", "expected"),
    [
        (["-m", "list"], ["python", "-m", "jaxinit", "list"], True),
        (["-m"], ["python", "-X", "dev", "-m", "jaxinit"], True),
        (["-m", "jaxinit"], ["python", "-m", "pytest", "jaxinit"], False),
        (["/usr/bin/jaxinit", "list"], ["python", "/usr/bin/jaxinit", "list"], True),
        (["train.py", "jaxinit"], ["python", "train.py", "jaxinit"], False),
        (["-c"], ["python", "-c", "..."], False),
        ([""], ["python"], False),
    ],
)
def test_the_command_knows_itself(monkeypatch, words, whole, expected):
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(sys, "orig_argv", whole)
    assert _watch._is_the_command() is expected


@pytest.mark.usefixtures("pythons_handler")
def test_whoever_imports_jaxinit_keeps_ctrl_c():
    assert not _watch.watch.on
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    other = _watch.Watch()
    other.start()
    assert not other.on and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
