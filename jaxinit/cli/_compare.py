"""``jaxinit compare``: what the initializer does to training."""

import argparse
import contextlib
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxinit._watch import watch
from jaxinit.cli._json import PRINTED, add_json, check_json, write_json
from jaxinit.cli._parser import add_parser
from jaxinit.cli._settings import add_settings, take_settings
from jaxinit.cli._terminal import (
    FULL,
    BadInput,
    allow_imports,
    cannot_write,
    check_makable,
    check_writable,
    console,
    enable_types,
    parse_path,
    read_path,
    shorten_warnings,
    silence,
    try_call,
)

if TYPE_CHECKING:
    from jaxinit.lab.command import Checkpoint, Comparison, Experiment, Log


def add(commands: Any) -> None:
    """Adds the command."""
    text = "train a deep network under every initializer and show what it does"
    parser = add_parser(
        commands,
        "compare",
        text,
        examples=[
            'jaxinit compare --init "he_normal()" --init "zeros()"',
            'jaxinit compare --init "he_normal()" --init "orthogonal(gain=\'relu\')" '
            "\\\n      --depth 30 --lr 1e-3 --lr 3e-3 --out results",
            "jaxinit compare --model package.module:Model --data my.npz --json",
        ],
    )
    parser.set_defaults(run=run)
    parser.fill = _add_options


def _add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options: those of the settings, and those of data, files and output."""
    from jaxinit.lab.command import MACHINE

    group = add_settings(parser)
    group[MACHINE](
        "--distributed",
        nargs="*",
        metavar="WHERE",
        help="train together with other processes that run the same command: those of "
        "a cluster that JAX finds out about, or ADDRESS:PORT of the first, the number "
        "of processes, and the number of this one, from 0 on",
    )
    _add_files(parser.add_argument_group("files").add_argument)
    _add_output(parser.add_argument_group("output"))


def _add_files(option: Callable[..., Any]) -> None:
    """Adds the options about files that are written, or continued from."""
    option(
        "--out",
        metavar="DIR",
        type=parse_path,
        help="write results.json, plots and index.html there",
    )
    option(
        "--resume",
        action="store_true",
        help="go on with the run in --out that was interrupted or killed",
    )
    option(
        "--overwrite",
        action="store_true",
        help="start anew where --out has results or the saves of a run",
    )
    option(
        "--save-every",
        metavar="BLOCKS",
        type=int,
        help="blocks of up to 25 steps between the saves of training in --out "
        "(default: as many as make 100 steps)",
    )
    option(
        "--log",
        nargs=2,
        metavar=("KIND", "DIR"),
        help="log the training there while it runs; the kind is tensorboard",
    )


def _add_output(group: Any) -> None:
    """Adds the options about printed output."""
    group.add_argument(
        "--quiet", action="store_true", help="show no progress (only a terminal does)"
    )
    form = group.add_mutually_exclusive_group()
    form.add_argument(
        "--format",
        choices=("table", "md", "json", "csv"),
        default="table",
        help="print a table, a table in Markdown, all results as JSON, or the cells as "
        "CSV (default: table)",
    )
    add_json(form.add_argument, "all results")


def run(options: argparse.Namespace) -> int:
    """Runs the command."""
    try:
        with (
            silence("absl"),  # of orbax
            enable_types(getattr(options, "dtype", None) == "float64"),
            shorten_warnings(),
            contextlib.ExitStack() as stack,
        ):
            return _run(options, stack)
    except OSError as error:
        full = error.errno in FULL
        if options.out is None or not (full or _is_in(error.filename, options.out)):
            raise
        cure = "When there is room" if full else "When that is mended"
        raise BadInput(f"{cannot_write(error)} {cure}, --resume goes on.") from error


def _is_in(file: Any, directory: Path) -> bool:
    """Returns whether the file that an error names is in a directory."""
    if not isinstance(file, str):
        return False
    return Path(file).absolute().is_relative_to(directory.absolute())


def _run(options: argparse.Namespace, stack: contextlib.ExitStack) -> int:
    from jaxinit.cli._live import show_progress
    from jaxinit.lab import command as lab

    allow_imports()
    check_json(options.json)
    if options.json == PRINTED:
        options.format = "json"
    if options.distributed is not None:
        try_call(lab.join, *options.distributed)
    asked = take_settings(options)
    tried = asked.pop("initializers", lab.DEFAULT_INITIALIZERS)
    experiment = try_call(lab.design, tried, options.data, options.task, **asked)
    saves, logs = _open_files(options, experiment, stack)
    quiet = options.quiet or not lab.is_first()
    try:
        result, files = lab.run(
            experiment,
            options.out,
            saves,
            logs,
            watching=show_progress(experiment.task, experiment.settings, quiet),
            show=functools.partial(_print, form=options.format),
            command=options.command,
        )
    except lab.Unreadable as error:
        raise BadInput(str(error)) from error
    if lab.is_first():
        _print_end(options, result, files)
    return 130 if result.interrupted else 0


def _open_files(
    options: argparse.Namespace, experiment: "Experiment", stack: contextlib.ExitStack
) -> "tuple[Checkpoint | None, Log | None]":
    """Opens the saves and the log, and checks that they can be written."""
    from jaxinit.lab.command import open_files

    log = options.log and (options.log[0], try_call(read_path, options.log[1]))
    if log is not None:
        check_makable(log[1])
    saves, logs = try_call(
        open_files,
        experiment,
        options.out,
        log,
        resume=options.resume,
        overwrite=options.overwrite,
        save_every=options.save_every,
    )
    if logs is not None:
        check_writable(logs.directory, make=True)
    if saves is not None:
        stack.enter_context(saves)
        watch.leaves_with(f"interrupted; --resume goes on with {options.out}.")
        check_writable(options.out, make=True)
        if options.resume and not saves.resumes:
            said = f"nothing to resume in {options.out}, starting from the beginning."
            print(f"jaxinit: {said}", file=sys.stderr)
    return saves, logs


def _print(result: "Comparison", form: str) -> None:
    """Prints the results."""
    from jaxinit.lab.command import markdown, table

    if form == "json":
        print(result.to_json())
    elif form == "csv":
        print(result.to_csv(), end="")
    elif form == "md":
        print(markdown(result), end="")
    else:
        terminal = console()
        terminal.print(table(result, terminal.width))
        parts = ", ".join(
            f"{part} {s:.1f} s" for part, s in result.seconds._asdict().items()
        )
        print(f"Computed in {sum(result.seconds):.1f} s ({parts}).")


def _print_end(
    options: argparse.Namespace, result: "Comparison", files: list[Path]
) -> None:
    """Prints where the results are, and how far an interrupted run has come."""
    note = sys.stdout if options.format == "table" else sys.stderr
    if options.json != PRINTED:
        write_json(options.json, result.to_json(), note)
    if options.out is not None:
        names = ", ".join(file.name for file in files)
        print(f"Written to {options.out}: {names}", file=note)
    elif options.format == "table":
        print("Add --out DIR for plots, a page and every number.")
    if result.interrupted:
        done = f"{result.steps_done} of {result.settings.steps} steps"
        kept = ""
        if options.out is not None:
            kept = f"; what was computed is in {options.out}, --resume goes on"
        print(f"jaxinit: interrupted after {done}{kept}.", file=sys.stderr)
