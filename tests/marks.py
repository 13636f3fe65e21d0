"""Marks of parameters."""

import re

import pytest


def stable(value):
    """Names a parameter without addresses, which differ between workers."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))


def slow_but(first, every, rows=False):
    """Leaves all but the first named for the slow run, which CI makes too.

    With rows, each is a row of several parameters.
    """
    return [
        pytest.param(*(x if rows else [x]), marks=[pytest.mark.slow] * (x not in first))
        for x in every
    ]
