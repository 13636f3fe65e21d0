"""Marks of parameters."""

import pytest


def slow_but(first, every):
    """Leaves all but the first named for the slow run, which CI makes too."""
    return [pytest.param(x, marks=[pytest.mark.slow] * (x not in first)) for x in every]
