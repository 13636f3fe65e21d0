"""Writes pages from docstrings and from `recommend`, and the table of verdicts.

Run as ``python tests/pages.py``.
"""

import re
import textwrap
from pathlib import Path

from advice import write_advice
from catalogue import OWN

from jaxinit import recipes
from jaxinit.cli import describe
from jaxinit.cli._purposes import PURPOSES, group
from jaxinit.signal._judge.verdicts import VERDICTS

ROOT = Path(__file__).parent.parent / "jaxinit"
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

[What people write by hand](SNIPPETS.md) has an expression for each habit, and
[the page of migration](MIGRATION.md) the names and defaults of Keras, Haiku and
TensorFlow. Low-rank adapters begin from the weight beside them: `help(jaxinit.lora)`.

This page is made from the docstrings, as `jaxinit list` is: `python tests/pages.py`.
"""

RECIPES = """\
# Recipes

Each function of `jaxinit.recipes` returns the rules by which a well-known model is
initialized: a plain list for `reinit` and `preview`. Arguments and an example:
`help(jaxinit.recipes.gpt2)`. L is the number of blocks, `layers`; [whole
models](../README.md) explains rules.

This page is made from the docstrings: `python tests/pages.py`.

{recipes}
"""


def table(heads, rows):
    """Returns a table in Markdown."""
    escaped = [[cell.replace("|", r"\|") for cell in row] for row in rows]
    lines = [heads, [":---"] * len(heads), *escaped]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def builders(names):
    """Returns the table of the builders of these names."""
    rows = [describe(OWN[name]) | {"name": f"`{name}`"} for name in names]
    for row in rows:
        row["summary"] = row["summary"].removeprefix(BUILDS).removesuffix(".")
    return table(HEADS, [row.values() for row in rows])


def page_of_builders():
    """Returns the page, a section for each purpose."""
    about = {purpose.title: purpose.about for purpose in PURPOSES}
    sections = (
        f"\n## {title}\n\n{textwrap.fill(about[title], 88)}\n\n{builders(names)}\n"
        for title, names in group(OWN).items()
    )
    return TEXT + "".join(sections)


def page_of_recipes():
    found = {name: made for name, made in vars(recipes).items() if name[0] != "_"}
    rows = [
        (f"`{name}`", row["summary"], law(row), row["reference"])
        for name, row in sorted((name, describe(made)) for name, made in found.items())
    ]
    return RECIPES.format(recipes=table(("recipe", "of", "law", "reference"), rows))


def law(row):
    return "; ".join(filter(None, (row["law"].rstrip("."), row["variance"])))


def page_of_check():
    """Returns the page as it is, with the table of the verdicts written anew."""
    heads = "| condition | means | limit |\n|---|---|---|\n"
    rows = "".join(f"| {v.name} | {v.means} | {v.limit} |\n" for v in VERDICTS)
    return replace_rows(SIGNAL.read_text(), heads, rows)


def page_of_advice():
    """Returns the page as it is, with the tables of advice written anew."""
    page = WHICH.read_text()
    for heads, rows in write_advice().items():
        first, second, *lines = table(heads, rows).splitlines(keepends=True)
        page = replace_rows(page, first + second, "".join(lines) + "\n")
    return page


def replace_rows(page, heads, rows):
    """Returns a page with other rows in the table that has these heads."""
    before, found, after = page.partition(heads)
    assert found, f"a page has lost the head of a table: {heads}"
    return before + heads + rows + re.sub(r"\A(\|.*\n)*", "", after)


WHICH = ROOT / "docs" / "pages" / "which.md"
SIGNAL = ROOT / "signal" / "README.md"
PAGES = {
    ROOT / "initializers" / "README.md": page_of_builders,
    ROOT / "model" / "recipes" / "README.md": page_of_recipes,
    SIGNAL: page_of_check,
    WHICH: page_of_advice,
}

if __name__ == "__main__":
    for path, page in PAGES.items():
        path.write_text(page())
