"""Shows a report as HTML, for notebooks."""

from html import escape

from jaxinit import _html
from jaxinit.signal._judge.findings import Findings
from jaxinit.signal._report.columns import Grid, explanation, grid, heading, summary


def page(report: Findings) -> str:
    """Returns the page: the table, and the findings."""
    findings = "".join(
        f'<dt class="wrong">{escape(finding.condition)}</dt>'
        f"<dd>{escape(explanation(report, finding))}<br>"
        f"Cure: <code>{escape(finding.cure)}</code></dd>"
        for finding in report.findings
    )
    return _html.page(
        _html.line(heading(report), _mark(report.condition)),
        _table(grid(report)),
        f"<dl>{findings}</dl>" if findings else "",
        *map(_html.line, summary(report)),
    )


def _table(found: Grid) -> str:
    last = len(found.columns) - 1
    return _html.table(
        [column.head for column in found.columns],
        found.cells,
        [place for place, column in enumerate(found.columns) if column.left],
        lambda place, cell: _mark(cell) if place == last else "",
    )


def _mark(condition: str) -> str:
    return {"": "", "healthy": "healthy"}.get(condition, "wrong")
