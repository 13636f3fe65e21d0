"""Adapts pairs of functions (init, apply), as Haiku's transforms are, for `check`."""

import inspect
from collections.abc import Callable
from typing import Any

import jax

from jaxinit._adapt.functions import Call, Model, Params
from jaxinit._adapt.inputs import Restore, keep_arrays, split_arrays
from jaxinit._adapt.kinds import read_parameters
from jaxinit._jaxpr.tracers import trace_quietly


def adapt_pair(pair: Any, call: Call) -> Model:
    """Adapts two functions; those of a `hk.transform` may take a state and a key."""
    init, apply = pair
    names, stateful = list(read_parameters(apply)), "WithState" in type(pair).__name__
    of_inputs = len(_list_required(init)) > 1
    restores: list[Restore] = []

    def draw(key: jax.Array) -> tuple[Params, Any]:
        result = init(key, *call.inputs, **call.arguments) if of_inputs else init(key)
        params, state = result if stateful else (result, ())
        restores[:] = [split_arrays(params)[1]]
        return keep_arrays(params), state

    def run(params: Params, state: Any, key: jax.Array, *inputs: Any) -> Any:
        before = [state] if stateful else []
        before += [key] if "rng" in names[1:3] else []
        whole = restores[0](jax.tree.leaves(params))
        output = apply(whole, *before, *inputs, **call.arguments)
        return output[0] if stateful else output

    is_haiku = type(pair).__module__.partition(".")[0] == "haiku"
    name = "haiku" if is_haiku else "functions"

    def restore(params: Params, state: Any) -> Any:
        whole = restores[0](jax.tree.leaves(params))
        return (whole, state) if stateful else whole

    return Model(
        lambda key: trace_quietly(draw, (key,), {}), run, lambda: name, restore
    )


def find_owner(function: Callable[..., Any]) -> Any:
    """Returns the object that a function is a method of, decorated or not; or None."""
    method = inspect.unwrap(function, stop=lambda f: hasattr(f, "__self__"))
    return getattr(method, "__self__", None)


def _list_required(function: Any) -> list[str]:
    """Lists the positional parameters that a call must fill; *args counts as one."""
    return [
        name
        for name, p in read_parameters(function).items()
        if p.kind is p.VAR_POSITIONAL
        or p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        and p.default is p.empty
    ]
