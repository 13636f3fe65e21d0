"""Reads calls from text: a known name with literal arguments. No code is evaluated."""

import ast
import cmath
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from jaxinit import _check as check

T = TypeVar("T")


def read_once(reader: Callable[[str], T]) -> Callable[[str], T]:
    """Caches a reader of text; other values, which it refuses, are not cached."""
    cached = functools.cache(reader)

    @functools.wraps(reader)
    def read(spec: str) -> T:
        return cached(spec) if isinstance(spec, str) else reader(spec)

    return read


def read(
    table: Mapping[str, Callable[..., Any]], example: str, skip: int, **argument: Any
) -> tuple[str, dict[str, Any]]:
    """Reads a name, or a call with literals by keyword.

    Args:
      table: the functions that may be called, by name.
      example: a call that the message shows.
      skip: how many first parameters the caller supplies itself.
      **argument: the text, under the name that messages give it.

    Raises:
      Unfit: if the text is not such a call.
    """
    (what,) = argument
    rule = f"{what} must be a name, or a call with literals such as {example!r}."
    function, positional, keywords = split_call(rule, **argument)
    if not isinstance(function, ast.Name) or positional:
        raise check.Unfit(rule, **argument)
    name = function.id
    try:
        check.choice(tuple(table), **{what: name})
    except check.Unfit as error:
        raise check.Unfit(str(error), **argument) from None
    for keyword, value in keywords.items():
        if isinstance(value, (float, complex)) and not cmath.isfinite(value):
            raise check.Unfit(f"{keyword} must be finite.", **argument)
    known = list(inspect.signature(table[name]).parameters)[skip:]
    for keyword in keywords:
        if keyword not in known:
            near = check.suggestion(keyword, known)
            rule = f"{name} takes {', '.join(known) or 'no arguments'}.{near}"
            raise check.Unfit(rule, **argument)
    return name, keywords


def split_call(
    rule: str, **argument: Any
) -> tuple[ast.expr, list[Any], dict[str, Any]]:
    """Splits a call with literal arguments; a name alone is a call without arguments.

    Returns the function as written, its arguments by position, and those by keyword.

    Raises:
      Unfit: with the rule, if the text is not such a call.
    """
    (text,) = argument.values()
    try:
        tree = ast.parse(str(text).strip(), mode="eval").body
        call = tree if isinstance(tree, ast.Call) else ast.Call(tree, [], [])
        positional = [ast.literal_eval(value) for value in call.args]
        named = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        raise check.Unfit(rule, **argument) from None
    return call.func, positional, named
