"""Which parameter of a small model each parameter of a large one stands for."""

import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from jaxinit import _paths
from jaxinit._structure.result import Structure, TracedParameter

_NUMBER = re.compile(r"_?(\d+)")  # Haiku's first layer has none, the second "_1"
Key = TypeVar("Key", bound=Hashable)


class Pair(NamedTuple):
    """A parameter of the target and the one of the base that it stands for.

    Attributes:
      target: its row in the structure of the target.
      base: the row in the structure of the base.
      repeated: how many such layers the target has for each of the base.
    """

    target: TracedParameter
    base: TracedParameter
    repeated: float


def pair_parameters(call: str, base: Structure, target: Structure) -> list[Pair]:
    """Pairs each parameter of the target with its like in the base.

    Like is what has the same path. Where the models differ in depth, it is what has the
    same path but for numbers, the same role, the same kind of branch around it and the
    same place: layers 0 and 1 of four are layer 0 of two.

    Raises:
      ValueError: if a parameter has no like, or one with other axes.
    """
    if base.keys() == target.keys():
        pairs = [Pair(row, base[path], 1.0) for path, row in target.items()]
    else:
        found = _pair_layers(call, base, target)
        pairs = [found[path] for path in target]
    for new, old, _ in pairs:
        if len(new.shape) != len(old.shape):
            raise ValueError(
                f"{call}(target=...): a parameter must have as many axes in both "
                f"models, and {_paths.shown(new.path)} has sizes {new.shape}, where "
                f"{_paths.shown(old.path)} has {old.shape} in the base. Build both by "
                "one function, with other sizes."
            )
    return pairs


def _pair_layers(call: str, base: Structure, target: Structure) -> dict[str, Pair]:
    old, new = (_group(rows.rows, _Signature(rows, True)) for rows in (base, target))
    if old.keys() != new.keys():
        old, new = (
            _group(rows.rows, _Signature(rows, False)) for rows in (base, target)
        )
    _check_both(call, old, new)
    found: dict[str, Pair] = {}
    for signature, rows in new.items():
        by_number = _number_alike(old[signature], rows)
        few, many = (_group(each, by_number) for each in (old[signature], rows))
        _check_both(call, few, many)
        for numbers, layers in many.items():
            mine = _pair_in_order(few[numbers], layers)
            found |= {pair.target.path: pair for pair in mine}
    return found


def _group(
    rows: Iterable[TracedParameter], key: Callable[[TracedParameter], Key]
) -> dict[Key, list[TracedParameter]]:
    groups: dict[Key, list[TracedParameter]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


class _Signature:
    """What is the same in layers of a kind: the path without numbers, and roles.

    Attention and feed-forward layers are different kinds of branches. So are a block
    that doubles the width and one that does not: a kernel's outputs over its inputs,
    which stay where both grow alike.
    """

    def __init__(self, rows: Structure, by_size: bool):
        """Takes the model's parameters, and whether sizes tell branches apart."""
        self._rows = rows
        self._kinds: dict[int, set[tuple[str, float]]] = {}
        for row in rows.values():
            if row.branch and row.fans:
                size = row.fans[1] / row.fans[0] if by_size else 1.0
                kinds = self._kinds.setdefault(row.branch, set())
                kinds |= {(role, size) for role in row.roles}

    def __call__(self, row: TracedParameter) -> Hashable:
        owners = sorted(self._rows[path].role for path in row.of if path in self._rows)
        kind = tuple(sorted(self._kinds.get(row.branch, ())))
        return _NUMBER.sub("", row.path), row.roles, tuple(owners), kind


def _number_alike(
    few: Sequence[TracedParameter], many: Sequence[TracedParameter]
) -> Callable[[TracedParameter], Hashable]:
    """Returns the numbers in a path that both models have, such as a stage's."""
    numbers = [[_NUMBER.findall(row.path) for row in rows] for rows in (few, many)]
    lengths = {len(each) for rows in numbers for each in rows}
    places = range(max(lengths)) if len(lengths) == 1 else ()
    alike = [
        place
        for place in places
        if {each[place] for each in numbers[0]} == {each[place] for each in numbers[1]}
    ]
    return lambda row: tuple(_NUMBER.findall(row.path)[place] for place in alike)


def _pair_in_order(
    few: Sequence[TracedParameter], many: Sequence[TracedParameter]
) -> Iterable[Pair]:
    """Pairs layers by their place: whole branches, and in each what it has."""
    repeated = len(many) / len(few)
    old, new = (_group(_sort(rows), lambda row: row.branch) for rows in (few, many))
    for mine, theirs in _spread(list(old.values()), list(new.values())):
        for one, other in _spread(mine, theirs):
            yield Pair(other, one, repeated)


def _sort(rows: Iterable[TracedParameter]) -> list[TracedParameter]:
    return sorted(rows, key=lambda row: (row.order is None, row.order or 0))


Item = TypeVar("Item")


def _spread(few: Sequence[Item], many: Sequence[Item]) -> Iterable[tuple[Item, Item]]:
    """Pairs the i-th of many with one of the few, in proportion."""
    for place, item in enumerate(many):
        yield few[place * len(few) // len(many)], item


def _check_both(
    call: str,
    old: Mapping[Key, list[TracedParameter]],
    new: Mapping[Key, list[TracedParameter]],
) -> None:
    for mine, theirs, where in ((new, old, "target"), (old, new, "base")):
        if alone := next((key for key in mine if key not in theirs), None):
            row = mine[alone][0]
            raise ValueError(
                f"{call}(target=...): each parameter must have its like in both "
                f"models, and {_paths.shown(row.path)}, whose role is {row.role}, has "
                f"it in the {where} alone. Build both by one function, with other "
                "sizes; where depth grows, the base needs at least one layer of each "
                "kind."
            )
