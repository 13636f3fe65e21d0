"""The suite of what begins cold, in processes of its own, at toy size."""

import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2]))  # bench is no part of the package

from bench.__main__ import main  # noqa: E402
from bench.meters.cold import Cold, run_cold  # noqa: E402
from bench.suites import cold, eager  # noqa: E402

pytestmark = pytest.mark.usefixtures("quick_compiler")

CASES = {
    (suite, case.name): case
    for suite, of_suite in (("cold", cold), ("eager", eager))
    for case in of_suite.cases(True)
}
SHAPES = "he_normal, 20 shapes"


@pytest.mark.slow
def test_processes_race_by_turns(tmp_path):
    file = tmp_path / "x.json"
    words = ["eager", "--quick", "--repeats", "2", "--only", "second", "--json"]
    assert main([*words, str(file)]) == 0
    (row,) = json.loads(file.read_text())["suites"]["eager"]
    assert row["verified"] and row["case"] == "orthogonal, second shape"
    assert set(row["times"]) == {"ours", "first", "jax", "jax first"}
    assert all(len(time["seconds"]) == 2 for time in row["times"].values())
    assert set(row["ratios"]) == {"first", "jax", "jax first"}


@pytest.mark.slow
def test_a_process_that_fails_is_told(tmp_path, monkeypatch):
    case = next(iter(CASES.values()))
    wrong = Cold(name="check nothing", shape=(1,), ways=case.ways)
    monkeypatch.setattr(cold, "cases", lambda quick: [wrong])
    file = tmp_path / "x.json"
    assert main(["cold", "--quick", "--repeats", "1", "--json", str(file)]) == 1
    (row,) = json.loads(file.read_text())["suites"]["cold"]
    assert not row["verified"] and "StopIteration" in row["found"]


def test_names_are_those_of_full_size():
    full = [("cold", case.name) for case in cold.cases(False)]
    full += [("eager", case.name) for case in eager.cases(False)]
    assert full == list(CASES)


# One of each kind; the other models only take longer.
@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        ("cold", "check 5 layers"),
        ("cold", "check autoencoder"),
        ("eager", SHAPES),
        ("eager", "ViT-B NNX"),
    ],
    ids=" ".join,
)
def test_every_way_runs(case):
    check_every_way(CASES[case])


def test_a_warm_draw_follows_a_first_one():
    check_every_way(CASES["eager", "he_normal, 100 small draws"])


def check_every_way(case):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cold, "_SEEDS", 2)
        found = {way: run_cold(case, way) for way in case.ways}
    assert {way: {*each} for way, each in found.items()} == {
        way: {*calls} for way, calls in case.ways.items()
    }
    assert all(seconds > 0 for each in found.values() for seconds in each.values())
