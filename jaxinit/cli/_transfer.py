"""``jaxinit transfer``: whether the best learning rate stays as a network grows."""

import argparse
import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from jaxinit._watch import watch
from jaxinit.cli._json import PRINTED, add_json, check_json, write_json
from jaxinit.cli._parser import add_parser
from jaxinit.cli._settings import add_settings, take_settings
from jaxinit.cli._terminal import (
    BadInput,
    allow_imports,
    check_writable,
    console,
    enable_types,
    parse_path,
    print_table,
    shorten_warnings,
    try_call,
)

if TYPE_CHECKING:
    from jaxinit.lab.command import Finished, Sweep, TransferResult

_RATE = re.compile(r"2(?:\^|\*\*)(-?\d+(?:\.\d+)?)")
_MARK = re.compile(r"[,()\[\]{}]")
_RESULT = "results.json"


def add(commands: Any) -> None:
    """Adds the command."""
    text = "train a network at several widths and tell whether its best learning rate "
    text += "stays"
    parser = add_parser(
        commands,
        "transfer",
        text,
        more=", by parameterization: standard, muP, others",
        examples=[
            "jaxinit transfer --depth 3 --widths 64,128,256",
            "jaxinit transfer --depth 3 --steps 150 --seeds 2 --lr 2^-12:2^-3 "
            "--out results",
            "jaxinit transfer --model transformer --task text --depth 2 --norm layer "
            '\\\n      --init "role:readout: zeros(); he_normal()" '
            "--schedule warmup_cosine \\\n      "
            "--parameterizations sp,mup,standard --widths 64,128,256",
            "jaxinit transfer --model package.module:factory --data my.npz "
            "--widths 32,64",
        ],
        end="factory(width) returns a model of Flax, such as a module of Linen.\n"
        "A readout of zeros makes the outputs of all widths equal at the start, as\n"
        "authors of muP advise: else narrow networks have more to unlearn.",
    )
    parser.set_defaults(run=run)
    parser.fill = _add_options


