"""All that a GPU is asked, in one go: ``python -m bench gpu --out DIR [--quick]``.

At most eight minutes: each suite has its own bound, in a process of its own, and begins
no case after it. Writes ``results.json``, which ``python -m bench --read`` shows again,
``results.txt`` with the tables, and ``tests.txt``, the tests that need a GPU.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxinit.cli import BadInput, Parser

# Seconds in which cases of a suite begin; a case that has begun may take half as long.
BOUNDS = {
    "kernels": 70,  # JAX's draw, ours, the Pallas kernels, beside a copy
    "draws": 60,
    "orthogonal": 50,  # Haar beside QR
    "model": 60,  # jit_init
    "check": 40,
    "lab": 40,
}
_TESTS = "tests"
_WIDTH = 180  # columns of the tables
TESTS_BOUND = 60
_ROOT = Path(__file__).parents[2]


def main(arguments: Sequence[str]) -> int:
    """Runs the suites and the tests; returns 1 if one of them failed.

    Args:
      arguments: the words after ``python -m bench gpu``.

    Raises:
      BadInput: if the directory cannot be written.
    """
    parser = Parser(prog="bench gpu", description="Measure all on this machine's GPU.")
    parser.add_argument("--out", metavar="DIR", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="toy sizes, on any device")
    parser.add_argument("--only", nargs="+", choices=[*BOUNDS, _TESTS], metavar="SUITE")
    options = parser.parse_args(arguments)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        rule = f"cannot be written: {error.strerror}."
        raise BadInput(f"--out {options.out}: {rule}") from error
    chosen = options.only or [*BOUNDS, _TESTS]
    ended = {
        suite: _run_suite(suite, seconds, options)
        for suite, seconds in BOUNDS.items()
        if suite in chosen
    }
    _join_results(options.out, list(ended))
    if _TESTS in chosen:
        ended[_TESTS] = _run_tests(options.out)
    for name, told in ended.items():
        print(f"{name}: {told}")
    return int(any(not told.startswith("ended") for told in ended.values()))


def _run_suite(suite: str, seconds: int, options: argparse.Namespace) -> str:
    """Measures a suite; returns how that ended."""
    words = [suite, "--json", str(options.out / f"{suite}.json")]
    words += ["--seconds", str(seconds), *(["--quick"] if options.quick else [])]
    return _run(["bench", *words], seconds * 1.5, options.out / f"{suite}.txt")


def _run_tests(out: Path) -> str:
    files = (_ROOT / "tests").rglob("test_*.py")
    marked = [str(path) for path in files if "mark.gpu" in path.read_text()]
    words = ["pytest", "-m", "gpu", "-n", "0", "-rs", *marked]
    return _run(words, TESTS_BOUND, out / "tests.txt")


def _run(words: list[str], seconds: float, log: Path) -> str:
    """Runs a module of Python in a process of its own, and stops it at the bound."""
    started = time.monotonic()
    # A process that holds no memory of the GPU leaves it to the next.
    env = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    with log.open("w") as stream:
        try:
            done = subprocess.run(
                [sys.executable, "-m", *words],
                cwd=_ROOT,
                env=env,
                stdout=stream,
                stderr=subprocess.STDOUT,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"stopped after {seconds:.0f} s; see {log}"
    took = time.monotonic() - started
    if done.returncode:
        return f"failed with code {done.returncode} after {took:.0f} s; see {log}"
    return f"ended after {took:.0f} s"


def _join_results(out: Path, suites: list[str]) -> None:
    """Writes the results of all suites as one, and their tables."""
    from rich.console import Console

    from bench.show import report
    from bench.suites import SUITES

    joined: dict[str, Any] = {}
    for suite in suites:
        path = out / f"{suite}.json"
        if path.exists():
            found = report.read(path)
            joined = {**found, "suites": joined.get("suites", {}) | found["suites"]}
            path.unlink()
    if not joined:
        return
    report.write(joined, out / "results.json")
    with (out / "results.txt").open("w", encoding="utf-8") as stream:
        console = Console(file=stream, width=_WIDTH)
        for suite, rows in joined["suites"].items():
            console.print(report.build_table(suite, SUITES[suite].QUESTION, rows))
        heading = report.write_heading(joined)
        console.print(heading, highlight=False, markup=False)
    print((out / "results.txt").read_text("utf-8"))
