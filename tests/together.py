"""Rows of the catalogue in one program, which compiles sooner than one for each.

What a test asserts it asserts of every row, and names the row that fails.
"""

import pytest

from jaxinit.testing._case import difference

# For programs of which no bit is compared with those of another.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def jointly(main, every):
    """Runs a test on the rows of main, and in the slow run on all others too."""
    parts = (
        [row for row in every if row in main],
        [row for row in every if row not in main],
    )
    cases = [
        pytest.param(rows, id=name, marks=[pytest.mark.slow] * (name == "others"))
        for name, rows in zip(("main", "others"), parts, strict=True)
        if rows
    ]
    return pytest.mark.parametrize("rows", cases)


def draw(rows, keys):
    """Draws a weight of each row; within a program, if one is traced."""
    return [row.init(key, row.shape) for row, key in zip(rows, keys, strict=True)]


def same(rows, weights, expected):
    """Compares weights of rows, bit for bit."""
    for row, w, known in zip(rows, weights, expected, strict=True):
        assert not difference(w, known), row.name
