"""The central form: a builder is a decorated function, an initializer is a value.

A builder checks its arguments and returns a closure ``draw(key, shape, dtype)``. The
decorator `initializer` turns the closure into an `Initializer`, which compares, hashes,
pickles and prints by the builder and its arguments, and which handles in one place what
every draw needs: default dtype, low precision, keys, shapes, sharding and zero sizes.
"""

import ast
import contextlib
import functools
import hashlib
import inspect
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, ParamSpec, Protocol, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec, Sharding
from jax.typing import DTypeLike

from jaxinit import _check as check

P = ParamSpec("P")
Shape = Sequence[int]
Placement = Sharding | PartitionSpec | None


class Moments(NamedTuple):
    """Mean and variance of an entry of a weight, over keys and entries."""

    mean: float
    variance: float


Draw = Callable[[jax.Array, tuple[int, ...], np.dtype], jax.Array]
Drawn = Draw | tuple[Draw, Callable[[tuple[int, ...]], Moments]]


class Builder(Protocol[P]):
    """A function that checks arguments and returns an `Initializer`."""

    __name__: str

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> "Initializer": ...


class FixedBuilder(Protocol[P]):
    """A builder without randomness: ``zeros()`` builds, ``zeros(key, shape)`` fills."""

    __name__: str

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> "Initializer": ...
    @overload
    def __call__(
        self,
        key: Any,
        shape: Shape,
        dtype: DTypeLike | None = None,
        out_sharding: Placement = None,
    ) -> jax.Array: ...


REGISTRY: dict[str, Callable[..., "Initializer"]] = {}


class Initializer:
    """An initializer: ``init(key, shape, dtype=None, out_sharding=None) -> Array``.

    Built by a builder, never directly. Two are equal when they come from one builder
    and equal arguments, so that a Flax module that holds one can be a static argument
    of `jax.jit` without compiling twice. `repr` is the spec, which `parse` reads back.

    Attributes:
      name: the builder's name.
      arguments: every argument by name, defaults included.
    """

    __slots__ = (
        "_build",
        "_draw",
        "_hash",
        "_moments",
        "_random",
        "_token",
        "arguments",
    )

    _build: Callable[..., "Initializer"]
    _draw: Draw
    _hash: int
    _moments: Callable[[tuple[int, ...]], Moments] | None
    _random: bool
    _token: Any
    arguments: Mapping[str, Any]

    def __init__(
        self,
        build: Callable[..., "Initializer"],
        arguments: Mapping[str, Any],
        draw: Draw,
        moments: Callable[[tuple[int, ...]], Moments] | None,
        random: bool,
    ):
        """Is called by the decorator."""
        token = (
            build,
            tuple((name, _token(value)) for name, value in arguments.items()),
        )
        for name, value in {
            "_build": build,
            "_draw": draw,
            "_hash": hash(token),
            "_moments": moments,
            "_random": random,
            "_token": token,
            "arguments": arguments,
        }.items():
            object.__setattr__(self, name, value)

    @property
    def name(self) -> str:
        """The builder's name."""
        return self._build.__name__

    def __call__(
        self,
        key: jax.Array,
        shape: Shape,
        dtype: DTypeLike | None = None,
        out_sharding: Placement = None,
    ) -> jax.Array:
        """Draws a weight.

        Args:
          key: one PRNG key, typed or legacy, of any implementation; ignored by the
            initializers without randomness.
          shape: sizes of the weight; a size may be 0.
          dtype: dtype of the weight; by default the builder's ``dtype``, else float32,
            or float64 where x64 is enabled. Floats below 32 bits are drawn in float32
            and rounded once.
          out_sharding: where the weight goes. The values do not depend on it.

        Returns:
          An array of the shape and dtype.

        Raises:
          ValueError: if the initializer cannot take the shape or dtype.
          TypeError: if the key, shape or dtype is none.
        """
        try:
            sizes = check.shape(shape)
            kind = self._dtype(dtype)
            used = check.key(key) if self._random else None
            with _mesh_of(out_sharding, used):
                weight: jax.Array = _fill(self, used, sizes, kind, out_sharding)
            return weight
        except check.Unfit as error:
            raise error.at(repr(self), "key", "shape", "dtype") from None

    def _dtype(self, dtype: DTypeLike | None) -> np.dtype:
        """Returns the dtype of the weight, as JAX would give it."""
        if dtype is None:
            dtype = self.arguments.get("dtype")
        found = _as_dtype(float if dtype is None else dtype)
        if self._random and not jnp.issubdtype(found, np.inexact):
            raise check.Unfit(
                "random weights need a float or complex dtype.", dtype=found.name
            )
        return found

    def moments(self, shape: Shape) -> Moments | None:
        r"""Returns the mean and variance that the law gives an entry, over many keys.

        Args:
          shape: sizes of the weight.

        Returns:
          The moments, which for complex weights are those of w and \|w\|^2, or None
          when the builder states none.

        Raises:
          ValueError: if the initializer cannot take the shape.
        """
        try:
            sizes = tuple(max(size, 1) for size in check.shape(shape))
            return None if self._moments is None else self._moments(sizes)
        except check.Unfit as error:
            raise error.at(f"{self!r}.moments") from None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Initializer) and self._token == other._token

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        signature = inspect.signature(self._build)
        given = (
            f"{name}={_spell(value)}"
            for name, value in self.arguments.items()
            if _token(value)
            != _token(_freeze(name, signature.parameters[name].default))
        )
        return f"{self.name}({', '.join(given)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self._build, dict(self.arguments))

    def __copy__(self) -> "Initializer":
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "Initializer":
        return self

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{self!r} is immutable: build another one.")

    __delattr__ = __setattr__  # type: ignore[assignment]


