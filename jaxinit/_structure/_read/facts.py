"""Facts about the values of a traced program, and what is noted of its parameters."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

from jaxinit._structure._read.axes import (
    Axes,
    Axis,
    Joined,
    Piece,
    forget_axes,
    list_sources,
)

Way = tuple[int, ...]  # to an operation: its number in each program around it
NONE: frozenset[int] = frozenset()


class Unit(NamedTuple):
    """The source of an axis that a product makes: outputs of a layer.

    Attributes:
      order: the number of the product; -1 if it is not told.
      axes: of the only parameter in it, the axes that these outputs run along.
      cut: which of them are left, if the axis was cut: of how many, where, how many.
      of: the same as axes in pieces, the slowest first, if several run side by side.
    """

    order: int = -1
    axes: tuple[int, ...] = ()
    cut: tuple[int, int, int] | None = None
    of: Axis = ()


class Part(NamedTuple):
    """Outputs of a layer that are left of all, as queries are of a joint kernel's.

    An entry i of the parameter's axis is left if ``i // step % whole`` is at least
    first, and below first + size.

    Attributes:
      order: the number of the layer's product; before it, that of the parameter.
      axis: the axis of its parameter that the outputs run along.
      step: see above.
      whole: see above.
      first: see above.
      size: see above.
    """

    order: int
    axis: int
    step: int
    whole: int
    first: int
    size: int


Parts = frozenset[Part]


def list_units(axes: Axes) -> list[Unit]:
    """Lists the outputs of layers that run along some axes."""
    sources = list_sources(axes, range(len(axes)))
    return [source for source in sources if isinstance(source, Unit)]


def join_units(one: Axis, other: Axis) -> Axis:
    """Returns the axis of a product entry by entry, of outputs of one layer or two."""
    if one == other or len(one) != 1 or len(other) != 1:
        return one or other
    both = {u for axis in (one, other) for u in list_units((axis,))}
    if len(both) < 2 or one[0].size != other[0].size:
        return one
    return (Piece(Joined(sorted(both, key=str)), one[0].size),)


class Meeting(NamedTuple):
    """A product of data with data, of which a further product may be the third.

    Attributes:
      number: unique among meetings.
      sides: for each of its operands, the last products before it.
      of_units: whether it sums over outputs of layers; if not, over positions.
      summed: how many entries it sums over.
      parts: for each of its operands, the parts of layers that it is made of.
    """

    number: int
    sides: tuple[frozenset[int], frozenset[int]]
    of_units: bool
    summed: int
    parts: tuple[Parts, Parts]


class Stream(NamedTuple):
    """What a branch was added to.

    Attributes:
      behind: the operations that it depended on before, as a bit set.
      way: to the sum.
    """

    behind: int
    way: Way


class Fact(NamedTuple):
    """What is known of a value.

    A value is data if it depends on the model's inputs; else it is made of parameters,
    or is a constant. Uses are numbered by their place in `Notes.uses`.

    Attributes:
      data: whether it depends on the inputs.
      leaves: if not, the numbers of the parameters that it is made of, and for each the
        axes: which axis of the parameter the entries come from.
      axes: of data: a `Unit`, or what tells positions apart.
      last: products with no other one between them and this.
      straight: those of them that no function bends on the way.
      fresh: products whose result this still is, perhaps scaled or with a bias.
      linear: products from which only sums and factors lead here.
      gains: gains and normalizations that this is the result of.
      parts: parts of layers that this is made of, or of parameters; none of a layer
        that is not cut.
      behind: the operations that it depends on, as a bit set.
      depth: how many products lie behind it, on the longest way.
      raw: of data: whether no parameter's product lies behind it.
      counted: of data: whether it was made from integers or Booleans.
      chosen: of data: whether it tells which of several integers came (one-hot).
      averaged: 1 if it is a function of sums over data, or of stored statistics; 2 if
        a root was taken of them.
      normed: whether it was normalized, and since then only scaled and shifted.
      carries: loops of whose carry it is a function, entry by entry.
      powers: of parameters: those of them that were exponentiated.
      factors: of parameters: those on either side of a product of parameters.
      odd: of parameters: the operation that they went through and nothing is known of.
      curved: of parameters: whether this is not in proportion to them, as 1 + w is not.
      meeting: the product of data with data that it is a function of, entry by entry.
      stream: of a sum of a branch with what bypasses it: the latter.
    """

    data: bool = False
    leaves: Mapping[int, Axes] = {}
    axes: Axes = ()
    last: frozenset[int] = NONE
    straight: frozenset[int] = NONE
    fresh: frozenset[int] = NONE
    linear: frozenset[int] = NONE
    gains: frozenset[int] = NONE
    parts: Parts = frozenset()
    behind: int = 0
    depth: int = 0
    raw: bool = True
    counted: bool = False
    chosen: bool = False
    averaged: int = 0
    normed: bool = False
    carries: frozenset[Way] = frozenset()
    powers: frozenset[int] = NONE
    factors: tuple[frozenset[int], frozenset[int]] | None = None
    odd: str = ""
    curved: bool = False
    meeting: Meeting | None = None
    stream: Stream | None = None


CONSTANT = Fact()


def add_meetings(one: Fact, other: Fact) -> Meeting | None:
    """Returns the meeting of a sum of two, as of contents and of rotated positions.

    Both are products of queries with keys, and their heads have the entries of both.
    None if they are not two, or do not run along the same sides.
    """
    first, second = one.meeting, other.meeting
    if first is None or second is None or first == second:
        return None
    turned = {}
    for mine, theirs in zip(one.axes, other.axes, strict=True):
        for a, b in zip(mine, theirs, strict=False):
            if a.source in {(first.number, side) for side in (0, 1)}:
                turned[a.source[1]] = b.source
    for near, far in ((0, 1), (1, 0)):
        if turned == {0: (second.number, near), 1: (second.number, far)}:
            return first._replace(
                sides=(
                    first.sides[0] | second.sides[near],
                    first.sides[1] | second.sides[far],
                ),
                parts=(
                    first.parts[0] | second.parts[near],
                    first.parts[1] | second.parts[far],
                ),
                summed=first.summed + second.summed,
            )
    return None


def join(facts: Iterable[Fact], axes: Axes) -> Fact:
    """Returns what is known of data that depends on all of these."""
    data = [fact for fact in facts if fact.data]
    meetings = {fact.meeting for fact in data if fact.meeting is not None}
    behind = 0
    for fact in data:
        behind |= fact.behind
    return Fact(
        data=True,
        axes=axes,
        last=NONE.union(*(fact.last for fact in data)),
        straight=NONE.union(*(fact.straight for fact in data)),
        parts=Parts().union(*(fact.parts for fact in data)),
        behind=behind,
        depth=max(fact.depth for fact in data),
        raw=all(fact.raw for fact in data),
        counted=all(fact.counted for fact in data),
        averaged=min(fact.averaged for fact in data),
        carries=frozenset[Way]().union(*(fact.carries for fact in data)),
        meeting=meetings.pop() if len(meetings) == 1 else None,
    )


def merge(one: Fact, other: Fact, rank: int) -> Fact:
    """Returns what is known of a value that is one of two, as a loop's carry is."""
    if one == other:
        return one
    if one.data or other.data:
        axes = one.axes if one.axes == other.axes else forget_axes(rank)
        both = join([one, other], axes)
        if one.data and other.data:
            return both._replace(
                fresh=one.fresh & other.fresh,
                normed=one.normed and other.normed,
                chosen=one.chosen and other.chosen,
            )
        return both
    return mix([one, other])


