"""Settings of every test: eight virtual CPU devices, strict dtype promotion."""

import hypothesis
import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")

# Examples compile, and a run repeats the same ones.
hypothesis.settings.register_profile("jaxinit", deadline=None, derandomize=True)
hypothesis.settings.load_profile("jaxinit")


@pytest.fixture
def x64():
    """Enables 64-bit types for the test alone."""
    with jax.enable_x64(True):
        yield
