"""Traces functions that read ``tracer.sharding``, as init functions of Flax NNX do.

A tracer of `jax.jit` has no ``sharding``, and before it says so it writes an error
message about everything traced so far (https://github.com/jax-ml/jax/pull/40041). Flax
NNX asks at every ``rngs()``, and most of the time that a large model took to trace went
into such messages. Here a function sees tracers that refuse at once; their operations
are recorded by `jax.jit` as ever.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.extend import core, linear_util


def trace_quietly(
    function: Callable[..., Any], args: Any, kwargs: Mapping[str, Any]
) -> Any:
    """Calls a function within a trace of `jax.jit`; its result is a pytree."""
    try:
        return _call_within(function, *args, **kwargs)
    except Exception:  # the function's own error is raised again, by JAX's tracers
        return function(*args, **kwargs)


def _call_within(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    with core.take_current_trace() as parent:
        trace = _Trace(parent)
    args, kwargs = _change_leaves(trace.wrap, (args, kwargs))
    with core.set_current_trace(trace):
        result = function(*args, **kwargs)
    return _change_leaves(_unwrap, result)


def _change_leaves(change: Callable[[Any], Any], tree: Any) -> Any:
    """Changes the leaves of a tree; returns the tree itself where none changes."""
    leaves, structure = jax.tree.flatten(tree)
    changed = list(map(change, leaves))
    if all(new is old for new, old in zip(changed, leaves, strict=True)):
        return tree
    return jax.tree.unflatten(structure, changed)


class _Tracer(jax.core.Tracer[Any]):
    """Wraps a tracer of the parent trace."""

    __slots__ = ("value",)

    def __init__(self, trace: "_Trace", value: Any):
        super().__init__(trace, value.aval)
        self.value = value

    @property
    def sharding(self) -> Any:
        raise AttributeError("A tracer has no sharding.")


def _unwrap(value: Any) -> Any:
    return value.value if type(value) is _Tracer else value


class _Trace(jax.core.Trace):
    """Hands every operation to its parent trace."""

    def __init__(self, parent: Any):
        super().__init__()  # type: ignore[no-untyped-call]
        self.parent = parent
        self.requires_low = parent.requires_low

    def wrap(self, value: Any) -> Any:
        return _Tracer(self, value) if isinstance(value, jax.core.Tracer) else value

    def is_valid(self) -> bool:
        return bool(self.parent.is_valid())

    def stage_value(self, value: Any) -> Any:
        return self.wrap(self.parent.stage_value(_unwrap(value)))

    def process_primitive(self, primitive: Any, values: Any, params: Any, /) -> Any:
        operands = [v.value if type(v) is _Tracer else v for v in values]
        results = self.parent.process_primitive(primitive, operands, params)
        several = primitive.multiple_results
        return list(map(self.wrap, results)) if several else self.wrap(results)

    def process_custom_jvp_call(
        self, primitive: Any, fun: Any, jvp: Any, values: Any, /, **how: Any
    ) -> Any:
        operands = list(map(_unwrap, values))
        process = self.parent.process_custom_jvp_call
        results = process(primitive, _let_read(fun), jvp, operands, **how)
        return list(map(self.wrap, results))

    def process_custom_vjp_call(
        self, primitive: Any, fun: Any, fwd: Any, bwd: Any, values: Any, /, **how: Any
    ) -> Any:
        operands = list(map(_unwrap, values))
        process = self.parent.process_custom_vjp_call
        results = process(primitive, _let_read(fun), fwd, bwd, operands, **how)
        return list(map(self.wrap, results))


def _let_read(fun: Any) -> Any:
    """Lets a function that the parent traces read our tracers."""
    run = functools.partial(_call_within, fun.call_wrapped)
    return linear_util.wrap_init(run, debug_info=fun.debug_info)
