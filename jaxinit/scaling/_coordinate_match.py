"""Matches what is measured in models of several sizes, by paths."""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from jaxinit import _check as check
from jaxinit.scaling._slopes import Along

# Where they come in order, behind the layers that they are named after.
BEHIND = {"attention": 0.5, "stream": 0.5}


class Name(NamedTuple):
    """By which a thing is found at every size."""

    path: str
    kind: str
    role: str


Listed = tuple[int, Sequence[tuple[Name, Any, float]]]


def match(models: Sequence[Listed], along: Along) -> list[dict[Name, list[Any]]]:
    """Finds what is measured at every size.

    Over widths all paths are the same. Over depths the numbers of blocks differ: they
    become a star, and what has equal paths and roles then goes by one name.

    Args:
      models: the size of each, and triples (name, source, order) of what it has.
      along: what grows.

    Returns:
      For each model the sources of each name, in order.

    Raises:
      Unfit: if a model lacks what another has.
    """
    roles = {(name.path, name.kind): name.role for name, *_ in models[0][1]}
    star = _make_star([{name.path for name, *_ in listed} for _, listed in models])
    named: list[dict[Name, list[Any]]] = []
    for _, listed in models:
        sources: dict[Name, list[Any]] = {}
        for name, source, _ in sorted(listed, key=lambda item: item[2]):
            if along == "depth":
                name = name._replace(path=star(name.path))
            else:
                name = name._replace(role=roles.get((name.path, name.kind), ""))
            sources.setdefault(name, []).append(source)
        named.append(sources)
    for (size, _), own in zip(models, named, strict=True):
        if other := set(own) ^ set(named[0]):
            rule = "must make models of the same layers at every size, and "
            rule += f"{min(other).path} is not in both {models[0][0]} and {size}."
            raise check.Unfit(rule, factory="a factory")
    return named


def _make_star(sizes: Sequence[set[str]]) -> Callable[[str], str]:
    """Makes the function that writes a star for numbers of which sizes have others."""
    numbers: list[dict[str, set[str]]] = []
    for paths in sizes:
        seen: dict[str, set[str]] = {}
        for path in paths:
            for stem, number in _list_numbers(path):
                seen.setdefault(stem, set()).add(number)
        numbers.append(seen)
    stems = {stem for seen in numbers for stem in seen}
    grown = {s for s in stems if any(x.get(s) != numbers[0].get(s) for x in numbers)}

    def star(path: str) -> str:
        parts = path.split("/")
        for place, part in enumerate(parts):
            if _write_stem(path.split("/")[: place + 1]) in grown:
                parts[place] = re.sub(r"\d+", "*", part, count=1)
        return "/".join(parts)

    return star


def _list_numbers(path: str) -> Iterator[tuple[str, str]]:
    """Yields the numbers in the parts of a path, each behind what stands before it."""
    parts = path.split("/")
    for place, part in enumerate(parts):
        if found := re.search(r"\d+", part):
            yield _write_stem(parts[: place + 1]), found.group()


def _write_stem(parts: Sequence[str]) -> str:
    """Writes the beginning of a path without its numbers."""
    return re.sub(r"\d+", "*", "/".join(parts))
