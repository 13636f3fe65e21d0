"""Writes the golden values of the streams: ``python tests/golden.py``.

A row whose values are the stored ones, but for what another machine rounds in its own
way, stays as it is: a new initializer changes its own rows alone. A change of values
needs new golden values and a line under "Streams" in the changelog, in the same commit.
"""

import json
from pathlib import Path

import jax
import numpy as np
from catalogue import RANDOM

FILE = Path(__file__).with_name("golden.json")
SEEDS, ENTRIES = range(3), 8


def entries(row, seed):
    """Draws a row's weight and takes entries that are spread over it."""
    weight = np.asarray(row.init(jax.random.key(seed, impl="threefry2x32"), row.shape))
    places = np.linspace(0, weight.size - 1, ENTRIES).astype(int)
    return [float(entry) for entry in weight.ravel()[places]]


def tolerance(row):
    """Returns by how much machines may differ, relative to an entry or to its scale."""
    # Processors may fuse a product and a sum, or not: a unit or two in the last place.
    # Matrix products sum in an order of their own on each: some hundred units.
    relative = 3e-5 if "orthogonal" in row.init.name else 1e-6
    return {"rtol": relative, "atol": relative * np.sqrt(row.variance)}


def write(file):
    """Writes the values of all rows; the JAX that drew them, if any is new."""
    stored = json.loads(file.read_text())
    streams = {}
    for row in RANDOM:
        drawn = [entries(row, seed) for seed in SEEDS]
        known = stored["streams"].get(row.name, [])
        same = np.shape(known) == np.shape(drawn)
        same = same and np.allclose(drawn, known, **tolerance(row))
        streams[row.name] = known if same else drawn
    if streams != stored["streams"]:
        written = {"jax": jax.__version__, "prng": "threefry2x32", "streams": streams}
        file.write_text(json.dumps(written, indent=1) + "\n")


if __name__ == "__main__":
    write(FILE)
