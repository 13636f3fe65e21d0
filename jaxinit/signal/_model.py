"""Brings models of Flax Linen, NNX, Equinox, Haiku and plain functions into one form.

Outputs of Flax modules get tags that `jaxinit.signal._trace` finds; the model itself
stays as it is. No framework is loaded here: a model's own is loaded already.
"""

import dataclasses
import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name

from jaxinit import _check as check
from jaxinit._jaxpr.tracers import trace_quietly
from jaxinit.signal._inputs import ARRAYS, Restore, split_arrays
from jaxinit.signal._trace.find import TAG

Params = Any  # a pytree of arrays


@dataclasses.dataclass(frozen=True)
class Model:
    """A model as two functions.

    Attributes:
      init: makes the parameters, and whatever else the model stores, from a key.
      apply: computes the output from both, a key for noise, and the inputs.
    """

    init: Callable[[jax.Array], tuple[Params, Any]]
    apply: Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class Call:
    """How a model is called.

    Attributes:
      inputs: example inputs.
      arguments: keywords of the call.
      streams: names of the random streams beside ``params``.
    """

    inputs: tuple[Any, ...]
    arguments: Mapping[str, Any]
    streams: tuple[str, ...]

    def rngs(self, key: jax.Array, *before: str) -> dict[str, jax.Array]:
        """Makes a key for each stream."""
        names = (*before, *self.streams)
        return dict(zip(names, jax.random.split(key, len(names)), strict=True))


def adapt(
    model: Any,
    inputs: tuple[Any, ...],
    arguments: Mapping[str, Any],
    streams: tuple[str, ...],
) -> Model:
    """Recognizes the framework of a model and brings it into the one form.

    Args:
      model: as `check` takes it.
      inputs: example inputs.
      arguments: keywords of the call.
      streams: names of the random streams beside ``params``.
    """
    call = Call(inputs, arguments, streams)
    linen, nnx, equinox = (
        getattr(sys.modules.get(name), "Module", ())
        for name in ("flax.linen", "flax.nnx", "equinox")
    )
    if isinstance(model, tuple | list):
        return _adapt_pair(model, call)
    if isinstance(model, linen):
        return _adapt_linen(model, call)
    for framework, argument in ((nnx, "rngs"), (equinox, "key")):
        if isinstance(model, framework):
            raise check.Unfit(
                "is a model whose weights are drawn already. Pass its class, or a "
                f"function that takes {argument} and returns it: "
                f"lambda {argument}: Model(..., {argument}={argument}).",
                model=type(model).__name__,
            )
    if isinstance(model, type) and linen and issubclass(model, linen):
        raise check.Unfit(
            f"is a Linen class: pass a module, {model.__name__}(...).",
            model=model.__name__,
        )
    if callable(model):
        return _adapt_constructor(model, call)
    raise check.Unfit(
        "must be a Flax module, an NNX class or factory, an Equinox class or a "
        "function of a key that makes one, or (init_fn, apply_fn).",
        TypeError,
        model=model,
    )


def bind_axes(model: Model, axes: tuple[str, ...]) -> Model:
    """Binds the axis names that a model reads, as `jax.vmap` does, each to size 1."""
    for axis in axes:
        model = Model(_bind_axis(model.init, axis), _bind_axis(model.apply, axis))
    return model


def _bind_axis(function: Callable[..., Any], axis: str) -> Callable[..., Any]:
    restores: list[Restore] = []

    def inner(args: Any) -> list[Any]:
        arrays, whole = split_arrays(function(*args))
        restores[:] = [whole]
        return arrays

    mapped = jax.vmap(inner, in_axes=None, axis_name=axis, axis_size=1)

    def run(*args: Any) -> Any:
        arrays = mapped(args)
        return restores[0]([array.reshape(array.shape[1:]) for array in arrays])

    return run


def _tag(value: Any, path: str) -> Any:
    def tag(leaf: Any) -> Any:
        return checkpoint_name(leaf, TAG + path) if hasattr(leaf, "dtype") else leaf

    return jax.tree.map(tag, value)


