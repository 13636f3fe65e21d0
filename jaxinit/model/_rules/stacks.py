"""Stacks: parameters in which an axis counts layers, and the fans that a law reads.

`nn.scan`, `nn.vmap` and their kin in NNX stack the parameters of equal layers. A rule
sees such a parameter as that of one layer: its sizes, its siblings and its fans.
"""

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxinit import _check as check
from jaxinit._arithmetic import OF_EQUAL_AXES
from jaxinit._axes import Axes, Connections, layer_of
from jaxinit._initializer import Initializer
from jaxinit.initializers import stacked
from jaxinit.model._rules.patterns import Pattern, is_pattern, matches, spelt

Stacked = Pattern | Mapping[Any, Axes] | None
_ROLES = ("in_axis", "column_axis", "layout")  # laws with one tell inputs from outputs


def axes(
    call: str, given: Stacked, parameters: Mapping[str, Any]
) -> dict[str, tuple[int, ...]]:
    """Returns the axes that count layers, by path, for the stacked parameters."""
    pairs: list[tuple[Any, Any]] = [] if given is None else [(given, 0)]
    pairs = list(given.items()) if isinstance(given, Mapping) else pairs
    found: dict[str, tuple[int, ...]] = {}
    for pattern, axis in pairs:
        if not is_pattern(pattern):
            rule = "needs a pattern, as rules have, or a mapping of patterns to axes."
            raise TypeError(f"{call}(stacked={check.show(given)}): {rule}")
        try:
            fits = [path for path, x in parameters.items() if matches(pattern, path, x)]
        except ValueError as error:
            raise ValueError(f"{call}(stacked={spelt(pattern)}): {error}") from error
        if not fits:
            near = ", ".join(list(parameters)[:3])
            raise ValueError(
                f"{call}(stacked=...): {spelt(pattern)} matches no parameter. "
                f"Paths are such as {near}."
            )
        for path in fits:
            try:
                layer_of(tuple(parameters[path].shape), axis)
                found.setdefault(path, check.axes(axis=axis))
            except check.Unfit as error:
                raise error.at(f"{call}(stacked=...), {path}") from None
    return found


def layer(leaf: Any, axis: tuple[int, ...]) -> Any:
    """Returns a stand-in for one layer of a parameter."""
    if not axis:
        return leaf
    return jax.ShapeDtypeStruct(layer_of(tuple(leaf.shape), axis), leaf.dtype)


def stack(law: Any, shape: tuple[int, ...], axis: tuple[int, ...]) -> Any:
    """Returns the law of a stack from that of a layer."""
    if not axis or law is None:
        return law
    if callable(law):
        return stacked(law, axis if len(axis) > 1 else axis[0])
    if np.ndim(law) and np.shape(law) == layer_of(shape, axis):
        return np.broadcast_to(np.expand_dims(np.asarray(law), axis), shape)
    return law


def fans(law: Any, shape: tuple[int, ...]) -> tuple[float, float] | None:
    """Returns the fans that an initializer reads off a shape; None if it reads none."""
    if not isinstance(law, Initializer):
        return None
    given = law.source.arguments
    if law.name in ("masked", "normalized"):
        return fans(given["init"], shape)
    if law.name == "stacked":
        return fans(given["init"], layer_of(shape, given["axis"]))
    if "in_axis" in given:
        named = {name: given[name] for name in Connections._fields if name in given}
        connections = Connections(**named)
    elif "layout" in given:
        connections = Connections(1, 0) if given["layout"] == "torch" else Connections()
    else:
        return None
    try:
        return connections.fans(shape)
    except check.Unfit:  # the law has axes and needs no fans
        return None


def _is_blind(law: Any) -> bool:
    """Returns whether a law tells inputs from outputs, and names no stacked layers."""
    if not isinstance(law, Initializer):
        return False
    given = law.source.arguments
    if law.name in OF_EQUAL_AXES:
        return any(map(_is_blind, given.get("inits", (given.get("init"),))))
    return any(role in given for role in _ROLES) and given.get("batch_axis", ()) == ()


def check_layer(path: str, leaf: Any, siblings: Mapping[str, Any], law: Any) -> None:
    """Raises if a kernel's bias shows that a law of fans would misread its axes.

    It may be a stack that the user has not named, or stored as (outputs, inputs).
    """
    shape, bias = tuple(leaf.shape), siblings.get("bias", siblings.get("b"))
    if not isinstance(law, Initializer) or bias is None:
        return
    blind = _is_blind(law)
    name = re.split("[/.]", path)[-1]
    parent = path.removesuffix(name)
    rank = len(bias.shape)
    flipped = (
        blind
        and name in ("kernel", "w", "weight")
        and len(shape) == 2
        and tuple(bias.shape) == shape[:1] != shape[1:]
    )
    if flipped and fans(law, shape) == shape:
        raise ValueError(
            f"sizes {shape} beside a bias of sizes {tuple(bias.shape)} are (outputs, "
            f"inputs), and {law!r} reads (inputs, outputs). Give the initializer "
            "in_axis=1, out_axis=0, or layout='torch' where it has that."
        )
    if blind and name == "kernel" and rank > 1 and tuple(bias.shape) != shape[-rank:]:
        raise ValueError(
            f"sizes {shape} beside a bias of sizes {tuple(bias.shape)} are those of "
            f"stacked layers, and {law!r} is a law of one. Say "
            f"stacked={parent + '*'!r}, or give the initializer batch_axis."
        )
