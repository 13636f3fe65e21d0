"""Draws the pictures of the site: ``python jaxinit/docs/gallery.py [NAME...]``.

Each is what a result's own ``plot()`` shows, with fixed keys, made small. Needs the
extra ``lab``; all of them take some minutes.
"""

import functools
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import flax.linen as nn
import jax
import optax
from PIL import Image

import jaxinit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURES = Path(__file__).parent / "pages" / "pictures"
BENCH = Path(__file__).parents[2] / "bench" / "results" / "cpu-2-intel-2026-11"
KEY = jax.random.key(0)


@functools.cache
def compare() -> jaxinit.lab.Comparison:
    """Trains a network under six initializers."""
    specs = ["he_normal()", "orthogonal(gain='relu')", "glorot_normal()", "identity()"]
    specs += ["normal(0.02)", "normal(1.0)"]
    return jaxinit.lab.compare(specs, learning_rates=[3e-4, 1e-3], seeds=3)


def check(gain: float) -> jaxinit.signal.SignalReport:
    """Checks a network of thirty relu layers."""
    he = jaxinit.he_normal(gain=gain)
    layers = [f for _ in range(30) for f in (nn.Dense(64, kernel_init=he), nn.relu)]
    x = jax.random.normal(jax.random.key(1), (64, 64))
    return jaxinit.check(nn.Sequential(layers), x, key=KEY, seeds=8)


def describe(what: str) -> "Figure":
    """Draws weights of six families."""
    inits = ["he_normal()", "glorot_uniform()", "truncated_normal(0.1)"]
    inits += ["orthogonal()", "sparse(0.8, stddev=0.4)", "identity()"]
    drawn = {spec: jaxinit.parse(spec)(KEY, (64, 64)) for spec in inits}
    return jaxinit.describe(drawn).plot(what)


def coordinate_check(scaled: bool) -> "Figure":
    """Draws how outputs grow with the width, with and without muP."""

    def net(width: int) -> nn.Module:
        hidden = [nn.Dense(width), nn.relu, nn.Dense(width), nn.relu]
        return nn.Sequential([*hidden, nn.Dense(10)])

    x = jax.random.normal(jax.random.key(1), (32, 16))
    rules = [("role:kernel", jaxinit.he_normal()), ("role:bias", 0.0)]
    chosen = {"optimizer": optax.adamw(1e-3)}
    if scaled:
        chosen = {
            "optimizer": lambda scale: scale.adamw(1e-3),
            "scaling": jaxinit.scaling.mup,
        }
    widths = (64, 128, 256, 512)
    report = jaxinit.scaling.coordinate_check(
        net, widths, x, key=KEY, rules=rules, **chosen
    )
    return report.plot()


def transfer() -> "Figure":
    """Draws the best learning rate of four widths, standard and muP."""
    result = jaxinit.lab.transfer(
        widths=[32, 64, 128, 256], depth=3, steps=150, seeds=2, lr_step=4.0
    )
    return result.plot()


def calibrate() -> "Figure":
    """Draws the standard deviations of thirty tanh layers, before and after."""
    layers = [f for _ in range(30) for f in (nn.Dense(64), jax.numpy.tanh)]
    x = jax.random.normal(jax.random.key(1), (64, 64))
    return jaxinit.calibrate(nn.Sequential(layers), x, key=KEY)[1].plot()


def draws() -> "Figure":
    """Draws the times of large weights beside those of the peers, from the bench."""
    from matplotlib.figure import Figure

    results = json.loads((BENCH / "draws-sparse.json").read_text())["suites"]["draws"]
    rows = [row for row in results if row["case"].endswith("4096×4096")]
    figure = Figure((7, 3.4), layout="constrained")
    axis = figure.subplots()
    for place, (name, label) in enumerate(
        [
            ("ours", "jaxinit"),
            ("jax", "jax.nn.initializers, jitted"),
            ("torch", "torch"),
        ]
    ):
        times = [1e3 * row["times"][name]["median_s"] for row in rows]
        at = [i + 0.27 * (place - 1) for i in range(len(rows))]
        axis.barh(at, times, 0.25, label=label, color=f"C{place}")
    axis.set_yticks(range(len(rows)), [row["case"].split()[0] for row in rows])
    axis.invert_yaxis()
    axis.set(xscale="log", xlabel="milliseconds for 4096 × 4096 entries of float32")
    axis.legend(
        frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3
    )
    axis.spines[["top", "right"]].set_visible(False)
    return figure


# In the order of the page.
GALLERY: dict[str, Callable[[], "Figure"]] = {
    "compare-loss": lambda: compare().plot("loss"),
    "compare-signals": lambda: compare().plot("signals"),
    "compare-heatmaps": lambda: compare().plot("heatmaps"),
    "check-sick": lambda: check(1.0).plot(),
    "check-cured": lambda: check(2**0.5).plot(),
    "describe-histogram": lambda: describe("histogram"),
    "describe-heatmap": lambda: describe("heatmap"),
    "coordinate-standard": lambda: coordinate_check(scaled=False),
    "coordinate-mup": lambda: coordinate_check(scaled=True),
    "transfer": transfer,
    "calibrate": calibrate,
    "draws": draws,
}


def write(name: str) -> None:
    """Writes a picture, in few colors."""
    buffer = io.BytesIO()
    GALLERY[name]().savefig(buffer, format="png", dpi=110)
    picture = Image.open(buffer).convert("RGB").quantize(96, dither=Image.Dither.NONE)
    PICTURES.mkdir(exist_ok=True)
    picture.save(PICTURES / f"{name}.png", optimize=True)


if __name__ == "__main__":
    for chosen in sys.argv[1:] or GALLERY:
        write(chosen)
        print(f"{chosen}.png: {(PICTURES / f'{chosen}.png').stat().st_size // 1000} kB")
