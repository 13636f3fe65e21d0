"""Arithmetic on initializers: ``init * c``, ``init / c``, ``init + c`` and their like.

The result is an initializer again, of one draw and then one operation, as in
``jax.jit(lambda key: init(key, shape) * c)``: it compares, prints and pickles by them,
and its moments and its range follow from those of the first.
"""

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, Literal, Self

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit import _check as check
from jaxinit import _value
from jaxinit._extent import Extent, Moments, fit, symmetric

Sign = Literal["*", "/", "+"]
Number = float | complex
_OPERATIONS = {"*": operator.mul, "/": operator.truediv, "+": operator.add}
_NAMES = {"*": "factor", "/": "divisor", "+": "offset"}


class Arithmetic:
    """The operators of `Initializer`.

    ``init - c`` is ``init + -c``, ``-init`` is ``init * -1``: the bits are the same.
    """

    __slots__ = ()
    __array_ufunc__ = None  # numbers of NumPy leave the operation to us

    _build: Any
    arguments: Mapping[str, Any]

    @property
    def is_combined(self) -> bool:
        """Whether operations follow the draw of another initializer."""
        return self._build is combine

    @property
    def _callee(self) -> str:
        return f"({self!r})" if self.is_combined else repr(self)

    @property
    def source(self) -> Self:
        """The initializer that draws, before any operation."""
        first: Self = self.arguments["init"].source if self.is_combined else self
        return first

    def __mul__(self, factor: Number) -> Self:
        made: Self = _operate(self, "*", factor)
        return made

    __rmul__ = __mul__

    def __truediv__(self, divisor: Number) -> Self:
        made: Self = _operate(self, "/", divisor)
        return made

    def __neg__(self) -> Self:
        made: Self = _operate(self, "*", -1)
        return made

    def __pos__(self) -> Self:
        return self

    def __add__(self, offset: Number) -> Self:
        made: Self = _operate(self, "+", offset)
        return made

    __radd__ = __add__

    def __sub__(self, offset: Number) -> Self:
        made: Self = _operate(self, "+", offset, negative=True)
        return made

    def __rsub__(self, offset: Number) -> Self:
        return -self + offset


def _operate(init: Any, sign: Sign, number: Any, negative: bool = False) -> Any:
    """Returns what an operator gives; NotImplemented for what is no number at all."""
    written = "-" if negative else sign
    if isinstance(number, Arithmetic):
        rule = "must be a number: two draws from one key are not independent."
    elif not isinstance(
        number, (int, float, complex, np.generic, np.ndarray, jax.Array)
    ):
        return NotImplemented
    elif isinstance(number, jax.core.Tracer):
        rule = "must be known before jax.jit traces. Write init(key, shape) "
        rule += f"{written} c instead."
    elif np.ndim(number):
        rule = f"must be one number. Write init(key, shape) {written} c instead."
    elif _is_number(number):
        number = np.asarray(number).item()
        is_negated = negative and not isinstance(number, bool)  # which is refused
        return combine(init, sign, -number if is_negated else number)
    else:
        rule = "must be a number."
    name = _NAMES[sign]
    raise TypeError(f"{init!r} {written} {check.show(number)}: the {name} {rule}")


def _is_number(value: Any) -> bool:
    """Returns whether a scalar is a number, and no key, text or date."""
    if isinstance(value, (int, float, complex)):
        return True
    return jnp.issubdtype(value.dtype, np.number) or value.dtype == np.bool_


