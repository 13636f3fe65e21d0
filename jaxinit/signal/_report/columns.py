"""Makes the table of a report: columns of cells for text, rich consoles and HTML."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence

from jaxinit import _columns
from jaxinit._number import (
    number,
    over_seeds,
    percent,
    plural,
    span,
    with_error,
)
from jaxinit.signal._judge.findings import Finding, Findings, Layer
from jaxinit.signal._measure.chance import MOST
from jaxinit.signal._report.tree import Row, join_runs, make_rows


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
      head: the heading.
      cell: makes the cell of a row.
      left: whether cells are aligned left, as text is.
      rank: where room is short, columns of a low rank go first; those of rank 0 stay.
    """

    head: str
    cell: Callable[[Row], str]
    left: bool = False
    rank: int = 0


def _show_size(name: str) -> Callable[[Row], str]:
    """Makes cells with a mean over seeds and its error; folded rows show the span."""

    def cell(row: Row) -> str:
        if len(row.layers) == 1:
            (layer,) = row.layers
            return with_error(layer.mean(name), layer.error(name))
        return span(layer.mean(name) for layer in row.layers)

    return cell


def _show_theory(name: str) -> Callable[[Row], str]:
    return lambda row: span(x.predicted[name] for x in row.layers if x.predicted)


def _show_share(name: str) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        return span((x.mean(name) for x in row.layers if name in x.forward), percent)

    return cell


def _show_output(row: Row) -> str:
    kinds = {f"{x.kind} {'×'.join(map(str, x.shape))}" for x in row.layers}
    times = f"{row.count} × " if row.count > 1 else ""
    return times + (kinds.pop() if len(kinds) == 1 else "module" if kinds else "")


def _show_activation(row: Row) -> str:
    return ", ".join(dict.fromkeys(x.activation for x in row.layers if x.activation))


def _show_similarity(row: Row) -> str:
    return span((1 - x.mean("distance") for x in row.layers), "{:.3f}".format)


def _show_condition(row: Row) -> str:
    conditions = dict.fromkeys(layer.condition for layer in row.layers)
    return ", ".join([x for x in conditions if x != "healthy"] or conditions)


_COLUMNS = (
    Column("layer", lambda row: _columns.GAP * row.depth + row.name, left=True),
    Column("output", _show_output, left=True, rank=3),
    Column("activation", _show_activation, left=True, rank=4),
    Column("signal std", _show_size("std")),
    Column("theory", _show_theory("std"), rank=5),
    Column("gradient std", _show_size("gradient_std")),
    Column("theory", _show_theory("gradient_std"), rank=5),
    Column("zeros", _show_share("activation_zeros"), rank=1),
    Column("dead", _show_share("dead"), rank=7),
    Column("saturated", _show_share("saturated"), rank=6),
    Column("similarity", _show_similarity, rank=2),
    Column("condition", _show_condition, left=True),
)


@dataclasses.dataclass(frozen=True)
class Grid:
    """A table: columns, the cells of its rows, and the heads of columns left out.

    The last cell of each row is its condition.
    """

    columns: tuple[Column, ...]
    cells: tuple[tuple[str, ...], ...]
    left_out: tuple[str, ...] = ()

    @property
    def widths(self) -> list[int]:
        """The widths of the columns."""
        heads = [column.head for column in self.columns]
        return [
            max(map(len, column)) for column in zip(heads, *self.cells, strict=True)
        ]

    def fit(self, width: int) -> "Grid":
        """Leaves out columns until the others fit, or all that remain must stay."""
        ranks = [column.rank for column in self.columns if column.rank]
        if (
            sum(self.widths) + len(_columns.GAP) * (len(self.columns) - 1) <= width
            or not ranks
        ):
            return self
        kept = [i for i, x in enumerate(self.columns) if x.rank != min(ranks)]
        gone = [x.head for x in self.columns if x.rank == min(ranks)]
        left = Grid(
            tuple(self.columns[i] for i in kept),
            tuple(tuple(row[i] for i in kept) for row in self.cells),
            tuple(dict.fromkeys([*self.left_out, *gone])),
        )
        return left.fit(width)


def make_grid(report: Findings, all_layers: bool = False) -> Grid:
    """Makes the table; columns whose cells are all empty are left out."""
    rows = make_rows(report.layers, all_layers)
    by_column = [(column, [column.cell(row) for row in rows]) for column in _COLUMNS]
    filled = [
        (column, cells)
        for column, cells in by_column
        if any(cell not in ("", "–") or not column.rank for cell in cells)
    ]
    cells = zip(*(cells for _, cells in filled), strict=True)
    return Grid(tuple(column for column, _ in filled), tuple(cells))


def write_heading(report: Findings) -> str:
    """Returns a line with the outcome and the numbers of layers and seeds."""
    layers = plural(sum(layer.kind != "module" for layer in report.layers), "layer")
    return f"{report.condition}, {layers}, {plural(report.seeds, 'seed')}"


def explain(report: Findings, finding: Finding) -> str:
    """Says which layers a finding is about, and why."""
    first = finding.layers[0] if finding.layers else ""
    if not first or finding.reason.startswith((f"{first}:", f"{first} – ")):
        return finding.reason
    return f"{join_runs(report.layers, finding.layers)}: {finding.reason}"


def summarize(report: Findings) -> Iterator[str]:
    """Yields lines on the model as a whole, findings aside."""
    layers = [layer for layer in report.layers if layer.kind != "module"]
    if report.healthy and layers:
        signal = span(layer.mean("std") for layer in layers)
        gradient = span(layer.mean("gradient_std") for layer in layers)
        yield f"healthy: signal std {signal}, gradient std {gradient}"
        yield from _warn_of_logits(layers)
    if report.jacobian:
        square, largest = (report.jacobian[k] for k in ("mean_square", "largest"))
        yield (
            "singular values of the Jacobian: root mean square "
            f"{with_error(*over_seeds(square**0.5))}, "
            f"largest {with_error(*over_seeds(largest))} "
            f"({plural(len(largest), 'seed')})"
        )


def _warn_of_logits(layers: Sequence[Layer]) -> Iterator[str]:
    """Says where a loss would start if outputs were logits, if far above chance."""
    for layer in layers:
        if "expected_loss" in layer.forward:
            loss, chance = (layer.mean(f"{x}_loss") for x in ("expected", "chance"))
            if loss > MOST * chance:
                classes = f"{math.exp(chance):.0f} classes"
                yield (
                    f"if the outputs of {layer.path} are logits of {classes}, a cross-"
                    f"entropy starts at {number(loss)}, guessing has {number(chance)}"
                )


def write_text(
    report: Findings, all_layers: bool = False, width: int | None = None
) -> str:
    """Returns a report as text."""
    full = make_grid(report, all_layers)
    table = full if width is None else full.fit(width)
    heads = [column.head for column in table.columns]
    left = [place for place, column in enumerate(table.columns) if column.left]
    lines = [write_heading(report), *_columns.lines(heads, table.cells, left)]
    lines += [name_left_out(table)] if table.left_out else []
    lines.append("")
    for finding in report.findings:
        lines += [f"{finding.condition}: {explain(report, finding)}"]
        lines += [f"{_columns.GAP}cure: {finding.cure}"]
    return "\n".join([*lines, *summarize(report)])


def name_left_out(table: Grid) -> str:
    """Says which columns are left out."""
    return f"A wider table shows {', '.join(table.left_out)} too."
