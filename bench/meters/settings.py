"""How a run of the benchmark measures."""

from collections.abc import Mapping
from dataclasses import dataclass

from bench.meters import race
from bench.meters.race import Contender, Timing


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
            return race.race(contenders, self.repeats, least=0, warm=warm, pause=0)
        return race.race(contenders, self.repeats, warm=warm)
