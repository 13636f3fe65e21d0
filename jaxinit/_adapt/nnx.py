"""Adapts modules of Flax NNX: for `check`, and for training."""

import sys
from collections.abc import Callable
from typing import Any

import jax

from jaxinit._adapt.functions import Params, Split, Trainable, tag_output
from jaxinit._adapt.kinds import construct, find_modules


def make_rngs(key: jax.Array, streams: tuple[str, ...]) -> dict[str, Any]:
    """Makes streams of keys, as the argument ``rngs``; nothing unless NNX is loaded."""
    nnx = sys.modules.get("flax.nnx")
    if nnx is None:
        return {}
    keys = jax.random.split(key, 1 + len(streams))
    named = dict(zip(("params", *streams), keys, strict=True))
    return {"rngs": nnx.Rngs(keys[0], **named)}


def split_nnx(module: Any) -> Split | None:
    """Splits a module into parameters, other variables, and its call.

    The outputs of its modules get tags. Returns None for what is no module of NNX.
    """
    if not isinstance(module, find_modules("flax.nnx")):
        return None
    from flax import nnx

    definition, params, rest = _split(module)

    def restore(params: Params, rest: Any) -> Any:
        state = nnx.State(jax.tree.map(nnx.Param, params))
        return _merge(definition, state, rest)

    def call(model: Any, key: Any, inputs: Any, arguments: Any) -> Any:
        return _tag_modules(model)(*inputs, **arguments)

    return Split(nnx.to_pure_dict(params), rest, restore, call)


def train_nnx(maker: Callable[..., Any]) -> Trainable:
    """Adapts a class or factory of ``rngs``, whose modules know whether they train."""
    from flax import nnx

    definitions: list[Any] = []

    def init(key: jax.Array, x: jax.Array) -> Any:
        made = construct(maker, {"rngs": nnx.Rngs(key)})
        definition, params, rest = _split(made)
        definitions[:] = [definition]
        return {"params": params, "rest": rest}

    def run(variables: Any, x: jax.Array, train: bool) -> tuple[jax.Array, Any]:
        model = _merge(definitions[0], variables["params"], variables["rest"])
        model.train() if train else model.eval()
        output = model(x)
        _, _, rest = _split(model)
        return output, {"rest": rest}

    def apply(variables: Any, x: jax.Array) -> jax.Array:
        return run(variables, x, False)[0]

    return Trainable(init, apply, lambda variables, x, key: run(variables, x, True))


def _split(module: Any) -> tuple[Any, Any, Any]:
    """Splits a module into its definition, its parameters and other variables."""
    from flax import nnx

    parts: Any = nnx.split(module, nnx.Param, ...)
    return parts  # type: ignore[no-any-return]


def _merge(definition: Any, params: Any, rest: Any) -> Any:
    """Merges copies: NNX lets a variable change only at the trace level it is from."""
    from flax import nnx

    return nnx.merge(definition, *jax.tree.map(lambda leaf: leaf, (params, rest)))


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
                return tag_output(kind.__call__(self, *args, **kwargs), name)

            module.__class__ = type(kind.__name__, (kind,), {"__call__": call})
    return model
