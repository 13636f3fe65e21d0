"""Adapts modules of Equinox for `check`."""

import inspect
from typing import Any

import jax

from jaxinit._adapt.functions import Split
from jaxinit._adapt.inputs import keep_arrays, split_arrays
from jaxinit._adapt.kinds import find_modules


def split_equinox(module: Any) -> Split | None:
    """Splits a model; its call takes one example and is mapped over all.

    Returns None for what is no module of Equinox that can be called.
    """
    if not (isinstance(module, find_modules("equinox")) and callable(module)):
        return None
    _, restore = split_arrays(module)
    noisy = "key" in inspect.signature(type(module).__call__).parameters

    def call(model: Any, key: Any, inputs: Any, arguments: Any) -> Any:
        arrays, whole = split_arrays(inputs)
        sizes = [array.shape[0] for array in arrays if array.ndim]
        keys = jax.random.split(key, sizes[0] if sizes else 1)

        def one(key: jax.Array, *arrays: Any) -> Any:
            noise = {"key": key} if noisy and "key" not in arguments else {}
            return model(*whole(arrays), **noise, **arguments)

        axes = [0 if array.ndim else None for array in arrays]
        return jax.vmap(one, (0, *axes))(keys, *arrays)

    return Split(
        keep_arrays(module),
        (),
        lambda params, rest: restore(jax.tree.leaves(params)),
        call,
    )
