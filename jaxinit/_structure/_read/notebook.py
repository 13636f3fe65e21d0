"""The notebook of a walk: where it is in the program, and what it has found so far."""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from jaxinit._structure._read.facts import GONE, Fact, Notes, Stream, Use, Way


class Notebook:
    """Where a walk is, and what it has found.

    The body of a loop is walked more than once; an operation and a use keep the numbers
    of the first time.

    Attributes:
      shapes: of the parameters.
      notes: what was found.
      way: to the operation that the walk is at.
      backwards: whether it belongs to a derivative that goes back, of `jax.grad`.
    """

    def __init__(self, shapes: Sequence[tuple[int, ...]]):
        """Begins a walk.

        Args:
          shapes: sizes of the parameters.
        """
        self.shapes = shapes
        self.notes = Notes()
        self.way: Way = ()
        self.backwards = False
        self._orders: dict[Way, int] = {}
        self._uses: dict[tuple[Way, int], int] = {}
        self._loops: list[tuple[Way, int, set[int]]] = []  # with what they slice

    @property
    def order(self) -> int:
        """The number of the operation."""
        return self._orders.setdefault(self.way, len(self._orders))

    def mark(
        self,
        *,
        product: bool = False,
        curved: bool = False,
        scaled: bool = False,
        taken: bool = False,
        result: int | None = None,
    ) -> int:
        """Returns the operation as a bit set, and notes of what kind it is.

        One of several results, if its number is given, counts as its own operation.
        """
        way = self.way if result is None else (*self.way, -1 - result)
        bit = 1 << self._orders.setdefault(way, len(self._orders))
        self.notes.products |= bit * product
        self.notes.curved |= bit * curved
        self.notes.scaled |= bit * scaled
        self.notes.taken |= bit * taken
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
            use.roles |= before.roles
            use.parts |= before.parts
            use.head = use.head or before.head
            use.normed = use.normed[0], before.normed[1]
            uses[number] = use
        return number

    def find_tokens(self, leaves: Iterable[int]) -> None:
        """Notes that parameters are data: the first found, as others follow of it."""
        if not self.notes.tokens:
            self.notes.tokens.update(leaves)

    def save(self) -> Notes:
        """Returns a copy of the notes, for `rewind`."""
        notes = self.notes
        return dataclasses.replace(
            notes,
            uses=[
                dataclasses.replace(u, roles=set(u.roles), parts=dict(u.parts))
                for u in notes.uses
            ],
            branches=dict(notes.branches),
            stacked={leaf: set(axes) for leaf, axes in notes.stacked.items()},
        )

    def rewind(self, saved: Notes) -> None:
        """Forgets what was noted since; uses keep their numbers."""
        since = self.notes.uses[len(saved.uses) :]
        saved.uses += [Use(kind=GONE, leaf=use.leaf, order=use.order) for use in since]
        self.notes = saved

    @contextmanager
    def enter(self, backwards: bool) -> Iterator[None]:
        """Enters a program within the operation, perhaps of a derivative's."""
        before = self.way, self.backwards
        self.backwards = backwards
        yield
        self.way, self.backwards = before

    def recall(self, facts: Iterable[Fact], backwards: bool) -> list[Fact]:
        """Returns what is known of operands of an operation of a derivative.

        It reads parameters again of which uses are noted. Nothing if one is not.
        """
        recalled = []
        for fact in facts:
            uses = [
                n for n, use in enumerate(self.notes.uses) if use.leaf in fact.leaves
            ]
            uses = [n for n in uses if self.notes.uses[n].kind != GONE]
            if not fact.leaves.keys() <= {self.notes.uses[n].leaf for n in uses}:
                return []
            products = [n for n in uses if self.notes.uses[n].kind == "product"]
            last = frozenset(products)
            if fact.leaves:
                fact = Fact(data=True, last=last, raw=False)
            recalled += [fact] * fact.data
        bit = self.mark()
        self.notes.derived |= bit * backwards
        return [fact._replace(behind=fact.behind | bit) for fact in recalled]

    @contextmanager
    def loop(self, length: int, sliced: set[int]) -> Iterator[Way]:
        """Enters a loop, which slices some parameters; returns its name."""
        name = self.way
        self._loops.append((name, length, sliced))
        yield name
        self._loops.pop()

    def slice_in_loop(self, leaf: int) -> None:
        """Notes that the step of the innermost loop chooses a parameter's entries."""
        if self._loops:
            self._loops[-1][2].add(leaf)

    def is_recurrent(self, leaf: int, carries: frozenset[Way]) -> bool:
        """Returns whether a loop's carry meets a parameter that it does not slice."""
        return any(
            name in carries and leaf not in sliced for name, _, sliced in self._loops
        )

    def add_residual(self, stream: Fact, branch: Fact) -> Stream | None:
        """Notes the sum of a branch with what bypasses it; None if it is not one.

        What was added before and the branch does not read runs beside it: attention
        and feed-forward layers that read one norm are two parts of one branch.
        """
        if self._is_residual(stream, branch):
            way = self.way
            before = stream.behind
        elif stream.stream and self._is_residual(
            stream._replace(behind=stream.stream.behind), branch
        ):
            before, way = stream.stream
        else:
            return None
        self._add_branch(branch.behind & ~before, way)
        return Stream(before, way)

    def _is_residual(self, stream: Fact, branch: Fact) -> bool:
        """Returns whether a stream bypasses a branch, of which it notes the ends."""
        notes, shared = self.notes, stream.behind & branch.behind
        mine, its = stream.behind & ~branch.behind, branch.behind & ~stream.behind
        products = its & notes.products
        if not shared or not products or mine & notes.taken:
            return False
        if stream.counted and (mine or branch.meeting is not None):  # a mask, say
            return False
        bypass = mine & (notes.products | notes.curved)
        if bypass:
            straight = bypass & (bypass - 1) == 0 and not bypass & notes.curved
            bent = its & notes.curved and products & (products - 1)
            if not (straight and bent and shared & notes.products):
                return False
        elif mine & notes.scaled:
            return False
        # The branch ends in products that see the stream; not in its gates, if others
        # are left, as gates are bent.
        uses = {
            number: notes.uses[number]
            for number in branch.straight or branch.last
            if its >> notes.uses[number].order & 1
        }
        ends = {n: use for n, use in uses.items() if not shared & ~use.behind}
        # A table that is added at each layer bypasses only the first.
        if not ends or not stream.depth and all(use.branch for use in ends.values()):
            return False
        for number, use in ends.items():
            use.roles.add("residual")
            if number in branch.linear:
                use.ends = branch.gains if use.normed[1] else frozenset({number})
        return True

    def count_branches(self) -> int:
        """Returns the number of residual branches, those in loops at each step."""
        return sum(times for _, times in self.notes.branches.values())

    def _add_branch(self, its: int, way: Way) -> None:
        branches = self.notes.branches
        times = math.prod(length for _, length, _ in self._loops)
        number, _ = branches.setdefault(way, (len(branches) + 1, times))
        for use in self.notes.uses:
            if its >> use.order & 1 and not use.branch:
                use.branch = number
