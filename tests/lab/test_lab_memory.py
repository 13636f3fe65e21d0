"""How many cells a device trains at once, and where the others are meanwhile."""

import math
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from marks import slow_but

from jaxinit import lab
from jaxinit.cli import main
from jaxinit.lab._train import memory
from jaxinit.lab._train.grid import Grid
from jaxinit.lab._train.layout import Layout
from jaxinit.lab._tried.experiment import design

pytestmark = pytest.mark.usefixtures("quick_compiler", "short_runs")

# The rule.


def looked(need, cells, room, each=1.0):
    """Returns what fits, and the numbers that were looked at."""
    seen = []
    found = memory.fit_cells(lambda n: seen.append(n) or need(n), cells, room, each)
    assert seen[-1] == found
    return found, seen


@pytest.mark.parametrize(
    ("fixed", "each", "room", "fits"),
    [
        (0, 10, 960, 96),  # all
        (900, 10, 1860, 96),
        (0, 10, 959, 48),  # two chunks of 48, as 95 and 1 would be two as well
        (900, 10, 1300, 32),  # 40 fit
        (100, 7, 100 + 7 * 5, 5),
        (1000, 10, 1000, 1),  # not even one
    ],
)
def test_the_most_cells_that_fit_are_found_in_few_looks(fixed, each, room, fits):
    found, seen = looked(lambda n: fixed + each * n, 96, room)
    assert found == fits and len(seen) <= 4


def test_no_more_cells_are_looked_at_than_their_state_admits():
    assert looked(lambda n: 50 * n, 96, 1000, each=20)[1] == [48, 20]
    assert looked(lambda n: 50 * n, 96, -5, each=20) == (1, [1])


@pytest.mark.parametrize(
    "need",
    [
        lambda n: math.inf if n > 8 else 60 + 10 * n,  # too large to compile
        lambda n: 200 - n if n > 8 else 60 + 10 * n,  # fewer cells take more
        lambda n: 150 if n > 8 else 60 + 10 * n,
        lambda n: n**3,
    ],
)
def test_needs_off_the_line_end_as_well(need):
    found, seen = looked(need, 96, 145)
    assert need(found) <= 145 and seen == sorted(set(seen), reverse=True)


def device(stats):
    return SimpleNamespace(memory_stats=lambda: stats)


def test_cells_get_a_share_of_the_smallest_memory():
    large, small = (device({"bytes_limit": n}) for n in (4000, 1000))
    assert memory.measure_room([large, small]) == 750
    for unknown in (None, {}):
        assert memory.measure_room([large, device(unknown)]) is None
    assert memory.measure_room(jax.devices("cpu")) is None


def compiled(memory_analysis):
    compiled = SimpleNamespace(memory_analysis=memory_analysis)
    return SimpleNamespace(compile=lambda: compiled)


def test_needs_are_those_that_the_program_tells():
    sizes = {"argument_size_in_bytes": 5, "output_size_in_bytes": 4}
    told = SimpleNamespace(**sizes, temp_size_in_bytes=7)
    assert memory.measure_need(compiled(lambda: told)) == (9, 7)
    assert memory.measure_need(compiled(lambda: None)) == (0, 0)


def test_a_program_that_cannot_be_compiled_does_not_fit():
    def fail(text):
        raise jax.errors.JaxRuntimeError(text)

    exhausted = compiled(lambda: fail("RESOURCE_EXHAUSTED: Out of memory"))
    assert sum(memory.measure_need(exhausted)) == math.inf
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        memory.measure_need(compiled(lambda: fail("INTERNAL: a bug")))


# Its use: twelve cells, two blocks.

CALL = {"initializers": ["he_normal()", "lecun_normal()"], "depth": 2, "width": 8}
CALL |= {"seeds": 2, "steps": 10, "learning_rates": (1e-3, 1e-2, 1e-1)}
CALL |= {"batch_size": 8}


@pytest.fixture(scope="module")
def whole(task):
    return lab.compare(data=task, **CALL)


def assert_close(one, two, **tolerance):
    for name in ("curves", "scores", "final", "probes"):
        ours, theirs = (jax.tree.leaves(getattr(run, name)) for run in (one, two))
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, **tolerance)


