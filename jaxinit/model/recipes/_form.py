"""What recipes are made of."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxinit import _check as check
from jaxinit import initializers as init
from jaxinit._initializer import Initializer
from jaxinit.model._rules import Rule

Patterns = Sequence[str]

RESIDUAL = tuple(
    f"**/{name}/kernel"
    for name in (
        *("out", "o_proj", "out_proj", "c_proj", "proj", "wo", "w2"),
        *("down", "down_proj", "fc2", "mlp_out"),
    )
)
NORMS: list[Rule] = [("scale", 1.0), ("bias", 0.0)]


def each(patterns: Patterns, what: Any) -> list[Rule]:
    return [(pattern, what) for pattern in patterns]


def at_least_one(recipe: str, **argument: Any) -> int:
    """Returns the argument of a recipe as an integer of 1 or above."""
    try:
        return check.at_least(1, **argument)
    except check.Unfit as error:
        raise error.at(f"recipes.{recipe}") from None


def axes(path: str, shape: Sequence[int]) -> dict[str, Any]:
    """Returns the axes of a kernel: attention has one for the heads."""
    parent = path.split("/")[-2] if "/" in path else ""
    if len(shape) == 3 and parent in ("query", "key", "value"):
        return {"in_axis": 0, "out_axis": (1, 2)}
    if len(shape) == 3 and parent == "out":
        return {"in_axis": (0, 1), "out_axis": 2}
    return {}


def by_fans(
    scale: float, mode: Any, law: Any
) -> Callable[[str, Any, Mapping[str, Any]], Initializer]:
    """Makes the rule of variance scaling, which knows the axes of attention."""

    def build(path: str, leaf: Any, siblings: Mapping[str, Any]) -> Initializer:
        return init.variance_scaling(scale, mode, law, **axes(path, leaf.shape))

    return build