def _adapt_pair(pair: Any, call: Call) -> Model:
    """Adapts a pair (init, apply), such as methods of Linen or a transform of Haiku."""
    if len(pair) != 2 or not all(callable(part) for part in pair):
        raise check.Unfit(
            "a model of functions is the pair (init_fn, apply_fn): init_fn(key) makes "
            "the parameters, apply_fn(params, *inputs) the output.",
            model=pair,
        )
    init, apply = pair
    bound_method = inspect.unwrap(init, stop=lambda f: hasattr(f, "__self__"))
    owner = getattr(bound_method, "__self__", None)
    if isinstance(owner, getattr(sys.modules.get("flax.linen"), "Module", ())):
        return _adapt_linen(owner, call)
    (_, *names), stateful = _list_parameters(apply), "WithState" in type(pair).__name__
    of_inputs = len(_list_required(init)) > 1
    restores: list[Restore] = []

    def draw(key: jax.Array) -> tuple[Params, Any]:
        result = init(key, *call.inputs, **call.arguments) if of_inputs else init(key)
        params, state = result if stateful else (result, ())
        restores[:] = [split_arrays(params)[1]]
        return _keep_arrays(params), state

    def run(params: Params, state: Any, key: jax.Array, *inputs: Any) -> Any:
        before = [state] if stateful else []
        before += [key] if "rng" in names[:2] else []
        whole = restores[0](jax.tree.leaves(params))
        output = apply(whole, *before, *inputs, **call.arguments)
        return output[0] if stateful else output

    return Model(lambda key: trace_quietly(draw, (key,), {}), run)


def _keep_arrays(tree: Any) -> Params:
    """Replaces leaves that are not arrays, such as an Equinox activation, by None."""
    return jax.tree.map(lambda x: x if isinstance(x, ARRAYS) else None, tree)


def _list_parameters(function: Callable[..., Any]) -> list[str]:
    return list(_read_parameters(function)) or [""]


def _read_parameters(function: Any) -> Mapping[str, inspect.Parameter]:
    """Returns a function's parameters; a metaclass may hide those of a class."""
    if isinstance(function, functools.partial):
        inner = list(_read_parameters(function.func).items())[len(function.args) :]
        return {k: p for k, p in inner if k not in function.keywords}
    if isinstance(function, type):
        own = dict(inspect.signature(function.__init__).parameters)  # type: ignore[misc]
        return dict(list(own.items())[1:])
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):  # C functions may have no signature
        return {}


def _list_required(function: Any) -> list[str]:
    """Lists the positional parameters that a call must fill; *args counts as one."""
    return [
        name
        for name, p in _read_parameters(function).items()
        if p.kind is p.VAR_POSITIONAL
        or p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        and p.default is p.empty
    ]


def _adapt_linen(model: Any, call: Call) -> Model:
    import flax.linen as nn
    from flax.core import meta

    def init(key: jax.Array) -> tuple[Params, Any]:
        rngs = call.rngs(key, "params")
        variables = meta.unbox(model.init(rngs, *call.inputs, **call.arguments))
        return variables.pop("params", {}), variables

    def tag(next_function: Any, args: Any, kwargs: Any, context: Any) -> Any:
        output = next_function(*args, **kwargs)
        if context.method_name != "__call__":
            return output
        return _tag(output, "/".join(context.module.path))

    def apply(params: Params, rest: Any, key: jax.Array, *inputs: Any) -> Any:
        with nn.intercept_methods(tag):
            output, _ = model.apply(
                {"params": params, **rest},
                *inputs,
                **call.arguments,
                rngs=call.rngs(key) if call.streams else None,
                mutable=nn.DenyList("params"),
            )
        return output

    return Model(init, apply)


