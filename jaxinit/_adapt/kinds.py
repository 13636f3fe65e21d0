"""Kinds of models, told without loading a framework: theirs is loaded already."""

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any

FRAMEWORKS = ("flax.linen", "flax.nnx", "equinox")


def find_modules(*frameworks: str) -> tuple[type, ...]:
    """Returns the module classes of those frameworks that are loaded."""
    loaded = (sys.modules.get(name) for name in frameworks)
    found = (getattr(framework, "Module", None) for framework in loaded)
    return tuple(module for module in found if module is not None)


def is_built(model: Any) -> bool:
    """Returns whether something is a model, or nothing that could make one."""
    return not callable(model) or isinstance(model, find_modules(*FRAMEWORKS))


def is_class_of(model: Any, framework: str) -> bool:
    """Returns whether a model is a module class of a framework."""
    return isinstance(model, type) and issubclass(model, find_modules(framework))


def read_parameters(function: Any) -> Mapping[str, inspect.Parameter]:
    """Returns a function's parameters; a metaclass may hide those of a class."""
    if isinstance(function, functools.partial):
        inner = list(read_parameters(function.func).items())[len(function.args) :]
        return {k: p for k, p in inner if k not in function.keywords}
    if isinstance(function, type):
        own = dict(inspect.signature(function.__init__).parameters)  # type: ignore[misc]
        return dict(list(own.items())[1:])
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):  # C functions may have no signature
        return {}


def set_arguments(maker: Any, settings: Mapping[str, Any]) -> Any:
    """Calls a class or function that makes a model, unless it waits for a key.

    Args:
      maker: the class or function.
      settings: its arguments by name, all but those that draw weights.

    Returns:
      The model; or a function of ``rngs``, or of a key, that makes it, for `construct`.
    """
    parameters = read_parameters(maker)
    if "rngs" in parameters or is_class_of(maker, "flax.nnx"):
        return lambda rngs: maker(**settings, rngs=rngs)
    left = [
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        and name not in settings
    ]
    if "key" in parameters or (inspect.isfunction(maker) and len(left) == 1):
        return functools.partial(maker, **settings)
    return maker(**settings)


def construct(maker: Callable[..., Any], sources: Mapping[str, Any]) -> Any:
    """Makes a model whose weights are drawn from the one source that it takes.

    Args:
      maker: a class or function of ``rngs``, of ``key``, or of one argument.
      sources: what weights can be drawn from, by the name of the argument.
    """
    parameters = read_parameters(maker)
    for name, source in sources.items():
        if name in parameters:
            return maker(**{name: source})
    calls = [functools.partial(maker, source) for source in sources.values()]
    calls += [functools.partial(maker, **{name: x}) for name, x in sources.items()]
    first, *others = calls
    try:
        return first()
    except Exception:  # the user's code; if no other call works, its error is told
        for other in others:  # the argument has another name, or is one of **keywords
            try:
                return other()
            except Exception:  # of a call that was only a try
                continue
        raise
