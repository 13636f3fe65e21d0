"""Shows a report as HTML, for notebooks."""

from html import escape

from jaxinit import _html
from jaxinit.signal._judge.findings import Findings
from jaxinit.signal._report.columns import (
    Grid,
    explain,
    make_grid,
    summarize,
    write_heading,
)


def page(report: Findings) -> str:
    """Returns the page: the table, and the findings."""
    findings = "".join(
        f'<dt class="wrong">{escape(finding.condition)}</dt>'
        f"<dd>{escape(explain(report, finding))}<br>"
        f"Cure: <code>{escape(finding.cure)}</code></dd>"
        for finding in report.findings
    )
    return _html.page(
        _html.line(write_heading(report), _mark(report.condition)),
        _table(make_grid(report)),
        f"<dl>{findings}</dl>" if findings else "",
        *map(_html.line, summarize(report)),
    )


def _table(grid: Grid) -> str:
    last = len(grid.columns) - 1
    return _html.table(
        [column.head for column in grid.columns],
        grid.cells,
        [place for place, column in enumerate(grid.columns) if column.left],
        lambda place, cell: _mark(cell) if place == last else "",
    )


def _mark(condition: str) -> str:
    return {"": "", "healthy": "healthy"}.get(condition, "wrong")
