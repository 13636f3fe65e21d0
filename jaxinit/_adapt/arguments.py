"""Reads the arguments that say how a model is called: keywords, streams, training."""

from collections.abc import Mapping
from typing import Any

from jaxinit import _check as check
from jaxinit._adapt.kinds import FRAMEWORKS, find_modules, read_parameters

_TRAINS = ("train", "training", "is_training")
_EVALUATES = ("deterministic", "inference", "eval", "use_running_average")


def read_keywords(arguments: Any) -> Mapping[str, Any]:
    """Returns the keywords of the call."""
    keywords = {} if arguments is None else arguments
    if isinstance(keywords, Mapping) and all(
        isinstance(name, str) for name in keywords
    ):
        return keywords
    rule = "arguments must be a dictionary of keywords, such as {'train': False}."
    raise check.Unfit(rule, TypeError, arguments=arguments)


def read_names(**argument: Any) -> tuple[str, ...]:
    """Returns a name, or several, as a tuple."""
    ((name, value),) = argument.items()
    names = (value,) if isinstance(value, str) else value
    if isinstance(names, (tuple, list)) and all(isinstance(x, str) for x in names):
        return tuple(names)
    rule = f"{name} must be a name, or several in a tuple."
    raise check.Unfit(rule, TypeError, **argument)


def set_mode(
    model: Any, keywords: Mapping[str, Any], train: bool | None
) -> Mapping[str, Any]:
    """Adds the keyword by which a model's call tells training from evaluation."""
    if train is None:
        return keywords
    check.boolean(train=train)
    taken = read_parameters(_find_call(model))
    for names, value in ((_TRAINS, train), (_EVALUATES, not train)):
        for name in names:
            if name in taken:
                return {**keywords, name: value}
    known = ", ".join((*_TRAINS, *_EVALUATES))
    rule = f"the model's call has no argument of these: {known}. Use arguments={{...}}."
    raise check.Unfit(rule, train=train)


def _find_call(model: Any) -> Any:
    """Returns the function that a model is called by, if it can be told."""
    if isinstance(model, (tuple, list)):
        return model[-1] if model else None
    kind = model if isinstance(model, type) else type(model)
    return kind.__call__ if issubclass(kind, find_modules(*FRAMEWORKS)) else None
