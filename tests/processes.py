"""Two processes of `jax.distributed` on this machine."""

import subprocess
import sys
from pathlib import Path


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
