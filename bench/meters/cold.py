"""Seconds of work that begins cold: each contender runs in a process of its own."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from bench.meters.memory import run_apart
from bench.meters.race import Timing
from bench.meters.row import Case, Row, add_times, start_row
from bench.meters.settings import Settings


class Failed(Exception):
    """A process did not end well; the message is its last line."""


@dataclass(frozen=True, kw_only=True)
class Cold(Case):
    """Work that begins cold.

    Attributes:
      ways: by contender, the calls that are timed one after another, by name.
    """

    ways: dict[str, dict[str, Callable[[], Any]]]


def measure_cold(suite: str, case: Cold, settings: Settings) -> Row:
    """Times the ways of a suite's case, by turns."""
    row = start_row(case)
    try:
        quick, repeats = settings.quick, settings.repeats
        add_times(row, time_cold(suite, case.name, list(case.ways), repeats, quick))
    except Failed as error:
        row["found"] = str(error)
        return row
    row["verified"], row["found"] = True, "all calls returned"
    return row


def run_cold(case: Cold, contender: str) -> dict[str, float]:
    """Times the calls of a way in this process."""
    seconds = {}
    for name, call in case.ways[contender].items():
        start = time.perf_counter()
        jax.block_until_ready(call())
        seconds[name] = time.perf_counter() - start
    return seconds


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
