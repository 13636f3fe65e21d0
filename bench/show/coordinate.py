"""The coordinate check of a transformer: with one AdamW for all widths, and by muP.

``python -m bench.show.coordinate FILE.png`` trains 2 × 5 widths × 5 seeds × 4 steps.
"""

import sys
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

import jaxinit
from jaxinit.scaling import CoordinateReport, coordinate_check, mup

WIDTHS = (64, 128, 256, 512, 1024)
RULES: list[Any] = [
    ("role:embedding", jaxinit.normal()),
    ("role:table", jaxinit.normal()),
]
RULES += [("role:kernel", jaxinit.lecun_normal()), ("role:gain", 1.0), ("*", 0.0)]
_SHOWN = "block_0/attend/q·k", "block_0/down", "block_1/down + stream", "readout"


class Block(nn.Module):
    """Attention and a feed-forward layer, each behind a norm."""

    width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Adds what both branches make."""
        y = nn.LayerNorm()(x)
        x = x + nn.MultiHeadDotProductAttention(num_heads=4, name="attend")(y, y)
        y = nn.Dense(4 * self.width, name="up")(nn.LayerNorm()(x))
        return x + nn.Dense(self.width, name="down")(nn.gelu(y))


class Transformer(nn.Module):
    """Two blocks between a table and a readout."""

    width: int

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Returns logits."""
        x = nn.Embed(64, self.width, name="embed")(tokens)
        draw = nn.initializers.normal()
        x = x + self.param("positions", draw, (tokens.shape[1], self.width))
        for i in range(2):
            x = Block(self.width, name=f"block_{i}")(x)
        x = nn.LayerNorm(name="last")(x)
        return nn.Dense(64, use_bias=False, name="readout")(x)


def measure() -> list[CoordinateReport]:
    """Checks the transformer with one AdamW for all widths, and by muP."""
    tokens = np.random.default_rng(0).integers(0, 64, (4, 16))
    key, model = jax.random.key(0), Transformer
    common: dict[str, Any] = {"key": key, "rules": RULES, "seeds": 5}
    plain = optax.adamw(1e-2, weight_decay=0.1)
    return [
        coordinate_check(model, WIDTHS, tokens, optimizer=plain, **common),
        coordinate_check(
            model,
            WIDTHS,
            tokens,
            scaling=mup,
            optimizer=lambda scale: scale.adamw(1e-2, weight_decay=0.1),
            **common,
        ),
    ]


def draw(reports: Sequence[CoordinateReport]) -> Figure:
    """Draws four of the layers, a row of panels for each report."""
    figure = Figure((11, 5.2), layout="constrained")
    panels = figure.subplots(2, len(_SHOWN), sharex=True, sharey="col")
    names = "one AdamW for all widths", "scaling.mup"
    for row, report, name in zip(panels, reports, names, strict=True):
        rows = {each.path: each for each in report.rows}
        row[0].set_ylabel(f"{name}\nmean |output|", fontsize=9)
        for panel, path in zip(row, _SHOWN, strict=True):
            values = rows[path].measured.values["output"]  # [sizes, seeds, steps + 1]
            middle = np.exp(np.log(values).mean(1))
            for step, line in enumerate(middle.T):
                color = colormaps["viridis"](0.9 * step / (len(middle.T) - 1))
                label = f"step {step}" if step else "start"
                panel.loglog(report.sizes, line, "o-", ms=3, color=color, label=label)
            verdict = rows[path].verdict
            fine = verdict in ("transfers", "grows behind others")
            shade = "black" if fine else "#a4262c"
            panel.set_title(f"{path}\n{verdict}", fontsize=9, color=shade)
            panel.set_xticks(report.sizes, [str(size) for size in report.sizes])
            panel.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
            panel.yaxis.set_major_formatter("{x:g}")
            panel.minorticks_off()
    for panel in panels[1]:
        panel.set_xlabel("width", fontsize=9)
    lines = panels[0][0].get_lines()
    figure.legend(handles=lines, loc="outside lower center", ncols=5, frameon=False)
    return figure


if __name__ == "__main__":
    found = measure()
    for each in found:
        print(each, end="\n\n")
    draw(found).savefig(sys.argv[1], dpi=90)
