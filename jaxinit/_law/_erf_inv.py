"""`erf_inv` and `log1p` of float32: XLA's values to the last bit, computed faster.

XLA calls a function for `log1p` that works on at most eight numbers at a time, however
many the processor could take. Here both are written out, by the same operations, so
that whole loops are vectorized as wide as possible. Functions of `lax` trace faster
than operators.

`erf_inv` has two polynomials, one of them for the tails. A normal number that is
truncated at two standard deviations never reaches the tails: the other polynomial alone
gives the same number, faster still.
"""

import collections
import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax

from jaxinit._jaxpr.evaluation import walk
from jaxinit._jaxpr.primitives import BITS

MIDDLE = 0.99  # up to here -log(1 - x^2) < 4; the tails begin at 5
# Coefficients of the powers of -log(1 - x^2) - 2.5 and, in the tails,
# sqrt(-log(1 - x^2)) - 3, the highest first. Giles. Approximating the erfinv function.
# 2010.
_MIDDLE = (
    *(2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087),
    *(-0.00125372503, -0.00417768164, 0.246640727, 1.50140941),
)
_TAILS = (
    *(-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773),
    *(-0.0076224613, 0.00943887047, 1.00167406, 2.83297682),
)
# log(1 + x) = x - x^2 / 2 + x^3 P(x) / Q(x) for |x| < sqrt(2) - 1. Moshier. Cephes
# mathematical library. 1984.
_P = (
    *(4.5270000862445199635215e-5, 4.9854102823193375972212e-1),
    *(6.5787325942061044846969, 29.911919328553073277375, 60.949667980987787057556),
    *(57.112963590585538103336, 20.039553499201281259648),
)
_Q = (
    *(1.0, 15.062909083469192043167, 83.047565967967209469434),
    *(221.76239823732856465394, 309.09872225312059774938),
    *(216.42788614495947685003, 60.118660497603843919306),
)
_F32 = np.float32
_NEAR = math.sqrt(2) - 1
Bounds = tuple[float, float]


def log1p(x: jax.Array, zero: jax.Array) -> jax.Array:
    """Computes `lax.log1p` of float32.

    Args:
      x: numbers.
      zero: 0 as uint32, in a form that hides its value from the compiler. Taken to bits
        and back, a product is rounded; else it may be fused with the sum that follows.
    """
    square = lax.mul(x, x)
    cubic = lax.mul(lax.mul(x, square), lax.div(_polynomial(_P, x), _polynomial(_Q, x)))
    bits = lax.bitcast_convert_type(cubic, np.uint32)
    cubic = lax.bitcast_convert_type(lax.bitwise_xor(bits, zero), np.float32)
    near = lax.add(x, lax.add(lax.mul(square, _F32(-0.5)), cubic))
    is_near = lax.lt(lax.abs(x), _F32(_NEAR))
    return lax.select(is_near, near, lax.log(lax.add(x, _F32(1))))


def erf_inv(x: jax.Array, zero: jax.Array, tails: bool = True) -> jax.Array:
    """Computes `lax.erf_inv` of float32.

    Args:
      x: numbers.
      zero: as for `log1p`.
      tails: whether there may be numbers beyond -MIDDLE and MIDDLE.
    """
    w = lax.neg(log1p(lax.neg(lax.mul(x, x)), zero))
    made = lax.mul(_polynomial(_MIDDLE, lax.sub(w, _F32(2.5))), x)
    if not tails:
        return made
    far = lax.mul(_polynomial(_TAILS, lax.sub(lax.sqrt(w), _F32(3))), x)
    made = lax.select(lax.lt(w, _F32(5)), made, far)
    is_one = lax.eq(lax.abs(x), _F32(1))
    return lax.select(is_one, lax.mul(x, _F32(np.inf)), made)


def _polynomial(coefficients: Sequence[float], x: jax.Array) -> jax.Array:
    highest, *rest = map(_F32, coefficients)
    made = lax.full_like(x, highest)
    for coefficient in rest:
        made = lax.add(coefficient, lax.mul(made, x))
    return made


def written_out(
    steps: Sequence[Any],
) -> dict[int, Callable[[jax.Array, jax.Array], jax.Array]]:
    """Returns functions for the steps of a law that are written out here.

    They go by the number of the step's output; each takes the arguments of `log1p`.

    Args:
      steps: as in `jaxinit._law.laws.Law`.
    """
    known = _find_bounds(steps)
    found: dict[int, Callable[[jax.Array, jax.Array], jax.Array]] = {}
    for step in steps:
        name, out = step.eqn.primitive.name, step.eqn.outvars[0].aval
        if out.dtype != np.float32 or not out.shape:
            continue
        if name == "log1p":
            found[step.output] = log1p
        elif name == "erf_inv":
            bounds = known.get(step.invars[0]) or (math.inf,)
            tails = max(map(abs, bounds)) >= MIDDLE
            found[step.output] = functools.partial(erf_inv, tails=tails)
    return found


def _find_bounds(steps: Sequence[Any]) -> dict[Any, Bounds | None]:
    """Finds bounds on the values of steps, up to rounding.

    They go by the number of the step's output; None if they are not known.
    """

    def bound(step: Any, given: list[Bounds | None]) -> list[Bounds | None]:
        name = step.eqn.primitive.name
        if name == BITS:
            return [(0.0, 2.0 ** step.eqn.params["bit_width"] - 1)]
        if name not in _RULES or None in given:
            return [None]
        made = _RULES[name](*given)
        return [made if all(map(math.isfinite, made)) else None]

    known: dict[Any, Bounds | None] = collections.defaultdict(lambda: None)
    walk(steps, known, bound, _read_number)
    return known


def _read_number(fixed: Any) -> Bounds | None:
    number = np.asarray(fixed.val)
    if number.ndim or np.iscomplexobj(number):
        return None
    return float(number), float(number)


def _span(values: Iterable[float]) -> Bounds:
    each = list(values)
    return min(each), max(each)


def _as_float(x: Bounds) -> Bounds:
    """Returns bounds of words taken as float32: positive ones keep their order."""
    if x[1] >= 2**31:
        return -math.inf, math.inf
    low, high = np.asarray(x, np.uint32).view(np.float32)
    return float(low), float(high)


_RULES: dict[str, Callable[..., Bounds]] = {
    "add": lambda x, y: (x[0] + y[0], x[1] + y[1]),
    "bitcast_convert_type": _as_float,
    "convert_element_type": lambda x: x,
    "div": lambda x, y: _span(a / b if b else math.inf for a in x for b in y),
    "erf": lambda x: (math.erf(x[0]), math.erf(x[1])),
    "max": lambda x, y: (max(x[0], y[0]), max(x[1], y[1])),
    "min": lambda x, y: (min(x[0], y[0]), min(x[1], y[1])),
    "mul": lambda x, y: _span(a * b for a in x for b in y),
    "or": lambda x, y: (max(x[0], y[0]), x[1] + y[1]),  # of words
    "shift_right_logical": lambda x, y: (x[0] // 2 ** y[1], x[1] // 2 ** y[0]),
    "sub": lambda x, y: (x[0] - y[1], x[1] - y[0]),
}
