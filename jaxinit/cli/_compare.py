"""``jaxinit compare``: what the initializer does to training."""

import argparse
import contextlib
import sys
from pathlib import Path
from typing import Any

from jaxinit._gain import ACTIVATIONS
from jaxinit._watch import watch
from jaxinit.cli._terminal import (
    FULL,
    BadInput,
    cannot_write,
    checked,
    console,
    importable,
    one_line_warnings,
    path,
    path_of,
    silenced,
    to_be_made,
    wide,
    writable,
)


def add(commands: Any) -> None:
    """Adds the command."""
    text = "train a deep network under every initializer and show what it does"
    parser = commands.add_parser(
        "compare", help=text, description=text.capitalize() + "."
    )
    option = parser.add_argument
    option(
        "--init",
        metavar="SPEC",
        action="append",
        dest="initializers",
        help="an initializer, such as \"he_normal(gain='gelu')\", or rules for a whole "
        'model, such as "recipes.fixup(6)" or "**/h/kernel: identity(); he_normal()"; '
        "repeatable (default: a dozen, from zeros to orthogonal)",
    )
    option(
        "--activation",
        default="relu",
        help=f"one of {', '.join(ACTIVATIONS)} (default: relu)",
    )
    option(
        "--model",
        default="mlp",
        help="mlp, cnn, resnet, transformer, lstm, gru, rnn, coordinate, or your own "
        "package.module:Model of Flax Linen or NNX (default: mlp)",
    )
    option(
        "--task",
        help="digits, diabetes, photograph, text or memory (default: digits)",
    )
    option("--depth", type=int, help="layers or blocks (default: 20 dense layers)")
    option(
        "--width", type=int, default=64, help="units of a hidden layer (default: 64)"
    )
    option(
        "--norm",
        default="none",
        help="none, layer or batch; post in a transformer (default: none)",
    )
    option(
        "--seeds", type=int, default=3, help="seeds of the initial weights (default: 3)"
    )
    option("--steps", type=int, default=400, help="training steps (default: 400)")
    option(
        "--lr",
        metavar="RATE",
        type=float,
        action="append",
        dest="learning_rates",
        help="a learning rate that every initializer is tried at; repeatable "
        "(default: 3e-4, 1e-3 and 3e-3)",
    )
    option(
        "--optimizer",
        default="adam",
        help="adam, adamw, lion, momentum, rmsprop, sgd, adam_then_sgd, or a call such "
        'as "adamw(weight_decay=0.01)" (default: adam)',
    )
    option(
        "--schedule",
        default="constant",
        help="of the learning rate: constant, cosine, warmup_cosine, steps or plateau "
        "(default: constant)",
    )
    option(
        "--clip",
        metavar="NORM",
        type=float,
        default=0.0,
        help="the largest norm of all gradients together (default: any)",
    )
    option(
        "--loss",
        help="cross_entropy, binary_cross_entropy, focal, or a call such as "
        '"focal(gamma=1.0)", for classes; squared or absolute for real targets '
        "(default: cross_entropy, squared)",
    )
    option(
        "--dropout",
        metavar="RATE",
        type=float,
        default=0.0,
        help="share of hidden units that a step of training drops (default: 0)",
    )
    option(
        "--early-stopping",
        metavar="PATIENCE",
        type=_patience,
        default=0,
        help="stop a run after this many steps without a better loss on held-out "
        "training rows, and keep its best weights (default: train to the end)",
    )
    option(
        "--device",
        metavar="PLATFORM",
        help="cpu, gpu or tpu (default: the one that JAX prefers)",
    )
    option(
        "--dtype",
        default="float32",
        help="that networks compute in: float32, bfloat16 or float16 (parameters and "
        "loss stay float32), or float64 for all (default: float32)",
    )
    option("--devices", type=int, default=1, help="that share the cells (default: 1)")
    option(
        "--chunk",
        metavar="CELLS",
        type=int,
        help="training runs that a device holds and computes at once (default: as many "
        "as its memory holds; on a CPU a few)",
    )
    option(
        "--distributed",
        nargs="*",
        metavar="WHERE",
        help="train together with other processes that run the same command: those of "
        "a cluster that JAX finds out about, or ADDRESS:PORT of the first, the number "
        "of processes, and the number of this one, from 0 on",
    )
    option("--batch-size", type=int, default=64, help="rows per step (default: 64)")
    option(
        "--target-loss",
        metavar="LOSS",
        type=float,
        help="the training loss to count the steps to (default: 0.5; half of chance "
        "with another --loss than the task's default)",
    )
    option(
        "--data",
        metavar="FILE.npz",
        help="arrays x and y: integer or string y are classes, float y are real "
        "targets; or a text, FILE.txt, for the next character",
    )
    option(
        "--out",
        metavar="DIR",
        type=path,
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
    option(
        "--quiet", action="store_true", help="show no progress (only a terminal does)"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--format",
        choices=("table", "md", "json", "csv"),
        default="table",
        help="print a table, a table in Markdown, all results as JSON, or the cells as "
        "CSV (default: table)",
    )
    form.add_argument(
        "--json",
        action="store_const",
        const="json",
        dest="format",
        help="short for --format json",
    )
    parser.set_defaults(run=run)


def _patience(word: str) -> int:
    """Reads a number of steps; 0 would not be the shortest patience, but none."""
    steps = int(word)
    if steps == 0:
        rule = "must be 1 or above; leave it out to train every run to the end"
        raise argparse.ArgumentTypeError(rule)
    return steps


def run(given: argparse.Namespace) -> int:
    """Runs the command."""
    try:
        with (
            silenced("absl"),  # of orbax
            wide(given.dtype == "float64"),
            one_line_warnings(),
            contextlib.ExitStack() as stack,
        ):
            return _run(given, stack)
    except OSError as error:
        full = error.errno in FULL
        if given.out is None or not (full or _is_in(error.filename, given.out)):
            raise
        cure = "When there is room" if full else "When that is mended"
        raise BadInput(f"{cannot_write(error)} {cure}, --resume goes on.") from error


def _is_in(file: Any, directory: Path) -> bool:
    """Returns whether an error speaks of a file in a directory."""
    if not isinstance(file, str):
        return False
    return Path(file).absolute().is_relative_to(directory.absolute())


def _run(given: argparse.Namespace, stack: contextlib.ExitStack) -> int:
    from jaxinit.cli._live import shown
    from jaxinit.lab import DEFAULT_INITIALIZERS, Settings, checkpoint
    from jaxinit.lab._compare import prepare, prepare_files, train
    from jaxinit.lab.processes import first, join
    from jaxinit.lab.table import markdown, table

    if given.out is not None:
        from jaxinit.lab.files import write  # a missing plot library shows here

    importable()
    if given.distributed is not None:
        checked(join, *given.distributed)
    task, settings = checked(
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
        task=given.task,
        model=given.model,
        devices=given.devices,
        schedule=given.schedule,
        clip=given.clip,
        loss=given.loss,
        dropout=given.dropout,
        early_stopping=given.early_stopping,
        device=given.device,
        dtype=given.dtype,
        chunk=given.chunk,
    )
    options = (given.resume, given.overwrite, given.save_every)
    log = given.log and (given.log[0], checked(path_of, given.log[1]))
    if log is not None:
        to_be_made(log[1])
    saves, logs = checked(prepare_files, given.out, log, task, settings, *options)
    if logs is not None:
        writable(logs.directory, make=True)
    if saves is not None:
        stack.enter_context(saves)
        watch.leaves_with(f"interrupted; --resume goes on with {given.out}.")
        writable(given.out, make=True)
        if given.resume and not saves.resumes:
            said = f"nothing to resume in {given.out}, starting from the beginning."
            print(f"jaxinit: {said}", file=sys.stderr)
    with shown(task, settings, given.quiet or not first()) as observers:
        try:
            result = train(task, settings, saves=saves, observers=observers, logs=logs)
        except checkpoint.Unreadable as error:
            raise BadInput(str(error)) from error
    if not first():
        return 130 if result.interrupted else 0
    if given.format == "json":
        print(result.to_json())
    elif given.format == "csv":
        print(result.to_csv(), end="")
    elif given.format == "md":
        print(markdown(result), end="")
    else:
        terminal = console()
        terminal.print(table(result, terminal.width))
        parts = ", ".join(
            f"{part} {s:.1f} s" for part, s in result.seconds._asdict().items()
        )
        print(f"Computed in {sum(result.seconds):.1f} s ({parts}).")
    note = sys.stdout if given.format == "table" else sys.stderr
    if given.out is not None:
        files = write(result, given.out, given.command)
        if not result.interrupted:
            checkpoint.remove(saves.directory)
        print(
            f"Written to {given.out}: {', '.join(file.name for file in files)}",
            file=note,
        )
    elif given.format == "table":
        print("Add --out DIR for plots, a page and every number.")
    if result.interrupted:
        done = f"{result.steps_done} of {settings.steps} steps"
        kept = ""
        if given.out is not None:
            kept = f"; what was computed is in {given.out}, --resume goes on"
        print(f"jaxinit: interrupted after {done}{kept}.", file=sys.stderr)
        return 130
    return 0
