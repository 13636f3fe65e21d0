"""One form for models of Flax Linen, Flax NNX and plain functions.

Outputs of Flax modules get tags that `jaxinit.signal._trace` finds; the model itself is
left as it is.
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name

from jaxinit import _check as check
from jaxinit.model import called
from jaxinit.signal._trace import TAG

Params = Any  # a pytree of arrays


@dataclasses.dataclass(frozen=True)
class Model:
    """A model as two functions.

    Attributes:
      init: makes the parameters, and what else the model stores, from a key.
      apply: computes the output from both, a key for noise, and inputs.
    """

    init: Callable[[jax.Array], tuple[Params, Any]]
    apply: Callable[..., Any]


def adapt(
    model: Any,
    inputs: tuple[Any, ...],
    arguments: Mapping[str, Any],
    streams: tuple[str, ...],
) -> Model:
    """Finds what a model is and gives it the one form.

    Args:
      model: a Linen module, an NNX class or factory, or a pair of functions.
      inputs: examples of what the model is called with.
      arguments: keywords of the call.
      streams: names of the random streams beside ``params``.
    """
    if isinstance(model, tuple | list):
        return _pure(model, arguments)
    import flax.linen as nn
    from flax import nnx

    if isinstance(model, nn.Module):
        return _linen(model, inputs, arguments, streams)
    if isinstance(model, nnx.Module):
        raise check.Unfit(
            "is a model whose weights are drawn already. Pass its class, or a function "
            "that takes rngs and returns it: lambda rngs: Model(..., rngs=rngs).",
            model=type(model).__name__,
        )
    if isinstance(model, type) and issubclass(model, nn.Module):
        raise check.Unfit(
            f"is a Linen class: pass a module, {model.__name__}(...).",
            model=model.__name__,
        )
    if callable(model):
        return _nnx(model, arguments, streams)
    raise check.Unfit(
        "must be a Flax module, an NNX class or factory, or (init_fn, apply_fn).",
        TypeError,
        model=model,
    )


def _tagged(value: Any, path: str) -> Any:
    def tag(leaf: Any) -> Any:
        return checkpoint_name(leaf, TAG + path) if hasattr(leaf, "dtype") else leaf

    return jax.tree.map(tag, value)


def _pure(pair: Any, arguments: Mapping[str, Any]) -> Model:
    if len(pair) != 2 or not all(callable(part) for part in pair):
        raise check.Unfit(
            "a model of functions is the pair (init_fn, apply_fn): init_fn(key) makes "
            "the parameters, apply_fn(params, *inputs) the output.",
            model=pair,
        )
    init, apply = pair
    return Model(
        lambda key: (init(key), ()),
        lambda params, rest, key, *inputs: apply(params, *inputs, **arguments),
    )


def _linen(
    model: Any,
    inputs: tuple[Any, ...],
    arguments: Mapping[str, Any],
    streams: tuple[str, ...],
) -> Model:
    import flax.linen as nn
    from flax.core import meta

    def rngs(key: jax.Array, names: tuple[str, ...]) -> dict[str, jax.Array]:
        return dict(zip(names, jax.random.split(key, len(names)), strict=True))

    def init(key: jax.Array) -> tuple[Params, Any]:
        made = model.init(rngs(key, ("params", *streams)), *inputs, **arguments)
        made = meta.unbox(made)
        return made.pop("params", {}), made

    def tag(next_function: Any, args: Any, kwargs: Any, context: Any) -> Any:
        output = next_function(*args, **kwargs)
        if context.method_name != "__call__":
            return output
        return _tagged(output, "/".join(context.module.path))

    def apply(params: Params, rest: Any, key: jax.Array, *inputs: Any) -> Any:
        given = rngs(key, streams) if streams else None
        with nn.intercept_methods(tag):
            output, _ = model.apply(
                {"params": params, **rest},
                *inputs,
                **arguments,
                rngs=given,
                mutable=nn.DenyList("params"),
            )
        return output

    return Model(init, apply)


def _nnx(
    factory: Callable[..., Any], arguments: Mapping[str, Any], streams: tuple[str, ...]
) -> Model:
    from flax import nnx

    def make(key: jax.Array) -> Any:
        keys = jax.random.split(key, 1 + len(streams))
        names = dict(zip(("params", *streams), keys, strict=True))
        rngs = nnx.Rngs(keys[0], **names)
        call: Any = factory
        if isinstance(factory, type):
            call = getattr(factory, "__init__")  # noqa: B009
        named = "rngs" in inspect.signature(call).parameters
        made = factory(rngs=rngs) if named else factory(rngs)
        if not isinstance(made, nnx.Module):
            raise check.Unfit(
                "a function as the model must take rngs and return an nnx.Module.",
                TypeError,
                model=made,
            )
        return made

    graph: list[Any] = []

    def init(key: jax.Array) -> tuple[Params, Any]:
        definition, params, *others = nnx.split(make(key), nnx.Param, ...)
        graph[:] = [definition]
        (rest,) = others
        return nnx.to_pure_dict(params), rest

    def apply(params: Params, rest: Any, key: jax.Array, *inputs: Any) -> Any:
        # New variables, since one may only change where it was made.
        rest = jax.tree.map(lambda leaf: leaf, rest)
        model = nnx.merge(graph[0], _state(params), rest)
        return _with_tags(model)(*inputs, **arguments)

    def _state(params: Params) -> Any:
        return nnx.State(jax.tree.map(nnx.Param, params))

    return Model(lambda key: called(init, (key,), {}), apply)


def _with_tags(model: Any) -> Any:
    """Gives the modules of a merged copy a call that tags its output."""
    from flax import nnx

    for path, module in nnx.iter_graph(model):
        kind = type(module)
        if isinstance(module, nnx.Module) and callable(module):
            name = "/".join(str(part) for part in path)

            def call(
                self: Any, *args: Any, kind: Any = kind, name: str = name, **kwargs: Any
            ) -> Any:
                return _tagged(kind.__call__(self, *args, **kwargs), name)

            module.__class__ = type(kind.__name__, (kind,), {"__call__": call})
    return model