def _add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options: what varies, the settings, and the output."""
    from jaxinit.lab.command import LEFT_OUT

    _add_sizes(parser.add_argument_group("sizes and rates").add_argument)
    add_settings(parser, without={*LEFT_OUT, "initializers"})
    group = parser.add_argument_group("output")
    option = group.add_argument
    option(
        "--out",
        metavar="DIR",
        type=parse_path,
        help="write results.json, results.csv, loss.png and index.html there",
    )
    option(
        "--resume",
        action="store_true",
        help="go on with the run in --out that was interrupted or killed, after the "
        "last network that it trained",
    )
    option(
        "--overwrite",
        action="store_true",
        help="start anew where --out has results or a run that has not ended",
    )
    option(
        "--quiet", action="store_true", help="show no progress (only a terminal does)"
    )
    form = group.add_mutually_exclusive_group()
    form.add_argument(
        "--format",
        choices=("table", "json", "csv"),
        default="table",
        help="print a table, all results as JSON, or the cells as CSV (default: table)",
    )
    add_json(form.add_argument, "all results")


def _add_sizes(option: Callable[..., Any]) -> None:
    """Adds the options about sizes, parameterizations and learning rates."""
    from jaxinit.lab.command import WIDTHS, list_parameterizations

    option(
        "--model",
        default="mlp",
        help="a network of the lab, such as mlp or transformer, or package.module:"
        "factory, a function of the width (with --depths, of the depth) that returns "
        "a model of Flax Linen or NNX (default: mlp)",
    )
    option(
        "--widths",
        type=_read_sizes,
        metavar="N,N,…",
        help=f"the widths (default: {','.join(map(str, WIDTHS))})",
    )
    option(
        "--depths", type=_read_sizes, metavar="N,N,…", help="depths, in place of widths"
    )
    option(
        "--base",
        type=int,
        metavar="N",
        help="the size at which all parameterizations are the same (default: the "
        "smallest)",
    )
    known = ", ".join(list_parameterizations())
    option(
        "--parameterizations",
        type=_split,
        default=["sp", "mup"],
        metavar="NAME,NAME,…",
        help=f'of {known}; or calls such as "completep(alpha=0.5)" (default: sp,mup)',
    )
    option(
        "--init",
        dest="initializer",
        default="he_normal()",
        metavar="SPEC",
        help="what draws the kernels at the base, or rules, as in compare (default: "
        "he_normal())",
    )
    option(
        "--lr",
        type=_read_span,
        default=(2.0**-12, 2.0**-2),
        metavar="LOW:HIGH",
        help="the lowest and the highest learning rate; the highest is tried if steps "
        "from the lowest meet it (default: 2^-12:2^-2)",
    )
    option(
        "--lr-step",
        type=float,
        default=2.0,
        metavar="FACTOR",
        help="each learning rate over the one before (default: 2)",
    )


def _split(word: str) -> list[str]:
    """Splits a word at the commas that are not within brackets."""
    parts, begin, depth = [], 0, 0
    for mark in _MARK.finditer(word):
        if mark[0] != ",":
            depth += 1 if mark[0] in "([{" else -1
        elif depth == 0:
            parts.append(word[begin : mark.start()])
            begin = mark.end()
    return [part.strip() for part in (*parts, word[begin:])]


def _read_sizes(word: str) -> list[int]:
    """Reads sizes."""
    try:
        return [int(part) for part in word.split(",")]
    except ValueError:
        rule = f"must be integers with commas between, such as 64,128; not {word!r}"
        raise argparse.ArgumentTypeError(rule) from None


def _read_span(word: str) -> tuple[float, float]:
    """Reads two learning rates, such as 2^-12:2^0 or 1e-4:0.1."""
    try:
        low, high = map(_read_rate, word.split(":"))
    except (ValueError, OverflowError):
        rule = f"must be LOW:HIGH, such as 2^-12:2^0 or 1e-4:0.1; not {word!r}"
        raise argparse.ArgumentTypeError(rule) from None
    return low, high


def _read_rate(word: str) -> float:
    power = _RATE.fullmatch(word.strip())
    return 2.0 ** float(power[1]) if power else float(word)


def run(options: argparse.Namespace) -> int:
    """Runs the command."""
    double = getattr(options, "dtype", None) == "float64"
    with enable_types(double), shorten_warnings():
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    from jaxinit.cli._live import SweepScreen, show_live
    from jaxinit.lab import command as lab

    allow_imports()
    check_json(options.json)
    if options.json == PRINTED:
        options.format = "json"
    names = ("model", "data", "task", "widths", "depths", "base", "parameterizations")
    own = {name: vars(options)[name] for name in (*names, "initializer", "lr")}
    asked = {**take_settings(options)}
    asked.pop("model", None)
    sweep = try_call(lab.design_sweep, **own, lr_step=options.lr_step, settings=asked)
    finished = _open_folder(options, sweep)
    steps = len(sweep.experiments) * sweep.settings.steps
    with show_live(lambda: SweepScreen(steps), options.quiet) as observers:

        def observe(moment: lab.Moment) -> None:
            for each in observers:
                each(moment)

        result = lab.train_sweep(sweep, observe, finished)
    _print(result, options.format)
    _print_end(options, result)
    if finished is not None and not result.interrupted:
        finished.remove()
    return 130 if result.interrupted else 0


def _open_folder(options: argparse.Namespace, sweep: "Sweep") -> "Finished | None":
    """Checks that results can be written to --out, and reads what a run left there."""
    from jaxinit.lab.command import Finished

    folder, resume, overwrite = options.out, options.resume, options.overwrite
    if folder is None:
        for name in ("resume", "overwrite"):
            if getattr(options, name):
                raise BadInput(f"--{name} needs --out, the directory of the results.")
        return None
    if resume and overwrite:
        raise BadInput("--resume and --overwrite exclude each other.")
    finished = Finished(folder, sweep)
    goes_on = False if overwrite else try_call(finished.read)
    if goes_on and not resume:
        rule = f"{folder} has a run that has not ended; --resume goes on with it, "
        raise BadInput(f"{rule}--overwrite starts anew.")
    if not (goes_on or overwrite) and (folder / _RESULT).exists():
        rule = "complete results" if resume else "results"
        raise BadInput(f"{folder} has {rule}; --overwrite replaces them.")
    check_writable(folder, make=True)
    if overwrite:
        finished.remove()  # else --resume would go on with a run before this one
    watch.leaves_with(f"interrupted; --resume goes on with {folder}.")
    if resume and not goes_on:
        said = f"nothing to resume in {folder}, starting from the beginning."
        print(f"jaxinit: {said}", file=sys.stderr)
    return finished


def _print(result: "TransferResult", form: str) -> None:
    """Prints the results."""
    from jaxinit.lab.command import make_table

    if form == "json":
        print(result.to_json(indent=1))
    elif form == "csv":
        print(result.to_csv(), end="")
    else:
        console().print(result.answer, style="bold", highlight=False)
        print()
        print_table(make_table(result))
        print(f"Computed in {result.seconds:.1f} s.")


def _print_end(options: argparse.Namespace, result: "TransferResult") -> None:
    """Writes the files, and says where they are and how far training has come."""
    note = sys.stdout if options.format == "table" else sys.stderr
    if options.json != PRINTED:
        write_json(options.json, result.to_json(indent=1), note)
    if options.out is not None and not result.losses:
        print(f"Nothing is written to {options.out}.", file=note)
    elif options.out is not None:
        watch.leaves_with(f"interrupted while writing to {options.out}.")
        files = result.save(options.out, options.command)
        names = ", ".join(file.name for file in files)
        print(f"Written to {options.out}: {names}", file=note)
    elif options.format == "table":
        print("Add --out DIR for a plot, a page and every number.")
    if result.interrupted:
        done = f"{len(result.losses)} of {len(result.sweep.experiments)} networks"
        kept = "" if options.out is None else f"; --resume goes on with {options.out}"
        print(f"jaxinit: interrupted after {done}{kept}.", file=sys.stderr)
