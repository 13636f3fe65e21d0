"""The faces of a result that is one table: text, HTML for notebooks, JSON."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxinit import _columns, _html
from jaxinit._number import plain


class Table(NamedTuple):
    """A table, and the lines below it.

    Attributes:
      heads: headings of the columns.
      rows: the cells of each row, as text.
      left: numbers of the columns that are aligned left, as text is.
      notes: lines below, each with its class in HTML, or "".
      mark: returns a cell's class in HTML, from its column's number and its text.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: tuple[int, ...]
    notes: Sequence[tuple[str, str]] = ()
    mark: _html.Mark = lambda place, cell: ""


class Result:
    """A result: prints as a table, is shown as one by notebooks, and turns into JSON.

    A subclass has a `__repr__` of one short line, a `_table` and a `to_dict`.
    """

    def _table(self) -> Table:
        raise NotImplementedError

    def to_dict(self) -> Any:
        """Returns the numbers, unrounded, as plain Python values."""
        raise NotImplementedError

    def to_json(self, *, indent: int | None = None) -> str:
        """Returns `to_dict` as JSON text; numbers that are not finite become null.

        Args:
          indent: blanks for each level; by default the text is one line.
        """
        return json.dumps(plain(self.to_dict()), indent=indent, allow_nan=False)

    def __str__(self) -> str:
        table = self._table()
        lines = list(_columns.lines(table.heads, table.rows, table.left))
        notes = [text for text, _ in table.notes]
        return "\n".join([*lines, *([""] if notes else []), *notes])

    def _repr_html_(self) -> str:
        table = self._table()
        notes = [_html.line(*note) for note in table.notes]
        cells = _html.table(table.heads, table.rows, table.left, table.mark)
        return _html.page(cells, *notes)
