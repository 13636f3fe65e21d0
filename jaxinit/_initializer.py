"""The central form: a builder is a decorated function, an initializer is a value.

A builder checks its arguments and returns a closure ``draw(key, shape, dtype)``. The
decorator `initializer` turns the closure into an `Initializer`, which compares, hashes,
pickles and prints by the builder and its arguments, and which handles in one place what
every draw needs: default dtype, low precision, keys, shapes, sharding and zero sizes.
"""

import functools
import inspect
import pickle
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, ParamSpec, Protocol, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxinit import _check as check
from jaxinit import _value
from jaxinit._arithmetic import Arithmetic, spell_operation
from jaxinit._extent import Extent
from jaxinit._extent import Moments as Moments
from jaxinit._fill import fill, redraw
from jaxinit._placement import Placement

P = ParamSpec("P")
Shape = Sequence[int]


Draw = Callable[[jax.Array, tuple[int, ...], np.dtype], jax.Array]
Stated = Callable[[tuple[int, ...]], Moments | None]
Spread = Callable[[tuple[int, ...]], Extent | tuple[Any, ...] | None]
Drawn = Draw | tuple[Draw, Stated] | tuple[Draw, Stated, Spread | None]


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


class Initializer(Arithmetic):
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
        "_extent",
        "_hash",
        "_moments",
        "_random",
        "_token",
        "arguments",
        "__weakref__",  # jax.jit keeps functions by weak references
    )

    _build: Callable[..., "Initializer"]
    _draw: Draw
    _extent: Spread | None
    _hash: int
    _moments: Stated | None
    _random: bool
    _token: Any
    arguments: Mapping[str, Any]

    def __init__(
        self,
        build: Callable[..., "Initializer"],
        arguments: Mapping[str, Any],
        draw: Draw,
        moments: Stated | None,
        extent: Spread | None,
        random: bool,
    ):
        """Called by the decorator `initializer` only."""
        token = (
            build,
            tuple((name, _value.token(value)) for name, value in arguments.items()),
        )
        for name, value in {
            "_build": build,
            "_draw": draw,
            "_extent": extent,
            "_hash": hash(token),
            "_moments": moments,
            "_random": random,
            "_token": token,
            "arguments": types.MappingProxyType(dict(arguments)),
        }.items():
            object.__setattr__(self, name, value)

    @property
    def name(self) -> str:
        """The name of the builder that draws, as specs write it."""
        return registered(self.source._build)

    def __call__(
        self,
        key: jax.Array | None = None,
        shape: Shape | int | None = None,
        dtype: DTypeLike | None = None,
        out_sharding: Placement = None,
    ) -> jax.Array:
        """Draws a weight.

        Args:
          key: one PRNG key, typed or legacy, of any implementation; ignored by the
            initializers without randomness.
          shape: sizes of the weight, or the size of a vector; a size may be 0.
          dtype: dtype of the weight; by default the builder's ``dtype``, else float32,
            or float64 where x64 is enabled. Floats below 32 bits are drawn in float32
            and rounded once.
          out_sharding: where the weight goes. The values do not depend on it.

        Returns:
          An array of the shape and dtype.

        Raises:
          ValueError: if the initializer cannot take the shape, or the dtype cannot hold
            the weights.
          TypeError: if key is not a PRNG key, shape not a shape, or dtype not a dtype.
        """
        if out_sharding is None:
            drawn = redraw(self, key, shape, dtype)
            if drawn is not None:
                return drawn
        try:
            check.key_first(key)
            sizes = check.shape(shape)
            kind = self._dtype(dtype)
            used = check.key(key) if self._random else None
            return fill(self, used, sizes, kind, out_sharding, (shape, dtype))
        except check.Unfit as error:
            raise error.at(self._callee, "key", "shape", "dtype") from None

    def _dtype(self, dtype: DTypeLike | None) -> np.dtype:
        """Returns the dtype of the weight, as JAX would give it."""
        if dtype is None:
            dtype = self.source.arguments.get("dtype")
        found = _value.as_dtype(float if dtype is None else dtype)
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
            raise error.at(f"{self._callee}.moments") from None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Initializer) and self._token == other._token

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        if self.is_combined:
            return spell_operation(**self.arguments)
        parameters = inspect.signature(self._build).parameters

        def is_default(name: str, value: Any) -> bool:
            default = parameters[name].default
            if default is inspect.Parameter.empty:
                return False
            own = _value.token(_value.freeze(name, default))
            return bool(own == _value.token(value))

        given = (
            f"{name}={_value.spell(value)}"
            for name, value in self.arguments.items()
            if not is_default(name, value)
        )
        return f"{self.name}({', '.join(given)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (self._build, _value.pickled(dict(self.arguments)))

    def __copy__(self) -> "Initializer":
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "Initializer":
        return self

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{self!r} is immutable: build another one.")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{self!r} is immutable: build another one.")


def _rebuild(
    build: Callable[..., Initializer], arguments: dict[str, Any]
) -> Initializer:
    return build(**arguments)


def _unpickled(build: Callable[..., Initializer], arguments: bytes) -> Initializer:
    return _rebuild(build, pickle.loads(arguments))


