"""Tables as plain text."""

from collections.abc import Collection, Iterator, Sequence

GAP = "  "


def lines(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    left: Collection[int] = (),
) -> Iterator[str]:
    """Yields a table line by line.

    Args:
      heads: headings of the columns.
      rows: the cells of each row.
      left: numbers of the columns that are aligned left, as text is.
    """
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    for cells in (heads, ["─" * width for width in widths], *rows):
        padded = [
            cell.ljust(width) if place in left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        yield GAP.join(padded).rstrip()


def size(count: float) -> str:
    """Returns a number of bytes as people read it."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024 or unit == "TiB":
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
