"""The large plot of the page: all loss curves over each other, drawn by Bokeh.

Bokeh itself is inside the page, packed, so that hovering and zooming work offline. The
page's script gives the lines the page's own colors. Where no script runs, and on paper,
there is a picture instead.
"""

import base64
import functools
import gzip
from typing import Any, NamedTuple

import bokeh as bokeh  # so that its absence shows before a run, not after it
import numpy as np
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup
from matplotlib.axes import Axes

from jaxinit.lab._result.outcome import Outcome
from jaxinit.lab._show._marks import Panel, choose_color, name_axes, set_logarithmic
from jaxinit.lab._show.plots import (
    compute_curves,
    draw_chance,
    draw_curve,
    limit_losses,
)
from jaxinit.lab._show.svg import LARGE, svg

_TOOLS = "box_zoom,wheel_zoom,pan,reset"
_NUMBERS = "{%.3g}"


class Overlay(NamedTuple):
    """The plot, in both of its forms.

    Attributes:
      picture: without scripts.
      plot: what Bokeh makes the plot of, as JSON that a script may hold.
      library: Bokeh's script, compressed, in base 64.
    """

    picture: Markup
    plot: Markup
    library: str


def overlay(comparison: Outcome) -> Overlay:
    """Draws the curves of all initializers over each other."""
    specs = [repr(init) for init in comparison.settings.initializers]
    label = f"Training loss of {', '.join(specs)}"
    picture = svg(_draw_all(comparison), 0, "curves", label, LARGE)
    plot = htmlsafe_json_dumps(_plot(comparison, specs))  # in order, as Bokeh needs it
    return Overlay(picture, plot, _pack_library())


def _draw_all(comparison: Outcome) -> Panel:
    """Returns the function that draws all curves in one panel."""
    curves = compute_curves(comparison)
    limits = limit_losses(comparison, *np.moveaxis(curves, 1, 0))

    def draw(axis: Axes, index: int) -> None:
        set_logarithmic(axis, limits)
        draw_chance(axis, comparison)
        for place, ends in enumerate(curves):
            draw_curve(axis, comparison.steps, ends, choose_color(place), band=False)
        name_axes(axis, "step", "training loss")

    return draw


def _plot(comparison: Outcome, specs: list[str]) -> Any:
    """Makes the plot: a line and the band of its interval for each initializer."""
    from bokeh.core.types import ID
    from bokeh.embed import json_item
    from bokeh.models import ColumnDataSource, PrintfTickFormatter, Range1d
    from bokeh.models.annotations import Span
    from bokeh.plotting import figure

    curves = compute_curves(comparison)
    low, high = limit_losses(comparison, *np.moveaxis(curves, 1, 0))
    plot = figure(
        sizing_mode="stretch_both",
        tools=_TOOLS,
        active_drag="box_zoom",
        y_axis_type="log",
        y_range=Range1d(start=low, end=high),
        x_axis_label="step",
        y_axis_label="training loss",
        background_fill_alpha=0,
        border_fill_alpha=0,
        outline_line_alpha=0,
    )
    plot.toolbar.logo = None
    plot.yaxis.formatter = PrintfTickFormatter(format="%g")
    lines = []
    for place, (spec, ends) in enumerate(zip(specs, curves, strict=True)):
        columns = dict(zip(("mean", "low", "high"), ends, strict=True))
        columns |= {"step": comparison.steps, "spec": [spec] * len(comparison.steps)}
        data = ColumnDataSource(columns)
        band = plot.varea("step", "low", "high", source=data, fill_alpha=0.2)
        line = plot.line("step", "mean", source=data, line_width=2)
        band.tags, line.tags = [place], [place]
        band.visible = False
        lines.append(line)
    chance = comparison.task.chance
    plot.add_layout(Span(location=chance, dimension="width", line_dash="dotted"))
    plot.add_tools(_hover(lines))
    return json_item(plot, ID("curves-plot"))


def _hover(lines: list[Any]) -> Any:
    """Makes the tool that shows the values of a line's nearest point."""
    from bokeh.models import HoverTool

    names = ("mean", "low", "high")
    mean, low, high = (f"@{name}{_NUMBERS}" for name in names)
    rows = [("", "@spec"), ("step", "@step"), ("loss", mean)]
    return HoverTool(
        renderers=lines,
        tooltips=[*rows, ("95 %", f"{low} to {high}")],
        formatters={f"@{name}": "printf" for name in names},
        line_policy="nearest",
        point_policy="snap_to_data",
    )


@functools.cache
def _pack_library() -> str:
    """Returns Bokeh's script for browsers, compressed, in base 64."""
    from bokeh.resources import Resources

    script = Resources("inline", components=["bokeh"]).js_raw[0]
    return base64.b64encode(gzip.compress(script.encode(), mtime=0)).decode()
