"""Measuring: a case becomes a row, a dictionary as JSON has it.

The keys of a row:

- ``case``, ``shape``, ``dtype``, ``bytes``: what was drawn;
- ``verified``, ``found``: whether it was verified, and what verification says;
- ``times`` by contender: ``median_s``, ``spread_s``, ``seconds``, ``calls``;
- ``compile_s`` by contender, of those that `jax.jit` compiles;
- ``ratios`` by peer;
- ``limit``: ``kind``, ``seconds``, ``gflops``, ``share``;
- ``gb_per_s``, where the limit is of bytes;
- ``memory``, where the output is large: ``peak_bytes``, ``extra_bytes``;
- ``left_out``: why a peer has no time.
"""

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench import memory, timing, verify
from bench.cases import Case, Limit, limit
from bench.timing import Contender, Timing
from bench.verify import KEY, Unverified

Row = dict[str, Any]

_LIMIT = "limit"
_OURS = ("ours", "ours eager")
_LARGE = 2**24  # bytes: below, an allocator's own habits hide the memory of a draw


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes:
      repeats: turns of each contender.
      peers: names of the libraries to race against.
      quick: toy sizes, and no time spent on making times mean something.
    """

    repeats: int = 7
    peers: tuple[str, ...] = ("jax",)
    quick: bool = False

    def race(
        self, contenders: Mapping[str, Contender], warm: bool = True
    ) -> dict[str, Timing]:
        """Times contenders by turns."""
        if self.quick:
            return timing.race(contenders, self.repeats, least=0, warm=warm, pause=0)
        return timing.race(contenders, self.repeats, warm=warm)


@contextlib.contextmanager
def types(case: Case) -> Iterator[None]:
    """Enables 64-bit types for a case that needs them."""
    with jax.enable_x64(True) if case.x64 else contextlib.nullcontext():
        yield


def draw(case: Case, settings: Settings) -> Row:
    """Measures the time that a draw takes, of each contender."""
    with types(case):
        row = start(case)
        least = limit(case)
        contenders = {"ours": Contender(case.jitted, jitted=True)}
        if case.eager:
            contenders["ours eager"] = Contender(case.ours)
        contenders[_LIMIT] = least.contender
        contenders |= _peers(case, settings, row)
        if not _verified(case, contenders["ours"], row):
            return row
        timings = settings.race(contenders)
        finish(row, timings)
        row["limit"] = limit_of(least, timings)
        if least.kind == "fill":
            row["gb_per_s"] = case.bytes / timings["ours"].median / 1e9
        if case.bytes >= _LARGE:
            row["memory"] = memory.of_child(case.name)
        return row


def programs(case: Case, settings: Settings) -> Row:
    """Measures our programs for the same draw, or the same numbers of an array.

    Each is held against the first, which is the one that users get unasked.
    """
    row = start(case)
    argument = case.argument(case) if case.argument else None

    def contender(impl: str | None) -> Contender:
        jitted = jax.jit(lambda x: case.init(x, case.shape, case.dtype, impl=impl))
        if argument is None:
            return Contender(jitted, jitted=True)
        return Contender(jitted, lambda repeat: argument, jitted=True)

    known = jax.random.key(KEY) if argument is None else argument
    contenders = {"ours": contender(None)}
    try:
        row["compile_s"]["ours"] = contenders["ours"].compile()
        ours = contenders["ours"].run(known)
        row["found"] = case.verify(case, ours)
    except Exception as error:  # as in a draw
        row["found"] = _line(error)
        return row
    row["verified"] = True
    for impl in case.impls:
        if impl == "pallas" and jax.default_backend() == "cpu" and not settings.quick:
            row["left_out"][impl] = "is interpreted on a CPU"
            continue
        try:
            made = contender(impl)
            row["compile_s"][impl] = made.compile()
            verify.alike(made.run(known), ours, bits=impl != "paired")
            contenders[impl] = made
        except Exception as error:  # the others still race
            row["left_out"][impl] = _line(error)
    least = limit(case)
    timings = settings.race({**contenders, _LIMIT: least.contender})
    finish(row, timings)
    row["limit"] = limit_of(least, timings)
    row["gb_per_s"] = case.bytes / timings["ours"].median / 1e9
    return row


def compilation(case: Case, settings: Settings) -> Row:
    """Measures the time that tracing and compiling take, ours and JAX's.

    Each time a new function is compiled, and JAX has forgotten all that it knew.
    """
    row = start(case)

    def contender(function: Any) -> Contender:
        def prepare(repeat: int) -> Any:
            jax.clear_caches()
            return jax.jit(lambda key: function(key))

        key = jax.random.key(0)
        return Contender(
            lambda jitted: jitted.lower(key).compile(), prepare, lambda _: None
        )

    theirs = case.theirs
    contenders = {"ours": contender(case.ours)}
    if theirs is not None and "jax" in settings.peers:
        contenders["jax"] = contender(lambda key: theirs(key, case.shape, case.dtype))
    key = jax.random.key(0)
    abstract = jax.eval_shape(case.ours, key)
    row["found"] = f"{abstract.dtype}{list(abstract.shape)}"
    row["verified"] = (abstract.shape, abstract.dtype) == (case.shape, case.dtype)
    if row["verified"]:
        finish(row, settings.race(contenders, warm=False))
    return row


def start(case: Case) -> Row:
    """Returns the row of a case, empty as yet."""
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


def _peers(case: Case, settings: Settings, row: Row) -> dict[str, Contender]:
    """Returns the peers that make such an array, and notes why others do not."""
    found = {}
    for name, build in case.peers.items():
        if name.partition(" ")[0] not in settings.peers:
            continue
        try:
            contender = build(case)
            if (seconds := contender.compile()) is not None:
                row["compile_s"][name] = seconds
            array = contender.once()
            if tuple(array.shape) != case.shape:
                raise ValueError(f"gives the shape {list(array.shape)}")
            if not re.search(rf"\b{case.dtype}\b", str(array.dtype)):
                raise ValueError(f"gives the dtype {array.dtype}")
        except Exception as error:  # whatever a library raises, the others still race
            row["left_out"][name] = _line(error)
        else:
            found[name] = contender
    return found


def _verified(case: Case, ours: Contender, row: Row) -> bool:
    """Compiles, draws, verifies, and notes what was found."""
    try:
        row["compile_s"]["ours"] = ours.compile()
        key = jax.random.key(KEY)
        weight = ours.run(key)
        if (weight.shape, weight.dtype) != (case.shape, jnp.dtype(case.dtype)):
            raise Unverified(f"the weight is {weight.dtype}{list(weight.shape)}.")
        if case.eager and not np.array_equal(case.ours(key), weight):
            raise Unverified("the eager call gives other values than jax.jit.")
        row["found"] = case.verify(case, weight)
        row["verified"] = True
    except Unverified as error:
        row["found"] = str(error)
    except Exception as error:  # a draw that raises is not verified either
        row["found"] = f"{type(error).__name__}: {_line(error)}"
    return bool(row["verified"])


def _line(error: Exception) -> str:
    """Returns the first line of a message."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def finish(row: Row, timings: Mapping[str, Timing]) -> None:
    """Writes times and ratios."""
    for name, timing_ in timings.items():
        row["times"][name] = {
            "median_s": timing_.median,
            "spread_s": timing_.spread,
            "seconds": list(timing_.seconds),
            "calls": timing_.calls,
        }
    row["ratios"] = ratios({name: t.median for name, t in timings.items()})


def ratios(medians: Mapping[str, float]) -> dict[str, float]:
    """Computes how many times longer each peer takes than we do.

    An eager peer of JAX is held against our eager call, all others against our jitted
    one.
    """
    found = {}
    for name, seconds in medians.items():
        if name not in (*_OURS, _LIMIT):
            ours = "ours eager" if name.endswith(" eager") else "ours"
            found[name] = seconds / medians[ours]
    return found


def limit_of(least: Limit, timings: Mapping[str, Timing]) -> dict[str, Any]:
    """Computes the limit's seconds, and which share of our time they are."""
    measured = timings[_LIMIT].median
    seconds = measured * least.share
    return {
        "kind": least.kind,
        "seconds": seconds,
        "gflops": least.flops / measured / 1e9 if least.flops else None,
        "share": seconds / timings["ours"].median,
    }
