"""How a parameterization reads its two models."""

import contextlib
import contextvars
import importlib
import inspect
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, TypedDict, get_args

from jaxinit import _check as check
from jaxinit._structure.result import Structure
from jaxinit._structure.structure import structure
from jaxinit.scaling._parameterize import (
    Applied,
    Attention,
    Parameterization,
    parameterize,
)
from jaxinit.scaling._scale import Scale


class Reading(TypedDict, total=False):
    """Keyword arguments of `structure`, by which the two models are read."""

    arguments: Mapping[str, Any] | None
    train: bool | None
    streams: str | Sequence[str]
    axis_name: str | Sequence[str]


# What is read already, by the models, inputs and keywords of which.
_known: contextvars.ContextVar[Mapping[Hashable, Structure] | None]
_known = contextvars.ContextVar("_known", default=None)


@contextlib.contextmanager
def reuse(
    structures: Sequence[tuple[Any, Structure]],
    inputs: Sequence[Any],
    reading: Mapping[str, Any],
) -> Iterator[None]:
    """Lets parameterizations take the structures of models that were read before."""
    known = {_name(model, inputs, reading): found for model, found in structures}
    token = _known.set(known)
    try:
        yield
    finally:
        _known.reset(token)


def _name(model: Any, inputs: Sequence[Any], reading: Mapping[str, Any]) -> Hashable:
    """Names the very same model, inputs and keywords."""
    keywords = sorted((name, id(value)) for name, value in reading.items())
    return id(model), *map(id, inputs), *keywords


def _read(model: Any, inputs: Sequence[Any], reading: Mapping[str, Any]) -> Structure:
    if isinstance(model, Structure):
        return model
    known = (_known.get() or {}).get(_name(model, inputs, reading))
    return structure(model, *inputs, **reading) if known is None else known


def _check_inputs(
    name: str,
    models: Mapping[str, Any],
    inputs: Sequence[Any],
    reading: Mapping[str, Any],
) -> None:
    """Raises `Unfit` if inputs are missing, or nothing is read with them."""
    names = list(Reading.__annotations__)
    if wrong := [each for each in reading if each not in names]:
        function = getattr(importlib.import_module("jaxinit.scaling"), name)
        own = inspect.signature(function).parameters.values()
        names = [each.name for each in own if each.kind == each.KEYWORD_ONLY] + names
        near = check.misspelt(wrong, names) or f" There are {', '.join(names)}."
        rule = f"there is no such argument.{near}"
        raise check.Unfit(rule, TypeError, **{wrong[0]: reading[wrong[0]]})
    unread = [name for name in models if not isinstance(models[name], Structure)]
    if unread and not inputs:
        rule = f"{unread[0]} needs example inputs behind both models, or must be what "
        rule += "jaxinit.structure(model, x) returns."
        raise check.Unfit(rule, **{unread[0]: models[unread[0]]})
    if (inputs or reading) and not unread:
        rule = "both models are read already. Leave inputs and their keywords out."
        raise check.Unfit(rule, TypeError, target=models["target"])


def build(
    how: Parameterization,
    base: Any,
    target: Any,
    inputs: Sequence[Any],
    forward: Applied,
    reading: Mapping[str, Any],
) -> Scale:
    """Reads two models, and scales the second by a parameterization.

    Raises:
      ValueError: if an argument does not fit, or the models do not.
      TypeError: if an argument has the wrong type.
    """
    try:
        check.choice(("absorbed", "model"), forward=forward)
        if how.attention is not None:
            check.choice(get_args(Attention), attention=how.attention)
        _check_inputs(how.name, {"base": base, "target": target}, inputs, reading)
    except check.Unfit as error:
        raise error.at(how.call) from None
    small, large = (_read(model, inputs, reading) for model in (base, target))
    rows, multipliers, notes = parameterize(how, small, large, forward)
    return Scale(how.name, rows, multipliers, notes, small)