@overload
def initializer(builder: Callable[P, Drawn], /) -> Builder[P]: ...
@overload
def initializer(
    *, random: Literal[False], namespace: str = ""
) -> Callable[[Callable[P, Drawn]], FixedBuilder[P]]: ...
@overload
def initializer(
    *, random: bool = True, namespace: str = ""
) -> Callable[[Callable[P, Drawn]], Builder[P]]: ...


def initializer(
    builder: Any = None, /, *, random: bool = True, namespace: str = ""
) -> Any:
    """Turns a function that returns a draw into a builder of `Initializer` values.

    The function checks its arguments and returns ``draw(key, shape, dtype)``, where
    dtype has at least 32 bits. It may return ``(draw, moments)``, with
    ``moments(shape)`` the mean and variance of an entry, or ``(draw, moments, extent)``
    with ``extent(shape)`` a pair: the least and the largest weight, and the size of
    usual weights. A dtype must then hold these. An argument named ``dtype`` is the
    default dtype of the weights. The builder is registered by its name, for `parse`,
    unless it is a lambda.

    Args:
      builder: the function. Its arguments must be numbers, strings, None, arrays,
        functions, initializers, or tuples of these.
      random: whether a key is used. If not, every dtype is allowed, the key is ignored
        and passed as None, and a builder that needs no arguments may itself be called
        as ``builder(key, shape)``.
      namespace: a word that goes before the name in specs, as in ``torch.normal()``.

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
        return functools.partial(_decorate, random=random, namespace=namespace)
    return _decorate(builder, random=random, namespace=namespace)


def _decorate(
    builder: Callable[..., Drawn], *, random: bool, namespace: str
) -> Callable[..., Any]:
    signature = inspect.signature(builder)
    name = f"{namespace}.{builder.__name__}" if namespace else builder.__name__
    for parameter in signature.parameters.values():
        kinds = parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY
        if parameter.kind not in kinds:
            raise TypeError(
                f"initializer({name}): every argument needs a name for specs, "
                f"unlike {parameter}."
            )

    def is_call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Returns whether the builder is called as if it were an initializer."""
        if check.begins_with_key(args, kwargs):
            return True
        try:  # anything may stand for a key that is ignored
            signature.bind(*args, **kwargs)
        except TypeError:
            return not random and len(args) > 1 and check.is_shape(args[1])
        return False

    @functools.wraps(builder)
    def build(*args: Any, **kwargs: Any) -> Any:
        if is_call(args, kwargs):
            if not random:
                return build()(*args, **kwargs)
            raise TypeError(
                f"{name}(key, shape): {name} builds an initializer, which then draws. "
                f"Write {name}(...)(key, shape), or kernel_init={name}(...) in a layer."
            )
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            near = check.misspelt(kwargs, signature.parameters)
            listed = ", ".join(signature.parameters)
            raise TypeError(f"{name}({listed}): {error}.{near}") from None
        bound.apply_defaults()
        try:
            arguments = {k: _value.freeze(k, v) for k, v in bound.arguments.items()}
            drawn = builder(**arguments)
        except check.Unfit as error:
            cure = _cure(name, random, args, signature) if error.name == "dtype" else ""
            raise error.at(name, cure=cure) from None
        except (ValueError, TypeError) as error:  # from a builder that this one calls
            unfit = getattr(error, "unfit", None)
            if unfit is None or check.show(arguments.get(unfit.name)) != unfit.value:
                raise
            raise unfit.at(name) from None
        if isinstance(drawn, Initializer):  # made by another builder
            law = drawn._draw, drawn._moments, drawn._extent, drawn._random
            return Initializer(build, arguments, *law)
        parts = drawn if isinstance(drawn, tuple) else (drawn,)
        draw, moments, extent = (*parts, None, None)[:3]
        return Initializer(build, arguments, draw, moments, extent, random)

    build.registered, build.is_call = name, is_call  # type: ignore[attr-defined]
    build.__signature__ = signature.replace(return_annotation=Initializer)  # type: ignore[attr-defined]
    if not builder.__name__.isidentifier():  # a lambda, which no spec can name
        return build
    known = REGISTRY.get(name)
    if known is not None and known.__module__ != build.__module__:
        raise ValueError(
            f"initializer({name}): the name is taken by {known.__module__}.{name}. "
            "Choose another name."
        )
    REGISTRY[name] = build
    return build


def _cure(
    name: str, random: bool, args: tuple[Any, ...], signature: inspect.Signature
) -> str:
    """Returns a cure for a call that has another value in the place of dtype."""
    if args and not random and isinstance(args[0], (tuple, list)):
        return f" To draw, write {name}(key, shape)."
    if len(args) > 1:  # other libraries have other arguments in this place
        named = ", ".join(f"{argument}=..." for argument in signature.parameters)
        return f" Name the arguments: {name}({named})."
    return ""


def registered(builder: Callable[..., Any]) -> str:
    """Returns the name of a builder in specs."""
    name: str = builder.registered  # type: ignore[attr-defined]
    return name


def alias(name: str, builder: Builder[P]) -> Builder[P]:
    """Registers a second name of a builder, which `parse` reads and nothing prints."""
    REGISTRY[name] = builder
    return builder
