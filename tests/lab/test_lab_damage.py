"""Damaged saves: a run goes on from what was saved, or not at all."""

import gc
import shutil
import warnings

import jax
import numpy as np
import pytest
from killed_runs import (
    INITIALIZERS,
    SETTINGS,
    assert_same,
    killed,
    run,
    saves,
    tree,
)

import jaxinit
from jaxinit import _check, lab
from jaxinit.lab._train import _directory as directory
from jaxinit.lab._train import checkpoint
from jaxinit.lab._train.grid import Grid
from jaxinit.lab._tried.experiment import fit
from jaxinit.lab._tried.settings import Settings

# See test_lab_resume.
pytestmark = [
    pytest.mark.usefixtures("quick_compiler"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.usefixtures("short_runs"),
]

WIDE = {"width": 48}  # Zstandard has a checksum of short arrays, which it packs, alone


def flip(data, generator):
    changed = bytearray(data)
    for bit in generator.integers(0, 8 * max(1, len(data)), 1 if data else 0):
        changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def zeroed(data, generator):
    """A page of zeros; files here are shorter than one of a disk."""
    size = max(1, len(data) // 4)
    first = int(generator.integers(0, 4)) * size
    return data[:first] + bytes(len(data[first : first + size])) + data[first + size :]


DAMAGE = {
    "bit": flip,
    "page": zeroed,
    "cut": lambda data, generator: data[: int(generator.integers(1, len(data)))],
    "longer": lambda data, generator: data + data,
    "empty": lambda data, generator: b"",
    "gone": None,
}


@pytest.fixture(scope="module")
def abandoned(tmp_path_factory, task):
    """The directory of a run that was killed, with two saves."""
    path = tmp_path_factory.mktemp("killed") / "run"
    killed(task, path, 20, save_every=1, **WIDE)
    return path


@pytest.fixture(scope="module")
def grid(task):
    asked = {**SETTINGS, **WIDE}
    found = tuple(map(jaxinit.parse, INITIALIZERS))
    return Grid(fit(task, Settings(found, **asked), targeted=False))


def resumed(grid, out):
    """Resumes a run as far as the restored state.

    Returns how many blocks it has and its leaves, or the line of the refusal.
    """
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", UserWarning)
            options = grid.task, grid.settings, True, False, 1
            with directory.prepare(out, *options) as found:
                found.begin(grid)
    except (checkpoint.Unreadable, _check.Unfit) as error:
        assert "\n" not in str(error)
        return str(error)
    assert all("\n" not in str(warning.message) for warning in said)
    kept = grid.state, grid.losses, tuple(grid.probes)
    return len(grid.losses), [np.asarray(leaf) for leaf in jax.tree.leaves(kept)]


@pytest.fixture(scope="module")
def good(grid, abandoned, tmp_path_factory):
    """What each save holds, by its blocks."""
    found = {}
    for blocks in saves(abandoned):
        path = tmp_path_factory.mktemp("good") / "run"
        shutil.copytree(abandoned, path)
        for other in saves(abandoned):
            if other != blocks:
                shutil.rmtree(path / "checkpoint" / other)
        found[int(blocks)] = resumed(grid, path)[1]
    return found


def assert_right(found, good):
    """What was restored is one of the saves, bit for bit, or there is one line."""
    if isinstance(found, str):
        return
    blocks, leaves = found
    for ours, theirs in zip(leaves, good[blocks], strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


def files_of(save):
    """The files of a save in an order that does not depend on their random names."""
    files = (file for file in save.rglob("*") if file.is_file())
    return sorted(files, key=lambda file: (len(file.parts), file.stat().st_size))


@pytest.fixture
def copy(abandoned, tmp_path):
    """Returns a fresh copy of the directory, the same place each time."""

    def make(source=abandoned):
        out = tmp_path / "run"
        shutil.rmtree(out, ignore_errors=True)
        return shutil.copytree(source, out)

    yield make
    gc.collect()  # what orbax leaves behind is collected here


# One bit of the data of the newest save, wherever it is.


@pytest.mark.slow
def test_a_flipped_bit_makes_a_save_unreadable(task, copy):
    out = copy()
    newest = saves(out)[-1]
    (file,) = (out / "checkpoint" / newest / "d").iterdir()
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 16
    file.write_bytes(data)
    said = rf"cannot read the save .*/{newest} \(.*\); the one before it is taken\."
    with pytest.warns(UserWarning, match=said):
        found = run(task, out, resume=True, **WIDE)
    assert_same(found, lab.compare(INITIALIZERS, data=task, **{**SETTINGS, **WIDE}))


@pytest.mark.slow
def test_bits_of_the_data(grid, good, copy, flips=12):
    """Of 12, or of 160 in the slow run, none is believed."""
    generator, taken = np.random.default_rng(1), []
    for _ in range(flips):
        out = copy()
        data = [f for f in files_of(out / "checkpoint" / "4") if f.parent.name == "d"]
        file = max(data, key=lambda file: file.stat().st_size)
        file.write_bytes(flip(file.read_bytes(), generator))
        found = resumed(grid, out)
        assert_right(found, good)
        taken.append(found[0])
    assert set(taken) <= {3, 4} and 3 in taken


@pytest.mark.slow
def test_many_bits_of_the_data(grid, good, copy):
    test_bits_of_the_data(grid, good, copy, flips=160)


@pytest.mark.slow
@pytest.mark.parametrize("kind", DAMAGE)
def test_every_file_with_every_damage(grid, abandoned, good, copy, kind):
    generator = np.random.default_rng(2)
    checkpoints = abandoned / "checkpoint"
    for file in [*files_of(checkpoints / "4"), checkpoints / "run.json"]:
        out = copy()
        bad = out / file.relative_to(abandoned)
        if DAMAGE[kind] is None:
            bad.unlink()
        else:
            bad.write_bytes(DAMAGE[kind](bad.read_bytes(), generator))
        before = tree(out)
        found = resumed(grid, out)
        assert_right(found, good)
        if isinstance(found, str):
            assert file.name == "run.json" and tree(out) == before


# Files of another save.


@pytest.fixture(scope="module")
def other(tmp_path_factory, task):
    """A run of equal shapes and another learning rate."""
    path = tmp_path_factory.mktemp("other") / "run"
    killed(task, path, 20, save_every=1, learning_rates=(0.01, 0.2), **WIDE)
    return path


@pytest.mark.slow
def test_a_whole_save_of_another_run_or_moment_is_none(grid, good, other, copy):
    out = copy()
    shutil.rmtree(out / "checkpoint" / "4")
    shutil.copytree(other / "checkpoint" / "4", out / "checkpoint" / "4")
    found = resumed(grid, out)
    assert found[0] == 3
    assert_right(found, good)
    out = copy()
    (out / "checkpoint" / "4").rename(out / "checkpoint" / "7")
    found = resumed(grid, out)
    assert found[0] == 3
    assert_right(found, good)
    assert saves(out) == ["3"]


@pytest.mark.slow
def test_every_file_swapped_with_one_of_another_save(
    grid, abandoned, good, other, copy
):
    sources = [abandoned / "checkpoint" / "3", other / "checkpoint" / "4"]
    for source in sources:
        for i, file in enumerate(files_of(abandoned / "checkpoint" / "4")):
            for theirs in files_of(source)[max(0, i - 1) : i + 2]:
                out = copy()
                shutil.copy(theirs, out / file.relative_to(abandoned))
                assert_right(resumed(grid, out), good)
