"""Marks of parameters."""

import pytest


def slow_but(first, every, rows=False):
    """Leaves all but the first named for the slow run, which CI makes too.

    With rows, each is a row of several parameters.
    """
    return [
        pytest.param(*(x if rows else [x]), marks=[pytest.mark.slow] * (x not in first))
        for x in every
    ]
