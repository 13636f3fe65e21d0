"""The suite `draws`: independent entries, from one to millions, jitted and eager."""

from bench.meters.row import Row
from bench.meters.settings import Settings
from bench.weight.draw import Draw
from bench.weight.families import LARGE, TOY, draw_independent
from bench.weight.measure import measure_draw, measure_draw_memory

QUESTION = "float32 draws of independent entries"

_BUILDERS = (
    *("uniform", "normal", "truncated_normal", "variance_scaling"),
    *("lecun_normal", "he_normal", "glorot_uniform", "glorot_normal"),
)
_SMALL_BUILDERS = ("uniform", "normal", "truncated_normal", "he_normal")
_SIDES = (1, 3, 10, 100, 1000)


def cases(quick: bool) -> list[Draw]:
    """Returns the draws: every builder at one size, then some at all sizes."""
    sizes = [(name, LARGE) for name in _BUILDERS]
    sizes += [(name, (side, side)) for side in _SIDES for name in _SMALL_BUILDERS]
    return [
        draw_independent(
            name,
            TOY if quick and shape[0] > 3 else shape,
            label=shape,
            eager=True,
        )
        for name, shape in sizes
    ]


def measure(draw: Draw, settings: Settings) -> Row:
    """Times a draw beside its peers and a plain fill."""
    return measure_draw("draws", draw, settings)


measure_memory = measure_draw_memory
