"""Peak memory of a piece of work, measured in a fresh process.

On a CPU it is the peak of the resident set during the work, minus the resident set
before it. Linux can reset the peak; elsewhere the largest peak ever counts. On an
accelerator the device's allocator reports it.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

_ROOT = Path(__file__).resolve().parents[2]
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def measure_in_child(suite: str, case: str, **changes: Any) -> dict[str, int] | None:
    """Runs `bench.apart.child` on a case of full size; returns the memory it takes.

    Args:
      suite: the case's suite.
      case: its name.
      **changes: fields of the case that have other values there, as JSON can write.

    Returns:
      ``peak_bytes``, the output included, and ``extra_bytes`` beyond it; None if the
      system does not report them, or the process fails.
    """
    child = run_apart("bench.apart.child", suite, case, json.dumps(changes))
    if child.returncode:
        return None
    memory: dict[str, int] | None = json.loads(child.stdout.splitlines()[-1])
    return memory


def run_apart(module: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs a module of the benchmark in a process of its own, and waits for it."""
    path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, "-m", module, *words],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def measure(work: Callable[[], Any], output: int) -> dict[str, int] | None:
    """Measures the memory of work in this process, whose output has that many bytes.

    Returns:
      As `measure_in_child`; None if the system does not report it.
    """
    before = _reset()
    jax.block_until_ready(work())
    after = _read_peak()
    if before is None or after is None:
        return None
    return {"peak_bytes": after - before, "extra_bytes": after - before - output}


def _reset() -> int | None:
    """Returns the bytes in use, and lets the peak start there if it can."""
    if statistics := jax.local_devices()[0].memory_stats():
        return int(statistics["bytes_in_use"])
    try:
        _RESET.write_text("5")
    except OSError:
        return _read_peak()
    return _read_resident("VmRSS")


def _read_peak() -> int | None:
    """Returns the largest number of bytes in use since the reset."""
    if statistics := jax.local_devices()[0].memory_stats():
        return int(statistics["peak_bytes_in_use"])
    if _STATUS.exists():
        return _read_resident("VmHWM")
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _read_resident(field: str) -> int | None:
    line = re.search(rf"^{field}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    return int(line[1]) * 1024 if line else None
