"""The command line: ``jaxinit compare``, ``jaxinit list``, ``jaxinit show``."""

import argparse
import inspect
import json
import math
import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np

import jaxinit
from jaxinit._gain import ACTIVATIONS
from jaxinit._initializer import REGISTRY, Initializer, registered

_EXTRA = ("flax", "jinja2", "matplotlib", "optax", "rich", "sklearn")
_MOST = 2**28  # entries of a weight that `show` draws
_PIPED_WIDTH = 160  # columns of a table that no terminal limits


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


class _BadInput(Exception):
    """What a user gave cannot be used; the message is the one line to print."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
      arguments: the words behind ``jaxinit``; by default those of the process.

    Returns:
      The exit code: 0, 2 for bad input, 130 after an interrupt.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    parsed = _parser().parse_args(given)
    parsed.command = shlex.join(["jaxinit", *given])
    try:
        code: int = parsed.run(parsed)
        sys.stdout.flush()  # so that a reader that has gone is found here
        return code
    except _BadInput as error:
        print(f"jaxinit: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in _EXTRA:
            raise
        print(
            f"jaxinit: {error.name} is missing. Run: pip install 'jaxinit[lab]'",
            file=sys.stderr,
        )
        return 2
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("jaxinit: interrupted before there was a result.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="jaxinit", description="Choose, draw and check initial weights."
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_compare(commands)
    _add_list(commands)
    _add_show(commands)
    return parser


def _version() -> str:
    from importlib import metadata

    return f"jaxinit {metadata.version('jaxinit')}"


def _checked(function: Callable[..., Any], *args: Any) -> Any:
    """Calls a function whose ValueError and TypeError speak of what the user gave."""
    try:
        return function(*args)
    except (ValueError, TypeError) as error:
        raise _BadInput(str(error)) from error


def _console() -> Any:
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH)


# jaxinit compare


def _add_compare(commands: Any) -> None:
    text = "train a deep network under every initializer and show what it does"
    parser = commands.add_parser(
        "compare", help=text, description=text.capitalize() + "."
    )
    add = parser.add_argument
    add(
        "--init",
        metavar="SPEC",
        action="append",
        dest="initializers",
        help="an initializer, such as \"he_normal(gain='gelu')\"; repeatable "
        "(default: a dozen, from zeros to orthogonal)",
    )
    add(
        "--activation",
        default="relu",
        help=f"one of {', '.join(ACTIVATIONS)} (default: relu)",
    )
    add("--depth", type=int, default=20, help="dense layers (default: 20)")
    add("--width", type=int, default=64, help="units of a hidden layer (default: 64)")
    add("--norm", default="none", help="none, layer or batch (default: none)")
    add(
        "--seeds", type=int, default=3, help="seeds of the initial weights (default: 3)"
    )
    add("--steps", type=int, default=400, help="training steps (default: 400)")
    add(
        "--lr",
        metavar="RATE",
        type=float,
        action="append",
        dest="learning_rates",
        help="a learning rate that every initializer is tried at; repeatable "
        "(default: 3e-4, 1e-3 and 3e-3)",
    )
    add(
        "--optimizer",
        default="adam",
        help="adam, adamw, lion, momentum, rmsprop or sgd (default: adam)",
    )
    add("--batch-size", type=int, default=64, help="rows per step (default: 64)")
    add(
        "--target-loss",
        metavar="LOSS",
        type=float,
        default=0.5,
        help="the training loss to count the steps to (default: 0.5)",
    )
    add(
        "--data",
        metavar="FILE.npz",
        help="arrays x and y: integer or string y are classes, float y are real "
        "targets (default: scikit-learn's digits)",
    )
    add(
        "--out",
        metavar="DIR",
        type=Path,
        help="write results.json, plots and index.html there",
    )
    add(
        "--json",
        action="store_true",
        help="print the results as JSON instead of the table",
    )
    parser.set_defaults(run=_compare)


def _compare(given: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from jaxinit.lab import DEFAULT_INITIALIZERS, Settings
    from jaxinit.lab._compare import prepare, train
    from jaxinit.lab.table import table

    if given.out is not None:
        from jaxinit.lab.files import write  # a missing plot library shows here

        _writable(given.out)
    task, settings = _checked(
        prepare,
        given.data,
        given.initializers or DEFAULT_INITIALIZERS,
        given.activation,
        given.depth,
        given.width,
        given.norm,
        given.seeds,
        given.steps,
        given.learning_rates or Settings.learning_rates,
        given.optimizer,
        given.batch_size,
        given.target_loss,
    )
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} steps"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        job = bar.add_task("drawing and compiling", total=settings.steps)
        result = train(
            task,
            settings,
            lambda done, _: bar.update(job, completed=done, description="training"),
        )
    if given.json:
        print(result.to_json())
    else:
        _console().print(table(result))
        parts = ", ".join(
            f"{part} {s:.1f} s" for part, s in result.seconds._asdict().items()
        )
        print(f"Computed in {sum(result.seconds):.1f} s ({parts}).")
    note = sys.stderr if given.json else sys.stdout
    if given.out is not None:
        files = write(result, given.out, given.command)
        print(
            f"Written to {given.out}: {', '.join(file.name for file in files)}",
            file=note,
        )
    elif not given.json:
        print("Add --out DIR for plots, a page and every number.")
    if result.interrupted:
        done = f"{result.steps_done} of {settings.steps} steps"
        kept = f"; what was computed is in {given.out}" if given.out is not None else ""
        print(f"jaxinit: interrupted after {done}{kept}.", file=sys.stderr)
        return 130
    return 0


def _writable(directory: Path) -> None:
    """Makes the directory and checks that a file can be written to it."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise _BadInput(f"cannot write to {directory}: {error.strerror}.") from error


