"""What a comparison tries: an initializer for every kernel, or rules by path, as text.

A text has one or more parts, separated by semicolons; the first part that matches a
parameter applies to it:

- ``he_normal()``: an initializer, for every kernel;
- ``**/h/kernel: identity()`` or ``**/hf/bias: 1.0``: an initializer or a number, for
  the parameters whose path matches the pattern, as in `jaxinit.reinit`; for `transfer`
  also ``role:readout: zeros()``, by what they do in the program;
- ``recipes.fixup(6)``: a recipe of `jaxinit.recipes`, called with literals.

A single initializer is read as that initializer, everything else as `Rules`. A
parameter that no part matches stays as the network initializes it.
"""

import ast
import inspect
from dataclasses import dataclass, field
from typing import Any

import jax

from jaxinit import _check as check
from jaxinit._initializer import Initializer
from jaxinit._spec import parse
from jaxinit._structure.result import Structure
from jaxinit.lab._tried import _call
from jaxinit.model import preview, recipes, reinit

_RECIPES = {
    name: function
    for name, function in vars(recipes).items()
    if inspect.isfunction(function) and name != "deepnorm_alpha"
}


@dataclass(frozen=True)
class Rules:
    """Rules for the parameters of a whole model, in place of one initializer.

    Attributes:
      text: what they were read from; equal texts are equal rules.
      rules: pairs (pattern, what), as `jaxinit.reinit` takes them.
      named: the patterns in the text; each must match a parameter.
      structure: what the parameters do in the program, for rules that name roles.
    """

    text: str
    rules: tuple[Any, ...] = field(compare=False)
    named: tuple[str, ...] = field(compare=False)
    structure: Structure | None = field(default=None, compare=False)

    def __repr__(self) -> str:
        return self.text


def read(text: str) -> Initializer | Rules:
    """Reads what a comparison tries; nothing is evaluated.

    Raises:
      ValueError: if a part is not of one of the three kinds.
      Unfit: if a recipe is unknown, or does not take its arguments.
    """
    parts = [part.strip() for part in text.split(";")]
    if len(parts) == 1 and not _is_recipe(text) and ":" not in text:
        return parse(text)
    rules: list[Any] = []
    named, texts = [], []
    for part in parts:
        pattern, colon, what = _split_rule(part)
        if _is_recipe(part):
            rules += _call_recipe(part)
            texts.append(part)
        elif colon and pattern:
            rules.append((pattern, _read_value(what)))
            named.append(pattern)
            texts.append(f"{pattern}: {rules[-1][1]!r}")
        else:
            rules.append((is_kernel, parse(part)))
            texts.append(repr(rules[-1][1]))
    return Rules("; ".join(texts), tuple(rules), tuple(named))


def _split_rule(part: str) -> tuple[str, str, str]:
    """Splits a part at the colon behind its pattern: of a path, or such as role:key."""
    role, colon, rest = part.partition(":")
    if role.strip() == "role" and ":" in rest:
        name, colon, rest = rest.partition(":")
        role = f"role:{name.strip()}"
    return role.strip(), colon, rest.strip()


def is_kernel(path: str, leaf: Any) -> bool:
    """Returns whether a parameter has two axes or more and is not an embedding."""
    return len(leaf.shape) > 1 and "embed" not in path.rpartition("/")[2]


def draw(key: jax.Array, params: Any, init: Initializer | Rules) -> Any:
    """Draws the parameters of a network anew.

    Raises:
      ValueError: if a pattern matches no parameter or is a role, where roles are not
        known, or an initializer does not support a shape.
    """
    if not isinstance(init, Rules):
        return reinit(key, params, [(is_kernel, init)])
    if init.structure is None:
        for pattern in init.named:
            if pattern.startswith("role:"):
                rule = f"{pattern} is for transfer, which reads roles. Give paths."
                raise check.Unfit(rule, initializers=init).at("compare")
    assigned = preview(params, init.rules, structure=init.structure)
    for pattern in init.named:
        if pattern in assigned.unused:
            paths = ", ".join(row.path for row in assigned.rows[:4])
            rule = f"{pattern} fits no parameter that is left for it. "
            rule += f"Paths are such as {paths}."
            raise check.Unfit(rule, initializers=init).at("compare")
    return assigned.draw(key)


def _is_recipe(part: str) -> bool:
    return part.strip().startswith("recipes.")


def _read_value(what: str) -> Any:
    """Reads the value behind a pattern: a number, or an initializer."""
    try:
        return float(what)
    except ValueError:
        return parse(what)


def _call_recipe(part: str) -> list[Any]:
    """Calls a recipe."""
    rule = "a recipe is a call with literals such as recipes.fixup(6)."
    function, positional, named = _call.split_call(rule, initializers=part)
    name = ast.unparse(function).partition(".")[2]
    if name not in _RECIPES:
        near = check.suggestion(name, _RECIPES)
        rule = f"there is no recipe {name!r}.{near}"
        raise check.Unfit(rule, initializers=part)
    try:
        rules: list[Any] = _RECIPES[name](*positional, **named)
    except TypeError as error:
        raise check.Unfit(f"{error}.", initializers=part) from None
    return rules
