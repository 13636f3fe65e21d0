"""Settings of every test: eight virtual CPU devices, strict dtype promotion.

All processes of a run, the workers' children too, share one persistent compilation
cache: a folder made for the run, or the one that JAX_COMPILATION_CACHE_DIR names.
"""

import os
import shutil
import tempfile

import hypothesis
import jax
import numpy as np
import pytest

CACHE = "JAX_COMPILATION_CACHE_DIR"
_made_for_run = None
if CACHE not in os.environ:  # set by the first process, before it starts the others
    _made_for_run = os.environ[CACHE] = tempfile.mkdtemp(prefix="jaxinit-programs-")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
jax.config.update("jax_compilation_cache_dir", os.environ[CACHE])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")

# Examples compile, and a run repeats the same ones.
hypothesis.settings.register_profile("jaxinit", deadline=None, derandomize=True)
hypothesis.settings.load_profile("jaxinit")


def pytest_unconfigure(config):
    """Removes the folder of programs that was made for this run."""
    if _made_for_run is not None:
        shutil.rmtree(_made_for_run, ignore_errors=True)


@pytest.fixture(autouse=True)
def registry():
    """Forgets the builders that a test defines, since its neighbors count them all."""
    from jaxinit._initializer import REGISTRY  # after the settings above

    known = dict(REGISTRY)
    yield
    REGISTRY.clear()
    REGISTRY.update(known)


@pytest.fixture
def x64():
    """Enables 64-bit types for the test alone."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def quick_compiler():
    """Leaves out most of XLA's optimizations, where no bits are compared with JAX's.

    Compiling takes nearly all the time of the suite, and a third less so. Processes
    that a test starts do the same; no program made so stays for other modules.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
        jax.config.update("jax_disable_most_optimizations", True)
        yield
        jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()


@pytest.fixture
def full_compiler(quick_compiler):
    """Optimizes all the same, for a test that computes longer than it compiles."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture
def standard_promotion():
    """Lets code by other people mix types, as JAX does by default."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="module")
def short_runs():
    """Lets blocks have five steps, and leaves out plots and verdicts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jaxinit.lab._train.grid._LONGEST_BLOCK", 5)
        patch.setattr("jaxinit.lab.files.plots", lambda comparison: {})
        patch.setattr("jaxinit.lab.files.page", lambda comparison, command: "page")
        patch.setattr("jaxinit.lab.training.diagnose", lambda *given: None)
        yield


@pytest.fixture(scope="module")
def arrays():
    """Features and labels of two classes."""
    y = np.arange(40) % 2
    return np.random.default_rng(0).normal(size=(40, 3)) + y[:, None], y


@pytest.fixture(scope="module")
def data_file(arrays, tmp_path_factory):
    """A file of them, for commands."""
    path = tmp_path_factory.mktemp("data") / "data.npz"
    np.savez(path, x=arrays[0], y=arrays[1])
    return path


@pytest.fixture(scope="module")
def task(arrays):
    """Two classes."""
    from jaxinit.lab._tried.data import make_task  # the lab is for tests of it alone

    return make_task("two classes", *arrays)