def _rebuild(
    build: Callable[..., Initializer], arguments: dict[str, Any]
) -> Initializer:
    return build(**arguments)


@functools.partial(jax.jit, static_argnums=(0, 2, 3, 4), inline=True)
def _fill(
    init: Initializer,
    key: jax.Array | None,
    shape: tuple[int, ...],
    dtype: np.dtype,
    out_sharding: Placement,
) -> jax.Array:
    """Draws in at least 32 bits, rounds once, and places the result."""
    narrow = jnp.issubdtype(dtype, np.floating) and jnp.finfo(dtype).bits < 32
    wide = np.dtype(np.float32) if narrow else dtype

    def draw(key: jax.Array | None) -> jax.Array:
        if 0 in shape and init._random:
            # The draw still checks the shape, of sizes that its formulas can divide by.
            nonzero = tuple(max(size, 1) for size in shape)
            jax.eval_shape(lambda key: init._draw(key, nonzero, wide), key)
            return jnp.zeros(shape, dtype)
        return init._draw(key, shape, wide).astype(dtype)  # type: ignore[arg-type]

    explicit = _mesh(out_sharding).explicit_axes if out_sharding is not None else ()
    if explicit:
        place = jax.sharding.auto_axes(draw, axes=explicit, out_sharding=out_sharding)
        placed: jax.Array = place(key)
        return placed
    if out_sharding is None:
        return draw(key)
    placed = jax.lax.with_sharding_constraint(draw(key), out_sharding)
    return placed


def _mesh(out_sharding: Placement) -> Mesh | AbstractMesh:
    """Returns the mesh that a placement speaks of; empty where it speaks of none."""
    if isinstance(out_sharding, NamedSharding):
        return out_sharding.mesh
    return jax.sharding.get_abstract_mesh()


def _mesh_of(
    out_sharding: Placement, key: Any
) -> contextlib.AbstractContextManager[Any]:
    """Enters the mesh of a sharding, unless one is entered or there is none."""
    if out_sharding is None:
        return contextlib.nullcontext()
    if not isinstance(out_sharding, (Sharding, PartitionSpec)):
        raise check.Unfit(
            "out_sharding must be a jax.sharding.Sharding or PartitionSpec.",
            TypeError,
            out_sharding=out_sharding,
        )
    entered = not jax.sharding.get_abstract_mesh().empty
    if isinstance(out_sharding, PartitionSpec) and not entered:
        rule = "a PartitionSpec needs a mesh. Pass a NamedSharding, or call inside "
        raise check.Unfit(
            rule + "`with jax.set_mesh(mesh):`.", out_sharding=out_sharding
        )
    mesh = _mesh(out_sharding)
    if entered or isinstance(key, jax.core.Tracer) or not isinstance(mesh, Mesh):
        return contextlib.nullcontext()
    return jax.set_mesh(mesh)


