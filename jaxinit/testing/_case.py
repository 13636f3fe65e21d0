"""The steps of all assertions: check arguments, draw, compare, say what failed."""

import contextlib
import importlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxinit import _check as check
from jaxinit import _value
from jaxinit._import import explain_missing
from jaxinit._initializer import Shape

Init = Callable[..., Any]

LEVEL = 1e-4  # of a hypothesis test: one false alarm in 10 000 keys


class Case(NamedTuple):
    """An initializer under test: draws its weights, and words its failures."""

    call: str
    init: Init
    shape: tuple[int, ...]
    key: jax.Array

    def draw(self, key: jax.Array, dtype: np.dtype | None = None) -> Any:
        """Draws a weight, which must be an array of the shape and dtype."""
        weight: Any = self.init(key, self.shape, *([] if dtype is None else [dtype]))
        if not isinstance(weight, (jax.Array, np.ndarray)):
            rule = f"init must return an array, not a {type(weight).__name__}. "
            rule += "Pass a built initializer, such as he_normal()."
            raise check.Unfit(rule, TypeError, init=self.init)
        for name, asked in {"shape": self.shape, "dtype": dtype}.items():
            came = getattr(weight, name)
            if asked is not None and came != asked:
                rule = f"the weight must have {name} {asked}."
                raise self.failure(rule, f"Its {name} is {came}.")
        return weight

    def entries(self, weight: jax.Array) -> np.ndarray:
        """Returns the entries of a weight, which must be finite."""
        found = widen(weight).ravel()
        if count := int((~np.isfinite(found)).sum()):
            came = f"{count} of {found.size} entries are not."
            raise self.failure("the weight must be finite.", came)
        return found  # [size]

    def failure(self, rule: str, came: str) -> AssertionError:
        """Returns the failure that the user sees."""
        call = f"{self.call}({_value.spell(self.init)}, shape={self.shape})"
        typed = jnp.issubdtype(self.key.dtype, jax.dtypes.prng_key)
        kind = jax.random.key_impl(self.key) if typed else "legacy"
        data = (jax.random.key_data(self.key) if typed else self.key).tolist()
        return AssertionError(f"{call}: {rule} {came} Key: {kind} {data}.")


@contextlib.contextmanager
def name_call(call: str) -> Iterator[None]:
    """Names the call in the errors that checks raise."""
    try:
        yield
    except check.Unfit as error:
        raise error.at(call) from None


@contextlib.contextmanager
def open_case(
    call: str, init: Any, shape: Shape, key: jax.Array | None
) -> Iterator[Case]:
    """Checks the arguments that every assertion takes."""
    with name_call(call):
        if not callable(init):
            rule = "init must be a function of key, shape and dtype."
            raise check.Unfit(rule, TypeError, init=init)
        sizes = check.shape(shape)
        if 0 in sizes:
            raise check.Unfit("a weight without entries shows nothing.", shape=sizes)
        used = jax.random.key(0) if key is None else check.key(key)
        yield Case(call, init, sizes, used)


def import_needed(call: str, module: str) -> Any:
    """Imports a module that only tests need."""
    with explain_missing(call, "testing"):
        return importlib.import_module(module)


def widen(weight: ArrayLike) -> np.ndarray:
    """Converts a weight to float64 or complex128."""
    array = np.asarray(weight)
    many = jnp.issubdtype(array.dtype, np.complexfloating)
    return array.astype(complex if many else float)


def precision(dtype: np.dtype) -> tuple[float, float, float]:
    """Returns eps of the arithmetic, and of one rounding after it: relative, absolute.

    Floats below 32 bits are taken to be drawn in float32 and rounded once.
    """
    if not jnp.issubdtype(dtype, np.inexact):
        return 0.0, 0.0, 0.0
    own, single = jnp.finfo(dtype), jnp.finfo(np.float32)
    if own.bits >= 32:
        return float(own.eps), 0.0, 0.0
    return float(single.eps), float(own.eps), float(own.smallest_subnormal)


def difference(found: ArrayLike, expected: ArrayLike) -> str:
    """Returns how two arrays differ in their bits, or nothing."""
    a, b = np.asarray(found), np.asarray(expected)
    if (a.shape, a.dtype) != (b.shape, b.dtype):
        return f"It is {a.dtype}{list(a.shape)}, not {b.dtype}{list(b.shape)}."
    bits = [np.frombuffer(x.tobytes(), np.uint8).reshape(x.size, -1) for x in (a, b)]
    differ = (bits[0] != bits[1]).any(1)
    if not differ.any():
        return ""
    first = int(differ.argmax())
    index = [int(i) for i in np.unravel_index(first, a.shape)]
    came = f"{differ.sum()} of {a.size} entries differ: "
    return came + f"{index} is {a.flat[first]}, not {b.flat[first]}."
