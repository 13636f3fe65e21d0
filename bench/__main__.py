"""The command line: ``python -m bench [suite ...] [--json FILE] [--quick]``.

``python -m bench gpu --out DIR`` measures all that a GPU is asked; ``python -m bench
claims [NAME ...]`` tries claims of papers.
"""

import argparse
import difflib
import math
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.apart import gpu
from bench.meters.row import Row
from bench.meters.settings import Settings
from jaxinit.cli import BadInput, Parser

_PIPED_WIDTH = 180  # columns of a table that no terminal limits
_QUICK_REPEATS = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs suites and prints their tables.

    Args:
      arguments: the words after ``python -m bench``; by default the process's.

    Returns:
      The exit code: 0, 1 if a case was not verified, 2 for bad input, 130 after an
      interrupt.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        if words[:1] == ["gpu"]:
            return gpu.main(words[1:])
        if words[:1] == ["claims"]:
            # As late as the suites: the networks of claims import JAX and Flax.
            from bench.claims import command

            return command.main(words[1:])
        options = _build_parser().parse_args(words)
        return _read(options) if options.read is not None else _run(options)
    except BadInput as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if error.name not in ("flax", "rich", "matplotlib"):
            raise
        cure = "Run: pip install 'jaxinit[bench]'"
        print(f"bench: {error.name} is missing. {cure}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bench: interrupted; suites that were done are kept.", file=sys.stderr)
        return 130


def _build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="bench", description="Time draws beside peers and the machine's limit."
    )
    add = parser.add_argument
    add("suites", metavar="SUITE", nargs="*", help="which to run (default: all)")
    add("--json", metavar="FILE", type=Path, help="write the results there")
    add("--plots", metavar="DIR", type=Path, help="write a plot of each suite there")
    add(
        "--quick",
        action="store_true",
        help=f"toy sizes, {_QUICK_REPEATS} repeats: the times mean nothing",
    )
    add("--repeats", type=int, help="turns of each contender (default: 7)")
    add(
        "--peers",
        metavar="NAMES",
        help="such as jax,torch (default: all that are installed; none: no peers)",
    )
    add(
        "--only",
        metavar="TEXT",
        help='cases with this in their name, such as "normal 3"',
    )
    add(
        "--seconds",
        type=float,
        help="begin no case after so many seconds of a suite (default: begin all)",
    )
    add("--read", metavar="FILE", type=Path, help="show results instead of measuring")
    return parser


def _run(options: argparse.Namespace) -> int:
    # A child process that measures memory needs some of the device's memory.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    import jax

    from bench.show import machine, report
    from bench.suites import SUITES

    names = list(dict.fromkeys(_choose("suite", options.suites, SUITES) or SUITES))
    settings = _parse_settings(options)
    seconds = math.inf if options.seconds is None else options.seconds
    if not seconds > 0:
        raise BadInput(f"--seconds {seconds:g}: must be above 0.")
    for option in ("json", "plots"):
        _check_writable(option, getattr(options, option))

    if not settings.quick:
        # A program compiled by an earlier run would count as compiled in no time.
        jax.config.update("jax_enable_compilation_cache", False)
    result = {
        "format": report.FORMAT,
        "settings": asdict(settings),
        **machine.describe(),
        "suites": {},
    }
    console = _open_console()
    chosen = {
        name: [
            c
            for c in SUITES[name].cases(options.quick)
            if (options.only or "") in c.name
        ]
        for name in names
    }
    if not any(chosen.values()):
        raise BadInput(
            f"--only {options.only!r}: no case of {', '.join(names)} has it."
        )
    for name in filter(chosen.get, names):
        rows = _measure(name, chosen[name], settings, seconds)
        result["suites"][name] = rows
        console.print(report.build_table(name, SUITES[name].QUESTION, rows))
        if options.json is not None:  # after each suite: an interrupt loses one at most
            _write("json", options.json, report.write, result)
    console.print(report.write_heading(result), highlight=False, markup=False)
    if options.plots is not None:
        _write_plots(options.plots, result)
    return _report_failures(result)


def _parse_settings(options: argparse.Namespace) -> Settings:
    repeats = options.repeats
    if repeats is None:
        repeats = _QUICK_REPEATS if options.quick else Settings.repeats
    if repeats < 1:
        raise BadInput(f"--repeats {repeats}: must be 1 or above.")
    return Settings(repeats, _choose_peers(options.peers), options.quick)


