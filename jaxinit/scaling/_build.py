"""How a parameterization reads its two models."""

from collections.abc import Mapping, Sequence
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


def _check_inputs(
    models: Mapping[str, Any], inputs: Sequence[Any], reading: Mapping[str, Any]
) -> None:
    """Raises `Unfit` if inputs are missing, or nothing is read with them."""
    names = list(Reading.__annotations__)
    if wrong := [each for each in reading if each not in names]:
        rule = f"there is no such argument.{check.misspelt(wrong, names)}"
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
        _check_inputs({"base": base, "target": target}, inputs, reading)
    except check.Unfit as error:
        raise error.at(how.call) from None
    small, large = (
        model if isinstance(model, Structure) else structure(model, *inputs, **reading)
        for model in (base, target)
    )
    rows, multipliers, notes = parameterize(how, small, large, forward)
    return Scale(how.name, rows, multipliers, notes, small)
