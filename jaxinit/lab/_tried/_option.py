"""What a setting declares: its rule, its help, and its option of the command line.

A rule takes a setting's name and value, and returns the value to store or raises
`Unfit`. The functions below are or make the rules that several settings share.
"""

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

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


def several(name: str, values: Any) -> Any:
    """Accepts one value or more, none of them twice."""
    if not values:
        raise check.Unfit(f"{name} must not be empty.", **{name: values})
    if len(set(values)) < len(values):
        raise check.Unfit(f"{name} has one twice.", **{name: values})
    return values


def rates(name: str, values: Any) -> tuple[float, ...]:
    """Takes learning rates in a sequence or an array; returns a tuple of numbers."""
    if isinstance(values, (np.ndarray, jax.Array)):
        values = values.tolist()
    if not isinstance(values, (tuple, list)):
        rule = "learning_rates must be a sequence of numbers."
        raise check.Unfit(rule, TypeError, learning_rates=values)
    for rate in values:
        if check.real(learning_rates=rate) <= 0:
            raise check.Unfit("learning rates must be above 0.", learning_rates=rate)
        with np.errstate(over="ignore"):
            held = np.float32(float(rate))
        if held == 0 or np.isinf(held):
            rule = "learning rates must be numbers that float32 holds."
            raise check.Unfit(rule, learning_rates=rate)
    plain = (r if isinstance(r, (int, float)) else float(r) for r in values)
    distinct: tuple[float, ...] = several(name, tuple(plain))
    return distinct


def read_patience(word: str) -> int:
    """Reads a number of steps; 0 is refused, as it would mean no early stopping."""
    steps = int(word)
    if steps == 0:
        rule = "must be 1 or above; leave it out to train every run to the end"
        raise argparse.ArgumentTypeError(rule)
    return steps
