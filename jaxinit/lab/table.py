"""The table of a comparison: the same cells for the terminal and for the page."""

import math

from rich.table import Table

from jaxinit.lab.comparison import Comparison, Row
from jaxinit.lab.settings import Settings
from jaxinit.signal._number import number


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
        f"test {score}",
        "diverged",
    ]


def cells(comparison: Comparison, row: Row) -> list[str]:
    """Returns a row as text."""
    accuracy = comparison.task.kind == "classification"
    factor, digits = (100, 1) if accuracy else (1, 3)
    mean, stddev = factor * row.test_mean, factor * row.test_stddev
    test = f"{mean:.{digits}f}±{stddev:.{digits}f}"  # no space: a cell stays one line
    return [
        row.initializer,
        f"{row.learning_rate:g}",
        number(row.forward_ratio),
        number(row.gradient_ratio),
        "–" if row.steps_to_target is None else f"{row.steps_to_target:g}",
        number(row.final_loss),
        test if math.isfinite(row.test_mean) else "–",
        f"{100 * row.diverged:.0f} %",
    ]


def caption(comparison: Comparison) -> str:
    """Returns what was run, in a line or two."""
    s, task = comparison.settings, comparison.task
    norm = "" if s.norm == "none" else f", {s.norm} norm"
    cells = comparison.scores.loss.size
    return (
        f"{task.name}; {_network(s)}, "
        f"{s.activation}{norm}; {s.optimizer}, batch {s.batch_size}, "
        f"{comparison.steps_done} steps; "
        f"{cells} cells = {len(s.initializers)} initializers × {s.seeds} seeds × "
        f"{len(s.learning_rates)} learning rates; each row at its own best learning "
        f"rate; chance: loss {task.chance:.2f}"
    )


def _network(s: Settings) -> str:
    """Returns what was trained, in words."""
    if s.model == "mlp":
        return f"{s.depth} dense layers of width {s.width}"
    return s.model if ":" in s.model else f"{s.model}, depth {s.depth}, width {s.width}"


def table(comparison: Comparison) -> Table:
    """Returns the table for a terminal."""
    found = Table(caption=caption(comparison), caption_justify="left")
    first, *rest = header(comparison)
    words = max(len(w) for row in comparison.rows() for w in row.initializer.split())
    found.add_column(first, overflow="fold", min_width=min(words, 34))
    for name in rest:
        found.add_column(name, justify="right", min_width=max(map(len, name.split())))
    for row in comparison.rows():
        found.add_row(*cells(comparison, row))
    return found
