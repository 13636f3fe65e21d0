"""Several laws side by side in one weight, as of queries, keys and values in one."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit import _check as check
from jaxinit._axes import positions
from jaxinit._extent import Extent
from jaxinit._initializer import Initializer, Moments

_Shape = tuple[int, ...]


def concatenated(
    inits: Sequence[Initializer], axis: int, sizes: Sequence[int], repeats: int = 1
) -> Initializer:
    """Builds the law of a weight whose parts along an axis have laws of their own.

    Law: part i is ``inits[i](jax.random.fold_in(key, i), shape of the part)``: fans
    are those of the part, and its values do not depend on the laws of the others.

    Args:
      inits: the law of each part.
      axis: the axis along which the parts lie.
      sizes: how many of its entries each part has.
      repeats: how often all parts follow each other along the axis; repeats times as
        many entries of each are then drawn as one part, and dealt out in order.

    Raises:
      Unfit: at the call, if the sizes do not add up to the axis's.
    """
    given = {
        "inits": tuple(inits),
        "axis": axis,
        "sizes": tuple(sizes),
        "repeats": repeats,
    }

    def shapes(shape: _Shape) -> tuple[int, list[_Shape]]:
        (place,) = positions(shape, axis=axis)
        if shape[place] != repeats * sum(sizes):
            rule = f"axis {axis} must have {repeats * sum(sizes)} entries for sizes="
            raise check.Unfit(f"{rule}{tuple(sizes)}.", shape=shape)
        before, after = shape[:place], shape[place + 1 :]
        return place, [(*before, repeats * size, *after) for size in sizes]

    def draw(key: jax.Array, shape: _Shape, dtype: np.dtype) -> jax.Array:
        place, each = shapes(shape)
        parts = []
        for number, (init, part) in enumerate(zip(inits, each, strict=True)):
            made = init(jax.random.fold_in(key, number), part, dtype)
            dealt = (repeats, sizes[number])
            parts.append(made.reshape(*part[:place], *dealt, *part[place + 1 :]))
        return jnp.concatenate(parts, place + 1).reshape(shape)

    def moments(shape: _Shape) -> Moments | None:
        parts = [i.moments(s) for i, s in zip(inits, shapes(shape)[1], strict=True)]
        shares = [size / sum(sizes) for size in sizes]
        if any(part is None for part in parts):
            return None
        pairs = [(n, p) for n, p in zip(shares, parts, strict=True) if p is not None]
        mean = math.fsum(share * part.mean for share, part in pairs)
        square = math.fsum(n * (part.variance + part.mean**2) for n, part in pairs)
        return Moments(mean, square - mean**2)

    def extent(shape: _Shape) -> Extent | tuple[Any, ...] | None:
        known: list[Extent] = []
        for init, part in zip(inits, shapes(shape)[1], strict=True):
            stated = init._extent and init._extent(part)
            if stated is None:
                return None
            known.append(Extent(*stated))
        bounds = [each.bounds or (-math.inf, math.inf) for each in known]
        limits = min(low for low, _ in bounds), max(high for _, high in bounds)
        return Extent(
            tuple(end for each in known for end in each.ends),
            min(each.size for each in known),
            limits if math.isfinite(limits[1] - limits[0]) else None,
        )

    random = any(init._random for init in inits)
    return Initializer(concatenated, given, draw, moments, extent, random)


concatenated.registered = "concatenated"  # type: ignore[attr-defined]
