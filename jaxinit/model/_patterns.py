"""Patterns: which parameters a rule is for."""

import fnmatch
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxinit import _check as check

Pattern = str | re.Pattern[str] | tuple[Any, ...] | Callable[..., Any]

_SIZE = (int, np.integer, type(None), type(...))


def is_pattern(pattern: Any) -> bool:
    """Returns whether this is a glob, an expression, sizes or a function."""
    if isinstance(pattern, tuple):
        return pattern.count(...) < 2 and all(isinstance(x, _SIZE) for x in pattern)
    return (
        bool(pattern)
        if isinstance(pattern, str)
        else (isinstance(pattern, re.Pattern) or callable(pattern))
    )


def matches(pattern: Pattern, path: str, leaf: Any) -> bool:
    """Returns whether a pattern matches a parameter."""
    match pattern:
        case str():
            deep = pattern if "/" in pattern else f"**/{pattern}"
            return _glob(path.split("/"), deep.split("/"))
        case re.Pattern():
            return pattern.search(path) is not None
        case tuple():
            return _sizes(tuple(leaf.shape), pattern)
    return bool(pattern(path, leaf))


def _glob(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern:
        return not parts
    head, *rest = pattern
    if head == "**":
        return any(_glob(parts[i:], rest) for i in range(len(parts) + 1))
    return (
        bool(parts) and fnmatch.fnmatchcase(parts[0], head) and _glob(parts[1:], rest)
    )


def _sizes(shape: tuple[int, ...], pattern: tuple[Any, ...]) -> bool:
    if ... in pattern:
        place = pattern.index(...)
        missing = len(shape) - len(pattern) + 1
        pattern = (*pattern[:place], *[None] * missing, *pattern[place + 1 :])
        if missing < 0:
            return False
    fits = (want is None or want == size for want, size in zip(pattern, shape))  # noqa: B905
    return len(shape) == len(pattern) and all(fits)


def spelt(pattern: Pattern) -> str:
    """Writes a pattern for people."""
    match pattern:
        case str():
            return pattern
        case re.Pattern():
            return f"re.compile({pattern.pattern!r})"
        case tuple():
            sizes = ("…" if x is ... else "*" if x is None else str(x) for x in pattern)
            return f"({'×'.join(sizes)})"
    return getattr(pattern, "__name__", None) or check.show(pattern)
