"""The table of a comparison: the same cells for terminal, page, notebook and Markdown.

The answer comes first, the best initializer next, and what does not train last.
"""

import dataclasses
import math
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from rich.table import Table as Grid
from rich.text import Text

from jaxinit._table import Column, Table, fold, line, page
from jaxinit._text import number, or_dash, plural
from jaxinit.lab._result.answer import answer
from jaxinit.lab._result.outcome import Outcome, count_cells
from jaxinit.lab._result.row import Row
from jaxinit.lab._result.statistics import INTERVAL, LEAST_SEEDS
from jaxinit.lab._tried.data import Task
from jaxinit.lab._tried.losses import build_loss
from jaxinit.lab._tried.settings import OPTIONS, Settings

MINUS = "\N{MINUS SIGN}"
WIDTH = 160  # columns of text by default
_NARROW, _WIDE = 16, 34  # of the first column, where it folds
_LINES = 3  # to which a cell wraps
_FRAME = 3  # columns of text that a border and its padding take


def list_columns(comparison: Outcome) -> list[Column[Row]]:
    """Lists the columns that have something to say: not all networks have layers."""
    accuracy = comparison.task.kind == "classification"
    factor, digits = (100, 1) if accuracy else (1, 3)
    settings = comparison.settings
    columns = [
        _column("initializer", lambda row: row.initializer, str, left=True, wraps=True),
        _column("learning rate", lambda row: row.learning_rate, "{:g}".format, rank=5),
        _column("signal last/first", lambda row: row.forward_ratio, number, rank=2),
        _column("gradient first/last", lambda row: row.gradient_ratio, number, rank=1),
        _column(
            f"steps to loss {settings.target_loss:g}",
            lambda row: row.steps_to_target,
            lambda steps: or_dash(steps, "{:g}".format),
            rank=3,
        ),
        _column("training loss", lambda row: row.final_loss, number, rank=6),
        Column(
            f"test {'accuracy, %' if accuracy else 'R²'} [95 %]",
            lambda row: _write_test(row, settings.seeds, factor, digits),
            key=lambda row: row.test_mean,
        ),
        Column(
            "test against best",
            lambda row: _write_effect(comparison, row, factor, digits),
            key=lambda row: 0.0 if row.effect == "best" else row.against_best,
        ),
        Column(
            "decades that train",
            lambda row: _write_decades(row, len(settings.learning_rates)),
            rank=4,
            key=lambda row: row.rates_that_train,
        ),
        _column("diverged", lambda row: row.diverged, lambda x: f"{100 * x:.0f} %"),
    ]
    return columns if comparison.signals else columns[:2] + columns[4:]


def _column(
    head: str, key: Callable[[Row], Any], text: Callable[[Any], str], **form: Any
) -> Column[Row]:
    """Makes a column that shows the very value that it is sorted by."""
    return Column(head, lambda row: text(key(row)), key=key, **form)


def rank_rows(comparison: Outcome) -> list[tuple[int, Row]]:
    """Returns the rows as the table has them, best to worst, each with its index."""
    rows = comparison.rows()
    return [(index, rows[index]) for index in comparison.ranking]


def _write_test(row: Row, seeds: int, factor: float, digits: int) -> str:
    """Returns the test score with its interval, and the number of runs if few."""
    test = f"{factor * row.test_mean:.{digits}f}"
    if math.isfinite(row.test_low):
        low, high = factor * row.test_low, factor * row.test_high
        # A no-break space, so that the interval stays in one line.
        test += f" [{low:.{digits}f},\N{NO-BREAK SPACE}{high:.{digits}f}]"
    if row.distinct_runs < seeds:
        test += f" ({plural(row.distinct_runs, 'distinct run')})"
    return test if math.isfinite(row.test_mean) else number(row.test_mean)


def _write_effect(comparison: Outcome, row: Row, factor: float, digits: int) -> str:
    """Returns the effect, its size, and how many seeds would show it."""
    if not row.trained and comparison.steps_done:
        return "does not train"
    difference = factor * row.against_best
    size = number(abs(difference))
    if math.isfinite(difference):
        size = f"{abs(difference):.{digits}f}"
    if row.effect in ("better", "worse"):
        return f"{row.effect} by {size}"
    if row.effect == "best":
        return row.effect
    best = comparison.reference
    runs = min(row.distinct_runs, int(comparison.distinct[best].sum()))
    seeds = comparison.settings.seeds
    few = plural(runs, "run") if runs < seeds else plural(seeds, "seed")
    text = f"{few} cannot tell"
    if not math.isfinite(difference) or not difference:
        return text
    text += f": {'+' if difference > 0 else MINUS}{size}"
    if math.isnan(row.seeds_needed) or math.isinf(row.seeds_needed):
        return text
    text += f" would need {row.seeds_needed:g}"
    return text if runs == seeds else f"{text} seeds"


def _write_decades(row: Row, tried: int) -> str:
    """Returns the width of the range that trains, and how many of the rates do."""
    width = "–" if math.isnan(row.rates_that_train) else f"{row.rates_that_train:.1f}"
    return f"{width} ({round(tried * row.share_that_trains)}/{tried})"


