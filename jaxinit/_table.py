"""Tables: one record, written as text, for rich consoles, as HTML and as Markdown.

A room lists its columns, each with the function that makes a cell; `Table.of` applies
them to what has a row. HTML is for notebooks: self-contained, without scripts.
"""

import dataclasses
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from jaxinit._text import plural

if TYPE_CHECKING:
    from rich.table import Table as Grid
    from rich.text import Text

GAP = "  "
_NAME = 12  # columns of text that are enough for a name, in several lines
_PIECE = re.compile(r"\s*[^\s/_(=]*[/_(=]*")  # of a name; numbers stay whole
# The dress of all HTML. A notebook has its own text color; a page names the others.
STYLE = """
.jaxinit-report { font-variant-numeric: tabular-nums; overflow-x: auto; }
.jaxinit-report table { border-collapse: collapse; color: inherit; font: inherit; }
.jaxinit-report th, .jaxinit-report td {
  border-bottom: 1px solid var(--line, #8884); padding: .2em .6em; text-align: right;
  vertical-align: top; white-space: nowrap; }
.jaxinit-report .left { text-align: left; }
.jaxinit-report td:first-child, .jaxinit-report .bars {
  font-family: ui-monospace, monospace; white-space: pre; }
.jaxinit-report .quiet, .jaxinit-report .fails { opacity: .65; }
.jaxinit-report .healthy { color: var(--good, #2a9d4a); }
.jaxinit-report .wrong { color: var(--bad, #e5484d); font-weight: 600; }
.jaxinit-report dd { margin: 0 0 .6em 1.5em; }
.jaxinit-report .answer { font-size: 1.2em; font-weight: 600; line-height: 1.4; }
.jaxinit-report .about { font-size: .85em; max-width: 60em; }
"""
# What a page of its own has besides: the ground, which is dark where the reader's is.
GROUND = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 80rem;
  padding: 1rem; }
