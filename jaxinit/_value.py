"""Arguments as values: what they may be, when two are equal, how they are written."""

import contextlib
import functools
import hashlib
import importlib
import io
import math
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxinit import _check as check

_LARGE = 64  # entries; an array with more stays an array, others become tuples


def freeze(name: str, value: Any) -> Any:
    """Returns an argument as an immutable value."""
    if name == "dtype" and value is not None:
        return as_dtype(value, canonical=False).name
    if isinstance(value, jax.Array) and jnp.issubdtype(
        value.dtype, jax.dtypes.prng_key
    ):
        rule = f"{name} cannot be a PRNG key: it is given to the initializer, as "
        raise check.Unfit(rule + "init(key, shape).", TypeError, **{name: value})
    if isinstance(value, jax.core.Tracer):
        rule = f"{name} must be known when the initializer is built, not traced. "
        rule += "Multiply the drawn array instead."
        raise check.Unfit(rule, TypeError, **{name: value})
    if isinstance(value, (np.generic, np.ndarray, jax.Array)):
        array = np.array(value)
        if array.size and array.size <= _LARGE:
            return freeze(name, array.tolist())
        array.flags.writeable = False
        return array
    if isinstance(value, (list, tuple, range)):
        return tuple(freeze(name, item) for item in value)
    try:
        hash(value)
    except TypeError:
        rule = f"{name} cannot be a {type(value).__name__}: it has no fixed value. "
        rule += "Use numbers, strings, tuples, arrays or functions."
        raise check.Unfit(rule, TypeError, **{name: value}) from None
    return value


def token(value: Any) -> Any:
    """Returns the value by which a frozen argument is compared.

    Numbers compare by value whatever their type (1, 1.0, True), except that 0.0 and
    -0.0 differ and nan equals itself.
    """
    if isinstance(value, tuple):
        return tuple(map(token, value))
    if isinstance(value, complex):
        return "complex", value.real.hex(), value.imag.hex()
    if isinstance(value, (bool, int, float)):
        with contextlib.suppress(OverflowError):
            if math.isnan(value) or float(value) == value:
                return "number", float(value).hex()
        return "number", value
    if isinstance(value, functools.partial):  # compares by identity
        parts = value.func, value.args, tuple(sorted(value.keywords.items()))
        with contextlib.suppress(TypeError):
            hash(parts)
            return "partial", *map(token, parts)
    if isinstance(value, np.ndarray):
        digest = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        return "array", value.shape, value.dtype.name, digest
    return value


def spell(value: Any) -> str:
    """Returns a frozen argument as a literal, where it has one."""
    if isinstance(value, tuple):
        return f"({', '.join(map(spell, value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, np.ndarray):
        return f"<array {value.dtype.name}{list(value.shape)}>"
    if isinstance(value, complex):  # repr would lose the sign of a zero
        return f"complex({value.real!r}, {value.imag!r})"
    if isinstance(value, functools.partial):
        named = (f"{name}={spell(item)}" for name, item in value.keywords.items())
        parts = ", ".join([*map(spell, (value.func, *value.args)), *named])
        return f"partial({parts})"
    return getattr(value, "__qualname__", None) or repr(value)  # a function has a name


def pickled(arguments: dict[str, Any]) -> bytes:
    """Pickles frozen arguments, functions by name."""
    with io.BytesIO() as file:
        _Pickler(file).dump(arguments)
        return file.getvalue()


class _Pickler(pickle.Pickler):
    """Pickles functions that JAX has compiled like any others: by module and name."""

    def reducer_override(self, value: Any) -> Any:
        name = getattr(value, "__qualname__", "")
        if callable(value) and isinstance(name, str) and value is not _named:
            for module in ("jax.nn", "jax.numpy", getattr(value, "__module__", "")):
                with contextlib.suppress(ImportError, AttributeError, ValueError):
                    if _named(module, name) is value:
                        return _named, (module, name)
        return NotImplemented


def _named(module: str, name: str) -> Any:
    """Returns the object that a dotted name means in a module."""
    return functools.reduce(getattr, name.split("."), importlib.import_module(module))


def as_dtype(value: DTypeLike, canonical: bool = True) -> np.dtype:
    """Returns a dtype.

    If canonical, it is the one that JAX would use under the current x64 setting.
    """
    if isinstance(value, type) and value in (bool, int, float, complex):
        return jnp.result_type(value)
    try:
        # NumPy reads a language of its own from strings with punctuation, and takes
        # arrays for their dtype.
        odd = isinstance(value, (jax.Array, np.ndarray, np.generic))
        odd |= isinstance(value, str) and not value.isidentifier()
        found = None if odd else np.dtype(value)
    except (TypeError, ValueError):
        found = None
    if found is None or not _is_numeric(found):
        rule = "dtype must be a number type, such as jnp.float32."
        raise check.Unfit(rule, TypeError, dtype=value)
    if found.kind == "V" and not _is_known(found):
        raise check.Unfit("dtype is not a type that XLA has.", TypeError, dtype=value)
    # Only 64-bit types change: JAX narrows them without x64, with a warning.
    return jnp.zeros((), found).dtype if canonical and found.itemsize >= 8 else found


def _is_numeric(dtype: np.dtype) -> bool:
    """Returns whether a dtype is one of JAX's, of numbers or booleans."""
    number = jnp.issubdtype(dtype, np.number) or dtype == np.bool_
    return number and dtype.isnative and hasattr(jnp, dtype.name)


@functools.cache
def _is_known(dtype: np.dtype) -> bool:
    """Returns whether XLA has a dtype; it lacks some small ones that JAX names."""
    try:
        with jax.ensure_compile_time_eval():
            zeros = jnp.broadcast_to(jnp.zeros((), dtype), (2,))
            return bool(zeros.dtype == dtype)
    except (jax.errors.JaxRuntimeError, TypeError, ValueError):
        return False
