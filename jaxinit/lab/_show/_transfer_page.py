"""The page of a transfer: one self-contained HTML file."""

from jaxinit.lab._result.rates import Transferred
from jaxinit.lab._show._curves import draw_curves, number_size_color
from jaxinit.lab._show._transfer_table import (
    explain,
    list_columns,
    list_facts,
    list_remarks,
)
from jaxinit.lab._show.page import render, write_versions
from jaxinit.lab._show.svg import svg


def page(result: Transferred, command: str) -> str:
    """Renders the page, with every picture inside it.

    Args:
      result: what `transfer` returned.
      command: the command that repeats the run, or "".
    """
    sweep, columns = result.sweep, list_columns(result)
    draw, sizes = draw_curves(result), sweep.sizes
    return render(
        "transfer.html",
        title=f"Does the best learning rate stay as the {sweep.varied} grows?",
        answer=result.answer,
        remarks=list_remarks(result),
        header=[column.head for column in columns],
        rows=[
            (
                number_size_color(sizes.index(row.size), len(sizes)),
                row.best.state != "inside",
                [column.cell(row) for column in columns],
            )
            for row in result.rows
        ],
        panels=[
            (name, svg(draw, i, f"loss{i}", f"loss by learning rate: {name}"))
            for i, name in enumerate(sweep.names)
        ],
        legend=[
            (number_size_color(i, len(sizes)), f"{sweep.varied} {size}")
            for i, size in enumerate(sizes)
        ],
        reading=explain(result),
        facts=list_facts(result),
        command=command,
        seeds=sweep.settings.seeds,
        seconds=f"{result.seconds:.1f}",
        versions=write_versions(sweep.settings),
    )
