"""Shows a report in the colors of a rich console."""

from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from jaxinit._table import RICH
from jaxinit.signal._judge.findings import Findings
from jaxinit.signal._report.columns import (
    explain,
    make_table,
    mark,
    summarize,
    write_heading,
)


def parts(
    report: Findings, width: int, all_layers: bool = False
) -> Iterator[Table | Text]:
    """Yields a report as parts that rich prints one below the other."""
    table = make_table(report, all_layers, width)
    yield Text(write_heading(report), RICH[mark(report.condition)])
    yield table.show(width)
    for note, kind in table.notes:
        yield Text(note, RICH[kind])
    yield Text()
    for finding in report.findings:
        yield Text.assemble(
            (f"{finding.condition}: ", RICH["wrong"]), explain(report, finding)
        )
        yield Text.assemble(("  cure: ", "bold"), finding.cure)
    for line in summarize(report):
        yield Text(line, RICH["healthy"] if line.startswith("healthy") else "")
