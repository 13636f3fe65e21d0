"""The page: one self-contained HTML file of a comparison."""

import json
import math
from typing import Any

import jinja2
from markupsafe import Markup

from jaxinit._panels import COLORS
from jaxinit._table import GROUND, STYLE
from jaxinit._text import plural
from jaxinit.lab._result.answer import answer
from jaxinit.lab._result.health import ROWS, SEEDS
from jaxinit.lab._result.outcome import Outcome
from jaxinit.lab._result.statistics import INTERVAL
from jaxinit.lab._show._marks import Style
from jaxinit.lab._show._overlay import overlay
from jaxinit.lab._show.plots import Plot, select_plots
from jaxinit.lab._show.svg import SMALL, WIDE, svg
from jaxinit.lab._show.table import caption, chance, list_columns, rank_rows
from jaxinit.lab._train._environment import describe_device, read_versions
from jaxinit.lab._tried.settings import Settings


def page(comparison: Outcome, command: str) -> str:
    """Renders the page, with every picture inside it.

    Args:
      comparison: what `compare` returned.
      command: the command that repeats the run, or "".
    """
    settings, task = comparison.settings, comparison.task
    specs = [repr(init) for init in settings.initializers]
    columns = list_columns(comparison)
    health, ranked = comparison.health, rank_rows(comparison)
    return render(
        "page.html",
        title="What the initializer does to training",
        answer=answer(comparison),
        facts=_list_facts(comparison),
        header=[column.head for column in columns],
        rows=[
            (
                index,
                row.trained,
                [(c.cell(row), _write_key(c.key(row))) for c in columns],
            )
            for index, row in ranked
        ],
        failed=[row.initializer for _, row in ranked if not row.trained],
        overlay=overlay(comparison) if len(comparison.steps) else None,
        interval=INTERVAL,
        copies=not comparison.distinct.all(),
        dropout=settings.dropout > 0,
        signals=comparison.signals is not None,
        specs=specs,
        chance=chance(task, settings),
        interrupted=comparison.interrupted,
        steps_done=comparison.steps_done,
        steps=settings.steps,
        sections=_draw_sections(comparison, specs),
        moments=comparison.probe_steps.tolist(),
        health=health if isinstance(health, list) else None,
        no_health=health if isinstance(health, str) else None,
        judged=(min(SEEDS, settings.seeds), min(ROWS, len(task.x_train))),
        command=command,
        seeds=settings.seeds,
        seconds=comparison.seconds._asdict(),
        versions=write_versions(settings),
    )


def render(template: str, **content: Any) -> str:
    """Fills a template in, which has the colors of the plots."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jaxinit.lab._show", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    palette = list(zip(_LIGHT, _DARK, strict=True))
    return environment.get_template(template).render(
        colors=len(COLORS), palette=palette, dress=Markup(GROUND + STYLE), **content
    )


def write_versions(settings: Settings) -> str:
    """Returns the versions of packages and the kind of device, as JSON text."""
    here = {"device": describe_device(settings.device)["kind"]}
    return json.dumps(read_versions() | here)


def _list_facts(comparison: Outcome) -> list[str]:
    """Returns the facts of the run, a phrase each."""
    task, s = comparison.task, comparison.settings
    rates = ", ".join(f"{rate:g}" for rate in s.learning_rates)
    about = caption(comparison).partition("; each row")[0]  # then: how to read it
    return [
        *about.split("; "),
        f"learning rates {rates}",
        f"{plural(len(task.x_train), 'training row')}, "
        f"{plural(len(task.x_test), 'test row')}; "
        f"chance has a loss of {chance(task, s)}",
    ]


def _write_key(value: str | float | None) -> str:
    """Writes the value that a click sorts by; "" if it is missing."""
    if isinstance(value, str):
        return value
    if value is None or math.isnan(value):
        return ""
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return repr(float(value))


def _draw_sections(
    comparison: Outcome, specs: list[str]
) -> list[tuple[str, Plot, list[tuple[str, str]], list[Markup]]]:
    """Draws the panels of each plot: (name, plot, key, pictures)."""
    sections = []
    for name, plot in select_plots(comparison).items():
        draw, size = plot.panel(comparison), WIDE if plot.wide else SMALL
        pictures = [
            svg(draw, i, f"{name}{i}", f"{plot.title}: {spec}", size)
            for i, spec in enumerate(specs)
        ]
        key = [(text, _write_style(style)) for text, style in plot.key(comparison)]
        sections.append((name, plot, key, pictures))
    return sections


def _write_style(style: Style) -> str:
    """Writes the style of a line as that of a border."""
    form = {"--": "dashed", ":": "dotted"}.get(style.get("linestyle", ""), "solid")
    width = max(2 if form == "dotted" else 1, style["linewidth"])
    return f"border-top: {width:g}px {form}; opacity: {style.get('alpha', 1):.2f}"


# The colors of the plots, a little darker where they are faint on white, and lighter
# for a dark ground.
_LIGHT = (
    *("#cc6677", "#332288", "#b39b1f", "#117733", "#3f9fd0", "#882255"),
    *("#44aa99", "#85852b", "#aa4499", "#ee7733", "#4477aa", "#555555"),
)
_DARK = (
    *("#e48a98", "#9a92ee", "#ddcc77", "#4fb870", "#88ccee", "#dd6fa8"),
    *("#5cc9b6", "#b9b94d", "#d67ac6", "#f08c4e", "#7aa9dd", "#b5b5b5"),
)
