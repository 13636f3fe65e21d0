"""Peak memory of a draw, measured in a fresh process.

On CPU it is the peak of the resident set during the draw, over the resident set before,
when the program was compiled already; Linux can reset the peak, elsewhere the largest
ever counts. On an accelerator it is what the device's allocator says.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from bench.cases import Case

ROOT = Path(__file__).resolve().parents[1]
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def of_child(name: str) -> dict[str, int] | None:
    """Measures the case of that name in a process of its own, at full size.

    Returns:
      ``peak_bytes``, the output included, and ``extra_bytes`` beyond it; None where the
      system does not tell, or the process fails.
    """
    found: dict[str, int] | None = in_child("bench.memory", name)
    return found


def in_child(module: str, argument: str) -> Any:
    """Runs a module in a process of its own; returns the JSON of its last line.

    None where the process fails.
    """
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-m", module, argument],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    return None if done.returncode else json.loads(done.stdout.splitlines()[-1])


def of_draw(case: Case) -> dict[str, int] | None:
    """Measures the first draw of a case in this process."""
    program = jax.jit(case.ours).lower(jax.random.key(0)).compile()
    key = jax.block_until_ready(jax.random.key(1))
    square = jnp.ones((256, 256))
    jax.block_until_ready(square @ square)  # threads have their stacks from here on
    before = reset()
    jax.block_until_ready(program(key))
    after = peak()
    if before is None or after is None:
        return None
    return {"peak_bytes": after - before, "extra_bytes": after - before - case.bytes}


def reset() -> int | None:
    """Returns the bytes in use, and lets the peak start there if it can."""
    if statistics := jax.local_devices()[0].memory_stats():
        return int(statistics["bytes_in_use"])
    try:
        _RESET.write_text("5")
    except OSError:
        return peak()
    return _resident("VmRSS")


def peak() -> int | None:
    """Returns the largest number of bytes in use since the reset."""
    if statistics := jax.local_devices()[0].memory_stats():
        return int(statistics["peak_bytes_in_use"])
    if _STATUS.exists():
        return _resident("VmHWM")
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _resident(field: str) -> int | None:
    found = re.search(rf"^{field}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def main(name: str) -> None:
    """Prints the memory of the case of that name."""
    from bench import suites
    from bench.measure import types

    case = next(
        case
        for suite in suites.SUITES.values()
        for case in suite.cases(False)
        if case.name == name
    )
    with types(case):
        print(json.dumps(of_draw(case)))


if __name__ == "__main__":
    main(sys.argv[1])
