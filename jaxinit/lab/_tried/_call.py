"""Calls as text: a name of a table with literal arguments. Nothing is evaluated."""

import ast
import cmath
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from jaxinit import _check as check

T = TypeVar("T")


def once(reader: Callable[[str], T]) -> Callable[[str], T]:
    """Lets each text be read once; what is no text is refused every time."""
    kept = functools.cache(reader)

    @functools.wraps(reader)
    def read(spec: str) -> T:
        return kept(spec) if isinstance(spec, str) else reader(spec)

    return read


def read(
    table: Mapping[str, Callable[..., Any]], example: str, given: int, **argument: Any
) -> tuple[str, dict[str, Any]]:
    """Reads a name, or a call with literals by keyword.

    Args:
      table: what may be called, by name.
      example: a call that the message shows.
      given: how many first arguments a spec leaves to the caller.
      **argument: the text, under the name that messages give it.

    Raises:
      Unfit: if the text is no such call.
    """
    (what,) = argument
    rule = f"{what} must be a name, or a call with literals such as {example!r}."
    function, positional, found = parts(rule, **argument)
    if not isinstance(function, ast.Name) or positional:
        raise check.Unfit(rule, **argument)
    name = function.id
    try:
        check.choice(tuple(table), **{what: name})
    except check.Unfit as error:
        raise check.Unfit(str(error), **argument) from None
    for each, value in found.items():
        if isinstance(value, (float, complex)) and not cmath.isfinite(value):
            raise check.Unfit(f"{each} must be finite.", **argument)
    known = list(inspect.signature(table[name]).parameters)[given:]
    for each in found:
        if each not in known:
            near = check.suggestion(each, known)
            rule = f"{name} takes {', '.join(known) or 'no arguments'}.{near}"
            raise check.Unfit(rule, **argument)
    return name, found


def parts(rule: str, **argument: Any) -> tuple[ast.expr, list[Any], dict[str, Any]]:
    """Takes a call with literals apart; a name alone is one without arguments.

    Returns the function as written, its arguments by position, and those by keyword.

    Raises:
      Unfit: if the text, the argument, is no such call; it says the rule.
    """
    (text,) = argument.values()
    try:
        tree = ast.parse(str(text).strip(), mode="eval").body
        call = tree if isinstance(tree, ast.Call) else ast.Call(tree, [], [])
        positional = [ast.literal_eval(given) for given in call.args]
        named = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        raise check.Unfit(rule, **argument) from None
    return call.func, positional, named