def caption(comparison: Outcome) -> str:
    """Describes the run in a line or two."""
    s, task = comparison.settings, comparison.task
    norm = "" if s.norm == "none" else f", {s.norm} norm"
    return (
        f"{task.name}; {_describe_network(s)}, "
        f"{s.activation}{norm}; {describe_tuning(s)}, batch {s.batch_size}, "
        f"{plural(comparison.steps_done, 'step')}; "
        f"{plural(comparison.scores.loss.size, 'cell')} = "
        f"{count_cells(s)}; each row at its own best learning "
        f"rate; chance: loss {chance(task, s)}; in brackets: {INTERVAL}; against "
        f"best: test on equal seeds, an effect where {LEAST_SEEDS} or more seeds show "
        "one; decades of learning rates that train (how many of those tried)"
    )


def describe_tuning(s: Settings) -> str:
    """Describes how it was trained, by the settings that are not at their defaults."""
    told = []
    for field in dataclasses.fields(s):
        option, value = OPTIONS[field.name], getattr(s, field.name)
        if option.told and value not in (field.default, *option.usual):
            place, words = option.told
            told.append((place, words.format(value)))
    return s.optimizer + "".join(words for _, words in sorted(told))


def chance(task: Task, settings: Settings) -> str:
    """Returns the loss of the best constant prediction, with its unit."""
    loss = settings.pass_to(build_loss, task=task)
    return f"{task.chance:#.3g} {loss.unit}"


def _describe_network(s: Settings) -> str:
    """Describes the network in words."""
    if s.model == "mlp":
        return f"{plural(s.depth, 'dense layer')} of width {s.width}"
    return s.model if ":" in s.model else f"{s.model}, depth {s.depth}, width {s.width}"


def _make_table(comparison: Outcome, columns: Sequence[Column[Row]]) -> Table:
    return Table.of(columns, (row for _, row in rank_rows(comparison)))


def markdown(comparison: Outcome) -> str:
    """Returns the table and its caption in GitHub's Markdown."""
    first, *rest = list_columns(comparison)
    code = dataclasses.replace(first, cell=lambda row: _write_code(row.initializer))
    body = _make_table(comparison, [code, *rest]).markdown()
    parts = [answer(comparison, _write_code), "", *body, "", caption(comparison)]
    return "\n".join(parts) + "\n"


def _write_code(spec: str) -> str:
    """Returns a spec as Markdown writes code."""
    return f"`{spec}`"


def text(comparison: Outcome) -> str:
    """Returns the answer and the table as plain text."""
    table = _make_table(comparison, list_columns(comparison))
    return "\n".join([answer(comparison), "", *table.lines()])


def html(comparison: Outcome) -> str:
    """Returns the answer and the table for a notebook: no scripts, light and dark."""
    rows = (row for _, row in rank_rows(comparison))
    shown = _make_table(comparison, list_columns(comparison))
    marks = ["" if row.trained else "fails" for row in rows]
    return page(
        line(answer(comparison), "answer"),
        dataclasses.replace(shown, marks=marks).html(),
        line(caption(comparison), "about"),
    )


def table(comparison: Outcome, width: int = WIDTH) -> Grid:
    """Returns the table for a terminal, under the answer.

    Args:
      comparison: what `compare` returned.
      width: columns of text, 60 or more. Where they are too few for the table, it
        wraps cells, then leaves out the gradient, the signal, the steps, the decades,
        the learning rate and the training loss, in this order; its caption says so.
    """
    full, about = _make_table(comparison, list_columns(comparison)), caption(comparison)
    texts = list(zip(full.heads, *full.rows, strict=True))
    wide = [max(map(len, text[1:])) for text in texts]
    words = [max(len(w) for cell in text for w in cell.split(" ")) for text in texts]
    least = [-(-size // _LINES) + 1 for size in wide]
    sizes = [_NARROW, *map(max, words[1:], least[1:])]
    kept = full.choose([size + _FRAME for size in sizes], width - 1)

    def room() -> int:
        """Computes what is left for the first column."""
        return width - 1 - sum(sizes[c] for c in kept[1:]) - _FRAME * len(kept)

    for c in kept[1:]:
        more = max(0, wide[c] - sizes[c])
        if room() - more >= min(wide[0], _WIDE):
            sizes[c] += more
    sizes[0] = max(len(full.heads[0]), min(wide[0], room()))
    if out := [head for c, head in enumerate(full.heads) if c not in kept]:
        about += f"; left out, for want of room: {', '.join(out)}"

    first, *rest = (full.columns[c] for c in kept)
    first = dataclasses.replace(first, cell=lambda row: fold(row.initializer, sizes[0]))
    wrapped = map(_wrap, rest, (sizes[c] for c in kept[1:]))
    grid = _make_table(comparison, [first, *wrapped]).rich(
        framed=True,
        title=Text(answer(comparison), "bold not italic"),
        title_justify="left",
        caption=Text(about),
        caption_justify="left",
    )
    grid.columns[0].width = sizes[0]
    trained = int((comparison.trained > 0).sum())
    for place, row in enumerate(grid.rows, 1):
        row.style = "" if place <= trained else "dim"
        row.end_section = place == trained
    return grid


def _wrap(column: Column[Row], size: int) -> Column[Row]:
    """Wraps the heading and the cells of a column between words."""

    def wrap(text: str) -> str:
        return "\n".join(textwrap.wrap(text, size)) or text

    return dataclasses.replace(
        column, head=wrap(column.head), cell=lambda row: wrap(column.cell(row))
    )
