"""What the results of a run depend on besides its settings: versions and devices."""

import contextlib
import platform
from importlib import metadata
from typing import Any

import jax


def read_versions() -> dict[str, str]:
    """Returns the versions of the installed packages that the results depend on."""
    packages = ("jaxinit", "jax", "jaxlib", "flax", "optax", "numpy", "scikit-learn")
    versions = {"python": platform.python_version()}
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


def describe_device(name: str | None = None) -> dict[str, Any]:
    """Describes the devices of a platform, by default of JAX's own choice."""
    devices = jax.devices(name)
    return {
        "platform": devices[0].platform,
        "kind": devices[0].device_kind,
        "count": len(devices),
    }
