"""The suite `dtypes`: independent entries in other dtypes than float32."""

from bench.meters.row import Row
from bench.meters.settings import Settings
from bench.weight.draw import Draw
from bench.weight.families import LARGE, TOY, draw_independent
from bench.weight.measure import measure_draw, measure_draw_memory

QUESTION = "draws in other dtypes"

_REAL = ("uniform", "normal", "truncated_normal", "he_normal")
# JAX has no complex uniform or truncated law outside variance scaling.
_COMPLEX = ("normal", "variance_scaling", "lecun_uniform", "he_normal")


def cases(quick: bool) -> list[Draw]:
    """Returns the draws of each dtype."""
    return [
        draw_independent(name, TOY if quick else LARGE, dtype, label=LARGE)
        for dtype in ("bfloat16", "float16", "float64", "complex64")
        for name in (_COMPLEX if dtype == "complex64" else _REAL)
    ]


def measure(draw: Draw, settings: Settings) -> Row:
    """Times a draw beside its peers and a plain fill."""
    return measure_draw("dtypes", draw, settings)


measure_memory = measure_draw_memory
