"""The table of a comparison: the same cells for terminal, page, notebook and Markdown.

The answer comes first, the best initializer next, and what does not train last.
"""

import dataclasses
import math
import textwrap
from html import escape

from rich.table import Table
from rich.text import Text

from jaxinit._columns import lines
from jaxinit._number import number, plural
from jaxinit.lab._result.answer import answer
from jaxinit.lab._result.outcome import Outcome
from jaxinit.lab._result.row import Row
from jaxinit.lab._result.statistics import INTERVAL, LEAST_SEEDS
from jaxinit.lab._tried.losses import choose_loss, read_loss
from jaxinit.lab._tried.settings import OPTIONS, Settings

MINUS = "\N{MINUS SIGN}"
WIDTH = 160  # columns of text by default
_NARROW, _WIDE = 16, 34  # of the first column, where it folds
_LINES = 3  # to which a cell wraps
_FRAME = 3  # columns of text that a border and its padding take
_SIGNALS = (2, 3)  # columns that only the perceptron has
_SPARE = (3, 2, 4, 8, 1, 5)  # columns that a narrow terminal drops, in this order


def header(comparison: Outcome) -> list[str]:
    """Returns the column heads."""
    score = "accuracy, %" if comparison.task.kind == "classification" else "R²"
    return [
        "initializer",
        "learning rate",
        "signal last/first",
        "gradient first/last",
        f"steps to loss {comparison.settings.target_loss:g}",
        "training loss",
        f"test {score} [95 %]",
        "test against best",
        "decades that train",
        "diverged",
    ]


def columns(comparison: Outcome) -> list[int]:
    """Returns the columns that have something to say: signals are the perceptron's."""
    count = range(len(header(comparison)))
    return [c for c in count if comparison.signals or c not in _SIGNALS]


def rank_rows(comparison: Outcome) -> list[tuple[int, Row]]:
    """Returns the rows as the table has them, best to worst, each with its index."""
    rows = comparison.rows()
    return [(index, rows[index]) for index in comparison.ranking]


def cells(comparison: Outcome, row: Row) -> list[str]:
    """Returns a row as text."""
    accuracy = comparison.task.kind == "classification"
    factor, digits = (100, 1) if accuracy else (1, 3)
    test = f"{factor * row.test_mean:.{digits}f}"
    if math.isfinite(row.test_low):
        low, high = factor * row.test_low, factor * row.test_high
        # A no-break space, so that the interval stays in one line.
        test += f" [{low:.{digits}f},\N{NO-BREAK SPACE}{high:.{digits}f}]"
    if row.distinct_runs < comparison.settings.seeds:
        test += f" ({plural(row.distinct_runs, 'distinct run')})"
    return [
        row.initializer,
        f"{row.learning_rate:g}",
        number(row.forward_ratio),
        number(row.gradient_ratio),
        "–" if row.steps_to_target is None else f"{row.steps_to_target:g}",
        number(row.final_loss),
        test if math.isfinite(row.test_mean) else number(row.test_mean),
        _write_effect(comparison, row, factor, digits),
        _write_decades(row, len(comparison.settings.learning_rates)),
        f"{100 * row.diverged:.0f} %",
    ]


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
    cells = comparison.scores.loss.size
    return (
        f"{task.name}; {_describe_network(s)}, "
        f"{s.activation}{norm}; {_describe_tuning(s)}, batch {s.batch_size}, "
        f"{comparison.steps_done} steps; "
        f"{cells} cells = {len(s.initializers)} initializers × {s.seeds} seeds × "
        f"{len(s.learning_rates)} learning rates; each row at its own best learning "
        f"rate; chance: loss {chance(comparison)}; in brackets: {INTERVAL}; against "
        f"best: test on equal seeds, an effect where {LEAST_SEEDS} or more seeds show "
        "one; decades of learning rates that train (how many of those tried)"
    )


def _describe_tuning(s: Settings) -> str:
    """Describes how it was trained, by the settings that are not at their defaults."""
    told = []
    for field in dataclasses.fields(s):
        option, value = OPTIONS[field.name], getattr(s, field.name)
        if option.told and value not in (field.default, *option.usual):
            place, words = option.told
            told.append((place, words.format(value)))
    return s.optimizer + "".join(words for _, words in sorted(told))


def chance(comparison: Outcome) -> str:
    """Returns the loss of the best constant prediction, with its unit."""
    task, loss = comparison.task, comparison.settings.loss
    return f"{task.chance:#.3g} {read_loss(choose_loss(task, loss)).unit}"


def _describe_network(s: Settings) -> str:
    """Describes the network in words."""
    if s.model == "mlp":
        return f"{s.depth} dense layers of width {s.width}"
    return s.model if ":" in s.model else f"{s.model}, depth {s.depth}, width {s.width}"


