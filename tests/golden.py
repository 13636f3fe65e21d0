"""Writes the golden values of the streams: ``python tests/golden.py``.

A change of values needs new golden values and a line under "Streams" in the changelog,
in the same commit.
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


def streams():
    return {row.name: [entries(row, seed) for seed in SEEDS] for row in RANDOM}


if __name__ == "__main__":
    written = {"jax": jax.__version__, "prng": "threefry2x32", "streams": streams()}
    FILE.write_text(json.dumps(written, indent=1) + "\n")
