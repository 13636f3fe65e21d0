"""Argument checks, and the one form that messages take: call - rule - what came - cure.

A check raises `Unfit`, which knows the argument and the rule but not the call that was
being made. The three places that know it (the builder, the initializer's call, a public
function) turn it into a ValueError or TypeError by `Unfit.at`.
"""

import difflib
import math
import operator
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np

_LONGEST = 300  # characters of an exception that is not ours
Failure = TypeVar("Failure", bound=Exception)


class Unfit(Exception):
    """An argument that breaks a rule."""

    def __init__(self, rule: str, kind: type[Exception] = ValueError, **argument: Any):
        """Takes the rule, the exception to become, and the one argument by name."""
        super().__init__(rule)
        ((name, value),) = argument.items()
        self.name = name
        self.value = show(value)
        self.kind = kind

    def at(self, call: str, *before: str, cure: str = "") -> Exception:
        """Returns the exception that the user sees.

        Args:
          call: what was called, such as ``he_normal``.
          before: the positional arguments; those that precede the argument are shown,
            so that it appears in its place: ``he_normal()(key, shape=(5,))``.
          cure: text to put behind the rule, such as what to write instead.
        """
        index = before.index(self.name) if self.name in before else 0
        shown = ", ".join([*before[:index], f"{self.name}={self.value}"])
        error = self.kind(f"{call}({shown}): {self}{cure}")
        error.unfit = self  # type: ignore[attr-defined]  # for a call around this one
        return error


def show(value: Any) -> str:
    """Returns `repr(value)`, short enough for one line."""
    if isinstance(value, (jax.Array, np.ndarray)):
        return f"<{type(value).__name__} {value.dtype}{list(value.shape)}>"
    if isinstance(value, type):
        return value.__name__
    first, *more = repr(value).splitlines() or [""]
    text = first + "..." * bool(more)
    return text if len(text) <= 60 else text[:57] + "..."


def brief(error: BaseException) -> str:
    """Returns an exception in one line: its type, and the first line of its text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    message = lines[0] if lines else ""
    if len(message) > _LONGEST:
        message = message[: _LONGEST - 3] + "..."
    return f"{type(error).__name__}: {message}"


def retell(error: Failure, words: Mapping[str, str]) -> Failure:
    """Returns the error of an inner call in the words of the one that a person made.

    Args:
      error: of the inner call.
      words: what it says by what it should say, each replaced once.
    """
    text = str(error)
    for theirs, ours in words.items():
        text = text.replace(theirs, ours, 1)
    return type(error)(text)


def suggestion(word: str, words: Iterable[str]) -> str:
    """Returns " Did you mean 'x'?" for the nearest of the words, or nothing."""
    near = difflib.get_close_matches(word, list(words), n=2, cutoff=0.6)
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""


def misspelt(given: Iterable[str], words: Collection[str]) -> str:
    """Returns a suggestion for the first of the given words that is none of these."""
    return next((suggestion(word, words) for word in given if word not in words), "")


def choice(words: Sequence[str], **argument: Any) -> str:
    """Returns the argument, one of the words."""
    ((name, value),) = argument.items()
    if isinstance(value, str) and value in words:
        return value
    near = suggestion(value, words) if isinstance(value, str) else ""
    rule = f"{name} must be one of {', '.join(map(repr, words))}.{near}"
    raise Unfit(rule, **argument)


def real(**argument: Any) -> float:
    """Returns the argument as a finite Python float."""
    ((name, value),) = argument.items()
    numeric = isinstance(value, (int, float, np.generic, np.ndarray, jax.Array))
    if (
        not numeric
        or isinstance(value, bool)
        or np.ndim(value)
        or np.iscomplexobj(value)
    ):
        raise Unfit(f"{name} must be a real number.", TypeError, **argument)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise Unfit(f"{name} must be finite.", **argument)
    return number


def not_negative(**argument: Any) -> float:
    """Returns the argument as a finite Python float, 0 or above."""
    ((name, _),) = argument.items()
    number = real(**argument)
    if number < 0:
        raise Unfit(f"{name} must be 0 or above.", **argument)
    return number


def squared(**argument: Any) -> float:
    """Returns the square of the argument, a number of 0 or above."""
    ((name, _),) = argument.items()
    number = not_negative(**argument)
    square = number * number
    if number and not 0 < square < math.inf:
        rule = f"{name} is squared, and must be 0 or between 1e-154 and 1e+154."
        raise Unfit(rule, **argument)
    return square


def fraction(**argument: Any) -> float:
    """Returns the argument as a Python float in [0, 1]."""
    ((name, _),) = argument.items()
    number = real(**argument)
    if not 0 <= number <= 1:
        raise Unfit(f"{name} must lie between 0 and 1.", **argument)
    return number


def axes(**argument: Any) -> tuple[int, ...]:
    """Returns an axis or a sequence of axes as a tuple."""
    ((name, value),) = argument.items()
    try:
        many = isinstance(value, (tuple, list))
        found = tuple(map(operator.index, value if many else (value,)))
    except TypeError:
        rule = f"{name} must be an axis or a tuple of axes, as integers."
        raise Unfit(rule, TypeError, **argument) from None
    if len(set(found)) < len(found):
        raise Unfit(f"{name} names an axis twice.", **argument)
    return found


def axis(**argument: Any) -> int:
    """Returns the argument as one axis."""
    ((name, value),) = argument.items()
    if isinstance(value, (tuple, list)):
        raise Unfit(f"{name} must be one axis.", TypeError, **argument)
    return axes(**argument)[0]


def shape(value: Any) -> tuple[int, ...]:
    """Returns a shape as a tuple of Python integers; an integer is a vector's shape."""
    try:
        many = isinstance(value, (str, bytes, Sequence)) or np.ndim(value)
        sizes = tuple(map(operator.index, value if many else (value,)))
    except TypeError:
        sizes = None
    if sizes is None or isinstance(value, (bool, bytes)):
        rule = "shape must be a tuple of integers, such as (256, 512)."
        if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(value)):
            rule += " Within jax.jit it must be static: static_argnames='shape'."
        raise Unfit(rule, TypeError, shape=value) from None
    if any(size < 0 for size in sizes):
        raise Unfit("sizes must be 0 or above.", shape=sizes)
    if any(size >= 2**63 for size in sizes):
        raise Unfit("sizes must be below 2^63.", shape=sizes)
    return sizes


