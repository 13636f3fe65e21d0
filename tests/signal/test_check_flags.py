"""`check` beside JAX's flags and in meshes, and what it says meanwhile."""

import io
import sys
import threading

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import slow_but

import jaxinit as ji
from jaxinit.signal import progress, theory

pytestmark = pytest.mark.usefixtures("quick_compiler")

KEY, X = jax.random.key(0), np.outer(np.ones(8), np.arange(1, 9)).astype("float32")
FLAGS = {
    "numpy_rank_promotion": "raise",
    "numpy_dtype_promotion": "strict",
    "debug_nans": True,
    "debug_infs": True,
    "debug_key_reuse": True,
    "disable_jit": True,
    "enable_checks": True,
    "check_tracer_leaks": True,
    "enable_x64": True,
}
MODEL = nn.Sequential([nn.Dense(8, kernel_init=ji.he_normal()), nn.relu, nn.Dense(8)])


def stds(x=X, **given):
    report = ji.check(MODEL, x, key=KEY, seeds=2, jacobian=0, **given)
    return [layer.values("std") for layer in report.layers]


@pytest.fixture(scope="module")
def plain():
    return stds()


@pytest.fixture
def flag(request):
    """Sets a flag for the whole process: threads do not see the others."""
    name = f"jax_{request.param}"
    before = getattr(jax.config, name)
    jax.config.update(name, FLAGS[request.param])
    yield request.param
    jax.config.update(name, before)


@pytest.mark.parametrize("flag", slow_but(["disable_jit"], FLAGS), indirect=True)
def test_flags_change_nothing(flag, plain):
    for ours, theirs in zip(stds(jnp.asarray(X, "float32")), plain, strict=True):
        if flag != "enable_x64":  # which has other draws
            np.testing.assert_array_equal(ours, theirs)
    again = jax.random.key(1)
    assert ji.check(MODEL, X, key=again, seeds=1, jacobian=0).layers
    if flag == "debug_key_reuse":
        jax.random.normal(again)  # the key is the caller's still


@pytest.mark.slow
@pytest.mark.parametrize("flag", ["debug_nans", "debug_infs"], indirect=True)
def test_sick_models_are_measured_beside_flags_that_stop_at_them(flag):
    model = lambda key: 1e30 * ji.normal()(key, (8, 8)), lambda w, x: x @ w @ w  # noqa: E731
    report = ji.check(model, X, key=KEY, seeds=2, jacobian=2)
    assert "non-finite" in {finding.condition for finding in report.findings}


@pytest.mark.parametrize("flag", FLAGS, indirect=True)
def test_theory_and_recommendations_beside_flags(flag):
    found = ji.recommend("tanh", depth=3, residual=True, norm="layer")
    assert found.initializer == ji.lecun_normal()
    network = theory.MeanField(lambda z: jnp.tanh(0.9 * z), 1.8, 0.1)
    assert network.phase == "ordered" or network.phase == "chaotic"
    profile = theory.profile("relu", 2.0, depth=3)
    np.testing.assert_allclose(
        profile.variance, 2 * np.ones(3) * profile.variance[0] / 2
    )


MESHES = [
    (count, kind, spread)
    for count in (1, 8)
    for kind in ("Auto", "Explicit")
    for spread in (False, True)
]


@pytest.mark.slow
@pytest.mark.parametrize(("count", "kind", "spread"), MESHES)
def test_meshes_change_nothing(count, kind, spread, plain):
    types = (getattr(jax.sharding.AxisType, kind),)
    with jax.set_mesh(jax.make_mesh((count,), ("m",), axis_types=types)):
        x = jnp.asarray(X, "float32")
        spec = jax.sharding.PartitionSpec("m" if spread else None)
        x = jax.device_put(x, jax.NamedSharding(jax.sharding.get_mesh(), spec))
        for ours, theirs in zip(stds(x), plain, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5)


# What it says.


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def soon(monkeypatch):
    monkeypatch.setattr(progress, "_PATIENCE", 0.02)
    monkeypatch.setattr(progress, "_PERIOD", 0.01)


def watch(stream, monkeypatch, seconds=0.2):
    monkeypatch.setattr(sys, "stderr", stream)
    with progress.report_progress("jaxinit.check") as say:
        say("compiling")
        threading.Event().wait(seconds)
    return stream.getvalue()


def test_a_terminal_is_told_and_its_line_is_wiped(soon, monkeypatch):
    before = threading.active_count()
    text = watch(Terminal(), monkeypatch)
    assert "\rjaxinit.check: compiling (0 s)" in text and "\n" not in text
    *_, blank, end = text.split("\r")
    assert not blank.strip() and len(blank) >= len("jaxinit.check: compiling (0 s)")
    assert end == "" and threading.active_count() == before


def test_a_notebook_is_told(soon, monkeypatch):
    class IPython:
        @staticmethod
        def get_ipython():
            return object()

    monkeypatch.setitem(sys.modules, "IPython", IPython)
    assert "compiling" in watch(io.StringIO(), monkeypatch)


def test_pipes_and_quick_calls_are_told_nothing(soon, monkeypatch):
    assert watch(io.StringIO(), monkeypatch) == ""
    monkeypatch.setattr(progress, "_PATIENCE", 2.0)
    assert watch(Terminal(), monkeypatch, 0.0) == ""
    closed = Terminal()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    with progress.report_progress("jaxinit.check") as say:
        say("tracing")
    monkeypatch.setattr(sys, "stderr", None)
    with progress.report_progress("jaxinit.check") as say:
        say("tracing")


def test_one_of_several_threads_speaks(soon, monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with progress.report_progress("first") as say:
        say("compiling")
        with progress.report_progress("second") as other:
            other("running")
            threading.Event().wait(0.1)
    assert "first: compiling" in stream.getvalue()
    assert "second" not in stream.getvalue()


def test_an_error_wipes_the_line_too(soon, monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with pytest.raises(KeyboardInterrupt), progress.report_progress("jaxinit.check"):
        threading.Event().wait(0.1)
        raise KeyboardInterrupt
    assert stream.getvalue().endswith(" \r")
    assert progress._speaking.acquire(blocking=False)
    progress._speaking.release()
