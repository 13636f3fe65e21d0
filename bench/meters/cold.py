"""Seconds of work that begins cold: each contender runs in a process of its own."""

import json
from collections.abc import Sequence

from bench.meters.memory import run_apart
from bench.meters.race import Timing


class Failed(Exception):
    """A process did not end well; the message is its last line."""


def time_cold(
    suite: str, case: str, contenders: Sequence[str], repeats: int, quick: bool
) -> dict[str, Timing]:
    """Times contenders by turns, each time in a new process.

    Args:
      suite: a suite whose file has ``run_cold(case, contender)``, which returns seconds
        by name: of the first call, and of calls that follow it in that process.
      case: the case's name.
      contenders: the names of the contenders.
      repeats: processes of each.
      quick: whether the case is of toy size.

    Returns:
      The timing of each name that `run_cold` returns.
    """
    seconds: dict[str, list[float]] = {}
    for _ in range(repeats):
        for contender in contenders:
            for name, taken in _run(suite, case, contender, quick).items():
                seconds.setdefault(name, []).append(taken)
    return {name: Timing(tuple(taken)) for name, taken in seconds.items()}


def _run(suite: str, case: str, contender: str, quick: bool) -> dict[str, float]:
    words = [suite, case, contender, *(["--quick"] if quick else [])]
    child = run_apart("bench.apart.cold", *words)
    if child.returncode:
        raise Failed((child.stderr.splitlines() or ["it ended without a word"])[-1])
    found: dict[str, float] = json.loads(child.stdout.splitlines()[-1])
    return found
