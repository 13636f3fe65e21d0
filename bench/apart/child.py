"""A case in a process of its own: ``python -m bench.apart.child SUITE CASE [CHANGES]``.

The last line that it prints is the memory that the case takes, as JSON, which
`bench.meters.memory.measure_in_child` reads.
"""

import dataclasses
import json
import sys
from typing import Any

from bench.suites import SUITES


def main(suite: str, name: str, changes: str = "{}") -> None:
    """Measures the memory of a case of full size in this process, and prints it.

    Args:
      suite: a suite whose module has a function ``measure_memory``.
      name: the case's name.
      changes: fields of the case with other values, as a JSON object.
    """
    chosen: Any = SUITES[suite]
    case = next(case for case in chosen.cases(False) if case.name == name)
    case = dataclasses.replace(case, **json.loads(changes))
    print(json.dumps(chosen.measure_memory(case)))


if __name__ == "__main__":
    main(*sys.argv[1:])
