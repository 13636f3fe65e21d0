"""The device that trains, and the dtype that it computes in.

Mixed precision, as is usual: parameters, optimizer state and loss are float32, and a
network computes in the chosen dtype. With float64 everything is float64. In every dtype
the initial weights have the values of float32.
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from jaxinit import _check as check
from jaxinit.lab._tried._network import Network, Train

Dtype = Literal["float32", "bfloat16", "float16", "float64"]
DTYPES = get_args(Dtype)
Platform = Literal["cpu", "gpu", "tpu"]
PLATFORMS = get_args(Platform)


def cast_back(tree: Any, dtype: str) -> Any:
    """Casts the real numbers of a tree to the dtype of parameters and loss.

    That is float64 for float64, otherwise float32. With float32 the tree stays as it
    is, so that users' models keep their own dtypes.
    """
    if dtype == "float32":
        return tree
    return _cast(tree, "float64" if dtype == "float64" else "float32")


def mix_precision(model: Network, dtype: str) -> Network:
    """Makes a model compute in a dtype, with outputs in the dtype of the loss."""
    if dtype == "float32":
        return model

    def lower(variables: Any, x: jax.Array) -> tuple[Any, jax.Array]:
        return {**variables, "params": _cast(variables["params"], dtype)}, _cast(
            x, dtype
        )

    def apply(variables: Any, x: jax.Array) -> jax.Array:
        z: jax.Array = cast_back(model.apply(*lower(variables, x)), dtype)
        return z

    def mix(train: Train) -> Train:
        def mixed(variables: Any, x: jax.Array, key: jax.Array) -> tuple[Any, Any]:
            z, changed = train(*lower(variables, x), key)
            return cast_back(z, dtype), changed

        return mixed

    loop = model.loop
    if loop is not None:
        loop = loop._replace(network=mix_precision(loop.network, dtype))
    watched = model.watched and mix(model.watched)
    return dataclasses.replace(
        model, apply=apply, train=mix(model.train), watched=watched, loop=loop
    )


def _cast(tree: Any, dtype: str) -> Any:
    def cast(leaf: jax.Array) -> jax.Array:
        real = jnp.issubdtype(leaf.dtype, jnp.floating)
        return leaf.astype(dtype) if real else leaf

    return jax.tree.map(cast, tree)


def check_dtype(dtype: Any, model: str) -> None:
    """Raises `Unfit` for a dtype that cannot be computed in."""
    check.choice(DTYPES, dtype=dtype)
    if dtype != "float32" and ":" in model:
        rule = "a model of your own computes in the dtype that it is written in."
        raise check.Unfit(f"{rule} Leave dtype out.", dtype=dtype)
    if dtype == "float64" and jnp.result_type(float) != jnp.float64:
        rule = "JAX has 64-bit types switched off. "
        rule += "Call jax.config.update('jax_enable_x64', True) first."
        raise check.Unfit(rule, dtype=dtype)


def check_device(device: Any) -> None:
    """Raises `Unfit` for a platform that is missing here; None is JAX's default."""
    if device is None:
        return
    check.choice(PLATFORMS, device=device)
    here = [platform for platform in PLATFORMS if _has(platform)]
    if device not in here:
        rule = f"there is no {device}; here are {', '.join(here)}."
        raise check.Unfit(rule, device=device)


def _has(platform: str) -> bool:
    try:
        return bool(jax.devices(platform))
    except RuntimeError:  # JAX's answer for a platform that is missing
        return False


@contextlib.contextmanager
def compute_in(device: str | None, dtype: str) -> Iterator[None]:
    """Makes a platform JAX's default, unless it is None, and allows a dtype."""
    with contextlib.ExitStack() as stack:
        if device is not None:
            stack.enter_context(
                jax.default_device(jax.local_devices(backend=device)[0])
            )
        if dtype != "float32":  # Flax's norms mix 16 bits with float32 statistics
            stack.enter_context(jax.numpy_dtype_promotion("standard"))
        yield
