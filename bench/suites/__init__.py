"""The suites: each is a file that asks one question about its cases."""

from typing import Any, Protocol

from bench.meters.row import Row
from bench.meters.settings import Settings
from bench.suites import (
    check,
    cold,
    compile,
    composed,
    draws,
    dtypes,
    eager,
    kernels,
    lab,
    model,
    orthogonal,
    sparse,
    step,
)


class Suite(Protocol):
    """The functions in the file of a suite.

    A suite whose cases have their memory measured also has ``measure_memory(case)``,
    which `bench.apart.child` calls in a process of its own.
    """

    @property
    def QUESTION(self) -> str:
        """What the table is about."""

    def cases(self, quick: bool, /) -> list[Any]:
        """Returns the cases, of toy size if asked so."""

    def measure(self, case: Any, settings: Settings, /) -> Row:
        """Turns a case into a row."""


# In the order in which they run.
SUITES: dict[str, Suite] = {
    "draws": draws,
    "dtypes": dtypes,
    "orthogonal": orthogonal,
    "sparse": sparse,
    "composed": composed,
    "compile": compile,
    "kernels": kernels,
    "eager": eager,
    "check": check,
    "cold": cold,
    "model": model,
    "lab": lab,
    "step": step,
}
