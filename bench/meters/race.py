"""The one clock: contenders take turns, and only their work is timed.

A contender prepares an argument (a fresh key), runs, and waits until the result is
there. Preparation is not timed, running and waiting are. All contenders of a case run
in the same process by turns, one repeat each, so that a slow spell of the machine meets
all of them. Compilation is timed apart.
"""

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax

import jaxinit

Clock = Callable[[], float]

_LEAST = 5e-3  # seconds of one repeat: shorter calls are repeated, keys and all
_MOST_CALLS = 200
# Seconds that the processors must rest before a turn, and the longest wait for that:
# threads of the contender before may spin, OpenBLAS's for 2^26 ticks of a clock that
# differs by machine (100 ms have been seen).
PAUSE, _LONGEST_PAUSE = 5e-3, 2.0


def _make_key(repeat: int) -> jax.Array:
    return jax.random.key(repeat)


def make_cold_key(repeat: int) -> jax.Array:
    """Makes a key, after JAX and jaxinit have forgotten what they compiled."""
    jax.clear_caches()
    jaxinit.clear_caches()
    return _make_key(repeat)


@dataclass(frozen=True)
class Contender:
    """One way to make an array.

    Attributes:
      run: makes the array from the argument.
      prepare: makes the argument from the number of the call, by default a key.
      wait: returns when the array is there.
      jitted: whether run comes from `jax.jit`, so that it can be compiled apart.
    """

    run: Callable[[Any], Any]
    prepare: Callable[[int], Any] = _make_key
    wait: Callable[[Any], object] = jax.block_until_ready
    jitted: bool = False

    def once(self) -> Any:
        """Makes one array, untimed."""
        array = self.run(self.prepare(0))
        self.wait(array)
        return array

    def compile(self, clock: Clock = time.perf_counter) -> float | None:
        """Compiles; returns the seconds from the first trace, None if not jitted.

        `jax.jit` keeps what is compiled here, so that a later run does not compile.
        """
        if not self.jitted:
            return None
        argument = self.prepare(0)
        start = clock()
        self.run.lower(argument).compile()  # type: ignore[attr-defined]
        return clock() - start


@dataclass(frozen=True)
class Timing:
    """Seconds of one call, by repeat.

    Attributes:
      seconds: one number per repeat.
      calls: how many calls each is the mean of.
    """

    seconds: tuple[float, ...]
    calls: int = 1

    @property
    def median(self) -> float:
        """Returns the middle of the repeats."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Returns the interquartile range of the repeats."""
        if len(self.seconds) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return high - low


def race(
    contenders: Mapping[str, Contender],
    repeats: int,
    *,
    least: float = _LEAST,
    warm: bool = True,
    pause: float = PAUSE,
    clock: Clock = time.perf_counter,
) -> dict[str, Timing]:
    """Times contenders by turns: each once, then each again, ``repeats`` times.

    Before the first turn every contender runs once to warm up. That also tells how many
    calls a repeat needs to be long enough for the clock.

    Args:
      contenders: by name, in the order of their turns.
      repeats: turns of each, 1 or above.
      least: seconds that a repeat should last.
      warm: whether to warm up; without, a repeat is one call.
      pause: seconds before each turn in which no thread of the process may work.
      clock: returns seconds.

    Returns:
      The timing of each contender.
    """
    calls = dict.fromkeys(contenders, 1)
    for name, contender in contenders.items() if warm else ():
        taken = _time_turn(contender, 0, 1, clock)
        calls[name] = min(max(int(least / max(taken, 1e-9)), 1), _MOST_CALLS)
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for repeat in range(1, repeats + 1):
        for name, contender in contenders.items():
            if pause:
                _rest(pause)
            taken = _time_turn(contender, repeat, calls[name], clock)
            seconds[name].append(taken / calls[name])
    return {name: Timing(tuple(seconds[name]), calls[name]) for name in contenders}


def _rest(pause: float) -> None:
    """Sleeps until the process has worked for less than a tenth of a pause."""
    for _ in range(int(_LONGEST_PAUSE / pause)):
        worked = time.process_time()
        time.sleep(pause)
        if time.process_time() - worked < pause / 10:
            return


def _time_turn(contender: Contender, repeat: int, calls: int, clock: Clock) -> float:
    """Times some calls, each on an argument of its own."""
    arguments = [contender.prepare(repeat * calls + call) for call in range(calls)]
    jax.block_until_ready(arguments)
    run, wait = contender.run, contender.wait
    collects = gc.isenabled()
    gc.disable()
    try:
        start = clock()
        for argument in arguments:
            array = run(argument)  # held past the clock: freeing pages is not drawing
            wait(array)
        taken = clock() - start
    finally:
        if collects:
            gc.enable()
    del array
    return taken
