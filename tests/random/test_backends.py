"""The table of backends: what the rest of the library reads from it."""

from typing import get_args

import jax
import pytest

from jaxinit import _placement
from jaxinit.random import backends


def test_the_names_are_those_of_the_table():
    assert get_args(backends.Impl) == tuple(backends.BACKENDS)


def test_each_platform_has_one_backend_unasked():
    named = [p for each in backends.BACKENDS.values() for p in each.unasked]
    assert len(named) == len(set(named))
    assert backends.find_unasked("cpu") is backends.BACKENDS["fused"]
    for platform in ("cuda", "rocm", "tpu", "gpu"):
        assert backends.find_unasked(platform) is backends.BACKENDS["jax"]


def test_what_is_unasked_gives_the_values_of_jax():
    for each in backends.BACKENDS.values():
        assert each.same or not each.unasked


@pytest.mark.parametrize("chosen", [None, "cpu", jax.devices()[3]], ids=str)
def test_the_platform_is_that_of_the_first_place_or_of_jax(chosen):
    mesh = jax.make_mesh((8,), ("x",))
    one = jax.sharding.SingleDeviceSharding(jax.devices()[1])
    with jax.default_device(chosen):
        for places in ((), (None,), (mesh,), (None, one)):
            assert _placement.platform_of(*places) == "cpu"
