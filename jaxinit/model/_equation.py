"""Equations of a traced program: which draw, which are equal, how one is evaluated."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

RANDOM = {
    "random_bits",
    "random_fold_in",
    "random_seed",
    "random_split",
    "threefry2x32",
}
# Of which every entry is the same, however devices share the work: no sums.
_DIVISIBLE = RANDOM | {
    *("abs", "acos", "acosh", "add", "and", "asin", "asinh", "atan", "atan2", "atanh"),
    *("bitcast_convert_type", "broadcast_in_dim", "cbrt", "ceil", "clamp", "complex"),
    *("concatenate", "conj", "convert_element_type", "copy", "copy_p", "cos", "cosh"),
    *("digamma", "div", "dynamic_slice", "dynamic_update_slice", "eq", "erf"),
    *("erf_inv", "erfc", "exp", "exp2", "expm1", "floor", "gather", "ge", "gt", "imag"),
    *("integer_pow", "iota", "is_finite", "le", "lgamma", "log", "log1p", "logistic"),
    *("lt", "max", "min", "mul", "ne", "neg", "nextafter", "not", "or", "pad"),
    *("platform_index", "pow", "random_unwrap", "random_wrap", "real", "rem"),
    *("reshape", "rev", "round", "rsqrt", "select_n", "shift_left"),
    *("shift_right_arithmetic", "shift_right_logical", "sign", "sin", "sinh", "slice"),
    *("sqrt", "square", "squeeze", "stop_gradient", "sub", "tan", "tanh", "transpose"),
    *("xor", "sharding_constraint", "optimization_barrier"),
}


def divisible(eqn: core.JaxprEqn) -> bool:
    """Returns whether values do not depend on how devices share the work."""
    inner = list(bodies(eqn))
    if not inner:
        return eqn.primitive.name in _DIVISIBLE
    return all(divisible(one) for body in inner for one in body.eqns)


def draws(eqn: core.JaxprEqn) -> bool:
    """Returns whether an equation draws random numbers or derives keys."""
    return eqn.primitive.name in RANDOM or any(
        draws(inner) for body in bodies(eqn) for inner in body.eqns
    )


def bodies(eqn: core.JaxprEqn) -> Iterator[core.Jaxpr]:
    """Yields the programs that an equation runs."""
    yield from core.jaxprs_in_params(eqn.params)


def is_key(aval: Any) -> bool:
    """Returns whether a value is a typed key, or an array of such."""
    return bool(jnp.issubdtype(aval.dtype, jax.dtypes.prng_key))


@functools.cache
def generator(dtype: Any) -> str:
    """Returns the name of the generator that typed keys are for."""
    found: list[str] = []
    key = jax.ShapeDtypeStruct((), dtype)
    jax.eval_shape(lambda key: found.append(str(jax.random.key_impl(key))), key)
    return found[0]


class Speller:
    """Spells what equations do, equal for equal ones.

    Programs within equations are spelt once: JAX shares them between equal calls.
    """

    def __init__(self) -> None:
        """Begins with nothing spelt."""
        self._texts: dict[int, tuple[Any, Any]] = {}

    def equation(self, eqn: core.JaxprEqn) -> Any:
        """Spells an equation, operands aside."""
        params = eqn.params.items()
        return eqn.primitive, tuple(
            (name, self._value(value)) for name, value in params
        )

    def constant(self, atom: Any) -> Any:
        """Spells a constant operand, which has a val and an aval."""
        return _exact(np.asarray(atom.val)), str(atom.aval)

    def _value(self, value: Any) -> Any:
        if isinstance(value, (tuple, list)):
            return tuple(map(self._value, value))
        if isinstance(value, np.ndarray):
            return _exact(value)
        if not isinstance(value, (core.ClosedJaxpr, core.Jaxpr)):
            return str(value)
        if id(value) not in self._texts:
            consts = getattr(value, "consts", ())
            # The value is kept, so that no other takes its id.
            self._texts[id(value)] = value, (str(value), tuple(map(id, consts)))
        return self._texts[id(value)][1]


def _exact(array: np.ndarray) -> Any:
    return array.dtype.name, array.shape, array.tobytes()


def bind(eqn: core.JaxprEqn, values: list[Any]) -> list[Any]:
    """Evaluates one equation."""
    params = eqn.primitive.get_bind_params(eqn.params)
    with eqn.ctx.manager:
        results = eqn.primitive.bind(*values, **params)
    return list(results) if eqn.primitive.multiple_results else [results]
