"""Specs: initializers as text. Reading one evaluates nothing but arithmetic on them."""

import ast
import math
import operator
import warnings
from collections.abc import Callable
from typing import Any

from jaxinit import _check as check
from jaxinit._initializer import REGISTRY, Initializer

_LONGEST = 4000  # characters; a spec with a long array is longer than anyone writes
_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Add: operator.add,
    ast.Sub: operator.sub,
}
_NUMBERS = {"inf": math.inf, "nan": math.nan}


def parse(spec: str) -> Initializer:
    """Reads an initializer from its spec, as `repr` prints it.

    The text is a call of a registered builder with literal arguments: numbers, strings,
    booleans, None, inf, nan, tuples, lists, and other specs. Without arguments the
    parentheses may be left out. It may be multiplied and divided by numbers, and moved
    by them: ``"he_normal() * 0.5"``. Nothing else is evaluated.

    Args:
      spec: the text, such as ``"he_normal(gain='gelu')"``.

    Returns:
      The initializer: ``parse(repr(init)) == init`` for literal arguments.

    Raises:
      ValueError: if the text is malformed, the builder unknown, or an argument refused.
      TypeError: if spec is not a string.

    Example:
      >>> parse("normal(stddev=0.02)").moments((3, 4)).variance
      0.0004
    """
    if not isinstance(spec, str):
        raise TypeError(f"parse(spec={check.show(spec)}): spec must be a string.")
    where = f"parse({check.show(spec)})"
    if len(spec) > _LONGEST:
        raise ValueError(f"{where}: a spec has at most {_LONGEST} characters.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # from Python's parser, about odd literals
            tree = ast.parse(spec.strip(), mode="eval").body
        calls = ast.Call, ast.Name, ast.Attribute
        found = None
        if any(isinstance(node, calls) for node in ast.walk(tree)):
            found = _read(_call(tree))
        if not isinstance(found, Initializer):
            raise ValueError("a spec is a call, like he_normal(gain='gelu').")
        return found
    except SyntaxError as error:
        raise ValueError(f"{where}: malformed ({error.msg}).") from None
    except (RecursionError, MemoryError):
        raise ValueError(f"{where}: nested too deeply.") from None
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where}: {error}") from None


def _call(node: ast.expr) -> ast.expr:
    """Adds the parentheses that may be left out behind a builder's name."""
    is_name = isinstance(node, (ast.Name, ast.Attribute))
    is_number = isinstance(node, ast.Name) and node.id in _NUMBERS
    return ast.Call(node, [], []) if is_name and not is_number else node


def _read(node: ast.AST) -> Any:
    """Reads a literal or a call of a builder."""
    match node:
        case ast.Constant(value) if not isinstance(value, (bytes, type(...))):
            return value
        case ast.Tuple(items) | ast.List(items):
            return tuple(map(_read, items))
        case ast.Name(name) if name in _NUMBERS:
            return _NUMBERS[name]
        case ast.UnaryOp(ast.USub() | ast.UAdd() as sign, operand):
            value = _read_operand(operand)
            return -value if isinstance(sign, ast.USub) else value
        case ast.BinOp(left, sign, right) if type(sign) in _OPERATORS:
            first, second = _read_operand(left), _read_operand(right)
            is_imaginary = isinstance(second, complex) and isinstance(
                right, ast.Constant
            )
            is_complex = is_imaginary and isinstance(sign, (ast.Add, ast.Sub))
            if is_complex or Initializer in (type(first), type(second)):
                return _OPERATORS[type(sign)](first, second)
        case ast.Call(ast.Name("complex"), [real, imag], []):
            return complex(_number(real), _number(imag))
        case ast.Call(ast.Name() | ast.Attribute() as function, args, keywords):
            name = ast.unparse(function)
            if name not in REGISTRY:
                near = check.suggestion(name, REGISTRY)
                raise ValueError(f"there is no initializer {name!r}.{near}")
            if any(keyword.arg is None for keyword in keywords):
                raise ValueError("** is not a literal.")
            named = {str(keyword.arg): _read(keyword.value) for keyword in keywords}
            given = tuple(map(_read, args))
            if REGISTRY[name].is_call(given, named):  # type: ignore[attr-defined]
                raise ValueError(
                    f"a spec draws nothing: {name} takes no key and shape."
                )
            return REGISTRY[name](*given, **named)
    cure = f" A string needs quotes: {node.id!r}." if isinstance(node, ast.Name) else ""
    raise ValueError(f"{ast.unparse(node)!r} is not a literal.{cure}")


def _read_operand(node: ast.expr) -> Any:
    value = _read(_call(node))
    return value if isinstance(value, Initializer) else _number(node)


def _number(node: ast.AST) -> Any:
    value = _read(node)
    if isinstance(value, bool) or not isinstance(value, (int, float, complex)):
        raise ValueError(f"{ast.unparse(node)!r} is not a number.")
    return value
