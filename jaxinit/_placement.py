"""Where a weight goes: shardings, and the meshes that they name."""

import contextlib
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from operator import attrgetter
from typing import Any

import jax
import numpy as np
from jax.extend import core
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec, Sharding

from jaxinit import _check as check

Placement = Sharding | PartitionSpec | None


def place(
    draw: Callable[[Any], jax.Array], key: Any, out_sharding: Placement
) -> jax.Array:
    """Draws so that each device gets its part of the result."""
    if explicit := _mesh(out_sharding).explicit_axes:
        # Where types have shardings, XLA rounds products of constants in another order.
        whole = PartitionSpec() if out_sharding is None else out_sharding
        draw = jax.sharding.auto_axes(draw, axes=explicit, out_sharding=whole)
        return draw(key)
    if out_sharding is None:
        return draw(key)
    with _shown(out_sharding):
        drawn = draw(key)
    placed: jax.Array = jax.lax.with_sharding_constraint(drawn, out_sharding)
    return placed


def _shown(out_sharding: Placement) -> contextlib.AbstractContextManager[Any]:
    """Shows a draw the mesh of a sharding, where a trace entered none.

    Draws of matrix products ask for it: every device makes them whole.
    """
    mesh = _mesh(out_sharding)
    if mesh.empty or not jax.sharding.get_abstract_mesh().empty:
        return contextlib.nullcontext()
    abstract = mesh if isinstance(mesh, AbstractMesh) else mesh.abstract_mesh
    return jax.sharding.use_abstract_mesh(abstract)


def _mesh(out_sharding: Placement) -> Mesh | AbstractMesh:
    """Returns the mesh that a placement names, else the current one, perhaps empty."""
    if isinstance(out_sharding, NamedSharding):
        return out_sharding.mesh
    return jax.sharding.get_abstract_mesh()


def entered(out_sharding: Placement) -> contextlib.AbstractContextManager[Any]:
    """Enters the mesh of a sharding, if it has one and none is entered yet."""
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
    if inside or is_traced() or not isinstance(mesh, Mesh):
        return contextlib.nullcontext()
    return jax.set_mesh(mesh)


def is_traced() -> bool:
    """Returns whether a trace is under way: no mesh can be seen or entered in one."""
    return _kind_of_trace() is not _eager()


def _kind_of_trace() -> Any:
    with core.take_current_trace() as trace:
        return type(trace)


@functools.cache
def _eager() -> Any:
    """Returns the kind of trace that runs operations at once, as a new thread has."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(_kind_of_trace).result()


_read_flags = attrgetter(
    *("jax_debug_nans", "jax_debug_infs"),
    *("jax_debug_key_reuse", "jax_check_tracer_leaks"),
)
_read_guards = attrgetter(
    "jax_transfer_guard_host_to_device", "jax_transfer_guard_device_to_host"
)
_read_state = attrgetter(
    *("jax_debug_nans", "jax_debug_infs", "jax_disable_jit", "jax_enable_x64"),
    *("jax_debug_key_reuse", "jax_check_tracer_leaks", "jax_default_device"),
    *("jax_numpy_dtype_promotion", "jax_numpy_rank_promotion"),
    *("jax_default_prng_impl", "jax_threefry_partitionable"),
    *("jax_transfer_guard_host_to_device", "jax_transfer_guard_device_to_host"),
)


def read_state() -> tuple[Any, ...]:
    """Returns the settings of JAX that a draw outside of traces depends on."""
    compiled = jax.config.read("jax_disable_most_optimizations")
    return *_read_state(jax.config), compiled


def is_debugged() -> bool:
    """Returns whether JAX is set to check what programs do while they run."""
    return any(_read_flags(jax.config))


def is_guarded() -> bool:
    """Returns whether JAX is set to watch what moves between host and device."""
    return not {None, "allow"}.issuperset(_read_guards(jax.config))


def is_outside() -> bool:
    """Returns whether a call is outside of traces and meshes."""
    return not is_traced() and bool(jax.sharding.get_mesh().empty)


def _find_device() -> Any:
    """Returns the device that JAX chooses where nothing else does."""
    chosen: Any = jax.config.jax_default_device  # type: ignore[attr-defined]
    if isinstance(chosen, jax.Device):
        return chosen
    return jax.local_devices(backend=chosen)[0]  # a platform, or None for the first


def platform_of(*places: Any) -> str:
    """Returns the platform of the first sharding or mesh; of JAX's choice if none is.

    Other places, such as None or a PartitionSpec, name no devices.
    """
    for place in places:
        if isinstance(place, Sharding):
            devices: Any = place.device_set
            return str(next(iter(devices)).platform)
        if isinstance(place, Mesh):
            return str(place.devices.flat[0].platform)
    return str(_find_device().platform)


def release(key: jax.Array) -> jax.Array:
    """Returns a key that is bound to no device, so that it goes where others are."""
    if not (isinstance(key, jax.Array) and key.committed and key.is_fully_addressable):
        return key
    typed = jax.numpy.issubdtype(key.dtype, jax.dtypes.prng_key)
    words = np.asarray(jax.random.key_data(key) if typed else key)
    free: jax.Array = jax.numpy.asarray(words)
    return (
        jax.random.wrap_key_data(free, impl=jax.random.key_impl(key)) if typed else free
    )


def current_mesh() -> Mesh:
    """Returns the mesh that is entered; an empty one if none is, or in a trace."""
    return Mesh(np.empty((), object), ()) if is_traced() else jax.sharding.get_mesh()


def explicit_mesh() -> Mesh | None:
    """Returns the mesh that is entered, if it has explicit axes."""
    mesh = current_mesh()
    return mesh if mesh.explicit_axes else None


def automatic() -> contextlib.AbstractContextManager[Any]:
    """Makes the axes of the current mesh automatic: types then have no shardings."""
    mesh = explicit_mesh()
    return contextlib.nullcontext() if mesh is None else jax.set_mesh(_automatic(mesh))


def _automatic(mesh: Mesh) -> Mesh:
    return Mesh(mesh.devices, mesh.axis_names) if mesh.explicit_axes else mesh


def named(sharding: Any) -> Any:
    """Returns a PartitionSpec as a sharding on the current mesh; others as they are."""
    if not isinstance(sharding, PartitionSpec):
        return sharding
    mesh = current_mesh()
    return sharding if mesh.empty else NamedSharding(mesh, sharding)


def untyped(x: Any) -> Any:
    """Returns an array, or a sharding, on its mesh with all axes automatic."""
    if isinstance(x, NamedSharding):
        mesh = x.mesh
        if isinstance(mesh, Mesh):
            return NamedSharding(_automatic(mesh), x.spec, memory_kind=x.memory_kind)
    elif isinstance(x, jax.Array) and isinstance(x.sharding, NamedSharding):
        return jax.device_put(x, untyped(x.sharding))
    return x


def replicated(sharding: Any) -> Any:
    """Returns the sharding of a value that every device of this one has whole."""
    if isinstance(sharding, NamedSharding):
        return NamedSharding(sharding.mesh, PartitionSpec())
    return PartitionSpec() if isinstance(sharding, PartitionSpec) else sharding