def is_shape(value: Any) -> bool:
    """Returns whether a value is a shape."""
    try:
        shape(value)
    except Unfit:
        return False
    return True


def is_key(value: Any) -> bool:
    """Returns whether a value is a PRNG key, or an array of keys."""
    if not isinstance(value, (jax.Array, np.ndarray)):
        return False
    typed = jax.numpy.issubdtype(value.dtype, jax.dtypes.prng_key)
    return typed or (value.dtype == np.uint32 and value.shape[-1:] in ((2,), (4,)))


def key(value: Any) -> jax.Array:
    """Returns one PRNG key.

    Typed (`jax.random.key`) or legacy (`jax.random.PRNGKey`).
    """
    if not is_key(value):
        rule = "key must be a PRNG key. Write jax.random.key(0) for the seed 0."
        raise Unfit(rule, TypeError, key=value)
    if value.ndim != (
        0 if jax.numpy.issubdtype(value.dtype, jax.dtypes.prng_key) else 1
    ):
        rule = "key must be one key, not an array of keys. "
        rule += "Use jax.vmap(lambda key: init(key, shape))(keys)."
        raise Unfit(rule, key=value)
    return value if isinstance(value, jax.Array) else jax.numpy.asarray(value)


def begins_with_key(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Returns whether arguments begin with a key, or None, and a shape."""
    if "key" in kwargs and "shape" in kwargs:
        return True
    if not args:
        return False
    second = args[1] if len(args) > 1 else kwargs.get("shape")
    if isinstance(second, (tuple, list)):
        return isinstance(args[0], (jax.Array, np.ndarray, type(None)))
    return is_key(args[0]) and is_shape(second)


def key_first(value: Any) -> None:
    """Refuses a call that begins with the shape, as in Haiku and Keras."""
    if isinstance(value, (tuple, list)):
        rule = "the key comes first, and then the shape. "
        rule += f"Write init(jax.random.key(0), {show(value)})."
        raise Unfit(rule, TypeError, key=value)


def integer(**argument: Any) -> int:
    """Returns the argument as an integer."""
    ((name, value),) = argument.items()
    if isinstance(value, bool):
        raise Unfit(f"{name} must be an integer.", TypeError, **argument)
    try:
        return operator.index(value)
    except TypeError:
        raise Unfit(f"{name} must be an integer.", TypeError, **argument) from None


def at_least(least: int, **argument: Any) -> int:
    """Returns the argument as an integer of at least this size."""
    ((name, _),) = argument.items()
    number = integer(**argument)
    if number < least:
        raise Unfit(f"{name} must be {least} or above.", **argument)
    return number


def sizes(**argument: Any) -> None:
    """Checks that the argument is an integer of 1 or above, or a sequence of them."""
    ((name, value),) = argument.items()
    for size in value if isinstance(value, (tuple, list)) else (value,):
        try:
            at_least(1, **{name: size})
        except Unfit as error:
            raise Unfit(str(error), error.kind, **argument) from None


def boolean(**argument: Any) -> None:
    """Checks that the argument is True or False."""
    ((name, value),) = argument.items()
    if not isinstance(value, bool):
        raise Unfit(f"{name} must be True or False.", TypeError, **argument)


def kernel(sizes: tuple[int, ...]) -> None:
    """Checks that a shape fits the kernel of a convolution in 1 to 3 dimensions."""
    if len(sizes) not in (3, 4, 5):
        raise Unfit("needs a kernel of 3, 4 or 5 axes.", shape=sizes)
