"""The streams are a promise: golden values, and a changelog that speaks of them."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from catalogue import OWN, RANDOM, SOON
from golden import ENTRIES, FILE, SEEDS, entries, tolerance, write
from marks import slow_but

GOLDEN = json.loads(FILE.read_text())


@pytest.mark.parametrize("row", slow_but(SOON, RANDOM), ids=lambda row: row.name)
def test_golden_values(row):
    drawn = [entries(row, seed) for seed in SEEDS]
    np.testing.assert_allclose(drawn, GOLDEN["streams"][row.name], **tolerance(row))


def test_every_random_builder_has_golden_values():
    assert set(GOLDEN["streams"]) == {row.name for row in RANDOM}
    assert {row.init.name for row in RANDOM} <= set(OWN)
    assert GOLDEN["prng"] == str(jax.random.key_impl(jax.random.key(0)))
    assert all(
        np.shape(values) == (len(SEEDS), ENTRIES)
        for values in GOLDEN["streams"].values()
    )


def test_golden_values_can_fail():
    name = RANDOM[0].name
    assert not np.allclose(entries(RANDOM[0], 7), GOLDEN["streams"][name][0])


def test_golden_values_are_written_anew_where_they_differ_alone(tmp_path, monkeypatch):
    """Another machine's last bits stay; a row that is new or wrong is drawn."""
    haar = next(row for row in RANDOM if row.init.name == "orthogonal")
    wrong, kept, new = rows = RANDOM[0], haar, RANDOM[-1]
    monkeypatch.setattr("golden.RANDOM", rows)
    streams = {row.name: GOLDEN["streams"][row.name] for row in rows}
    rounded = np.asarray(streams[kept.name]) * (1 + 2e-6)
    before = GOLDEN | {"jax": "old", "streams": streams | {kept.name: rounded.tolist()}}
    file = tmp_path / "golden.json"
    file.write_text(json.dumps(before, indent=1))
    write(file)
    assert file.read_text() == json.dumps(before, indent=1)  # nothing is new

    changed = before["streams"] | {wrong.name: np.zeros((len(SEEDS), ENTRIES)).tolist()}
    del changed[new.name]
    file.write_text(json.dumps(before | {"streams": changed}))
    write(file)
    written = json.loads(file.read_text())
    assert written["jax"] == jax.__version__
    assert list(written["streams"]) == list(streams)
    assert written["streams"][kept.name] == rounded.tolist()
    for row in (wrong, new):
        values = written["streams"][row.name]
        np.testing.assert_allclose(values, streams[row.name], **tolerance(row))


def test_the_changelog_has_streams():
    text = (Path(__file__).parents[2] / "CHANGELOG.md").read_text()
    assert "### Streams" in text
