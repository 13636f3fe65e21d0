"""Reports: rows as a table for the terminal, results as JSON."""

import json
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table as Grid

from bench.meters.row import Row
from jaxinit import _table

Result = dict[str, Any]

FORMAT = 1  # of the JSON file
_KEYS = {"format", "settings", "machine", "device", "versions", "suites"}


def build_table(suite: str, question: str, rows: list[Row]) -> Grid:
    """Returns the table of a suite; a column that no row fills is left out."""
    cells = [_write_cells(row) for row in rows]
    heads = [head for row in cells for head in row]
    ratios = [h for h in dict.fromkeys(heads) if h not in (*_FIRST, *_LAST)]
    used = [head for head in (*_FIRST, *ratios, *_LAST) if head in heads]
    text = ("case", "verified")
    columns = [
        _table.Column[str](head, left=head in text, wraps=head in text) for head in used
    ]
    texts = [[row.get(head, "–") for head in used] for row in cells]
    table = _table.Table(columns, texts).rich(framed=True, title=f"{suite}: {question}")
    table.title_justify = "left"
    notes = dict.fromkeys(
        f"{name}: {reason}" for row in rows for name, reason in row["left_out"].items()
    )
    if notes:
        table.caption = escape("left out: " + "; ".join(notes))
        table.caption_justify = "left"
    return table


_FIRST = ("case", "ours", "±", "eager", "GB/s", "limit")
_LAST = ("memory, MB", "compile, s", "×jax compile", "verified")


def _write_cells(row: Row) -> dict[str, str]:
    """Returns the cells of a row by column; a ratio is a peer's time over ours."""
    cells = {"case": row["case"]}
    if not row["verified"]:
        return {**cells, "verified": f"FAILED: {row['found']}"}
    times = row["times"]
    cells["ours"] = spell_duration(times["ours"]["median_s"])
    cells["±"] = f"{100 * times['ours']['spread_s'] / times['ours']['median_s']:.0f} %"
    if "ours eager" in times:
        cells["eager"] = spell_duration(times["ours eager"]["median_s"])
    if row["gb_per_s"] is not None:
        cells["GB/s"] = f"{row['gb_per_s']:.3g}"
    if row["limit"] is not None:
        cells["limit"] = f"{100 * row['limit']['share']:.0f} %"
    for name, ratio in row["ratios"].items():
        cells[f"×{name}"] = f"{ratio:.2f}"
    if row["memory"] is not None:
        cells["memory, MB"] = f"{round(row['memory']['extra_bytes'] / 1e6):+d}"
    if (ours := row["compile_s"].get("ours")) is not None:
        cells["compile, s"] = f"{ours:.2f}"
        if theirs := row["compile_s"].get("jax"):
            cells["×jax compile"] = f"{theirs / ours:.2f}"
    cells["verified"] = row["found"]
    return cells


def spell_duration(seconds: float) -> str:
    """Returns seconds with three digits, in the unit that suits them."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def write_heading(result: Result) -> str:
    """Returns where and with what a result was measured, in a few words."""
    machine, device, versions = (
        result[key] for key in ("machine", "device", "versions")
    )
    libraries = ", ".join(f"{name} {number}" for name, number in versions.items())
    where = f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB"
    if device["platform"] != "cpu":
        where += f"; {device['count']} × {device['kind']}"
    settings = result["settings"]
    toy = "Toy sizes: the times mean nothing. " if settings["quick"] else ""
    return (
        f"{where}\n{libraries}\n{toy}Median of {settings['repeats']} by turns; ± is "
        "the interquartile range; × is how many times longer a peer takes;\nlimit is "
        "the least work's time over ours; memory is beyond the output."
    )


def write(result: Result, path: Path) -> None:
    """Writes a result as JSON."""
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", "utf-8")


def read(path: Path) -> Result:
    """Reads a result.

    Raises:
      ValueError: if the file is not one that `write` has written.
    """
    try:
        result = json.loads(path.read_text("utf-8"))
    except ValueError:
        raise ValueError("is not JSON") from None
    if not isinstance(result, dict) or not _KEYS <= result.keys():
        raise ValueError("is not a result of this benchmark")
    if result["format"] != FORMAT:
        raise ValueError(f"has format {result['format']}, this benchmark {FORMAT}")
    return result
