"""The device that trains, and the dtype that it computes in.

Mixed precision, as is usual: parameters, optimizer state and loss are float32, and a
network computes in the dtype that is asked for. In float64 all are float64. The initial
weights are those of float32 in every dtype.
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from jaxinit import _check as check
from jaxinit.lab._tried._model import MLP
from jaxinit.lab._tried.networks import Network

Dtype = Literal["float32", "bfloat16", "float16", "float64"]
DTYPES = get_args(Dtype)
Platform = Literal["cpu", "gpu", "tpu"]
PLATFORMS = get_args(Platform)


def kept(tree: Any, dtype: str) -> Any:
    """Returns a tree whose real numbers have the dtype of parameters and loss.

    Float32, unless they are float64; models of users keep their own.
    """
    if dtype == "float32":
        return tree
    return _cast(tree, "float64" if dtype == "float64" else "float32")


def mixed(model: MLP | Network, dtype: str) -> MLP | Network:
    """Returns a model that computes in a dtype, with outputs in that of the loss."""
    if dtype == "float32":
        return model
    if isinstance(model, MLP):
        return model.clone(dtype=dtype)

    def lowered(variables: Any, x: jax.Array) -> tuple[Any, jax.Array]:
        params = _cast(variables["params"], dtype)
        return {**variables, "params": params}, _cast(x, dtype)

    def apply(variables: Any, x: jax.Array) -> jax.Array:
        z: jax.Array = kept(model.apply(*lowered(variables, x)), dtype)
        return z

    def train(variables: Any, x: jax.Array, key: jax.Array) -> tuple[jax.Array, Any]:
        z, changed = model.train(*lowered(variables, x), key)
        return kept(z, dtype), changed

    return dataclasses.replace(model, apply=apply, train=train)


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
    """Raises `Unfit` for a platform that is not here; None is JAX's default."""
    if device is None:
        return
    check.choice(PLATFORMS, device=device)
    here = [platform for platform in PLATFORMS if _found(platform)]
    if device not in here:
        rule = f"there is no {device}; here are {', '.join(here)}."
        raise check.Unfit(rule, device=device)


def _found(platform: str) -> bool:
    try:
        return bool(jax.devices(platform))
    except RuntimeError:  # how JAX says that there is none
        return False


@contextlib.contextmanager
def computing(device: str | None, dtype: str) -> Iterator[None]:
    """Lets a platform compute, where one is asked for, in a dtype."""
    with contextlib.ExitStack() as stack:
        if device is not None:
            stack.enter_context(
                jax.default_device(jax.local_devices(backend=device)[0])
            )
        if dtype != "float32":  # norms of Flax mix 16 bits with float32 statistics
            stack.enter_context(jax.numpy_dtype_promotion("standard"))
        yield
