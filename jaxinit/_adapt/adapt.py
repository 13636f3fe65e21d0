"""Tells which kind of model something is: for `check`, and for training in the lab.

No framework is loaded here: a model's own is loaded already.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax

from jaxinit import _check as check
from jaxinit._adapt.equinox import split_equinox
from jaxinit._adapt.functions import Call, Model, Params, Split, Trainable
from jaxinit._adapt.kinds import construct, find_modules, is_built, is_class_of
from jaxinit._adapt.linen import adapt_linen, train_linen
from jaxinit._adapt.nnx import make_rngs, split_nnx, train_nnx
from jaxinit._adapt.pairs import adapt_pair, find_owner
from jaxinit._jaxpr.tracers import trace_quietly

# What a model may be: for `check`, of a function, and for training.
_CHECKED = (
    "must be a Flax module, an NNX class or factory, an Equinox class or a "
    "function of a key that makes one, or (init_fn, apply_fn)."
)
_MADE = (
    "a function as the model must take rngs and return an nnx.Module, or take a key "
    "and return a module of Equinox. For others pass (init_fn, apply_fn)."
)
_PAIR = (
    "a model of functions is the pair (init_fn, apply_fn): init_fn(key) makes the "
    "parameters, apply_fn(params, *inputs) the output."
)
_TRAINED = "is neither a Linen module nor an NNX class, or a function of rngs."


def adapt(
    model: Any,
    inputs: tuple[Any, ...],
    arguments: Mapping[str, Any],
    streams: tuple[str, ...],
    built: bool = False,
) -> Model:
    """Recognizes the framework of a model and brings it into the one form.

    Args:
      model: as `check` takes it.
      inputs: example inputs.
      arguments: keywords of the call.
      streams: names of the random streams beside ``params``.
      built: whether the model may have weights already; init then returns these.

    Raises:
      Unfit: if it is of no kind that can be measured.
    """
    call = Call(inputs, arguments, streams)
    linen = find_modules("flax.linen")
    if isinstance(model, tuple | list):
        if len(model) != 2 or not all(map(callable, model)):
            raise check.Unfit(_PAIR, model=model)
        owner = find_owner(model[0])
        is_method = isinstance(owner, linen)
        return adapt_linen(owner, call) if is_method else adapt_pair(model, call)
    if isinstance(model, linen):
        return adapt_linen(model, call)
    for framework, argument in (("flax.nnx", "rngs"), ("equinox", "key")):
        if isinstance(model, find_modules(framework)):
            if built:
                return _adapt_built(model, call)
            rule = "is a model whose weights are drawn already. Pass its class, or a "
            rule += f"function that takes {argument} and returns it: "
            rule += f"lambda {argument}: Model(..., {argument}={argument}). To check "
            rule += "its weights as they are, pass it as params= too."
            raise check.Unfit(rule, model=type(model).__name__)
    if is_class_of(model, "flax.linen"):
        rule = f"is a Linen class: pass a module, {model.__name__}(...)."
        raise check.Unfit(rule, model=model.__name__)
    if callable(model):
        if isinstance(find_owner(model), linen):
            rule = "is a method of a Linen module: pass the module itself."
            raise check.Unfit(rule, model=model)
        return _adapt_maker(model, call)
    raise check.Unfit(_CHECKED, TypeError, model=model)


def adapt_for_training(model: Any, name: str) -> Trainable:
    """Recognizes a model of Flax: a Linen module or class, or an NNX class or factory.

    Args:
      model: the model.
      name: what it was imported by.

    Raises:
      Unfit: if it is of no kind that can be trained.
    """
    if is_class_of(model, "flax.linen"):
        model = model()
    if isinstance(model, find_modules("flax.linen")):
        return train_linen(model)
    if is_built(model):
        raise check.Unfit(_TRAINED, model=name)
    return train_nnx(model)


def _adapt_built(model: Any, call: Call) -> Model:
    """Adapts a model of NNX or Equinox with the weights that it has."""
    parts = split_nnx(model) or split_equinox(model)
    if parts is None:
        raise check.Unfit(_MADE, TypeError, model=model)
    params, rest, restore, run = parts
    name = _name_framework(model)

    def apply(params: Params, rest: Any, key: jax.Array, *inputs: Any) -> Any:
        return run(restore(params, rest), key, inputs, call.arguments)

    return Model(lambda key: (params, rest), apply, lambda: name, restore)


def _name_framework(module: Any) -> str:
    """Returns "nnx" or "equinox"."""
    return "nnx" if isinstance(module, find_modules("flax.nnx")) else "equinox"


def _adapt_maker(maker: Callable[..., Any], call: Call) -> Model:
    """Adapts a class or function that makes an NNX or Equinox model."""
    splits: list[Split] = []
    names: list[str] = []

    def init(key: jax.Array) -> tuple[Params, Any]:
        sources = {**make_rngs(key, call.streams), "key": key}
        model = construct(maker, sources)
        parts = split_nnx(model) or split_equinox(model)
        if parts is None:
            raise check.Unfit(_MADE, TypeError, model=model)
        splits[:] = [parts._replace(params=None, rest=None)]  # they are tracers
        names[:] = [_name_framework(model)]
        return parts.params, parts.rest

    def apply(params: Params, rest: Any, key: jax.Array, *inputs: Any) -> Any:
        built = splits[0].restore(params, rest)
        return splits[0].call(built, key, inputs, call.arguments)

    return Model(
        lambda key: trace_quietly(init, (key,), {}),
        apply,
        lambda: names[0],
        lambda params, rest: splits[0].restore(params, rest),
    )
