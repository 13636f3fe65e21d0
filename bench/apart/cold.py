"""Cold work: ``python -m bench.apart.cold SUITE CASE CONTENDER [--quick]``.

The last line that it prints is the seconds of each call, as JSON, which
`bench.meters.cold.time_cold` reads. Importing and the first contact with the device are
not counted.
"""

import json
import sys
from typing import Any

import jax

from bench.suites import SUITES


def main(suite: str, name: str, contender: str, *quick: str) -> None:
    """Runs a contender in this process, and prints its seconds.

    Args:
      suite: a suite whose file has ``run_cold``.
      name: the case's name.
      contender: which of them runs.
      *quick: anything for a case of toy size.
    """
    if not quick:
        # A program that an earlier process compiled would count as compiled in no time.
        jax.config.update("jax_enable_compilation_cache", False)
    chosen: Any = SUITES[suite]
    case = next(case for case in chosen.cases(bool(quick)) if case.name == name)
    jax.block_until_ready(jax.random.split(jax.random.key(0)))
    print(json.dumps(chosen.run_cold(case, contender)))


if __name__ == "__main__":
    main(*sys.argv[1:])
