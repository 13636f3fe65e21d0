"""Patterns: which parameters a rule is for."""

import fnmatch
import glob
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeGuard

import numpy as np

from jaxinit import _check as check
from jaxinit import _paths
from jaxinit._structure.roles import ROLES

Pattern = str | re.Pattern[str] | tuple[Any, ...] | Callable[..., Any]

ROLE = "role:"  # begins a pattern that matches by what a parameter does
_SIZE = (int, np.integer, type(None), type(...))


def is_pattern(pattern: Any) -> bool:
    """Returns whether this is a glob, a regular expression, sizes or a function."""
    if isinstance(pattern, tuple):
        return pattern.count(...) < 2 and all(isinstance(x, _SIZE) for x in pattern)
    return (
        bool(pattern)
        if isinstance(pattern, str)
        else (isinstance(pattern, re.Pattern) or callable(pattern))
    )


def is_role(pattern: Any) -> TypeGuard[str]:
    """Returns whether a pattern matches by what a parameter does in the program."""
    return isinstance(pattern, str) and pattern.startswith(ROLE)


def check_role(pattern: Any, structure: Any) -> None:
    """Raises `Unfit` if a pattern names a role that is unknown, or cannot be told."""
    if not is_role(pattern):
        return
    check.choice((*ROLES, "kernel"), role=pattern.removeprefix(ROLE))
    if structure is None:
        rule = "a role is read from the program: pass structure="
        raise check.Unfit(rule + "jaxinit.structure(model, x).", pattern=pattern)


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
    try:
        return bool(pattern(path, leaf))
    except Exception as error:  # of any type: the function is the user's
        raise ValueError(
            "a function as a pattern takes (path, leaf) and returns whether it "
            f"matches, and here it raised {check.brief(error)}"
        ) from error


def literal(path: str) -> str:
    """Returns the glob that matches this path alone; a name, at any depth."""
    return glob.escape(path) or "*"


def _glob(parts: Sequence[str], globs: Sequence[str]) -> bool:
    """Returns whether globs match parts, in time that grows with the product of both.

    `ends` holds the numbers of parts that the globs so far can match.
    """
    ends = {0}
    for each in globs:
        if each == "**":
            ends = set(range(min(ends), len(parts) + 1))
        else:
            ends = {
                end + 1
                for end in ends
                if end < len(parts) and fnmatch.fnmatchcase(parts[end], each)
            }
        if not ends:
            return False
    return len(parts) in ends


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
            return _paths.shown(pattern)
        case re.Pattern():
            return f"re.compile({pattern.pattern!r})"
        case tuple():
            sizes = ("…" if x is ... else "*" if x is None else str(x) for x in pattern)
            return f"({'×'.join(sizes)})"
    return getattr(pattern, "__name__", None) or check.show(pattern)
