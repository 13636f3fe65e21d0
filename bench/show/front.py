"""The picture of the README: the loss of each initializer in the default comparison.

``python -m bench.show.front RESULTS/results.json PICTURE.png`` draws it from what
``jaxinit compare --out RESULTS`` writes.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

_LEAST, _MOST = 2e-4, 12.0  # losses that are shown
_LONGEST = 34  # characters of a spec


def draw(results: dict[str, Any]) -> Figure:
    """Draws the median over seeds at the best rate, and the range of all seeds."""
    figure = Figure((9, 3.9), layout="constrained")
    axis = figure.subplots()
    rows = {row["initializer"]: row for row in results["table"]}
    entries = {entry["initializer"]: entry for entry in results["initializers"]}
    steps = results["block_end_steps"]
    for place, spec in enumerate(results["ranking"]):
        best = rows[spec]["learning_rate"]
        cells = [x for x in entries[spec]["cells"] if x["learning_rate"] == best]
        losses = np.array([x["loss"] for x in cells], float)  # [seeds, blocks]
        losses = np.where(np.isfinite(losses), losses, _MOST * 10)
        trains = bool(rows[spec]["trained"])
        color = colormaps["tab10"](place % 10) if trains else "#999999"
        style = {"linewidth": 1.8} if trains else {"linewidth": 1.2, "linestyle": "--"}
        label = spec if len(spec) <= _LONGEST else f"{spec[: _LONGEST - 1]}…"
        label += "" if trains else " – does not train"
        axis.plot(steps, np.median(losses, 0), color=color, label=label, **style)
        axis.fill_between(
            steps, losses.min(0), losses.max(0), color=color, alpha=0.12, linewidth=0
        )
    axis.set(yscale="log", ylim=(_LEAST, _MOST), xlim=(0, steps[-1]))
    axis.set(xlabel="training step", ylabel="training loss, median of the seeds")
    axis.grid(alpha=0.25)
    figure.legend(loc="outside right center", frameon=False, fontsize=8)
    return figure


def main(words: list[str]) -> None:
    """Reads the numbers, and writes the picture."""
    source, target = map(Path, words)
    draw(json.loads(source.read_text())).savefig(target, dpi=120)


if __name__ == "__main__":
    main(sys.argv[1:])