@pytest.mark.parametrize("chunk", slow_but([1], [1, 3]))
@pytest.mark.slow
def test_results_do_not_depend_on_the_chunks(chunk, whole, task):
    found = lab.compare(data=task, chunk=chunk, **CALL)
    assert_close(found, whole, rtol=1e-4, atol=1e-6)
    assert found.to_dict()["settings"]["chunk"] == chunk


def small(room, monkeypatch):
    """Gives devices little memory, as accelerators may have."""
    monkeypatch.setattr(memory, "measure_room", lambda devices: room)


def grid_of(task, **given):
    options = {name: value for name, value in CALL.items() if name != "initializers"}
    return Grid(design(CALL["initializers"], task, **options, **given))


def kinds(grid):
    chunks = jax.tree.leaves(grid._chunks)
    return {leaf.sharding.memory_kind for leaf in chunks}


@pytest.mark.slow
def test_chunks_wait_in_the_memory_of_the_host(task, monkeypatch):
    """And cells that would fill a chunk up are not in the state."""
    small(1e4, monkeypatch)
    grid = grid_of(task, chunk=5)
    assert kinds(grid) == {"pinned_host"} and len(grid._chunks) == 3
    (first, second) = grid.run()
    assert kinds(grid) == {"pinned_host"}
    assert {len(leaf) for leaf in jax.tree.leaves(grid.state)} == {12}
    grid.state = grid.state
    assert kinds(grid) == {"pinned_host"}
    monkeypatch.undo()
    straight = grid_of(task, chunk=5)
    assert kinds(straight) == {"device"}
    for one, two in zip((first, second), straight.run(), strict=True):
        np.testing.assert_array_equal(one, two)
    jax.tree.map(np.testing.assert_array_equal, grid.state, straight.state)
    for pair in zip(grid.scores(), straight.scores(), strict=True):
        np.testing.assert_array_equal(*pair)


@pytest.mark.slow
def test_cells_that_begin_alike_are_trained_once(task, monkeypatch):
    """And every result has the bits that training all of them gives."""
    inits = ["zeros()", "he_normal()", "constant(0.0)"]
    given = {**CALL, "seeds": 3, "learning_rates": (1e-3, 1e-2)}
    del given["initializers"]
    once = Grid(design(inits, task, **given))
    monkeypatch.setattr(Layout, "train_once", lambda self, variables: self)
    every = Grid(design(inits, task, **given))

    def list_trained(grid):
        return np.unique(np.concatenate(grid._layout.chunks())).tolist()

    assert list_trained(once) == [0, 1, *range(6, 12)]
    assert list_trained(every) == list(range(18))
    assert not once.settings.random_training
    assert design(inits, task, **given, dropout=0.2).settings.random_training
    for losses in zip(once.run(), every.run(), strict=True):
        np.testing.assert_array_equal(*losses)
    once.state = once.state
    for name in ("state", "probes", "final_variables"):
        pair = (getattr(grid, name) for grid in (once, every))
        jax.tree.map(np.testing.assert_array_equal, *pair)
    jax.tree.map(np.testing.assert_array_equal, once.scores(), every.scores())


@pytest.mark.slow
def test_a_chunk_is_as_large_as_fits(task, monkeypatch):
    monkeypatch.setattr(Grid, "_choose_chunk", lambda self, mesh: None)
    sizes = {}
    for room in (1e9, 1.5e4):
        small(room, monkeypatch)
        grid = grid_of(task)
        sizes[grid._layout.together] = kinds(grid)
    assert sizes[12] == {"device"} and min(sizes) < 12


@pytest.mark.parametrize(
    ("chunk", "error", "message"),
    [
        (0, ValueError, r"compare\(chunk=0\): chunk must be 1 or above"),
        (-3, ValueError, r"compare\(chunk=-3\): chunk must be 1 or above"),
        (1.5, TypeError, r"compare\(chunk=1.5\): chunk must be an integer"),
    ],
)
def test_chunks_that_are_none(chunk, error, message):
    with pytest.raises(error, match=message):
        lab.compare(chunk=chunk)


def test_the_command_line_takes_a_chunk(capsys):
    assert main(["compare", "--chunk", "0"]) == 2
    assert capsys.readouterr().err.startswith("jaxinit: compare(chunk=0): chunk must")
