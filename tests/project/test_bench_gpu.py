"""All that a GPU is asked, in one go: at toy size, on the device that there is."""

import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2]))  # bench is no part of the package

from bench.__main__ import main  # noqa: E402
from bench.apart import gpu  # noqa: E402
from bench.suites import SUITES  # noqa: E402


def test_all_within_eight_minutes():
    assert set(gpu.BOUNDS) <= set(SUITES)
    assert 1.5 * sum(gpu.BOUNDS.values()) - 0.5 * max(gpu.BOUNDS.values()) <= 480
    assert sum(gpu.BOUNDS.values()) + gpu.TESTS_BOUND <= 480


@pytest.mark.slow
def test_a_suite_and_the_tests(tmp_path, capsys):
    words = ["gpu", "--out", str(tmp_path), "--quick", "--only", "orthogonal", "tests"]
    assert main(words) == 0, (tmp_path / "orthogonal.txt").read_text()
    said = capsys.readouterr().out
    assert "orthogonal: ended after" in said and "tests: ended after" in said
    result = json.loads((tmp_path / "results.json").read_text())
    assert all(row["verified"] for row in result["suites"]["orthogonal"])
    table = (tmp_path / "results.txt").read_text()
    assert "orthogonal 1024×1024" in table and "Toy sizes" in table
    assert "needs a GPU" in (tmp_path / "tests.txt").read_text()
    assert main(["--read", str(tmp_path / "results.json")]) == 0


def test_what_takes_too_long_is_stopped(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(gpu, "BOUNDS", {"check": 0.1})
    assert main(["gpu", "--out", str(tmp_path), "--quick", "--only", "check"]) == 1
    assert "check: stopped after 0 s; see" in capsys.readouterr().out
    assert not (tmp_path / "results.json").exists()


def test_a_suite_begins_no_case_after_its_time(tmp_path, capsys):
    words = ["sparse", "--quick", "--seconds", "1e-9", "--json", str(tmp_path / "x")]
    assert main(words) == 0
    assert "--seconds 1e-09: no time for sparse(0.1)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seconds", "0"], "--seconds 0: must be above 0."),
        (["--read", "x", "--seconds", "1"], "--read x --seconds: --read measures noth"),
        (["gpu", "--out", "{}/file"], "--out {}/file: cannot be written: File exists."),
    ],
)
def test_wrong_words(words, message, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main([word.format(tmp_path) for word in words]) == 2
    assert message.format(tmp_path) in capsys.readouterr().err


def test_the_directory_is_needed(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["gpu"])
    assert "the following arguments are required: --out" in capsys.readouterr().err