def markdown(comparison: Outcome) -> str:
    """Returns the table and its caption in GitHub's Markdown."""
    heads, seen = header(comparison), columns(comparison)
    rows = [heads, [":---"] + ["---:"] * (len(heads) - 1)]
    for _, row in rank_rows(comparison):
        first, *rest = cells(comparison, row)
        rows.append([_write_code(first), *rest])
    rows = [[row[c].replace("|", r"\|") for c in seen] for row in rows]
    body = [f"| {' | '.join(row)} |" for row in rows]
    parts = [answer(comparison, _write_code), "", *body, "", caption(comparison)]
    return "\n".join(parts) + "\n"


def _write_code(spec: str) -> str:
    """Returns a spec as Markdown writes code."""
    return f"`{spec}`"


def text(comparison: Outcome) -> str:
    """Returns the answer and the table as plain text."""
    heads, seen = header(comparison), columns(comparison)
    rows = [cells(comparison, row) for _, row in rank_rows(comparison)]
    body = lines([heads[c] for c in seen], [[r[c] for c in seen] for r in rows], {0})
    return "\n".join([answer(comparison), "", *body])


# Text has the notebook's own color.
_STYLE = """
.jaxinit-comparison { font-variant-numeric: tabular-nums; overflow-x: auto; }
.jaxinit-comparison table { border-collapse: collapse; }
.jaxinit-comparison th, .jaxinit-comparison td {
  border-bottom: 1px solid #8884; padding: .2em .6em; text-align: right; }
.jaxinit-comparison td:first-child { font-family: ui-monospace, monospace; }
.jaxinit-comparison :is(td, th):first-child { text-align: left; }
.jaxinit-comparison .fails { opacity: .65; }
.jaxinit-comparison .about { font-size: .85em; max-width: 60em; }
"""


def html(comparison: Outcome) -> str:
    """Returns the answer and the table for a notebook: no scripts, light and dark."""
    heads, seen = header(comparison), columns(comparison)

    def line(tag: str, texts: list[str]) -> str:
        return "".join(f"<{tag}>{escape(texts[c])}</{tag}>" for c in seen)

    body = "".join(
        f'<tr class="{"" if row.trained else "fails"}">'
        f"{line('td', cells(comparison, row))}</tr>"
        for _, row in rank_rows(comparison)
    )
    return (
        f'<div class="jaxinit-comparison"><style>{_STYLE}</style>'
        f"<p><strong>{escape(answer(comparison))}</strong></p>"
        f"<table><thead><tr>{line('th', heads)}</tr></thead><tbody>{body}</tbody>"
        f'</table><p class="about">{escape(caption(comparison))}</p></div>'
    )


def table(comparison: Outcome, width: int = WIDTH) -> Table:
    """Returns the table for a terminal, under the answer.

    Args:
      comparison: what `compare` returned.
      width: columns of text, 60 or more. Where they are too few for the table, it
        wraps cells, then leaves out the gradient, the signal, the steps, the decades,
        the learning rate and the training loss, in this order; its caption says so.
    """
    rows = [cells(comparison, row) for _, row in rank_rows(comparison)]
    heads, about = header(comparison), caption(comparison)
    texts = list(zip(heads, *rows, strict=True))
    wide = [max(map(len, text[1:])) for text in texts]
    words = [max(len(w) for cell in text for w in cell.split(" ")) for text in texts]
    least = [-(-size // _LINES) + 1 for size in wide]
    sizes = [max(pair) for pair in zip(words, least, strict=True)]
    seen = columns(comparison)[1:]
    kept = list(seen)

    def room() -> int:
        """Computes what is left for the first column."""
        return width - sum(sizes[c] for c in kept) - _FRAME * (len(kept) + 1) - 1

    for column in _SPARE:
        if room() < _NARROW and column in kept:
            kept.remove(column)
    for column in kept:
        more = max(0, wide[column] - sizes[column])
        if room() - more >= min(wide[0], _WIDE):
            sizes[column] += more
    out = [heads[c] for c in seen if c not in kept]
    if out:
        about += f"; left out, for want of room: {', '.join(out)}"
    grid = Table(
        title=Text(answer(comparison), "bold not italic"),
        title_justify="left",
        caption=Text(about),
        caption_justify="left",
    )
    first = max(len(heads[0]), min(wide[0], room()))
    grid.add_column(heads[0], overflow="fold", width=first)

    def wrap(text: str, column: int) -> Text:
        return Text("\n".join(textwrap.wrap(text, sizes[column])) or text)

    for c in kept:
        grid.add_column(wrap(heads[c], c), justify="right", no_wrap=True)
    trained = int((comparison.trained > 0).sum())
    for place, row in enumerate(rows, 1):
        style = "" if place <= trained else "dim"
        line = Text(row[0]), *(wrap(row[c], c) for c in kept)
        grid.add_row(*line, style=style, end_section=place == trained)
    return grid
