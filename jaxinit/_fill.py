"""Fills a weight by a draw: low precision, zero sizes, placement, one compilation.

Outside of traces, on a CPU, weights whose entries have a law are drawn by its program,
which compiles once, and orthonormal matrices by few (`jaxinit._law`). All others are
compiled for their shape.
"""

import contextlib
import math
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit import _check as check
from jaxinit import _extent as extent
from jaxinit import _placement
from jaxinit._caches import cleared_by
from jaxinit._law import outside
from jaxinit._law.laws import FEWEST
from jaxinit._law.orthonormal import Orthonormal, find_orthonormal
from jaxinit._placement import Placement
from jaxinit.random import backends, haar, threefry

# XLA counts the bytes of a program in 63 bits and aborts past them.
_MOST = 2**56


class Drawer(Protocol):
    """An initializer as `fill` needs it: hashed and compared by value."""

    _random: bool
    _draw: Any
    _extent: Any

    def __hash__(self) -> int: ...


@dataclass(frozen=True, eq=False)
class Independent:
    """A draw of independent entries, which have the same law in every shape.

    Attributes:
      unit: draws the entries.
      factor: returns the number that multiplies them in a shape and dtype; None if the
        entries are the weights.
    """

    unit: Callable[[jax.Array, tuple[int, ...], np.dtype], jax.Array]
    factor: Callable[[tuple[int, ...], np.dtype], Any] | None = None

    def __call__(
        self, key: jax.Array, shape: tuple[int, ...], dtype: np.dtype
    ) -> jax.Array:
        """Draws a weight."""
        if self.factor is None:
            return self.unit(key, shape, dtype)
        factor = self.factor(shape, dtype)  # first: it may refuse the shape or dtype
        weight: jax.Array = self.unit(key, shape, dtype) * factor
        return weight


# How weights were drawn by their law, by call: as many as `jax.jit` keeps.
_Drawn = outside.Entries | Orthonormal
_DRAWN: dict[Any, _Drawn] = {}
_MOST_DRAWN = 4096


def redraw(init: Drawer, key: Any, shape: Any, dtype: Any) -> jax.Array | None:
    """Draws a weight like one that was drawn before by its law; None if none was.

    A call that was fit needs no checks again: they take longer than a small draw.
    """
    entries = _DRAWN.get(_name_call(init, key, shape, dtype))
    if entries is None or key.committed or not _placement.is_outside():
        return None
    return _draw_entries(entries, key, shape, None)


def _name_call(init: Drawer, key: Any, shape: Any, dtype: Any) -> Any:
    """Returns all that a draw depends on but the key's value, as it was asked for.

    It is None for a key or shape of an unusual kind: 8.0 is as good a name as 8.
    """
    plain = type(shape) is tuple and {int}.issuperset(map(type, shape))
    if not plain or not isinstance(key, jax.Array) or dtype.__hash__ is None:
        return None
    kind = type(key), key.shape, key.dtype
    return init, kind, shape, dtype, _placement.read_state()


def fill(
    init: Drawer,
    key: jax.Array | None,
    shape: tuple[int, ...],
    dtype: np.dtype,
    out_sharding: Placement,
    asked: tuple[Any, Any],
) -> jax.Array:
    """Draws a weight, the same whatever JAX's settings.

    Args:
      init: an initializer.
      key: a key, or None where nothing is random.
      shape: sizes of the weight.
      dtype: its dtype.
      out_sharding: where it goes.
      asked: shape and dtype as the caller gave them.
    """
    if math.prod(shape) > _MOST:
        raise check.Unfit("has more than 2^56 entries.", shape=shape)
    # Without randomness nothing is worth compiling, and a loaded array would become a
    # constant of the program.
    run = _compiled if init._random else _filled
    # Run one by one, XLA's operations round differently than as one program.
    one_by_one = init._random and jax.config.jax_disable_jit  # type: ignore[attr-defined]
    with (
        jax.disable_jit(False) if one_by_one else contextlib.nullcontext(),
        _placement.entered(out_sharding),
    ):
        if out_sharding is None and key is not None:
            drawn = _draw_by_law(init, key, shape, dtype, asked)
            if drawn is not None:
                return drawn
        weight: jax.Array = run(init, key, shape, dtype, out_sharding)
    return weight


def _draw_by_law(
    init: Drawer,
    key: jax.Array,
    shape: tuple[int, ...],
    dtype: np.dtype,
    asked: tuple[Any, Any],
) -> jax.Array | None:
    """Draws a weight by the program of its law; None if it needs one of its own."""
    if (
        math.prod(shape) < FEWEST
        or isinstance(key, jax.core.Tracer)
        or not _placement.is_outside()
        or _placement.is_debugged()
        or _placement.is_guarded()
        or not threefry.fits(key)
    ):
        return None
    home = key.sharding if key.committed else None  # else it is on one device
    one = home is None or len(home.device_set) == 1
    if not one or _placement.platform_of(home) != "cpu":
        return None
    call = _name_call(init, key, *asked) or _name_call(init, key, shape, dtype)
    if home is not None:  # other keys go where the settings say
        call = call, home
    entries = _DRAWN.get(call) or _find_entries(init, key, shape, dtype)
    if entries is None:
        return None
    if len(_DRAWN) >= _MOST_DRAWN:
        _DRAWN.clear()
    _DRAWN[call] = entries
    return _draw_entries(entries, key, shape, home)


