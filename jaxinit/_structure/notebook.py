"""The notebook of a walk: where it is in the program, and what it has found so far."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from jaxinit._structure.facts import Fact, Notes, Use, Way


class Notebook:
    """Where a walk is, and what it has found.

    The body of a loop is walked more than once; an operation and a use keep the numbers
    of the first time.

    Attributes:
      shapes: of the parameters.
      notes: what was found.
      way: to the operation that the walk is at.
    """

    def __init__(self, shapes: Sequence[tuple[int, ...]]):
        """Begins a walk.

        Args:
          shapes: sizes of the parameters.
        """
        self.shapes = shapes
        self.notes = Notes()
        self.way: Way = ()
        self._orders: dict[Way, int] = {}
        self._uses: dict[tuple[Way, int], int] = {}
        self._branches: dict[Way, tuple[int, int]] = {}  # number, times
        self._loops: list[tuple[Way, int, set[int]]] = []  # with what they slice

    @property
    def order(self) -> int:
        """The number of the operation."""
        return self._orders.setdefault(self.way, len(self._orders))

    def mark(self, *, product: bool = False, curved: bool = False) -> int:
        """Returns the operation as a bit set, and notes of what kind it is."""
        bit = 1 << self.order
        self.notes.products |= bit * product
        self.notes.curved |= bit * curved
        return bit

    def note(self, use: Use) -> int:
        """Notes a use of a parameter, and returns its number."""
        place = self.way, use.leaf
        uses = self.notes.uses
        number = self._uses.setdefault(place, len(uses))
        if number == len(uses):
            uses.append(use)
        else:
            before = uses[number]
            use.roles |= before.roles - {"input", "recurrent"}
            use.activation, use.branch = before.activation, before.branch
            use.normed = use.normed[0], before.normed[1]
            uses[number] = use
        return number

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Enters a program within the operation."""
        way = self.way
        yield
        self.way = way

    @contextmanager
    def loop(self, length: int, sliced: set[int]) -> Iterator[Way]:
        """Enters a loop, which slices some parameters; returns its name."""
        name = self.way
        self._loops.append((name, length, sliced))
        with self.enter():
            yield name
        self._loops.pop()

    def is_recurrent(self, leaf: int, carries: frozenset[Way]) -> bool:
        """Returns whether a loop's carry meets a parameter that it does not slice."""
        return any(
            name in carries and leaf not in sliced for name, _, sliced in self._loops
        )

    def add_residual(self, stream: Fact, branch: Fact) -> bool:
        """Notes the sum of a branch with what bypasses it; returns whether it is."""
        notes, shared = self.notes, stream.behind & branch.behind
        mine, its = stream.behind & ~branch.behind, branch.behind & ~stream.behind
        products = its & notes.products
        if not shared or not products or stream.counted or branch.meeting is not None:
            return False
        bypass = mine & (notes.products | notes.curved)
        if bypass:
            straight = bypass & (bypass - 1) == 0 and not bypass & notes.curved
            bent = its & notes.curved and products & (products - 1)
            if not (straight and bent):
                return False
        number = len(self._branches) + 1
        times = math.prod(length for _, length, _ in self._loops)
        number, _ = self._branches.setdefault(self.way, (number, times))
        notes.branches = sum(times for _, times in self._branches.values())
        for use in notes.uses:
            if its >> use.order & 1 and not use.branch:
                use.branch = number
        for each in stream.last:
            notes.uses[each].roles.add("stream")
        for each in branch.last - stream.last:
            if its >> notes.uses[each].order & 1:
                notes.uses[each].roles.add("residual")
        return True
