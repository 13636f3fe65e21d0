"""What a setting declares: its rule, its help, and its option of the command line.

A rule takes a setting's name and value, and returns the value to store or raises
`Unfit`. The functions below are or make the rules that several settings share.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jaxinit import _check as check

Rule = Callable[[str, Any], Any]


class Option(NamedTuple):
    """All about a setting but its name, type and default.

    Attributes:
      help: what the setting is, for the command line and for the documentation.
      group: the heading under which ``jaxinit compare --help`` lists it.
      rule: takes the name and a value; returns the value to store, or raises `Unfit`.
      notes: what the documentation adds to the help.
      flag: the flag on the command line; by default the name.
      read: reads a word of the command line; `setting` reads the default's type.
      metavar: the placeholder for a value in the help; by default the name.
      shown: the default in words; `setting` writes its value.
      repeated: whether the flag is repeated, once for each of several values.
      fitted: whether `compare` fits the setting to the others unless it is given.
      told: for a setting that the table's caption mentions unless it has its default:
        its place among those mentioned, and a format for its value.
      usual: further values that the caption does not mention.
    """

    help: str
    group: str
    rule: Rule
    notes: str = ""
    flag: str = ""
    read: Callable[[str], Any] = str
    metavar: str | None = None
    shown: str = ""
    repeated: bool = False
    fitted: bool = False
    told: tuple[int, str] | None = None
    usual: tuple[Any, ...] = ()


def setting(default: Any, help: str, group: str, rule: Rule, **more: Any) -> Any:
    """Makes a field of the settings."""
    number = type(default) in (int, float)
    shown = f"{default:g}" if number else str(default)
    known = {"shown": shown, "read": type(default) if number else str}
    option = Option(help=help, group=group, rule=rule, **known | more)
    return dataclasses.field(default=default, metadata={"option": option})


def any_value(name: str, value: Any) -> Any:
    """Accepts every value: several settings are checked together."""
    return value


def one_of(words: Sequence[str]) -> Rule:
    """Accepts one of the words."""
    return lambda name, value: check.choice(words, **{name: value})


def count(most: int, least: int = 1) -> Rule:
    """Accepts an integer.

    The largest is far above what a machine can train, so that a slip of the finger is
    reported before it fills the memory.
    """

    def rule(name: str, value: Any) -> Any:
        if check.at_least(least, **{name: value}) > most:
            raise check.Unfit(f"{name} must be {most} or below.", **{name: value})
        return value

    return rule


def not_negative(name: str, value: Any) -> Any:
    """Accepts a number, 0 or above."""
    check.not_negative(**{name: value})
    return value


def share(name: str, value: Any) -> Any:
    """Accepts a number, at least 0 and below 1."""
    if not 0 <= check.real(**{name: value}) < 1:
        raise check.Unfit(f"{name} must lie in [0, 1).", **{name: value})
    return value


def or_none(rule: Rule) -> Rule:
    """Accepts None, and what another rule accepts."""
    return lambda name, value: None if value is None else rule(name, value)


def read_by(reader: Callable[[str], Any]) -> Rule:
    """Accepts text that a reader can read; the setting stays text."""

    def rule(name: str, value: Any) -> Any:
        reader(value)
        return value

    return rule
