"""What the results of a run depend on beside its settings: versions and devices."""

import contextlib
import platform
from importlib import metadata
from typing import Any

import jax


def versions() -> dict[str, str]:
    """Returns the versions that the results depend on, of what is installed."""
    packages = ("jaxinit", "jax", "jaxlib", "flax", "optax", "numpy", "scikit-learn")
    found = {"python": platform.python_version()}
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def device(name: str | None = None) -> dict[str, Any]:
    """Returns what a run on the platform of this name, or the default, runs on."""
    devices = jax.devices(name)
    return {
        "platform": devices[0].platform,
        "kind": devices[0].device_kind,
        "count": len(devices),
    }
