"""Panels as SVG for the page: small, without addresses, in the page's own colors.

The page colors text and marks by its own variables, so that one picture suits both
light and dark.
"""

import io
import re
from typing import Any

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxinit._panels import COLORS
from jaxinit.lab._show._marks import FAINT, INK, MIDDLE, Panel

Size = tuple[int, int]  # width and height, each unit about one pixel on the screen

SMALL, WIDE, LARGE = (200, 150), (330, 145), (560, 320)
# What stands beside the axes: left, below, right, above; maps name no axes.
_MARGINS = {SMALL: (45, 33, 4, 19.5), WIDE: (2, 26, 2, 19.5), LARGE: (45, 33, 4, 19.5)}
_TEXT = 12.5  # units high: 11 pixels on a phone, where two panels stand side by side
_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: it has the page's font, and is small
    "svg.hashsalt": "jaxinit",  # names of parts are equal in every run
    "image.composite_image": False,
    "text.parse_math": False,
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), INK
    ),
    "axes.edgecolor": MIDDLE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": _TEXT,
    "xtick.labelsize": _TEXT,
    "ytick.labelsize": _TEXT,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.major.pad": 2,
    "ytick.major.pad": 2,
}
# The colors of a picture, and those of the page that replace them.
_REPLACEMENTS = {
    INK: "currentColor",
    MIDDLE: "var(--middle)",
    FAINT: "var(--faint)",
    **{color: f"var(--c{i})" for i, color in enumerate(COLORS)},
}


def svg(draw: Panel, index: int, name: str, label: str, size: Size = SMALL) -> Markup:
    """Draws one panel.

    Args:
      draw: draws it on an axis.
      index: the index of the initializer.
      name: the picture's name, unlike that of any other in the page.
      label: what the picture shows, for those who cannot see it.
      size: of the picture.
    """
    width, height = size
    left, below, right, above = _MARGINS[size]
    box = left, below, width - left - right, height - below - above
    with mpl.rc_context(_STYLE):
        figure = Figure((width / 72, height / 72))
        figure.patch.set_visible(False)
        axis: Axes = figure.add_axes(
            (box[0] / width, box[1] / height, box[2] / width, box[3] / height)
        )
        axis.patch.set_visible(False)
        draw(axis, index)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None}, transparent=True)
    return Markup(_inline(file.getvalue(), name, label, size))


def _inline(text: str, name: str, label: str, size: Size) -> str:
    """Turns an SVG file into a fragment: metadata and styles dropped, ids prefixed."""
    text = text[text.index("<svg") :]
    body = text[text.index(">") + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)
    body = body.replace("xlink:href", "href")
    used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', body))

    def rename(match: re.Match[str]) -> str:
        return f' id="{name}-{match[1]}"' if match[1] in used else ""

    body = re.sub(r' id="([^"]*)"', rename, body)
    body = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", body)
    body = re.sub("|".join(_REPLACEMENTS), lambda match: _REPLACEMENTS[match[0]], body)
    body = re.sub(r"\s*\n\s*", "\n", body)
    body = re.sub(r' d="[^"]*"', lambda match: _round(match[0]), body)
    box = f"0 0 {size[0]} {size[1]}"
    return f'<svg viewBox="{box}" role="img" aria-label="{escape(label)}">{body}'


def _round(path: str) -> str:
    """Rounds the numbers of a path to a hundredth of a unit."""
    return re.sub(r"-?\d+\.\d{3,}", lambda match: f"{float(match[0]):.2f}", path)
