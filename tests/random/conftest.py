"""Kernels as devices have them, on a machine that has none."""

import contextlib

import jax
import pytest
from jax.experimental.pallas import tpu

from jaxinit import _tiles


@pytest.fixture
def on(monkeypatch):
    """Lets kernels run, interpreted, as a device has them."""

    @contextlib.contextmanager
    def enter(device):
        def on_each(program, *operands, other=None):
            return program(device)(*operands)

        jax.clear_caches()
        with monkeypatch.context() as patch, tpu.force_tpu_interpret_mode():
            patch.setattr(_tiles, "on_each", on_each)
            yield
        jax.clear_caches()

    return enter
