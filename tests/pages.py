"""Writes the page of builders from their docstrings: ``python tests/pages.py``."""

from pathlib import Path

from catalogue import OWN

from jaxinit.cli import describe

FILE = Path(__file__).parent.parent / "jaxinit" / "initializers" / "README.md"
BUILDS = "Builds an initializer "
HEADS = ("builder", "builds an initializer", "law of an entry", "variance", "reference")
TEXT = """\
# Initializers

Each function below checks its arguments and returns an initializer, a value `init` that
is called as `init(key, shape, dtype=None, out_sharding=None)`. Arguments and an
example: `help(jaxinit.he_normal)`. `jaxinit show "he_normal()" --shape 512 256` draws a
weight and compares it with its law.

fan_in is how many inputs feed one output, fan_out how many outputs one input feeds;
gain is the factor on the standard deviation that makes up for the activation. "Haar" is
the uniform law of orthogonal matrices. For convolutions and attention, `in_axis`,
`out_axis` and `batch_axis` say which axes are which; all others are the receptive
field. `groups`, `strides` and `transposed` count what really feeds an output: see
`help(jaxinit.fans)`. The names `xavier_*` and `kaiming_*` are those of `glorot_*` and
`he_*`.

This page is made from the docstrings, as `jaxinit list` is: `python tests/pages.py`.

{own}

## torch

Every function of `torch.nn.init`, and the defaults of torch's layers, as
`jaxinit.torch.linear()`. They do not need torch.

{torch}
"""


def table(names):
    """Returns the rows of the builders of these names in Markdown."""
    rows = [HEADS, [":---"] * len(HEADS)]
    for name in sorted(names):
        row = describe(OWN[name]) | {"name": f"`{name}`"}
        row["summary"] = row["summary"].removeprefix(BUILDS).removesuffix(".")
        rows.append([cell.replace("|", r"\|") for cell in row.values()])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def page():
    torch = {name for name in OWN if name.startswith("torch.")}
    return TEXT.format(own=table(set(OWN) - torch), torch=table(torch))


if __name__ == "__main__":
    FILE.write_text(page())