def combine(init: Any, sign: Sign, number: Number) -> Any:
    """Returns the initializer of a draw that one operation with a number follows."""
    call = f"{init!r} {sign} {check.show(number)}"
    try:
        largest = abs(complex(number))
    except OverflowError:
        largest = math.inf
    if isinstance(number, bool) or not math.isfinite(largest):
        raise ValueError(f"{call}: the number must be finite, and no boolean.")
    if sign == "/" and not number:
        raise ValueError(f"{call}: the divisor must not be 0.")

    def draw(key: Any, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
        if not jnp.issubdtype(dtype, np.inexact):
            rule = "arithmetic on initializers needs a float or complex dtype."
            raise check.Unfit(rule, dtype=dtype.name)
        if isinstance(number, complex) and not jnp.issubdtype(
            dtype, np.complexfloating
        ):
            raise check.Unfit(f"{number} needs a complex dtype.", dtype=dtype.name)
        if init._extent is not None and (held := init._extent(shape)) is not None:
            fit(Extent(*held), dtype, init._random)  # no step may leave the type
        operand = _round(sign, number, dtype)
        made: jax.Array = _OPERATIONS[sign](init._draw(key, shape, dtype), operand)
        return made

    def moments(shape: tuple[int, ...]) -> Moments | None:
        stated = None if init._moments is None else init._moments(shape)
        if stated is None:
            return None
        spread = 1.0 if sign == "+" else _OPERATIONS[sign](1.0, largest)
        mean = _OPERATIONS[sign](stated.mean, number) + 0.0  # not -0.0
        return Moments(mean, stated.variance * spread * spread)

    def extent(shape: tuple[int, ...]) -> Extent | None:
        stated = None if init._extent is None else init._extent(shape)
        return None if stated is None else _move(Extent(*stated), sign, number)

    parts = {"init": init, "sign": sign, "number": number}
    return type(init)(combine, parts, draw, moments, extent, init._random)


# Builders whose parts have the axes of the whole weight, if other sizes.
OF_EQUAL_AXES = frozenset(
    {"blocks", "concatenated", "looks_linear", "masked", "normalized", "repeated"}
)


def change_inner(init: Any, change: Callable[[Any], Any]) -> Any:
    """Changes the initializers that one is made of, where they have its axes."""
    given = init.arguments
    if not init.is_combined and init.name not in OF_EQUAL_AXES:
        return init
    name = "inits" if "inits" in given else "init"
    inner = given[name]
    changed = tuple(map(change, inner)) if name == "inits" else change(inner)
    return init._build(**{**given, name: changed})


def _round(sign: Sign, number: Number, dtype: np.dtype) -> np.ndarray:
    """Returns the number in a dtype, which must not lose it to 0 or infinity."""
    with np.errstate(over="ignore"):
        operand = np.asarray(number, dtype)
        size = abs(operand)
    least = jnp.finfo(dtype).tiny if sign != "+" and number else 0
    if not least <= size <= jnp.finfo(dtype).max:
        rule = f"the {_NAMES[sign]} {number} is no number of this type. Use a wider one"
        raise check.Unfit(f"{rule}, or several steps.", dtype=dtype.name)
    return operand


def _move(held: Extent, sign: Sign, number: Number) -> Extent:
    """Returns the range of a law after an operation."""
    if isinstance(number, complex):
        far = max(map(abs, held.ends), default=0.0) * 2**0.5  # both parts are as large
        end, size = _OPERATIONS[sign](far, abs(number)), held.size
        size = (
            size + abs(number) if sign == "+" else _OPERATIONS[sign](size, abs(number))
        )
        return symmetric(end, size)

    def move(ends: tuple[float, ...]) -> Any:
        moved = [_OPERATIONS[sign](end, number) for end in ends]
        return tuple(sorted(moved[:2])) + tuple(moved[2:])

    size = max(held.size, abs(number)) if sign == "+" else abs(*move((held.size,)))
    bounds = held.bounds if number or sign == "+" else None  # one may be infinite
    return Extent(move(held.ends), size, bounds and move(bounds))


def spell_operation(init: Any, sign: Sign, number: Number) -> str:
    """Returns the operation as text, as Python writes it."""
    is_negative = sign == "*" and number == -1 and not isinstance(number, complex)
    inner, above = repr(init), init.arguments.get("sign")
    if init.is_combined and (above == "+" != sign or is_negative):
        inner = f"({inner})"
    if is_negative:
        return f"-{inner}"
    if sign == "+" and not isinstance(number, complex) and number < 0:
        return f"{inner} - {-number!r}"
    return f"{inner} {sign} {_value.spell(number)}"
