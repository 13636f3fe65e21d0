"""Interrupted and killed runs: what is saved, what goes on, what is refused."""

import gc
import json
import os
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from commands import refusal
from killed_runs import (
    INITIALIZERS,
    SETTINGS,
    WORDS,
    Killed,
    assert_same,
    killed,
    run,
    saves,
    timeless,
    tree,
)
from marks import slow_but
from processes import DEVICES

import jaxinit
from jaxinit import lab
from jaxinit.cli import main
from jaxinit.lab import _atomic
from jaxinit.lab._train import checkpoint
from jaxinit.lab._train.grid import Grid
from jaxinit.lab.files import write

# orbax reads the arrays of a save side by side. If one is broken it ends its event loop
# while others still report to it, and those exceptions have no one to take them.
pytestmark = [
    pytest.mark.usefixtures("quick_compiler"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.usefixtures("short_runs"),
]

# Going on.


@pytest.mark.slow
@pytest.mark.parametrize("norm, optimizer", [("batch", "adam"), ("layer", "sgd")])
def test_a_resumed_run_is_bit_for_bit_the_uninterrupted_one(
    task, tmp_path, norm, optimizer
):
    given = {"norm": norm, "optimizer": optimizer}
    found = lab.compare(INITIALIZERS, data=task, **{**SETTINGS, **given})
    killed(task, tmp_path, 15, **given)  # of the three blocks done, two are saved
    assert saves(tmp_path) == ["2"]
    seen = []
    given |= {"resume": True, "progress": lambda done, _: seen.append(done)}
    assert_same(run(task, tmp_path, **given), found)
    assert seen == [15, 20, 25, 30]  # the first two blocks were not trained again
    ours = found.to_dict() | {"seconds": None}
    assert json.loads(json.dumps(ours)) == timeless(tmp_path) | {"seconds": None}


@pytest.mark.slow
def test_a_finished_run_leaves_its_results_only(task, tmp_path, whole):
    assert_same(run(task, tmp_path), whole)
    assert set(tree(tmp_path)) == {"results.json", "index.html"}


@pytest.mark.slow
def test_the_last_two_saves_are_kept(task, tmp_path):
    killed(task, tmp_path, 20, save_every=1)
    assert saves(tmp_path) == ["2", "3"] or saves(tmp_path) == ["3", "4"]
    assert "run.json" in tree(tmp_path / "checkpoint")


@pytest.mark.slow
def test_a_run_may_be_killed_again_and_again(task, tmp_path, whole):
    for after in (10, 15, 20):
        killed(task, tmp_path, after, resume=after > 10, save_every=1)
    assert_same(run(task, tmp_path, resume=True), whole)


def test_an_interrupt_saves_what_was_trained(task, tmp_path, whole):
    def progress(done, steps):
        if done == 15:
            raise KeyboardInterrupt

    found = run(task, tmp_path, progress=progress, save_every=100)
    assert found.interrupted and found.steps_done == 15
    assert timeless(tmp_path)["interrupted"] is True
    assert saves(tmp_path) == ["3"]
    again = run(task, tmp_path, resume=True)
    assert_same(again, whole)
    assert timeless(tmp_path)["interrupted"] is False
    assert not (tmp_path / "checkpoint").exists()


@pytest.mark.slow
def test_an_interrupt_in_the_middle_of_a_block_loses_no_loss(task, monkeypatch):
    """Weights and losses are those of the same number of blocks, always."""
    wait, waits = np.asarray, []

    class Impatient:
        def __getattr__(self, name):
            return getattr(np, name)

        def asarray(self, array, *rest):
            found = wait(array, *rest)
            if found.shape == (4,):  # the losses of a chunk
                waits.append(array)
                if len(waits) == 3:  # in the second block
                    raise KeyboardInterrupt
            return found

    with monkeypatch.context() as patch:
        patch.setattr("jaxinit.lab._train.processes.np", Impatient())
        found = lab.compare(INITIALIZERS, data=task, **SETTINGS)
    assert found.interrupted and found.steps_done == 5
    five = {**SETTINGS, "steps": 5}
    alone = lab.compare(INITIALIZERS, data=task, **five)
    jax.tree.map(np.testing.assert_array_equal, found.final, alone.final)
    np.testing.assert_array_equal(found.curves, alone.curves)


@pytest.mark.slow
def test_time_before_the_kill_is_counted(task, tmp_path):
    real, count = time.perf_counter, iter(range(10**9))
    with pytest.MonkeyPatch.context() as patch:  # each look at the clock takes 100 s
        patch.setattr(time, "perf_counter", lambda: real() + 100 * next(count))
        killed(task, tmp_path, 10)
    assert run(task, tmp_path, resume=True).seconds.train > 100


def test_arrays_of_initializers_are_part_of_the_settings(task):
    for whole in (lambda init: init, lambda init: jaxinit.stacked(init) * 2):
        one, two = (
            lab.Settings((whole(jaxinit.from_array(np.full((10, 10), value))),))
            for value in (1.0, 2.0)
        )
        assert repr(one) == repr(two)
        assert checkpoint.describe_run(task, one) != checkpoint.describe_run(task, two)


# Saves that are none.


@pytest.fixture
def abandoned():
    """Collects what orbax leaves behind here, and not in some later test."""
    yield
    gc.collect()


@pytest.mark.slow
def test_a_save_begun_is_not_taken_for_one(task, tmp_path, whole, monkeypatch):
    """A kill between the last byte and the rename, and one in the middle of writing."""
    from orbax.checkpoint._src.path import atomicity

    killed(task, tmp_path, 10)
    begun = []

    async def die(self, *rest, **more):
        begun.append(self.get())
        raise Killed

    with monkeypatch.context() as patch:
        for name in ("AtomicRenameTemporaryPath", "CommitFileTemporaryPath"):
            patch.setattr(getattr(atomicity, name), "finalize", die)
        killed(task, tmp_path, 1000, resume=True)
    assert begun and os.path.basename(begun[0]).startswith("4.")
    assert checkpoint.list_saves(tmp_path / "checkpoint") == [2]
    assert_same(run(task, tmp_path, resume=True), whole)


@pytest.mark.parametrize("spoil", slow_but(["half"], ["emptied", "half", "gone"]))
@pytest.mark.usefixtures("abandoned")
@pytest.mark.slow
def test_a_broken_save_gives_way_to_the_one_before(task, tmp_path, whole, spoil):
    killed(task, tmp_path, 15, save_every=1)
    older, newer = saves(tmp_path)
    for file in (tmp_path / "checkpoint" / newer).rglob("*"):
        if file.is_file():
            data = file.read_bytes()
            file.write_bytes(data[: len(data) // 2 if spoil == "half" else 0])
            if spoil == "gone":
                file.unlink()
    with pytest.warns(UserWarning, match=rf"cannot read the save .*/{newer} \("):
        found = run(task, tmp_path, resume=True)
    assert_same(found, whole)


@pytest.mark.slow
@pytest.mark.usefixtures("abandoned")
def test_saves_that_are_all_broken_are_refused_and_stay(task, tmp_path):
    killed(task, tmp_path, 10)
    (tmp_path / "checkpoint" / "2" / "_METADATA").write_bytes(b"")
    before = tree(tmp_path)
    said = r"compare\(out='.*\): none of the saves can be read; overwrite=True "
    said += r"\(--overwrite\) starts anew. The last one: cannot read the save .*/2 \("
    with pytest.raises(checkpoint.Unreadable, match=said):
        run(task, tmp_path, resume=True)
    assert tree(tmp_path) == before


# Refusals.


OTHERS = [
    ({"depth": 4}, "compare(depth=4): the saved run has 2;"),
    ({"steps": 60}, "compare(steps=60): the saved run has 30;"),
    ({"norm": "batch"}, "compare(norm='batch'): the saved run has 'none';"),
    (
        {"learning_rates": (0.01, 0.2)},
        "compare(learning_rates[1]=0.2): the saved run has 0.1;",
    ),
    (
        {"initializers": ["he_normal()", "ones()"]},
        "compare(initializers[1]='ones()'): the saved run has 'zeros()';",
    ),
    (
        {"initializers": ["he_normal()"]},
        "compare(len(initializers)=1): the saved run has 2;",
    ),
]


@pytest.mark.parametrize("other, said", OTHERS, ids=[str(list(o)) for o, _ in OTHERS])
def test_other_settings_are_refused_and_nothing_changes(saved_run, task, other, said):
    before = tree(saved_run)
    with pytest.raises(ValueError) as caught:
        run(task, saved_run, resume=True, **other)
    assert str(caught.value).startswith(said)
    assert str(caught.value).endswith("; overwrite=True (--overwrite) starts anew.")
    assert tree(saved_run) == before


@pytest.fixture(scope="module")
def saved_run(task, tmp_path_factory):
    """The directory of a run that was killed."""
    path = tmp_path_factory.mktemp("saved")
    killed(task, path, 10)
    return path


def test_other_data_is_refused(saved_run, task):
    x = task.x_test.copy()
    x[0, 0] += 1e-3
    said = r"compare\(data='two classes'\): the saved run has other data, 'two classes'"
    with pytest.raises(ValueError, match=said):
        run(task._replace(x_test=x), saved_run, resume=True)


def test_other_versions_are_refused(saved_run, task, monkeypatch):
    found = {
        "jax": "0.0.1",
        "jaxinit": jaxinit.lab._train._environment.read_versions()["jaxinit"],
    }
    monkeypatch.setattr(checkpoint, "read_versions", lambda: found)
    said = f"the saved run has jax {jax.__version__}, where this one has 0.0.1; overwr"
    with pytest.raises(ValueError, match=said):
        run(task, saved_run, resume=True)


def test_a_flag_of_jax_that_changes_values_is_refused(saved_run, task):
    said = "the saved run has jax_default_matmul_precision None, where this one has hi"
    with (
        jax.default_matmul_precision("highest"),
        pytest.raises(ValueError, match=said),
    ):
        run(task, saved_run, resume=True)


def test_a_second_run_into_a_directory_is_refused_before_training(
    task, tmp_path, saved_run, monkeypatch
):
    def train(*_):
        raise AssertionError("time was spent")

    monkeypatch.setattr("jaxinit.lab.training.train", train)
    (tmp_path / "results.json").write_text("{}")
    for path, what in ((tmp_path, "results"), (saved_run, "the saves of a run that")):
        before = tree(path)
        said = f"the directory has {what}.*resume=True .--resume.*overwrite=True .--ove"
        with pytest.raises(ValueError, match=said):
            run(task, path)
        assert tree(path) == before


def test_complete_results_are_not_resumed(task, tmp_path):
    for text in ('{"interrupted": false}', "no JSON", "[]"):
        (tmp_path / "results.json").write_text(text)
        with pytest.raises(ValueError, match="the results are complete, nothing is"):
            run(task, tmp_path, resume=True)
        assert (tmp_path / "results.json").read_text() == text


@pytest.mark.slow
def test_overwriting_starts_anew(task, tmp_path, whole):
    killed(task, tmp_path, 10, optimizer="sgd")
    (tmp_path / "results.json").write_text("{}")
    seen = []
    given = {"overwrite": True, "progress": lambda done, _: seen.append(done)}
    assert_same(run(task, tmp_path, **given), whole)
    assert seen == [5, 10, 15, 20, 25, 30]
    assert not (tmp_path / "checkpoint").exists()


@pytest.mark.parametrize(
    "given, kind, said",
    [
        ({"out": None}, ValueError, r"\(save_every=2\): save_every needs out \(--out"),
        (
            {"out": None, "save_every": None, "resume": True},
            ValueError,
            r"\(resume=True\): resume needs out \(--out\), the directory",
        ),
        (
            {"out": None, "save_every": None, "overwrite": True},
            ValueError,
            r"\(overwrite=True\): overwrite needs out",
        ),
        ({"save_every": 0}, ValueError, r"save_every must be 1 or above"),
        ({"resume": 1}, TypeError, r"resume must be True or False"),
        ({"overwrite": None}, TypeError, r"overwrite must be True or False"),
        ({"out": 3}, TypeError, r"compare\(out=3\): out must be a path"),
        (
            {"resume": True, "overwrite": True},
            ValueError,
            r"resume and overwrite exclude each other",
        ),
    ],
)
def test_options_that_cannot_be(task, tmp_path, given, kind, said):
    with pytest.raises(kind, match=said):
        run(task, **{"out": tmp_path / "new", **given})
    assert not (tmp_path / "new").exists()


# Files.


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    path.write_bytes(b"old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(_atomic.os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            _atomic.write_bytes(path, b"new")
    assert tree(tmp_path) == {"results.json": b"old"}
    _atomic.write_bytes(path, b"new")
    assert tree(tmp_path) == {"results.json": b"new"}


def test_results_are_replaced_as_a_whole(whole, tmp_path, monkeypatch):
    (tmp_path / "results.json").write_bytes(b"old")
    replaced = []

    def replace(source, target):
        replaced.append(os.path.basename(target))
        assert os.path.dirname(source) == os.path.dirname(target)
        raise Killed

    monkeypatch.setattr(_atomic.os, "replace", replace)
    with pytest.raises(Killed):
        write(whole, tmp_path)
    assert replaced == ["results.json"]
    assert (tmp_path / "results.json").read_bytes() == b"old"


def test_files_have_the_permissions_of_any_other(tmp_path):
    (tmp_path / "a").write_bytes(b"")
    _atomic.write_bytes(tmp_path / "b", b"")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


# The command line.


@pytest.fixture(scope="module")
def words(data_file):
    return ["compare", "--data", str(data_file), *WORDS]


@pytest.mark.slow
def test_the_command_says_what_it_resumes(words, capsys, tmp_path, monkeypatch):
    words = [*words, "--steps", "20", "--out", str(tmp_path)]
    real = Grid.run

    def interrupted(self):
        for loss in real(self):
            yield loss
            if len(self.losses) == 2:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Grid, "run", interrupted)
        assert main([*words, "--resume"]) == 130
    said = capsys.readouterr().err
    assert f"jaxinit: nothing to resume in {tmp_path}, starting from the beg" in said
    kept = f"interrupted after 10 of 20 steps; what was computed is in {tmp_path}, "
    assert f"{kept}--resume goes on." in said
    line = refusal(words, capsys)
    assert "--resume" in line and "--overwrite" in line
    line = refusal([*words, "--resume", "--target-loss", "0.25"], capsys)
    assert "compare(target_loss=0.25): the saved run has 0.5;" in line
    assert saves(tmp_path) == ["2"]
    assert main([*words, "--resume"]) == 0
    assert "nothing to resume" not in capsys.readouterr().err
    assert timeless(tmp_path)["block_end_steps"] == [5, 10, 15, 20]
    line = refusal([*words, "--resume"], capsys)
    assert "the results are complete, nothing is left to resume; overwrite=" in line
    assert "the directory has results; resume" in refusal(words, capsys)
    assert main([*words, "--overwrite"]) == 0


def test_options_that_need_a_directory_say_so(words, capsys):
    for option in (["--resume"], ["--overwrite"], ["--save-every", "3"]):
        assert "needs out (--out), the dir" in refusal([*words, *option], capsys)


@pytest.mark.slow
@pytest.mark.usefixtures("abandoned")
def test_the_command_refuses_saves_that_are_all_broken(
    words, capsys, tmp_path, monkeypatch
):
    words = [*words, "--steps", "20", "--out", str(tmp_path), "--save-every", "1"]
    real = Grid.run

    def ended(self):
        yield next(real(self))
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Grid, "run", ended)
        main(words)
    capsys.readouterr()
    (tmp_path / "checkpoint" / "1" / "manifest.ocdbt").unlink()
    line = refusal([*words, "--resume"], capsys)
    assert "none of the saves can be read" in line and "cannot read the save" in line


# Kills.


# The command without plots and page, which take longer than all else.
PLAIN = """
import sys
from jaxinit.cli import main
from jaxinit.lab import files

files.plots = lambda comparison: {}
files.page = lambda comparison, command: "page"
sys.exit(main())
"""


def start(words):
    """Starts a command, which loads what has been compiled here or by one before."""
    return subprocess.Popen(
        [sys.executable, "-c", PLAIN, *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env=os.environ | DEVICES,
    )


def finished(words):
    process = start(words)
    said = process.communicate(timeout=120)[1].decode()
    assert process.returncode == 0, said
    return said


def kill_when(words, ready, delay, by):
    """Starts a run and kills it this long after something is there, by a signal.

    Returns whether the run was still going on.
    """
    process, end = start(words), time.monotonic() + 90
    try:
        while not ready() and process.poll() is None:
            assert time.monotonic() < end
            time.sleep(0.002)
        time.sleep(delay)
        process.send_signal(by)
        process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    return process.returncode == -by


def survives(words, out, kills, seed, by=signal.SIGKILL):
    """Kills a run at random moments, each later than the last save, and ends it."""
    generator, ended = random.Random(seed), 0
    done = checkpoint.list_saves
    for _ in range(kills):
        last = max(done(out / "checkpoint"), default=0)

        def later(last=last):  # all saves may be gone, if the run has come to its end
            return max(done(out / "checkpoint"), default=0) > last

        options = ["--resume", "--out", str(out), "--save-every", "1"]
        killed = kill_when([*words, *options], later, generator.uniform(0, 0.1), by)
        ended += killed
        if not killed:
            break
    if not (out / "results.json").exists() or (out / "checkpoint").exists():
        finished([*words, "--resume", "--out", str(out)])
    return ended


@pytest.fixture(scope="module")
def straight(words, tmp_path_factory):
    out = tmp_path_factory.mktemp("straight")
    finished([*words, "--steps", "1000", "--out", str(out)])
    return timeless(out)


@pytest.mark.slow
def test_a_killed_run_goes_on(words, straight, tmp_path):
    assert survives([*words, "--steps", "1000"], tmp_path, kills=1, seed=0) == 1
    assert timeless(tmp_path) == straight


@pytest.mark.slow
def test_a_terminated_run_goes_on(words, straight, tmp_path):
    words = [*words, "--steps", "1000"]
    assert survives(words, tmp_path, kills=2, seed=4, by=signal.SIGTERM)
    assert timeless(tmp_path) == straight


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 4))
def test_a_run_killed_many_times_goes_on(words, straight, tmp_path, seed):
    assert survives([*words, "--steps", "1000"], tmp_path, kills=6, seed=seed) >= 3
    assert timeless(tmp_path) == straight
