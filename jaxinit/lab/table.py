"""The table of a comparison: the same cells for terminal, page and Markdown."""

import math
import textwrap

from rich.table import Table

from jaxinit._number import number
from jaxinit.lab.comparison import Comparison
from jaxinit.lab.losses import DEFAULTS, fitting, read_loss
from jaxinit.lab.row import Row
from jaxinit.lab.settings import Settings
from jaxinit.lab.statistics import LEAST_SEEDS, LEVEL

WIDTH = 160  # columns of text for a reader who does not say
_NARROW, _WIDE = 16, 34  # of the first column, where it folds
_FRAME = 3  # columns of text that a border and its padding take
_SIGNALS = (2, 3)  # columns that only the perceptron has
_SPARE = (3, 2, 4, 8, 1, 5)  # what a narrow terminal does without, first to last


def header(comparison: Comparison) -> list[str]:
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


def columns(comparison: Comparison) -> list[int]:
    """Returns the columns that have something to say: signals are the perceptron's."""
    count = range(len(header(comparison)))
    return [c for c in count if comparison.signals or c not in _SIGNALS]


def cells(comparison: Comparison, row: Row) -> list[str]:
    """Returns a row as text."""
    accuracy = comparison.task.kind == "classification"
    factor, digits = (100, 1) if accuracy else (1, 3)
    test = f"{factor * row.test_mean:.{digits}f}"
    if math.isfinite(row.test_low):
        low, high = factor * row.test_low, factor * row.test_high
        # A no-break space, so that the interval stays in one line.
        test += f" [{low:.{digits}f},\N{NO-BREAK SPACE}{high:.{digits}f}]"
    return [
        row.initializer,
        f"{row.learning_rate:g}",
        number(row.forward_ratio),
        number(row.gradient_ratio),
        "–" if row.steps_to_target is None else f"{row.steps_to_target:g}",
        number(row.final_loss),
        test if math.isfinite(row.test_mean) else number(row.test_mean),
        _against(row, factor, digits),
        _decades(row, len(comparison.settings.learning_rates)),
        f"{100 * row.diverged:.0f} %",
    ]


def _against(row: Row, factor: float, digits: int) -> str:
    """Returns the effect, and how large it is where there is one."""
    if row.effect not in ("better", "worse"):
        return row.effect
    size = factor * abs(row.against_best)
    text = f"{size:.{digits}f}" if math.isfinite(size) else number(size)
    return f"{row.effect} by {text}"


def _decades(row: Row, tried: int) -> str:
    """Returns the width of the range that trains, and how many of the rates do."""
    width = "–" if math.isnan(row.rates_that_train) else f"{row.rates_that_train:.1f}"
    return f"{width} ({round(tried * row.share_that_trains)}/{tried})"


def caption(comparison: Comparison) -> str:
    """Returns what was run, in a line or two."""
    s, task = comparison.settings, comparison.task
    norm = "" if s.norm == "none" else f", {s.norm} norm"
    cells = comparison.scores.loss.size
    return (
        f"{task.name}; {_network(s)}, "
        f"{s.activation}{norm}; {_tuning(s)}, batch {s.batch_size}, "
        f"{comparison.steps_done} steps; "
        f"{cells} cells = {len(s.initializers)} initializers × {s.seeds} seeds × "
        f"{len(s.learning_rates)} learning rates; each row at its own best learning "
        f"rate; chance: loss {chance(comparison)}; in brackets: {100 * LEVEL:g} % "
        f"bootstrap interval of the mean over seeds; against best: test on equal "
        f"seeds, an effect where {LEAST_SEEDS} or more seeds show one; decades of "
        "learning rates that train (how many of those tried)"
    )


def _tuning(s: Settings) -> str:
    """Returns how it was trained, in words."""
    schedule = "" if s.schedule == "constant" else f", {s.schedule} schedule"
    words = f"{s.optimizer}{schedule}" + (f", clipped at {s.clip:g}" if s.clip else "")
    if s.dtype != "float32":
        words += f" in {s.dtype}"
    if s.loss not in (None, *DEFAULTS.values()):
        words += f", loss {s.loss}"
    if s.dropout:
        words += f", dropout {s.dropout:g}"
    if s.early_stopping:
        words += f", stopped after {s.early_stopping} steps without a better validation"
    return words


def chance(comparison: Comparison) -> str:
    """Returns the loss of the best constant prediction, with its unit."""
    task, loss = comparison.task, comparison.settings.loss
    return f"{task.chance:#.3g} {read_loss(fitting(task, loss)).unit}"


def _network(s: Settings) -> str:
    """Returns what was trained, in words."""
    if s.model == "mlp":
        return f"{s.depth} dense layers of width {s.width}"
    return s.model if ":" in s.model else f"{s.model}, depth {s.depth}, width {s.width}"


def markdown(comparison: Comparison) -> str:
    """Returns the table and its caption in GitHub's Markdown."""
    heads, seen = header(comparison), columns(comparison)
    lines = [heads, [":---"] + ["---:"] * (len(heads) - 1)]
    for row in comparison.rows():
        first, *rest = cells(comparison, row)
        lines.append([f"`{first}`", *rest])
    lines = [[line[c] for c in seen] for line in lines]
    text = [
        "| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |"
        for line in lines
    ]
    about = " ".join(caption(comparison).split())
    return "\n".join([*text, "", about]) + "\n"


def table(comparison: Comparison, width: int = WIDTH) -> Table:
    """Returns the table for a terminal.

    Args:
      comparison: what `compare` returned.
      width: columns of text, 60 or more. Where they are too few for the table, it
        wraps cells, then leaves out the gradient, the signal, the steps, the decades,
        the learning rate and the training loss, in this order; its caption says so.
    """
    rows = [cells(comparison, row) for row in comparison.rows()]
    heads, about = header(comparison), caption(comparison)
    texts = list(zip(heads, *rows, strict=True))
    wide = [max(map(len, text[1:])) for text in texts]
    sizes = [max(len(w) for cell in text for w in cell.split(" ")) for text in texts]
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
    found = Table(caption=about, caption_justify="left")
    first = max(len(heads[0]), min(wide[0], room()))
    found.add_column(heads[0], overflow="fold", width=first)

    def wrapped(text: str, column: int) -> str:
        return "\n".join(textwrap.wrap(text, sizes[column])) or text

    for c in kept:
        found.add_column(wrapped(heads[c], c), justify="right", no_wrap=True)
    for row in rows:
        found.add_row(row[0], *(wrapped(row[c], c) for c in kept))
    return found
