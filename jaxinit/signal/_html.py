"""A report as HTML for notebooks: self-contained, without scripts, light and dark."""

from html import escape

from jaxinit.signal._report import SignalReport
from jaxinit.signal._table import Grid, explanation, grid, heading, summary

# Text has the notebook's own colour; the others are readable on white and on black.
_STYLE = """
.jaxinit-report { font-variant-numeric: tabular-nums; overflow-x: auto; }
.jaxinit-report table { border-collapse: collapse; }
.jaxinit-report th, .jaxinit-report td {
  border-bottom: 1px solid #8884; padding: .2em .6em; text-align: right;
  white-space: nowrap; }
.jaxinit-report .left { text-align: left; }
.jaxinit-report td:first-child { font-family: ui-monospace, monospace;
  white-space: pre; }
.jaxinit-report .healthy { color: #2a9d4a; }
.jaxinit-report .wrong { color: #e5484d; font-weight: 600; }
.jaxinit-report dd { margin: 0 0 .6em 1.5em; }
"""


def page(report: SignalReport) -> str:
    """Returns the table and the findings."""
    findings = "".join(
        f'<dt class="wrong">{escape(finding.condition)}</dt>'
        f"<dd>{escape(explanation(report, finding))}<br>"
        f"Cure: <code>{escape(finding.cure)}</code></dd>"
        for finding in report.findings
    )
    return (
        f'<div class="jaxinit-report"><style>{_STYLE}</style>'
        f'<p class="{_mark(report.condition)}">{escape(heading(report))}</p>'
        f"{_table(grid(report))}"
        + (f"<dl>{findings}</dl>" if findings else "")
        + "".join(f"<p>{escape(line)}</p>" for line in summary(report))
        + "</div>"
    )


def _table(found: Grid) -> str:
    heads = [column.head for column in found.columns]
    last = len(heads) - 1

    def line(tag: str, cells: tuple[str, ...]) -> str:
        marks = ["left" if column.left else "" for column in found.columns]
        if tag == "td":
            marks[last] += f" {_mark(cells[last])}"
        return "".join(
            f'<{tag} class="{mark}">{escape(cell)}</{tag}>'
            for mark, cell in zip(marks, cells, strict=True)
        )

    body = "".join(f"<tr>{line('td', cells)}</tr>" for cells in found.cells)
    return (
        f"<table><thead><tr>{line('th', tuple(heads))}</tr></thead>"
        f"<tbody>{body}</tbody></table>"
    )


def _mark(condition: str) -> str:
    return {"": "", "healthy": "healthy"}.get(condition, "wrong")
