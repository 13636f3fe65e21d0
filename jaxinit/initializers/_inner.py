"""What initializers that are made of others ask of these."""

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxinit import _check as check
from jaxinit._extent import Extent
from jaxinit._initializer import Initializer, Moments

Init = Callable[..., Any]


def check_init(**argument: Any) -> None:
    """Checks that an argument is a function of key, shape and dtype, as far as seen."""
    ((name, init),) = argument.items()
    if not _draws(init):
        rule = f"{name} must be an initializer, such as he_normal(), or another "
        raise check.Unfit(
            rule + "function of (key, shape, dtype).", TypeError, **argument
        )


def _draws(init: Any) -> bool:
    try:
        inspect.signature(init).bind(None, (), None)
    except TypeError:  # init may also be no function at all
        return False
    except ValueError:  # a function or class without a signature
        return not isinstance(init, type)
    return True


def draw_part(
    init: Init,
    key: jax.Array,
    part: tuple[int, ...],
    dtype: np.dtype,
    shape: tuple[int, ...],
    word: str = "part",
) -> jax.Array:
    """Draws a part of a weight of this shape."""
    made: jax.Array = init(key, part, dtype)
    if np.shape(made) != part:
        rule = f"init gives {np.shape(made)} for a {word} of shape {part}."
        raise check.Unfit(rule, shape=shape)
    return made


def moments_of(init: Init, shape: tuple[int, ...]) -> Moments | None:
    """Returns the moments that an initializer states."""
    stated = init._moments if isinstance(init, Initializer) else None
    return None if stated is None else stated(shape)


def extent_of(init: Init, shape: tuple[int, ...]) -> Extent | None:
    """Returns the range that an initializer states."""
    stated = init._extent if isinstance(init, Initializer) else None
    found = None if stated is None else stated(shape)
    return None if found is None else Extent(*found)


def mix(parts: Sequence[tuple[float, Moments | None]]) -> Moments | None:
    """Returns the moments of an entry that is of each part with some probability."""
    known = [(share, stated) for share, stated in parts if stated is not None]
    if len(known) < len(parts):
        return None
    mean = sum(share * stated.mean for share, stated in known)
    square = sum(
        share * (stated.variance + abs(stated.mean) ** 2) for share, stated in known
    )
    return Moments(mean, max(square - abs(mean) ** 2, 0.0))


def dilute(stated: Moments | None, share: float) -> Moments | None:
    """Returns the moments of an entry that is 0 but for a share of all."""
    return mix([(share, stated), (1 - share, Moments(0.0, 0.0))])


def join(extents: Sequence[Extent | None]) -> Extent | None:
    """Returns the range of weights that are of several laws."""
    known = [extent for extent in extents if extent is not None]
    if len(known) < len(extents):
        return None
    ends = [end for extent in known for end in extent.ends]
    finite = [end for end in ends if math.isfinite(end)]
    odd = dict.fromkeys(end for end in ends if not math.isfinite(end))
    sizes = [extent.size for extent in known if extent.size]
    outer = (min(finite), max(finite)) if finite else ()
    bounds = None
    if all(extent.bounds for extent in known):
        lows, highs = zip(*(extent.bounds or () for extent in known), strict=True)
        bounds = min(lows), max(highs)
    return Extent((*outer, *odd), min(sizes, default=0.0), bounds)


def thin(held: Extent | None) -> Extent | None:
    """Returns the range of weights of which some are set to 0."""
    return join([held, Extent((0.0, 0.0), 0.0, (0.0, 0.0))])


def turn(held: Extent) -> Extent:
    """Returns the range of weights whose sign is turned."""
    bounds = held.bounds and (-held.bounds[1], -held.bounds[0])
    return held._replace(ends=tuple(-end for end in held.ends), bounds=bounds)
