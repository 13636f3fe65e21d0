"""The page: one self-contained HTML file of a comparison."""

import base64
import json

import jinja2

from jaxinit.lab.comparison import Comparison, device, versions
from jaxinit.lab.table import caption, cells, header

_CAPTIONS = {
    "loss": "Training loss. A healthy initializer falls at once; one that stays on the "
    "dotted line has learnt nothing but the class frequencies.",
    "signals": "Before the first step, layer by layer. Level lines near 1 are healthy. "
    "A line that leaves the panel at the bottom vanishes, one that leaves it at the "
    "top explodes.",
    "weights": "All kernel entries before and after training.",
    "heatmaps": "One kernel in the middle of the network. Equal columns are equal "
    "units: the symmetry that training cannot break.",
    "biases": "Biases after training, by layer.",
}


def page(comparison: Comparison, pictures: dict[str, bytes], command: str) -> str:
    """Renders the page, with every picture inside it."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jaxinit.lab", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        title="What the initializer does to training",
        caption=caption(comparison),
        header=header(comparison),
        rows=[cells(comparison, row) for row in comparison.rows()],
        chance=comparison.task.chance,
        interrupted=comparison.interrupted,
        steps_done=comparison.steps_done,
        steps=comparison.settings.steps,
        pictures=[
            (name, base64.b64encode(png).decode(), _CAPTIONS[name])
            for name, png in pictures.items()
        ],
        command=command,
        seconds=comparison.seconds._asdict(),
        versions=json.dumps(versions() | {"device": device()["kind"]}),
    )
