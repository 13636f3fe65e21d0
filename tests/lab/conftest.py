"""The run that others are compared with."""

import pytest
from killed_runs import INITIALIZERS, SETTINGS

from jaxinit import lab


@pytest.fixture(scope="module")
def whole(task):
    """The run that nothing interrupts."""
    return lab.compare(INITIALIZERS, data=task, **SETTINGS)