def mix(facts: Iterable[Fact]) -> Fact:
    """Returns what is known of a value made of parameters and constants."""
    leaves: dict[int, Axes] = {}
    facts = list(facts)
    for fact in facts:
        for leaf, axes in fact.leaves.items():
            known = leaves.get(leaf, axes)
            if len(known) == len(axes):
                axes = tuple(a or b for a, b in zip(known, axes, strict=True))
            leaves[leaf] = axes
    return Fact(
        leaves=leaves,
        parts=Parts().union(*(fact.parts for fact in facts)),
        averaged=max((fact.averaged for fact in facts), default=0),
        powers=NONE.union(*(fact.powers for fact in facts)),
        factors=next((fact.factors for fact in facts if fact.factors), None),
        odd=next((fact.odd for fact in facts if fact.odd), ""),
        curved=any(fact.curved for fact in facts),
    )


Kind = Literal["product", "lookup", "gain", "bias", "offset", "table", "state", "other"]
GONE: Any = "gone"  # the kind of a use that is no longer believed in


@dataclasses.dataclass(kw_only=True)
class Use:
    """One use of a parameter in the program.

    Attributes:
      kind: how it meets the data.
      leaf: the parameter's number.
      order: the operation's number.
      inputs: its axes that are summed over.
      outputs: its axes that the result has and the data lacks.
      batch: its axes that stack independent weights.
      window: its axes that a convolution slides over.
      groups: blocks of the outputs, each with inputs of its own.
      cuts: parts of the outputs that are used apart, as a `Unit` tells them.
      parts: by role in attention, the parts of the outputs that have it.
      head: of queries and keys, how many outputs a product of the two sums over.
      depth: the number of products on the longest way to this one, itself included.
      behind: the operations that its data depend on, as a bit set.
      activation: the function behind it, by name.
      normed: whether the data are normalized before and after it.
      branch: the number of the residual branch that it lies in; 0 for none.
      roles: what else is known of it.
      of: numbers of the parameters that it belongs to, as a bias to its kernel.
      before: of a product: the uses that are the last products before it.
      mixed: of kernels that data mix: inputs and outputs of the mixture.
      ends: of a product that a stream is written by: what it reaches the stream by and
        scales with it, itself or the gains behind it.
      curved: whether the data meet something that is not in proportion to it.
      reason: why its part cannot be told.
    """

    kind: Kind
    leaf: int
    order: int
    inputs: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()
    batch: tuple[int, ...] = ()
    window: tuple[int, ...] = ()
    groups: int = 1
    cuts: tuple[tuple[int, int, int], ...] = ()
    parts: dict[str, Parts] = dataclasses.field(default_factory=dict)
    head: int = 0
    depth: int = 0
    behind: int = 0
    activation: str | None = None
    normed: tuple[bool, bool] = (False, False)
    branch: int = 0
    roles: set[str] = dataclasses.field(default_factory=set)
    of: frozenset[int] = NONE
    before: frozenset[int] = NONE
    mixed: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    ends: frozenset[int] = NONE
    curved: bool = False
    reason: str = ""


