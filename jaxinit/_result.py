"""The faces of a result that is one table: text, HTML for notebooks, JSON."""

import json
import math
from typing import Any

from jaxinit._table import Table, document, line, page


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
        notes = [text for text, _ in table.notes]
        return "\n".join([*table.lines(), *([""] if notes else []), *notes])

    def _repr_html_(self) -> str:
        table = self._table()
        notes = [line(*note) for note in table.notes]
        return page(table.html(), *notes)

    def to_html(self) -> str:
        """Returns a page that a browser opens offline: what a notebook shows."""
        return document(repr(self), self._repr_html_())


def plain(value: Any) -> Any:
    """Replaces numbers that are not finite, which JSON lacks, by None."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
