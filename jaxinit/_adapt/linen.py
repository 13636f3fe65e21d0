"""Adapts modules of Flax Linen: for `check`, and for training."""

import inspect
from typing import Any

import jax

from jaxinit import _check as check
from jaxinit._adapt.functions import Call, Model, Params, Trainable, tag_output

# What `module.apply` takes beside the arguments of the model's call.
_NOT_OF_THE_CALL = {
    "rngs": "all streams get keys: name them, as streams=('dropout', 'noise')",
    "mutable": "all collections may change: leave it out",
}


def adapt_linen(module: Any, call: Call) -> Model:
    """Adapts a module; the outputs of its modules get tags, and it stays as it is."""
    for name in _NOT_OF_THE_CALL.keys() & call.arguments.keys():
        rule = f"arguments must not have {name!r}: {_NOT_OF_THE_CALL[name]}."
        raise check.Unfit(rule, arguments=call.arguments)
    import flax.linen as nn
    from flax.core import meta

    boxes: list[Any] = []  # they tell how variables are partitioned

    def init(key: jax.Array) -> tuple[Params, Any]:
        rngs = call.rngs(key, "params")
        boxed = module.init(rngs, *call.inputs, **call.arguments)
        boxes[:] = [jax.tree.map(jax.typeof, boxed)]
        variables = meta.unbox(boxed)
        return variables.pop("params", {}), variables

    def tag(next_function: Any, args: Any, kwargs: Any, context: Any) -> Any:
        output = next_function(*args, **kwargs)
        if context.method_name != "__call__":
            return output
        return tag_output(output, "/".join(context.module.path))

    def apply(params: Params, rest: Any, key: jax.Array, *inputs: Any) -> Any:
        with nn.intercept_methods(tag):
            output, _ = module.apply(
                {"params": params, **rest},
                *inputs,
                **call.arguments,
                rngs=call.rngs(key) if call.streams else None,
                mutable=nn.DenyList("params"),
            )
        return output

    def restore(params: Params, rest: Any) -> Any:
        variables = {"params": params, **rest} if params else rest
        return meta.replace_boxed(boxes[0], variables)

    return Model(init, apply, lambda: "linen", restore)


def train_linen(module: Any) -> Trainable:
    """Adapts a module whose call may take ``train``."""
    takes_train = "train" in inspect.signature(type(module).__call__).parameters

    def mode(train: bool) -> dict[str, Any]:
        return {"train": train} if takes_train else {}

    def init(key: jax.Array, x: jax.Array) -> Any:
        return module.init({"params": key, "dropout": key}, x, **mode(True))

    def apply(variables: Any, x: jax.Array) -> jax.Array:
        output: jax.Array = module.apply(variables, x, **mode(False))
        return output

    def train(variables: Any, x: jax.Array, key: jax.Array) -> tuple[jax.Array, Any]:
        others = [name for name in variables if name != "params"]
        output: tuple[jax.Array, Any] = module.apply(
            variables, x, mutable=others, rngs={"dropout": key}, **mode(True)
        )
        return output

    return Trainable(init, apply, train)
