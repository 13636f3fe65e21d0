"""Reads what a model is called with: pytrees of arrays, keywords, streams, a mode."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit import _check as check
from jaxinit._adapt.kinds import FRAMEWORKS, find_modules, read_parameters

ARRAYS = (jax.Array, np.ndarray, np.generic)
_TRAINS = ("train", "training", "is_training")
_EVALUATES = ("deterministic", "inference", "eval", "use_running_average")
_NUMBERS = (bool, int, float, complex)
_RULE = (
    "x must be an array, or a tuple of arrays for several inputs. An input may be any "
    "pytree of arrays and numbers; what chooses the program goes in arguments={...}."
)

Restore = Callable[[Sequence[Any]], Any]


def read_inputs(x: Any) -> tuple[Any, ...]:
    """Returns the inputs as a tuple, with numbers turned into arrays.

    True and False stay as they are: they choose the program, as None does.
    """
    several = type(x) is tuple  # a NamedTuple is one input
    if several and x and all(type(size) is int for size in x):
        rule = "x must be data, not a shape. Draw them, as with "
        rule += f"jax.random.normal(jax.random.key(1), {x})."
        raise check.Unfit(rule, TypeError, x=x)
    inputs = tuple(map(_read_input, x if several else (x,)))
    arrays = [leaf for leaf in jax.tree.leaves(inputs) if isinstance(leaf, jax.Array)]
    if arrays and not any(array.size for array in arrays):
        raise check.Unfit("x must have entries: one example or more.", x=arrays[0])
    return inputs


def read_shapes(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Returns inputs with a `jax.ShapeDtypeStruct` in the place of each array.

    Arrays may be given by their shapes, or be tracers; no values are read.
    """
    for x in inputs:
        if type(x) is tuple and x and all(type(size) is int for size in x):
            rule = "x must be data, not a shape. Write "
            rule += f"jax.ShapeDtypeStruct({x}, jnp.float32)."
            raise check.Unfit(rule, TypeError, x=x)
    return tuple(_read_input(x, _shape_leaf) for x in inputs)


def _shape_leaf(leaf: Any) -> Any:
    if isinstance(leaf, (jax.core.Tracer, jax.ShapeDtypeStruct)):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    if isinstance(leaf, bool) or not isinstance(leaf, (*ARRAYS, *_NUMBERS)):
        return _convert_leaf(leaf)
    return jax.eval_shape(jnp.asarray, leaf)


def _read_input(x: Any, convert: Callable[[Any], Any] | None = None) -> Any:
    leaves = jax.tree.leaves(x)
    if isinstance(x, list) and all(isinstance(leaf, _NUMBERS) for leaf in leaves):
        x = _convert_leaf(x)
    return jax.tree.map(convert or _convert_leaf, x)


def _convert_leaf(leaf: Any) -> Any:
    if isinstance(leaf, bool):
        return leaf
    if isinstance(leaf, jax.core.Tracer):
        rule = "x must hold numbers, not tracers: check compiles programs of its own. "
        rule += "Call it outside of jax.jit."
        raise check.Unfit(rule, TypeError, x=leaf)
    if isinstance(leaf, jax.ShapeDtypeStruct):
        rule = "x must hold numbers, not shapes alone. Draw them, as with "
        rule += f"jax.random.normal(jax.random.key(1), {leaf.shape})."
        raise check.Unfit(rule, TypeError, x=leaf)
    if dataclasses.is_dataclass(leaf):
        rule = "is a dataclass that JAX does not know as a pytree. Decorate it with "
        rule += "jax.tree_util.register_dataclass."
        raise check.Unfit(rule, TypeError, x=leaf)
    if not isinstance(leaf, (*ARRAYS, *_NUMBERS, list)):
        raise check.Unfit(_RULE, TypeError, x=leaf)
    try:
        return jnp.asarray(leaf)
    except (TypeError, ValueError, OverflowError):
        raise check.Unfit(_RULE, TypeError, x=leaf) from None


def split_arrays(
    tree: Any, kinds: tuple[type, ...] = ARRAYS
) -> tuple[list[Any], Restore]:
    """Splits a tree into its arrays and the rest.

    Returns:
      The arrays, and a function that rebuilds the tree around other arrays.
    """
    leaves, structure = jax.tree.flatten(tree)
    flags = [isinstance(leaf, kinds) for leaf in leaves]
    rest = [None if is_array else x for x, is_array in zip(leaves, flags, strict=True)]

    def restore(arrays: Sequence[Any]) -> Any:
        others = iter(arrays)
        pairs = zip(rest, flags, strict=True)
        merged = [next(others) if is_array else x for x, is_array in pairs]
        return jax.tree.unflatten(structure, merged)

    return [x for x, is_array in zip(leaves, flags, strict=True) if is_array], restore


def keep_arrays(tree: Any) -> Any:
    """Replaces leaves that are not arrays, such as an Equinox activation, by None."""
    return jax.tree.map(lambda x: x if isinstance(x, ARRAYS) else None, tree)


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
