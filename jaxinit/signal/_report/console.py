"""Shows a report in the colors of a rich console."""

from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from jaxinit.signal._judge.findings import Findings
from jaxinit.signal._report.columns import (
    explain,
    make_grid,
    name_left_out,
    summarize,
    write_heading,
)

_HEALTHY, _WRONG = "green", "bold red"


def parts(
    report: Findings, width: int, all_layers: bool = False
) -> Iterator[Table | Text]:
    """Yields a report as parts that rich prints one below the other."""
    grid = make_grid(report, all_layers).fit(width)
    yield Text(write_heading(report), _HEALTHY if report.healthy else _WRONG)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in grid.columns:
        table.add_column(
            Text(column.head),
            justify="left" if column.left else "right",
            no_wrap=column.head != "layer",
            overflow="fold",
        )
    for row in grid.cells:
        *cells, condition = row
        style = _HEALTHY if condition == "healthy" else _WRONG
        table.add_row(*map(Text, cells), Text(condition, style))
    yield table
    if grid.left_out:
        yield Text(name_left_out(grid), "dim")
    yield Text()
    for finding in report.findings:
        yield Text.assemble(
            (f"{finding.condition}: ", _WRONG), explain(report, finding)
        )
        yield Text.assemble(("  cure: ", "bold"), finding.cure)
    for line in summarize(report):
        yield Text(line, _HEALTHY if line.startswith("healthy") else "")
