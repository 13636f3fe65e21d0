"""Shapes as words: 16x64, 16,64 and 16 64 are one shape, in every command."""

import re
from collections.abc import Sequence

HELP = "written 16x64, 16,64 or 16 64"
_OPTIONS = ("--shape", "--input")
_BETWEEN = re.compile(r" ?[x,] ?| ")
_SIZE = re.compile(r"[-+]?\d\S*|[x,]")  # may be a part of a shape
_SEVERAL = re.compile(r"\d+(?:(?: [x,]|,)? \d+)+(?::\S+)?")


def split_sizes(text: str) -> list[str]:
    """Splits a shape into its sizes, which are not read yet."""
    return _BETWEEN.split(text)


def join_sizes(words: Sequence[str]) -> list[str]:
    """Joins sizes that are words of their own, so that they end where the shape ends.

    In ``--input 16 64 package.module:Model`` the model is no size. Words that make no
    shape are left to the parser, which says what is wrong.
    """
    joined: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        joined.append(word)
        if word not in _OPTIONS or not rest or rest[0].startswith("--"):
            continue
        count = 1
        while count < len(rest) and _SIZE.fullmatch(rest[count]):
            count += 1
        shape = " ".join(rest[:count])
        if count == 1 or _SEVERAL.fullmatch(shape):
            joined[-1] = f"{word}={shape}"
            del rest[:count]
    return joined
