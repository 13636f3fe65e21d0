"""Averages over seeds of what was measured."""

import math
from collections.abc import Sequence

import numpy as np

from jaxinit.signal._measure import Measured


def average(values: object) -> float:
    return float(np.mean(np.asarray(values, np.float64)))


def log_size(values: np.ndarray) -> float:
    """Averages the logarithm of a size over seeds; infinite if none is finite."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(np.asarray(values, np.float64))
    finite = logs[np.isfinite(logs)]
    if not finite.size:
        return (
            -math.inf if np.nanmax(logs, initial=-math.inf) == -math.inf else math.inf
        )
    return float(finite.mean())


def start_of(measured: Sequence[Measured], weighted: Sequence[int]) -> float:
    """Returns the logarithm of the size that the signal starts with."""
    forward = [measured[i].forward for i in weighted]
    inputs = [each["input_rms"] for each in forward if "input_rms" in each]
    sizes = [log_size(size) for size in (*inputs[:1], *(f["rms"] for f in forward))]
    return next((size for size in sizes if math.isfinite(size)), 0.0)
