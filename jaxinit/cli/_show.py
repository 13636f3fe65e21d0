"""``jaxinit show``: one weight beside its law."""

import argparse
import itertools
import json
import math
from typing import Any

import numpy as np

import jaxinit
from jaxinit import _check as check
from jaxinit._initializer import Initializer
from jaxinit._table import Column, Table
from jaxinit._text import or_dash
from jaxinit.cli import _shapes
from jaxinit.cli._json import PRINTED, add_json, check_json, write_json
from jaxinit.cli._parser import add_parser
from jaxinit.cli._terminal import (
    MOST,
    BadInput,
    check_target,
    console,
    enable_types,
    make_key,
    parse_path,
    try_call,
    write_whole,
)

_WIDE = ("float64", "complex128", "int64", "uint64")
_MOST_AXES = 32  # of an array of NumPy or JAX


def add(commands: Any) -> None:
    """Adds the command."""
    text = "draw one weight and compare it with its law"
    parser = add_parser(
        commands,
        "show",
        text,
        usage="SPEC --shape SHAPE",
        examples=[
            'jaxinit show "he_normal()" --shape 512x256',
            "jaxinit show \"orthogonal(gain='tanh')\" --shape 64,64 --plot weight.png",
            'jaxinit show "truncated_normal(0.02)" --shape 8 4 --dtype bfloat16 --json',
        ],
    )
    option = parser.add_argument_group("what is drawn").add_argument
    option(
        "spec",
        metavar="SPEC",
        help="an initializer, such as \"he_normal(gain='gelu')\"",
    )
    option(
        "--shape",
        metavar="SHAPE",
        type=_read_sizes,
        nargs="+",
        required=True,
        help=f"of the weight, {_shapes.HELP}",
    )
    option("--seed", type=int, default=0, help="seed of the key (default: 0)")
    option("--dtype", default=None, help="dtype of the weight (default: float32)")
    option = parser.add_argument_group("output").add_argument
    option(
        "--plot",
        metavar="FILE.png",
        type=parse_path,
        help="write a histogram and a heat map there, as PNG",
    )
    add_json(option, "the numbers")
    parser.set_defaults(run=run)


def statistics(init: Initializer, weight: np.ndarray) -> dict[str, Any]:
    """Computes the statistics of one weight, beside those of its law."""
    moments = init.moments(weight.shape)
    values = weight if np.iscomplexobj(weight) else weight.astype(float)
    empty = not weight.size
    part = values.real if empty or not np.iscomplexobj(values) else np.abs(values)
    numbers = {
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
    return {k: v if v is None or np.isfinite(v) else None for k, v in numbers.items()}


def run(options: argparse.Namespace) -> int:
    """Runs the command."""
    with enable_types(options.dtype in _WIDE):
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    check_json(options.json)
    if options.plot is not None:
        check_target("--plot", options.plot, (".png",))
    init = try_call(jaxinit.parse, options.spec)
    key = make_key(options.seed)
    weight = np.asarray(try_call(init, key, _check_shape(options.shape), options.dtype))
    if options.plot is not None and (not weight.size or np.iscomplexobj(weight)):
        raise BadInput("a plot needs a real weight with entries.")
    with np.errstate(invalid="ignore"):  # entries that overflow a narrow dtype
        numbers = statistics(init, weight)
    title = f"{init!r} {list(weight.shape)} {weight.dtype.name}, seed {options.seed}"
    if options.plot is not None:
        from jaxinit._panels import histogram_and_heatmap

        write_whole(options.plot, histogram_and_heatmap(weight.astype(float), title))
    if options.json != PRINTED:
        columns = Column[str]("name", left=True), Column[str]("value", left=True)
        rows = [(name, or_dash(x, "{:.6g}".format)) for name, x in numbers.items()]
        screen = console()
        screen.print(title, style="italic", highlight=False)
        screen.print(Table(columns, rows).rich(framed=True, show_header=False))
    facts = {"spec": repr(init), "shape": weight.shape, **numbers}
    write_json(options.json, json.dumps(facts))
    return 0


def _read_sizes(word: str) -> list[int]:
    """Reads a size, or several with x or a comma between them."""
    try:
        return [int(size) for size in _shapes.split_sizes(word)]
    except ValueError:
        rule = "a shape is sizes of 0 or above with x between them, such as 512x256."
        came = f"invalid int value: {check.show(word)}"
        raise argparse.ArgumentTypeError(f"{came}: {rule}") from None


def _check_shape(words: list[list[int]]) -> list[int]:
    """Returns the shape, if a weight of it can be drawn here."""
    sizes = list(itertools.chain(*words))
    entries = math.prod(max(1, abs(size)) for size in sizes)
    if entries > MOST or len(sizes) > _MOST_AXES:
        rule = f"give a shape of at most {MOST} entries, on {_MOST_AXES} axes or fewer."
        raise BadInput(f"show draws the weight: {rule}")
    return sizes
