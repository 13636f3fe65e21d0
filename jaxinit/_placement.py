"""Where a weight goes: shardings and the meshes that they speak of."""

import contextlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec, Sharding

from jaxinit import _check as check

Placement = Sharding | PartitionSpec | None


def place(
    draw: Callable[[Any], jax.Array], key: Any, out_sharding: Placement
) -> jax.Array:
    """Draws, where each device is to have its part of the result."""
    if out_sharding is None:
        return draw(key)
    if explicit := _mesh(out_sharding).explicit_axes:
        draw = jax.sharding.auto_axes(draw, axes=explicit, out_sharding=out_sharding)
        return draw(key)
    placed: jax.Array = jax.lax.with_sharding_constraint(draw(key), out_sharding)
    return placed


def _mesh(out_sharding: Placement) -> Mesh | AbstractMesh:
    """Returns the mesh that a placement speaks of; empty where it speaks of none."""
    if isinstance(out_sharding, NamedSharding):
        return out_sharding.mesh
    return jax.sharding.get_abstract_mesh()


def entered(out_sharding: Placement) -> contextlib.AbstractContextManager[Any]:
    """Enters the mesh of a sharding, where there is one and none is entered yet."""
    if out_sharding is None:
        return contextlib.nullcontext()
    if not isinstance(out_sharding, (Sharding, PartitionSpec)):
        raise check.Unfit(
            "out_sharding must be a jax.sharding.Sharding or PartitionSpec.",
            TypeError,
            out_sharding=out_sharding,
        )
    inside = not jax.sharding.get_abstract_mesh().empty
    if isinstance(out_sharding, PartitionSpec) and not inside:
        rule = "a PartitionSpec needs a mesh. Pass a NamedSharding, or call inside "
        raise check.Unfit(
            rule + "`with jax.set_mesh(mesh):`.", out_sharding=out_sharding
        )
    mesh = _mesh(out_sharding)
    traced = isinstance(jnp.zeros(()), jax.core.Tracer)  # no mesh can be entered then
    if inside or traced or not isinstance(mesh, Mesh):
        return contextlib.nullcontext()
    return jax.set_mesh(mesh)