def drop_marks(fact: Fact, **more: Any) -> Fact:
    """Returns a fact of data that was changed: it is no longer a layer's own result."""
    more = {"stream": None, "normed": False, "chosen": False} | more
    return fact._replace(fresh=NONE, linear=NONE, gains=NONE, **more)


@dataclasses.dataclass
class Notes:
    """What a walk over the program has found.

    Attributes:
      uses: of parameters, in order.
      products: the operations that are products, as a bit set.
      curved: the operations that are no linear functions, normalization aside.
      scaled: the operations that multiply by a parameter entry by entry.
      taken: the operations that cut the outputs of a layer, or choose a position.
      derived: the operations that are those of gradients.
      followed: the operations that a product with a parameter depends on.
      branches: by place, the number of a residual branch, and how often it is run.
      stacked: by parameter, the axes that loops run along.
      tokens: parameters that turn out to take the place of data.
    """

    uses: list[Use] = dataclasses.field(default_factory=list)
    products: int = 0
    curved: int = 0
    scaled: int = 0
    taken: int = 0
    derived: int = 0
    followed: int = 0
    branches: dict[Way, tuple[int, int]] = dataclasses.field(default_factory=dict)
    stacked: dict[int, set[int]] = dataclasses.field(default_factory=dict)
    tokens: set[int] = dataclasses.field(default_factory=set)
