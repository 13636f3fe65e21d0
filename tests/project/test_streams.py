"""The streams are a promise: golden values, and a changelog that speaks of them."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from catalogue import OWN, RANDOM
from golden import ENTRIES, FILE, SEEDS, entries

GOLDEN = json.loads(FILE.read_text())


@pytest.mark.parametrize("row", RANDOM, ids=lambda row: row.name)
def test_golden_values(row):
    # Processors may fuse a product and a sum, or not: a unit or two in the last place.
    # Matrix products sum in an order of their own on each: some hundred units.
    tolerance = 3e-5 if "orthogonal" in row.init.name else 1e-6
    drawn = [entries(row, seed) for seed in SEEDS]
    scale = np.sqrt(row.variance)
    np.testing.assert_allclose(
        drawn, GOLDEN["streams"][row.name], rtol=tolerance, atol=tolerance * scale
    )


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


def test_the_changelog_has_streams():
    text = (Path(__file__).parents[2] / "CHANGELOG.md").read_text()
    assert "### Streams" in text
