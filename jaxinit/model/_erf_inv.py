"""`erf_inv` of numbers that are known to stay away from -1 and 1.

Of each entry XLA computes the logarithm that chooses between two polynomials, one of
them for the tails, and both arguments and all coefficients by that choice. A normal
number that is truncated at two standard deviations never reaches the tails: with the
other polynomial alone it is the same number sooner, and a smaller program.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

MIDDLE = 0.99  # up to here -log(1 - x^2) < 4; XLA's tails begin at 5
# Of the powers of -log(1 - x^2) - 2.5, the highest first. Giles. Approximating the
# erfinv function. 2010.
_COEFFICIENTS = (
    *(2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087),
    *(-0.00125372503, -0.00417768164, 0.246640727, 1.50140941),
)
Bounds = tuple[float, float]


def erf_inv(x: jax.Array) -> jax.Array:
    """Computes `lax.erf_inv` of float32 between -MIDDLE and MIDDLE, to the last bit."""
    w = -lax.log1p(-x * x) - np.float32(2.5)
    highest, *rest = map(np.float32, _COEFFICIENTS)
    polynomial = jnp.full_like(x, highest)
    for coefficient in rest:
        polynomial = coefficient + polynomial * w
    return polynomial * x


def in_middle(steps: Sequence[Any]) -> set[int]:
    """Returns the outputs of a law's steps that `erf_inv` above may compute.

    Args:
      steps: as in `jaxinit.model._laws.Law`.
    """
    known = _bounds(steps)
    return {
        step.output
        for step in steps
        if step.eqn.primitive.name == "erf_inv"
        and step.eqn.outvars[0].aval.dtype == np.float32
        and max(map(abs, known.get(step.inputs[0], (math.inf,)))) < MIDDLE
    }


def _bounds(steps: Sequence[Any]) -> dict[int, Bounds]:
    """Finds between which numbers the values of steps lie, but for rounding.

    By the number of the step's output, of those for which it is known.
    """
    known: dict[int, Bounds] = {}
    for step in steps:
        name = step.eqn.primitive.name
        if name == "random_bits":
            known[step.output] = 0.0, 2.0 ** step.eqn.params["bit_width"] - 1
            continue
        given = [
            known.get(v) if isinstance(v, int) else _constant(v) for v in step.inputs
        ]
        if name in _RULES and None not in given:
            found = _RULES[name](*given)
            if all(map(math.isfinite, found)):
                known[step.output] = found
    return known


def _constant(fixed: Any) -> Bounds | None:
    number = np.asarray(fixed.val)
    return None if number.ndim else (float(number), float(number))


def _ends(values: Iterable[float]) -> Bounds:
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
    "div": lambda x, y: _ends(a / b if b else math.inf for a in x for b in y),
    "erf": lambda x: (math.erf(x[0]), math.erf(x[1])),
    "max": lambda x, y: (max(x[0], y[0]), max(x[1], y[1])),
    "min": lambda x, y: (min(x[0], y[0]), min(x[1], y[1])),
    "mul": lambda x, y: _ends(a * b for a in x for b in y),
    "or": lambda x, y: (max(x[0], y[0]), x[1] + y[1]),  # of words
    "shift_right_logical": lambda x, y: (x[0] // 2 ** y[1], x[1] // 2 ** y[0]),
    "sub": lambda x, y: (x[0] - y[1], x[1] - y[0]),
}
