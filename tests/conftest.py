"""Settings of every test: eight virtual CPU devices, strict dtype promotion."""

import hypothesis
import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

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


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """The directory of the programs of this process."""
    return str(tmp_path_factory.mktemp("programs"))


@pytest.fixture(scope="module")
def programs(compiled):
    """Compiles a program once for all runs of such modules within this process."""
    new = {
        "jax_compilation_cache_dir": compiled,
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    old = {name: getattr(jax.config, name) for name in new}
    for name, value in new.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield
    for name, value in old.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture(scope="module")
def short_runs():
    """Lets blocks have five steps, and leaves out plots and verdicts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jaxinit.lab.grid._LONGEST_BLOCK", 5)
        patch.setattr("jaxinit.lab.files.plots", lambda comparison: {})
        patch.setattr("jaxinit.lab.files.page", lambda comparison, command: "page")
        patch.setattr("jaxinit.lab._compare.health", lambda *given: None)
        yield


@pytest.fixture(scope="module")
def arrays():
    """Features and labels of two classes."""
    y = np.arange(40) % 2
    return np.random.default_rng(0).normal(size=(40, 3)) + y[:, None], y


@pytest.fixture(scope="module")
def task(arrays):
    """Two classes."""
    from jaxinit.lab.data import make_task  # the lab is for tests of it alone

    return make_task("two classes", *arrays)
