"""Rows: the results of a case, as a dictionary of JSON types.

The keys of a row:

- ``case``, ``shape``, ``dtype``, ``bytes``: what was made;
- ``verified``, ``found``: whether it was verified, and what the verification found;
- ``times`` by contender: ``median_s``, ``spread_s``, ``seconds``, ``calls``;
- ``compile_s`` by contender, of those that `jax.jit` compiles;
- ``ratios`` by peer;
- ``limit``: ``kind``, ``seconds``, ``gflops``, ``share``;
- ``gb_per_s``, where the limit is of bytes;
- ``memory``, where the output is large: ``peak_bytes``, ``extra_bytes``;
- ``left_out``: why a peer has no time.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from bench.meters.race import Timing

Row = dict[str, Any]

KEY = 3  # the seed of all that is verified
LIMIT = "limit"  # the contender that does the least work
_OURS = ("ours", "ours eager")


@dataclass(frozen=True, kw_only=True)
class Case:
    """What the row of any case says about it; a suite's own cases add fields.

    Attributes:
      name: what the table calls it.
      shape: sizes of what is made.
      dtype: its dtype.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"

    @property
    def bytes(self) -> int:
        """The size in memory of what is made."""
        return math.prod(self.shape) * int(jnp.dtype(self.dtype).itemsize)


class Unverified(Exception):
    """What was made is not what it should be; the message says how."""


def start_row(case: Case) -> Row:
    """Returns the row of a case, without results as yet."""
    return {
        "case": case.name,
        "shape": list(case.shape),
        "dtype": case.dtype,
        "bytes": case.bytes,
        "verified": False,
        "found": "",
        "times": {},
        "compile_s": {},
        "ratios": {},
        "limit": None,
        "gb_per_s": None,
        "memory": None,
        "left_out": {},
    }


def verify_row(row: Row, verify: Callable[[], str]) -> bool:
    """Verifies a case before it is timed, and notes what was found.

    Args:
      row: the row that notes it.
      verify: returns what it found, or raises: `Unverified`, or whatever the code under
        measurement raises.

    Returns:
      Whether the case is verified.
    """
    try:
        row["found"] = verify()
        row["verified"] = True
    except Unverified as error:
        row["found"] = str(error)
    except Exception as error:  # the code under measurement may raise anything
        row["found"] = f"{type(error).__name__}: {first_line(error)}"
    return bool(row["verified"])


def first_line(error: Exception) -> str:
    """Returns the first line of a message, or the error's type where it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def add_times(row: Row, timings: Mapping[str, Timing]) -> None:
    """Writes times and ratios."""
    for name, timing in timings.items():
        row["times"][name] = {
            "median_s": timing.median,
            "spread_s": timing.spread,
            "seconds": list(timing.seconds),
            "calls": timing.calls,
        }
    row["ratios"] = compute_ratios({name: t.median for name, t in timings.items()})


def compute_ratios(medians: Mapping[str, float]) -> dict[str, float]:
    """Computes how many times longer each peer takes than we do.

    An eager peer of JAX is held against our eager call, all others against our jitted
    one.
    """
    by_peer = {}
    for name, seconds in medians.items():
        if name not in (*_OURS, LIMIT):
            ours = "ours eager" if name.endswith(" eager") else "ours"
            by_peer[name] = seconds / medians[ours]
    return by_peer