def _adapt_constructor(factory: Callable[..., Any], call: Call) -> Model:
    """Adapts a class or function that makes an NNX or Equinox model."""
    forms: list[Any] = []

    def init(key: jax.Array) -> tuple[Params, Any]:
        model = _construct(factory, key, call)
        params, rest, run = _split_nnx(model) or _split_equinox(model)
        forms[:] = [run]
        return params, rest

    def apply(params: Params, rest: Any, key: jax.Array, *inputs: Any) -> Any:
        return forms[0](params, rest, key, inputs, call.arguments)

    return Model(lambda key: trace_quietly(init, (key,), {}), apply)


def _construct(factory: Callable[..., Any], key: jax.Array, call: Call) -> Any:
    """Calls a constructor with the argument that it takes: NNX streams, or a key."""
    arguments: dict[str, Any] = {"key": key}
    if nnx := sys.modules.get("flax.nnx"):
        keys = jax.random.split(key, 1 + len(call.streams))
        streams = dict(zip(("params", *call.streams), keys, strict=True))
        arguments = {"rngs": nnx.Rngs(keys[0], **streams), "key": key}
    for name, value in arguments.items():
        if name in _read_parameters(factory):
            return factory(**{name: value})
    first, *others = arguments.values()
    try:
        return factory(first)
    except Exception:
        for other in others:  # a function whose key has another name
            try:
                return factory(other)
            except Exception:
                continue
        raise


def _split_nnx(module: Any) -> tuple[Params, Any, Callable[..., Any]] | None:
    nnx = sys.modules.get("flax.nnx")
    if nnx is None or not isinstance(module, nnx.Module):
        return None
    definition, params, rest = nnx.split(module, nnx.Param, ...)

    def run(params: Params, rest: Any, key: Any, inputs: Any, arguments: Any) -> Any:
        # New variables: NNX lets a variable change only at the trace level it is from.
        rest = jax.tree.map(lambda leaf: leaf, rest)
        state = nnx.State(jax.tree.map(nnx.Param, params))
        model = nnx.merge(definition, state, rest)
        return _tag_modules(model)(*inputs, **arguments)

    return nnx.to_pure_dict(params), rest, run


def _split_equinox(module: Any) -> tuple[Params, Any, Callable[..., Any]]:
    """Splits an Equinox model; its call takes one example and is mapped over all."""
    equinox = sys.modules.get("equinox")
    if equinox is None or not (isinstance(module, equinox.Module) and callable(module)):
        raise check.Unfit(
            "a function as the model must take rngs and return an nnx.Module, or take "
            "a key and return a module of Equinox. For others pass (init_fn, "
            "apply_fn).",
            TypeError,
            model=module,
        )
    _, restore = split_arrays(module)
    noisy = "key" in inspect.signature(type(module).__call__).parameters

    def run(params: Params, rest: Any, key: Any, inputs: Any, arguments: Any) -> Any:
        model = restore(jax.tree.leaves(params))
        arrays, whole = split_arrays(inputs)
        sizes = [array.shape[0] for array in arrays if array.ndim]
        keys = jax.random.split(key, sizes[0] if sizes else 1)

        def one(key: jax.Array, *arrays: Any) -> Any:
            noise = {"key": key} if noisy and "key" not in arguments else {}
            return model(*whole(arrays), **noise, **arguments)

        axes = [0 if array.ndim else None for array in arrays]
        return jax.vmap(one, (0, *axes))(keys, *arrays)

    return _keep_arrays(module), (), run


def _tag_modules(model: Any) -> Any:
    """Replaces the call of each module in a merged copy by one that tags its output."""
    from flax import nnx

    for path, module in nnx.iter_graph(model):
        kind = type(module)
        if isinstance(module, nnx.Module) and callable(module):
            name = "/".join(str(part) for part in path)

            def call(
                self: Any, *args: Any, kind: Any = kind, name: str = name, **kwargs: Any
            ) -> Any:
                return _tag(kind.__call__(self, *args, **kwargs), name)

            module.__class__ = type(kind.__name__, (kind,), {"__call__": call})
    return model