def _measure(
    name: str, cases: list[Any], settings: Settings, seconds: float
) -> list[Row]:
    """Measures the cases of a suite, with progress on a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from bench.suites import SUITES

    rows = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, transient=True, **_choose_terminal()) as bar:
        job = bar.add_task(name, total=len(cases))
        end = time.monotonic() + seconds
        for number, case in enumerate(cases):
            if time.monotonic() > end:
                left = ", ".join(case.name for case in cases[number:])
                print(f"bench: --seconds {seconds:g}: no time for {left}.")
                break
            bar.update(job, description=case.name)
            rows.append(SUITES[name].measure(case, settings))
            bar.advance(job)
    return rows


def _report_failures(result: dict[str, Any]) -> int:
    """Names the cases that were not verified; returns the exit code."""
    suites = result["suites"].values()
    failed = [row["case"] for rows in suites for row in rows if not row["verified"]]
    if failed:
        print(f"bench: not verified: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


def _read(options: argparse.Namespace) -> int:
    """Shows a result that was measured before."""
    from bench.show import report
    from bench.suites import SUITES

    for option in ("json", "quick", "repeats", "peers", "only", "seconds"):
        if getattr(options, option):
            rule = "measures nothing. Leave one of the two out."
            raise BadInput(f"--read {options.read} --{option}: --read {rule}")
    try:
        result = report.read(options.read)
    except OSError as error:
        raise BadInput(f"--read {options.read}: {error.strerror}.") from error
    except ValueError as error:
        raise BadInput(f"--read {options.read}: {error}.") from error
    _check_writable("plots", options.plots)
    console = _open_console()
    for name in _choose("suite", options.suites, result["suites"]) or result["suites"]:
        question = SUITES[name].QUESTION if name in SUITES else ""
        console.print(report.build_table(name, question, result["suites"][name]))
    console.print(report.write_heading(result), highlight=False, markup=False)
    if options.plots is not None:
        _write_plots(options.plots, result)
    return 0


def _open_console(stderr: bool = False) -> Any:
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else _PIPED_WIDTH)


def _choose_terminal() -> dict[str, Any]:
    """Returns where progress is shown: nowhere but on a terminal."""
    return {"console": _open_console(stderr=True), "disable": not sys.stderr.isatty()}


def _choose(what: str, words: Sequence[str], known: Any) -> list[str]:
    """Checks that all words are known."""
    for word in words:
        if word not in known:
            near = difflib.get_close_matches(word, list(known), n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            rule = f"must be one of {', '.join(map(repr, known))}."
            raise BadInput(f"{what} {word!r}: {rule}{hint}")
    return list(words)


def _choose_peers(text: str | None) -> tuple[str, ...]:
    """Returns the peers that were asked for, or all that are installed."""
    from bench.weight import peers

    installed = peers.find_installed()
    if text is None:
        return installed
    if text == "none":
        return ()
    words = _choose("--peers", text.split(","), (*peers.NAMES, "none"))
    for word in words:
        if word not in installed:
            cure = f"Run: pip install {word}"
            raise BadInput(f"--peers {word}: is not installed. {cure}")
    return tuple(dict.fromkeys(words))


def _check_writable(option: str, path: Path | None) -> None:
    """Checks before hours of work that their result can be written."""
    if path is None:
        return
    directory = path if option == "plots" else path.parent
    if option == "json" and path.is_dir():
        raise BadInput(f"--json {path}: is a directory. Name a file.")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        rule = f"cannot be written: {error.strerror}."
        raise BadInput(f"--{option} {path}: {rule}") from error


def _write(option: str, path: Path, write: Any, result: dict[str, Any]) -> Any:
    try:
        return write(result, path)
    except OSError as error:
        rule = f"cannot be written: {error.strerror}."
        raise BadInput(f"--{option} {path}: {rule}") from error


def _write_plots(directory: Path, result: dict[str, Any]) -> None:
    from bench.show import plots

    files = _write("plots", directory, plots.write, result)
    print(f"Written to {directory}: {', '.join(file.name for file in files)}")


if __name__ == "__main__":
    sys.exit(main())
