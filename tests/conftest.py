"""Settings of every test: eight virtual CPU devices, strict dtype promotion."""

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture
def key():
    return jax.random.key(20)


@pytest.fixture
def x64():
    """Enables 64-bit types for the test alone."""
    with jax.enable_x64(True):
        yield