@overload
def initializer(builder: Callable[P, Drawn], /) -> Builder[P]: ...
@overload
def initializer(*, random: bool) -> Callable[[Callable[P, Drawn]], FixedBuilder[P]]: ...


def initializer(builder: Any = None, /, *, random: bool = True) -> Any:
    """Turns a function that returns a draw into a builder of `Initializer` values.

    The function checks its arguments and returns ``draw(key, shape, dtype)``, where
    dtype has at least 32 bits. It may return ``(draw, moments)``, with
    ``moments(shape)`` the mean and variance of an entry. An argument named ``dtype`` is
    the default dtype of the weights. The builder is registered by its name, for
    `parse`.

    Args:
      builder: the function. Its arguments must be numbers, strings, None, arrays,
        functions, initializers, or tuples of these.
      random: whether a key is used. Without, every dtype is allowed, the key is ignored
        and passed as None, and the builder itself may be called as
        ``builder(key, shape)`` where it needs no arguments.

    Returns:
      The builder: same arguments, documentation and name.

    Raises:
      ValueError: if another module has registered a builder of that name.

    Example:
      >>> @initializer
      ... def laplace(scale=1.0, dtype=None):
      ...     def draw(key, shape, dtype):
      ...         unit = jax.random.laplace(key, shape, dtype)
      ...         return unit * np.asarray(scale, dtype)
      ...     return draw
      >>> laplace(scale=0.5)
      laplace(scale=0.5)
      >>> laplace(0.5) == parse("laplace(scale=0.5)")
      True
    """
    if builder is None:
        return functools.partial(_decorate, random=random)
    return _decorate(builder, random=random)


def _decorate(builder: Callable[..., Drawn], *, random: bool) -> Callable[..., Any]:
    signature = inspect.signature(builder)
    name = builder.__name__

    @functools.wraps(builder)
    def build(*args: Any, **kwargs: Any) -> Any:
        if _is_call(args, kwargs):
            if not random:
                return build()(*args, **kwargs)
            raise TypeError(
                f"{name}(key, shape): {name} builds an initializer, which then draws. "
                f"Write {name}(...)(key, shape)."
            )
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(
                f"{name}({', '.join(signature.parameters)}): {error}."
            ) from None
        bound.apply_defaults()
        try:
            arguments = {k: _freeze(k, v) for k, v in bound.arguments.items()}
            drawn = builder(**arguments)
        except check.Unfit as error:
            raise error.at(name) from None
        if isinstance(drawn, Initializer):  # composed of another builder
            return Initializer(
                build, arguments, drawn._draw, drawn._moments, drawn._random
            )
        draw, moments = drawn if isinstance(drawn, tuple) else (drawn, None)
        return Initializer(build, arguments, draw, moments, random)

    build.__signature__ = signature.replace(return_annotation=Initializer)  # type: ignore[attr-defined]
    known = REGISTRY.get(name)
    if known is not None and known.__module__ != build.__module__:
        raise ValueError(
            f"initializer({name}): the name is taken by {known.__module__}.{name}. "
            "Choose another name."
        )
    REGISTRY[name] = build
    return build


