"""Paths that differ in numbers alone, as those of layers, written as one."""

import itertools
import re
from collections.abc import Sequence

_NUMBER = re.compile(r"\d+")


def remove_numbers(path: str) -> str:
    """Returns a path without its numbers."""
    return _NUMBER.sub("#", path)


def fold_paths(paths: Sequence[str]) -> list[str]:
    """Writes paths that differ in numbers alone as one: ``"layer_0–11/kernel"``.

    Numbers of layers that do not make up a range stay apart.
    """
    groups: dict[str, list[str]] = {}
    for path in dict.fromkeys(paths):
        groups.setdefault(remove_numbers(path), []).append(path)
    return [text for mine in groups.values() for text in _fold(mine)]


def _fold(paths: Sequence[str]) -> list[str]:
    numbers = [tuple(map(int, _NUMBER.findall(path))) for path in paths]
    every = [sorted(set(column)) for column in zip(*numbers, strict=True)]
    if len(paths) == 1 or {*itertools.product(*every)} != {*numbers}:
        return list(paths)
    between = iter(map(_write_range, every))
    return [_NUMBER.sub(lambda match: next(between), paths[0])]


def _write_range(numbers: Sequence[int]) -> str:
    first, last = numbers[0], numbers[-1]
    if len(numbers) > 1 and last - first == len(numbers) - 1:
        return f"{first}–{last}"
    return ",".join(map(str, numbers))