# jaxinit list


def _add_list(commands: Any) -> None:
    text = "list the builders with their law, variance and reference"
    parser = commands.add_parser("list", help=text, description=text.capitalize() + ".")
    parser.add_argument(
        "--json", action="store_true", help="print JSON instead of a table"
    )
    parser.set_defaults(run=_list)


def describe(builder: Callable[..., Any]) -> dict[str, str]:
    """Reads a builder's documentation: summary, law, variance and first reference."""
    sections: dict[str, list[str]] = {"": []}
    name = ""
    for line in (inspect.getdoc(builder) or "").splitlines():
        if line.endswith(":") and not line.startswith(" ") and line[:-1].isalpha():
            name = line[:-1]
        sections.setdefault(name, []).append(line.strip())
    body = "\n".join(sections[""])
    law = " ".join(body.partition("Law: ")[2].partition("\n\n")[0].split())
    law, _, variance = law.partition("; ")
    references = sections.get("References", ["", ""])[1:]
    return {
        "name": registered(builder),
        "summary": body.partition("\n")[0],
        "law": law,
        "variance": variance.rstrip("."),
        "reference": " ".join(references),
    }


def _list(given: argparse.Namespace) -> int:
    from rich.markup import escape
    from rich.table import Table

    found = [
        describe(b) for name, b in sorted(REGISTRY.items()) if registered(b) == name
    ]
    if given.json:
        print(json.dumps(found, indent=1, ensure_ascii=False))
        return 0
    table = Table(show_lines=True)
    for name, ratio in {
        "name": None,
        "summary": 3,
        "law": 4,
        "variance": 3,
        "reference": 4,
    }.items():
        table.add_column(name, ratio=ratio, no_wrap=name == "name")
    for row in found:
        table.add_row(*map(escape, row.values()))
    _console().print(table)
    return 0


# jaxinit show


def _add_show(commands: Any) -> None:
    text = "draw one weight and compare it with its law"
    parser = commands.add_parser("show", help=text, description=text.capitalize() + ".")
    add = parser.add_argument
    add(
        "spec",
        metavar="SPEC",
        help="an initializer, such as \"he_normal(gain='gelu')\"",
    )
    add(
        "--shape",
        metavar="SIZE",
        type=int,
        nargs="+",
        required=True,
        help="such as 512 256",
    )
    add("--seed", type=int, default=0, help="seed of the key (default: 0)")
    add("--dtype", default=None, help="dtype of the weight (default: float32)")
    add(
        "--plot",
        metavar="FILE.png",
        type=Path,
        help="write a histogram and a heat map there",
    )
    add("--json", action="store_true", help="print JSON instead of a table")
    parser.set_defaults(run=_show)


def statistics(init: Initializer, weight: np.ndarray) -> dict[str, Any]:
    """Computes what there is to say about one weight, beside its law."""
    moments = init.moments(weight.shape)
    values = weight if np.iscomplexobj(weight) else weight.astype(float)
    empty = not weight.size
    part = values.real if empty or not np.iscomplexobj(values) else np.abs(values)
    found = {
        "mean": None if empty else complex(values.mean()).real,
        "mean by law": moments and moments.mean,
        "standard deviation": None if empty else float(values.std()),
        "standard deviation by law": moments and moments.variance**0.5,
        "smallest": None if empty else float(part.min()),
        "largest": None if empty else float(part.max()),
        "zeros": int((weight == 0).sum()),
        "distinct values": len(np.unique(weight)),
        "entries": weight.size,
    }
    return {k: v if v is None or np.isfinite(v) else None for k, v in found.items()}


def _show(given: argparse.Namespace) -> int:
    from rich.table import Table

    init = _checked(jaxinit.parse, given.spec)
    if not 0 <= given.seed < 2**32:
        raise _BadInput("--seed must lie between 0 and 2**32 - 1.")
    if math.prod(given.shape) > _MOST:
        raise _BadInput(
            f"show draws the weight: give a shape of at most {_MOST} entries."
        )
    drawn = _checked(init, jax.random.key(given.seed), given.shape, given.dtype)
    weight = np.asarray(drawn)
    with np.errstate(invalid="ignore"):  # entries that overflow a narrow dtype
        found = statistics(init, weight)
    title = f"{init!r} {list(weight.shape)} {weight.dtype.name}, seed {given.seed}"
    if given.json:
        print(json.dumps({"spec": repr(init), "shape": weight.shape, **found}))
    else:
        table = Table(title=title, show_header=False, title_justify="left")
        for name, value in found.items():
            table.add_row(name, "–" if value is None else f"{value:.6g}")
        _console().print(table)
    if given.plot is not None:
        from jaxinit.lab.plots import histogram_and_heatmap

        if not weight.size or np.iscomplexobj(weight):
            raise _BadInput("a plot needs a real weight with entries.")
        try:
            given.plot.write_bytes(histogram_and_heatmap(weight.astype(float), title))
        except OSError as error:
            raise _BadInput(f"cannot write {given.plot}: {error.strerror}.") from error
    return 0