def _is_call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Returns whether a builder is called as if it were an initializer."""
    if "key" in kwargs and "shape" in kwargs:
        return True
    key = args[0] if args else None
    shape = args[1] if len(args) > 1 else kwargs.get("shape")
    arrays = (jax.Array, np.ndarray, type(None))
    return bool(args) and isinstance(key, arrays) and isinstance(shape, (tuple, list))


# Values: what an argument may be, when two are equal, and how one is written.

_LARGE = 64  # entries from which an array stays an array, rather than becoming a tuple


def _freeze(name: str, value: Any) -> Any:
    """Returns an argument as an immutable value."""
    if name == "dtype" and value is not None:
        return _as_dtype(value, canonical=False).name
    if isinstance(value, jax.core.Tracer):
        rule = f"{name} must be known when the initializer is built, not traced. "
        rule += "Multiply the drawn array instead."
        raise check.Unfit(rule, TypeError, **{name: value})
    if isinstance(value, (np.generic, np.ndarray, jax.Array)):
        array = np.array(value)
        if array.size and array.size <= _LARGE:
            return _freeze(name, array.tolist())
        array.flags.writeable = False
        return array
    if isinstance(value, (list, tuple)):
        return tuple(_freeze(name, item) for item in value)
    try:
        hash(value)
    except TypeError:
        rule = f"{name} cannot be a {type(value).__name__}: it has no fixed value. "
        rule += "Use numbers, strings, tuples, arrays or functions."
        raise check.Unfit(rule, TypeError, **{name: value}) from None
    return value


def _token(value: Any) -> Any:
    """Returns what stands for a frozen argument in comparisons.

    Numbers compare by value whatever their type (1, 1.0, True), except that 0.0 and
    -0.0 differ and nan equals itself.
    """
    if isinstance(value, tuple):
        return tuple(map(_token, value))
    if isinstance(value, complex):
        return "complex", value.real.hex(), value.imag.hex()
    if isinstance(value, (bool, int, float)):
        with contextlib.suppress(OverflowError):
            if math.isnan(value) or float(value) == value:
                return "number", float(value).hex()
        return "number", value
    if isinstance(value, np.ndarray):
        digest = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        return "array", value.shape, value.dtype.name, digest
    return value


def _spell(value: Any) -> str:
    """Returns a frozen argument as a literal, where it has one."""
    if isinstance(value, tuple):
        return f"({', '.join(map(_spell, value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, np.ndarray):
        return f"<array {value.dtype.name}{list(value.shape)}>"
    if callable(value) and not isinstance(value, Initializer):
        return getattr(value, "__qualname__", type(value).__name__)
    return repr(value)


def _as_dtype(value: DTypeLike, canonical: bool = True) -> np.dtype:
    """Returns a dtype.

    Canonical: as JAX would give it under the present x64 setting.
    """
    if isinstance(value, type) and value in (bool, int, float, complex):
        return jnp.result_type(value)
    try:
        # NumPy reads a language of its own from strings with punctuation.
        found = (
            np.dtype(value)
            if not isinstance(value, str) or value.isidentifier()
            else None
        )
    except (TypeError, ValueError):
        found = None
    if found is None or not (jnp.issubdtype(found, np.number) or found == np.bool_):
        rule = "dtype must be a number type, such as jnp.float32."
        raise check.Unfit(rule, TypeError, dtype=value)
    # Only 64-bit types can be anything but what they say; JAX warns when it narrows
    # one.
    return jnp.zeros((), found).dtype if canonical and found.itemsize >= 8 else found


# Specs.

_LONGEST = 4000  # characters; a spec with a long array is longer than anyone writes
_NUMBERS = {"inf": math.inf, "nan": math.nan}


def parse(spec: str) -> Initializer:
    """Reads an initializer from its spec, as `repr` prints it.

    The text is a call of a registered builder with literal arguments: numbers, strings,
    booleans, None, inf, nan, tuples, lists, and other specs. Without arguments the
    parentheses may be left out. Nothing is evaluated.

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
            warnings.simplefilter("ignore")  # of Python's parser, about odd literals
            tree = ast.parse(spec.strip(), mode="eval").body
        if isinstance(tree, ast.Name):
            tree = ast.Call(tree, [], [])
        if not isinstance(tree, ast.Call):
            raise ValueError("a spec is a call, like he_normal(gain='gelu').")
        found: Initializer = _read(tree)
        return found
    except SyntaxError as error:
        raise ValueError(f"{where}: malformed ({error.msg}).") from None
    except (RecursionError, MemoryError):
        raise ValueError(f"{where}: nested too deeply.") from None
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where}: {error}") from None


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
            number = _number(operand)
            return -number if isinstance(sign, ast.USub) else number
        case ast.BinOp(
            left, ast.Add() | ast.Sub() as sign, ast.Constant(complex() as imag)
        ):
            return _number(left) + (imag if isinstance(sign, ast.Add) else -imag)
        case ast.Call(ast.Name(name), args, keywords):
            if name not in REGISTRY:
                near = check.suggestion(name, REGISTRY)
                raise ValueError(f"there is no initializer {name!r}.{near}")
            named: dict[Any, Any] = {k.arg: _read(k.value) for k in keywords}
            if None in named:
                raise ValueError("** is not a literal.")
            return REGISTRY[name](*map(_read, args), **named)
    raise ValueError(f"{ast.unparse(node)!r} is not a literal.")


def _number(node: ast.AST) -> Any:
    value = _read(node)
    if isinstance(value, bool) or not isinstance(value, (int, float, complex)):
        raise ValueError(f"{ast.unparse(node)!r} is not a number.")
    return value