def _draw_entries(
    entries: _Drawn, key: jax.Array, shape: tuple[int, ...], home: Any
) -> jax.Array:
    # jnp.asarray would compile a program for each shape.
    weight: jax.Array = jax.device_put(entries.draw(key, shape), home)
    return weight


# How an initializer draws, by kind of key, dtype and settings, as its first shape has
# shown in a trace, which takes milliseconds; None if the entries have no law. Draws
# that are no `Independent` are traced for each shape, if they have one.
_FIRST: weakref.WeakKeyDictionary[Drawer, dict[Any, _Drawn | None]] = (
    weakref.WeakKeyDictionary()
)
for _known in (_DRAWN, _FIRST):
    cleared_by(_known.clear)


def _find_entries(
    init: Drawer, key: jax.Array, shape: tuple[int, ...], dtype: np.dtype
) -> _Drawn | None:
    """Finds how a weight is drawn whose entries have a law, or are of a matrix."""
    known = _FIRST.setdefault(init, {})
    kind = key.shape, key.dtype
    token = kind, dtype, _placement.read_state()
    if token in known:
        first = known[token]
        found = None if first is None else _rescale(init, first, shape, dtype)
        if first is None or found is not None:
            return found
    with backends.of_bits(True), haar.is_asked(True):
        abstract = jax.ShapeDtypeStruct(*kind)
        traced = _compiled.trace(init, abstract, shape, dtype, None)
    entries: _Drawn | None = outside.find_entries(traced.jaxpr)
    entries = entries or find_orthonormal(traced.jaxpr)
    if entries is None or _rescale(init, entries, shape, dtype) == entries:
        known.setdefault(token, entries)
    return entries


def _rescale(
    init: Drawer, first: _Drawn, shape: tuple[int, ...], dtype: np.dtype
) -> outside.Entries | None:
    """Returns how the entries of another shape are drawn; None if a trace must tell."""
    if not isinstance(init._draw, Independent) or isinstance(first, Orthonormal):
        return None
    _check_extent(init, shape, dtype)
    if init._draw.factor is None:
        return first
    return first.rescale(init._draw.factor(shape, _widen(dtype)))


def _filled(
    init: Drawer,
    key: jax.Array | None,
    shape: tuple[int, ...],
    dtype: np.dtype,
    out_sharding: Placement,
) -> jax.Array:
    """Draws in at least 32 bits, rounds once, and places the result."""
    wide = _widen(dtype)
    held = _check_extent(init, shape, dtype)

    def draw(key: jax.Array | None) -> jax.Array:
        if 0 in shape and init._random:
            _check_shape(init, key, shape, dtype, wide)
            return jnp.zeros(shape, dtype)
        weight: jax.Array = init._draw(key, shape, wide)
        if weight.shape != shape:
            rule = f"draw must return an array of this shape, not {weight.shape}."
            raise check.Unfit(rule, shape=shape)
        if wide != dtype and held is not None and held.bounds is not None:
            low, high = extent.within(held.bounds, dtype)
            weight = jnp.clip(weight, np.float32(low), np.float32(high))
        return weight.astype(dtype)

    return _placement.place(draw, key, out_sharding)


def _widen(dtype: np.dtype) -> np.dtype:
    """Returns the dtype in which weights are drawn, before they are rounded."""
    narrow = jnp.issubdtype(dtype, np.floating) and jnp.finfo(dtype).bits < 32
    return np.dtype(np.float32) if narrow else dtype


def _check_extent(
    init: Drawer, shape: tuple[int, ...], dtype: np.dtype
) -> extent.Extent | None:
    """Returns the range of the law, which the dtype must hold, if it is stated."""
    stated = None
    if init._extent is not None and 0 not in shape:
        stated = init._extent(shape)
    if stated is None:
        return None
    held = extent.Extent(*stated)
    extent.fit(held, dtype, init._random)
    return held


# Not inlined: a transformation that stages a draw without compiling it, as
# jax.checkpoint does outside of jit, would run its operations one by one.
_compiled = jax.jit(_filled, static_argnums=(0, 2, 3, 4))


def _check_shape(
    init: Drawer,
    key: jax.Array | None,
    shape: tuple[int, ...],
    dtype: np.dtype,
    wide: np.dtype,
) -> None:
    """Lets a draw check a shape with zeros: as ones, by which formulas can divide."""
    nonzero = tuple(max(size, 1) for size in shape)
    try:
        with np.errstate(over="ignore"):  # in a scale that no weight will have
            jax.eval_shape(lambda key: init._draw(key, nonzero, wide), key)
    except check.Unfit as error:  # names the shape that was asked for
        named = {"shape": shape} if error.name == "shape" else {"dtype": dtype}
        raise check.Unfit(str(error), error.kind, **named) from None