h1 { font-size: 1.5rem; line-height: 1.2; overflow-wrap: anywhere; }
@media print {
  body { max-width: none; padding: 0; }
  .jaxinit-report { overflow: visible; }
  .jaxinit-report table { font-size: 7pt; }
}
"""
_DOCUMENT = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; \
style-src 'unsafe-inline'">
<title>{title}</title>
<style>{ground}</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""
# The same classes on a console.
RICH = {"quiet": "dim", "healthy": "green", "wrong": "bold red"}
_MOST = 1000  # rows of HTML; a notebook keeps them all in its file

Item = TypeVar("Item")  # what has a row


@dataclasses.dataclass(frozen=True)
class Column(Generic[Item]):
    """A column of a table.

    Attributes:
      head: the heading.
      cell: makes the cell of a row.
      left: whether cells are aligned left, as text is.
      wraps: whether cells take more lines on a console that is narrow.
      rank: where room is short, columns of a low rank go first; those of rank 0 stay.
      mark: returns the class of a cell, from its text: a key of `RICH`, "bars" or "".
      key: makes the value that rows are sorted by.
    """

    head: str
    cell: Callable[[Item], str] = str
    left: bool = False
    wraps: bool = False
    rank: int = 0
    mark: Callable[[str], str] = lambda cell: ""
    key: Callable[[Item], str | float | None] = lambda row: None


@dataclasses.dataclass(frozen=True)
class Table:
    """A table, and the lines below it.

    Attributes:
      columns: their headings and form.
      rows: the cells of each row.
      notes: lines below, each with its class, or "".
      marks: the class of each row, or ""; empty if no row has one.
    """

    columns: Sequence[Column[Any]]
    rows: Sequence[Sequence[str]]
    notes: Sequence[tuple[str, str]] = ()
    marks: Sequence[str] = ()

    @classmethod
    def of(
        cls,
        columns: Sequence[Column[Item]],
        items: Iterable[Item],
        notes: Sequence[tuple[str, str]] = (),
    ) -> "Table":
        """Makes a row of each item."""
        rows = [[column.cell(item) for column in columns] for item in items]
        return cls(columns, rows, notes)

    @property
    def heads(self) -> list[str]:
        """The headings."""
        return [column.head for column in self.columns]

    @property
    def widths(self) -> list[int]:
        """Widths of the columns as text."""
        columns = zip(self.heads, *self.rows, strict=True)
        return [max(map(len, column)) for column in columns]

    def choose(self, sizes: Sequence[int], room: int) -> list[int]:
        """Chooses columns, those of high rank first, whose sizes fit in the room."""
        kept = list(range(len(self.columns)))
        for rank in sorted({column.rank for column in self.columns} - {0}):
            if sum(sizes[place] for place in kept) > room:
                kept = [place for place in kept if self.columns[place].rank != rank]
        return kept

    def pick(self, places: Sequence[int]) -> "Table":
        """Returns the table of some columns."""
        columns = [self.columns[place] for place in places]
        rows = [[row[place] for place in places] for row in self.rows]
        return dataclasses.replace(self, columns=columns, rows=rows)

    def fit(self, width: int) -> "Table":
        """Leaves out the columns that a width has no room for; a note names them."""
        sizes = [len(GAP) + size for size in self.widths]
        kept = self.choose(sizes, len(GAP) + width)
        gone = [column for i, column in enumerate(self.columns) if i not in kept]
        gone.sort(key=lambda column: column.rank)
        names = ", ".join(dict.fromkeys(column.head for column in gone))
        note = [(f"A wider table shows {names} too.", "quiet")] if gone else []
        return dataclasses.replace(self.pick(kept), notes=[*note, *self.notes])

    def show(self, width: int) -> "Grid | Text":
        """Returns the table for a console of rich: no number is cut in any width.

        Where it is too wide, columns that wrap give way first; if that is not enough,
        each row becomes a record, a line for each of its cells.
        """
        sizes = self.widths
        wraps = [i for i, column in enumerate(self.columns) if column.wraps]
        over = sum(sizes) + len(GAP) * (len(sizes) - 1) - width
        for i in sorted(wraps, key=lambda i: -sizes[i]):
            least = max(len(self.heads[i]), min(sizes[i], _NAME))
            given = max(0, min(over, sizes[i] - least))
            sizes[i], over = sizes[i] - given, over - given
        if over > 0:
            return self.records(width)
        rows = [
            [fold(x, n) if c.wraps else x for c, x, n in zip(*row, strict=True)]
            for row in ((self.columns, cells, sizes) for cells in self.rows)
        ]
        return dataclasses.replace(self, rows=rows).rich()

    def records(self, width: int) -> "Text":
        """Returns the rows as records for a console of rich: a line for each cell."""
        from rich.text import Text

        side = max(map(len, self.heads)) + len(GAP)
        parts = []
        for row in self.rows:
            for column, cell in zip(self.columns, row, strict=True):
                if cell:
                    lines = textwrap.indent(
                        fold(cell.strip(), width - side), " " * side
                    )
                    parts.append(Text(column.head.ljust(side), "dim"))
                    mark = RICH.get(column.mark(cell), "")
                    parts.append(Text(lines[side:] + "\n", mark))
            parts.append(Text("\n"))
        return Text.assemble(*parts[:-1], end="")

    def lines(self) -> Iterator[str]:
        """Yields the table as text, line by line."""
        widths = self.widths
        for cells in (self.heads, ["─" * width for width in widths], *self.rows):
            padded = [
                cell.ljust(width) if column.left else cell.rjust(width)
                for column, cell, width in zip(self.columns, cells, widths, strict=True)
            ]
            yield GAP.join(padded).rstrip()

    def rich(self, *, framed: bool = False, **settings: Any) -> "Grid":
        """Returns the table for a console of rich, with settings of rich's own."""
        from rich.table import Table as Grid
        from rich.text import Text

        if not framed:
            settings |= {"box": None, "pad_edge": False, "padding": (0, 2, 0, 0)}
        grid = Grid(**settings)
        for column in self.columns:
            grid.add_column(
                Text(column.head),
                justify="left" if column.left else "right",
                no_wrap=not column.wraps,
                overflow="fold" if column.wraps else "ellipsis",
            )
        for row in self.rows:
            pairs = zip(self.columns, row, strict=True)
            grid.add_row(*(Text(x, RICH.get(c.mark(x), "")) for c, x in pairs))
        return grid

    def html(self) -> str:
        """Returns the table as HTML, for a `page`."""

        def cells(tag: str, texts: Sequence[str], row: str = "") -> str:
            written = []
            for column, cell in zip(self.columns, texts, strict=True):
                side = "left" if column.left else ""
                also = column.mark(cell) if tag == "td" else ""
                name = f"{side} {also}".strip()
                written.append(f'<{tag} class="{name}">{escape(cell)}</{tag}>')
            start = f'<tr class="{row}">' if row else "<tr>"
            return f"{start}{''.join(written)}</tr>"

        marks = self.marks or [""] * len(self.rows)
        rows = zip(self.rows[:_MOST], marks, strict=False)
        body = "".join(cells("td", row, mark) for row, mark in rows)
        rest = len(self.rows) - _MOST
        more = line(f"… and {plural(rest, 'row', ',')}") if rest > 0 else ""
        head = cells("th", self.heads)
        return f"<table><thead>{head}</thead><tbody>{body}</tbody></table>{more}"

    def markdown(self) -> Iterator[str]:
        """Yields the table as GitHub's Markdown, line by line."""
        sides = [":---" if column.left else "---:" for column in self.columns]
        for cells in (self.heads, sides, *self.rows):
            yield "| " + " | ".join(x.replace("|", r"\|") for x in cells) + " |"


def fold(text: str, width: int) -> str:
    """Breaks a text into lines, at blanks or else within its names, not in numbers."""
    lines = [""]
    for piece in filter(None, _PIECE.findall(text)):
        if lines[-1] and len(lines[-1]) + len(piece) > width:
            lines.append("")
            piece = piece.lstrip()
        lines[-1] += piece
    return "\n".join(line.rstrip() for line in lines)


def page(*parts: str) -> str:
    """Returns a page of parts that are HTML already."""
    return f'<div class="jaxinit-report"><style>{STYLE}</style>{"".join(parts)}</div>'


def document(title: str, body: str) -> str:
    """Returns a file that a browser opens: HTML under a title."""
    return _DOCUMENT.format(title=escape(title), ground=GROUND, body=body)


def line(text: str, mark: str = "") -> str:
    """Returns a paragraph of one line."""
    return f'<p class="{mark}">{escape(text)}</p>' if mark else f"<p>{escape(text)}</p>"
