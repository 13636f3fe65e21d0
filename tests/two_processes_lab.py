"""One of two processes that train one grid together; see test_lab_processes."""

import signal
import sys

import jax

port, rank, directory = sys.argv[1:]
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 1)
jax.config.update("jax_compilation_cache_dir", f"{directory}/programs")
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=int(rank))

import numpy as np  # noqa: E402

sys.path.append(str(__import__("pathlib").Path(__file__).parents[1]))

from jaxinit import lab  # noqa: E402
from jaxinit.lab import files, training  # noqa: E402
from jaxinit.lab._train import grid  # noqa: E402
from tests.lab.test_lab_processes import CALL  # noqa: E402

files.plots = lambda comparison: {}
files.page = lambda comparison, command: "page"
training.diagnose = lambda *given: None
grid._LONGEST_BLOCK = 2
given = {**CALL, "devices": 2, "out": f"{directory}/out", "save_every": 1}


class Killed(BaseException):
    """Ends a run on the spot."""


def kill(done, steps):
    """Ends a run in the middle."""
    if done == 4:
        raise Killed


def interrupt(done, steps):
    """Presses Ctrl-C in one of the processes."""
    if done == 6 and rank == "1":
        signal.raise_signal(signal.SIGINT)


signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    lab.compare(**given, progress=kill)
except Killed:
    half = lab.compare(**given, resume=True, progress=interrupt)
    result = lab.compare(**given, resume=True)
    found = {"loss": result.scores.loss, "curves": result.curves}
    found |= {"interrupted": half.interrupted, "half": half.curves}
    np.savez(f"{directory}/{rank}.npz", kernel=result.kernels(0)[1][0], **found)
