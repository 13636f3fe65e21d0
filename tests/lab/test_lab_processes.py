"""One comparison by several processes."""

import json

import jax
import numpy as np
import pytest
from processes import finished, started

from jaxinit import lab
from jaxinit.cli import main
from jaxinit.lab._tried.data import make_task

pytestmark = pytest.mark.usefixtures("quick_compiler")

# Nine cells, which fill no chunk; four blocks of two steps, killed after the second,
# and interrupted in one of the processes after the third.
CALL = {"initializers": ["he_normal()"], "depth": 2, "width": 8, "seeds": 3}
CALL |= {"steps": 8, "learning_rates": [1e-3, 1e-2, 1e-1], "batch_size": 8}
Y = np.arange(40) % 2
X = np.random.default_rng(0).normal(size=(40, 3)) + Y[:, None]
CALL |= {"data": make_task("two classes", X, Y)}


@pytest.mark.slow
def test_two_processes_that_are_ended_twice_and_go_on_train_as_one(
    tmp_path, monkeypatch
):
    running = started("two_processes_lab.py", tmp_path)
    monkeypatch.setattr("jaxinit.lab._train.grid._LONGEST_BLOCK", 2)
    alone = lab.compare(**CALL)
    finished(running)
    one, two = (dict(np.load(tmp_path / f"{rank}.npz")) for rank in range(2))
    assert alone.curves.shape[-1] == 4
    for name, expected in (
        ("loss", alone.scores.loss),
        ("curves", alone.curves),
        ("kernel", alone.kernels(0)[1][0]),
    ):
        np.testing.assert_array_equal(one[name], two[name])
        np.testing.assert_allclose(one[name], expected, rtol=1e-5, atol=1e-6)
    assert one["interrupted"] and two["interrupted"]
    for curves in (one["half"], two["half"]):
        np.testing.assert_array_equal(curves, one["curves"][..., :3])
    written = json.loads((tmp_path / "out" / "results.json").read_text())
    assert written["steps_done"] == 8 and written["device"]["count"] == 2
    assert not (tmp_path / "out" / "checkpoint").exists()


def test_all_devices_of_several_processes_take_part(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ValueError, match="2 processes train on all of their 8 devices"):
        lab.compare(**CALL)


@pytest.mark.slow
def test_an_interrupt_of_one_process_is_not_for_the_others_to_wait_for(monkeypatch):
    monkeypatch.setattr("jaxinit.lab._train.grid._LONGEST_BLOCK", 2)

    def interrupt(done, steps):
        monkeypatch.setattr(jax, "process_count", lambda: 2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lab.compare(**CALL, progress=interrupt)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("127.0.0.1:1 2", "--distributed 127.0.0.1:1 2: takes ADDRESS:PORT, the num"),
        ("127.0.0.1:1 two 0", "takes ADDRESS:PORT, the number of processes"),
        ("127.0.0.1:1 2 0", "--distributed 127.0.0.1:1 2 0: jax.distributed.init"),
        ("", "--distributed: jax.distributed.init"),
    ],
)
def test_messages(words, message, capsys):
    jax.devices()  # it is too late to join
    assert main(["compare", "--distributed", *words.split()]) == 2
    err = capsys.readouterr().err
    assert err.startswith("jaxinit: ") and message in err and err.count("\n") == 1
