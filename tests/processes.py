"""Processes that tests start on this machine."""

import os
import signal
import subprocess
import sys
from pathlib import Path

# A process with as many devices as a test has loads what tests have compiled.
DEVICES = {"JAX_NUM_CPU_DEVICES": "8"}


def started(script, directory):
    """Starts a script of this folder twice: with a port, a rank and the directory."""
    path = Path(__file__).with_name(script)
    port = 20000 + hash(str(directory)) % 20000
    return [
        subprocess.Popen(
            [sys.executable, str(path), str(port), str(rank), str(directory)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]


def finished(running):
    """Waits for the processes, which must end well."""
    said = [process.communicate(timeout=240)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], said


# Runs Python with Ctrl-C as a terminal leaves it: a child inherits that it is ignored.
_WITH_CTRL_C = "import os, signal, sys; signal.signal(signal.SIGINT, signal.{}); "
_WITH_CTRL_C += "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"


def python(*words, ctrl_c="SIG_DFL", **given):
    """Starts Python in a session of its own, which only we interrupt."""
    run = [sys.executable, "-c", _WITH_CTRL_C.format(ctrl_c), *words]
    return subprocess.Popen(run, start_new_session=True, **given)


def interrupt(process):
    """Sends what Ctrl-C sends."""
    os.kill(process.pid, signal.SIGINT)
