"""Shows a report as HTML, for notebooks."""

from html import escape

from jaxinit import _table
from jaxinit.signal._judge.findings import Findings
from jaxinit.signal._report.columns import (
    explain,
    make_table,
    mark,
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
    return _table.page(
        _table.line(write_heading(report), mark(report.condition)),
        make_table(report).html(),
        f"<dl>{findings}</dl>" if findings else "",
        *map(_table.line, summarize(report)),
    )
