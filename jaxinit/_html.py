"""Tables for notebooks: self-contained, without scripts, in light and dark mode."""

from collections.abc import Callable, Collection, Sequence
from html import escape

# Text has the notebook's own color; the others are readable on white and on black.
_STYLE = """
.jaxinit-report { font-variant-numeric: tabular-nums; overflow-x: auto; }
.jaxinit-report table { border-collapse: collapse; color: inherit; font: inherit; }
.jaxinit-report th, .jaxinit-report td {
  border-bottom: 1px solid #8884; padding: .2em .6em; text-align: right;
  white-space: nowrap; }
.jaxinit-report .left { text-align: left; }
.jaxinit-report td:first-child, .jaxinit-report .bars {
  font-family: ui-monospace, monospace; white-space: pre; }
.jaxinit-report .quiet { opacity: .6; }
.jaxinit-report .healthy { color: #2a9d4a; }
.jaxinit-report .wrong { color: #e5484d; font-weight: 600; }
.jaxinit-report dd { margin: 0 0 .6em 1.5em; }
"""
_MOST = 1000  # rows; a notebook keeps them all in its file

Mark = Callable[[int, str], str]  # from a cell's column and text to its class, or ""


def page(*parts: str) -> str:
    """Returns a page of parts that are HTML already."""
    return f'<div class="jaxinit-report"><style>{_STYLE}</style>{"".join(parts)}</div>'


def line(text: str, mark: str = "") -> str:
    """Returns a paragraph of one line."""
    return f'<p class="{mark}">{escape(text)}</p>' if mark else f"<p>{escape(text)}</p>"


def table(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    left: Collection[int] = (),
    mark: Mark = lambda place, cell: "",
) -> str:
    """Returns a table.

    Args:
      heads: headings of the columns.
      rows: the cells of each row, as text.
      left: numbers of the columns that are aligned left, as text is.
      mark: returns the class of a cell.
    """

    def cells(tag: str, texts: Sequence[str]) -> str:
        written = []
        for place, cell in enumerate(texts):
            side = "left" if place in left else ""
            also = mark(place, cell) if tag == "td" else ""
            name = f"{side} {also}".strip()
            written.append(f'<{tag} class="{name}">{escape(cell)}</{tag}>')
        return f"<tr>{''.join(written)}</tr>"

    body = "".join(cells("td", row) for row in rows[:_MOST])
    more = line(f"… and {len(rows) - _MOST:,} rows") if len(rows) > _MOST else ""
    return (
        f"<table><thead>{cells('th', heads)}</thead><tbody>{body}</tbody></table>{more}"
    )
