"""What a setting knows of itself: its words, its rule, and its option.

A rule takes a setting's name and value, and returns the value to hold or raises
`Unfit`. The functions below make those that several settings share.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jaxinit import _check as check

Rule = Callable[[str, Any], Any]


class Option(NamedTuple):
    """What is known of a setting beside its name, type and default.

    Attributes:
      help: what it is, for the command line and for the documentation.
      group: under which ``jaxinit compare --help`` lists it.
      rule: takes the name and a value; returns the value to hold, or raises `Unfit`.
      notes: what the documentation says beside the help.
      flag: of the command line; by default the name.
      read: reads a word of the command line; by default as of the default's type.
      metavar: what stands for a value in the help; by default the name.
      shown: the default in words; by default its value.
      repeated: whether the flag is given once for each of several values.
      fitted: whether `compare` fits the setting to the others unless it is given.
      told: if the caption of the table tells of values other than the default, its
        place among those told, and how.
      usual: values that it does not tell of either.
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
    """Takes every value: the rule is one of several settings together."""
    return value


def one_of(words: Sequence[str]) -> Rule:
    """Takes one of the words."""
    return lambda name, value: check.choice(words, **{name: value})


def count(most: int, least: int = 1) -> Rule:
    """Takes an integer.

    The largest is far above what can be trained here: a slip is answered before the
    memory is full.
    """

    def rule(name: str, value: Any) -> Any:
        if check.at_least(least, **{name: value}) > most:
            raise check.Unfit(f"{name} must be {most} or below.", **{name: value})
        return value

    return rule


def not_negative(name: str, value: Any) -> Any:
    """Takes a number, 0 or above."""
    check.not_negative(**{name: value})
    return value


def share(name: str, value: Any) -> Any:
    """Takes a number, at least 0 and below 1."""
    if not 0 <= check.real(**{name: value}) < 1:
        raise check.Unfit(f"{name} must lie in [0, 1).", **{name: value})
    return value


def or_none(rule: Rule) -> Rule:
    """Takes None beside what another rule takes."""
    return lambda name, value: None if value is None else rule(name, value)


def read_by(reader: Callable[[str], Any]) -> Rule:
    """Takes a text that a reader can read; the experiment has what it makes of it."""

    def rule(name: str, value: Any) -> Any:
        reader(value)
        return value

    return rule
