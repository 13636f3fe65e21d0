"""The suite `orthogonal`: weights with orthonormal rows or columns."""

from bench.meters.row import Row
from bench.meters.settings import Settings
from bench.weight import verify
from bench.weight.draw import Draw, Shape
from bench.weight.families import build, spell
from bench.weight.measure import measure_draw, measure_draw_memory
from bench.weight.peers import NAMES, choose_peers

QUESTION = "orthonormal rows or columns, by the Haar measure"


def cases(quick: bool) -> list[Draw]:
    """Returns the draws: squares, rectangles, float64, by QR, of a convolution."""
    return [
        _draw("orthogonal", (256, 256), quick),
        _draw("orthogonal", (1024, 1024), quick),
        _draw("orthogonal", (4096, 4096), quick),
        _draw("orthogonal", (4096, 512), quick),
        _draw("orthogonal", (512, 4096), quick),
        _draw("orthogonal", (1024, 1024), quick, "float64"),
        _draw("orthogonal", (1024, 1024), quick, method="qr"),
        _draw("delta_orthogonal", (3, 3, 512, 512), quick),
    ]


def measure(draw: Draw, settings: Settings) -> Row:
    """Times a draw beside its peers and a product of matrices."""
    return measure_draw("orthogonal", draw, settings)


measure_memory = measure_draw_memory


def _draw(
    name: str, shape: Shape, quick: bool, dtype: str = "float32", method: str = ""
) -> Draw:
    toy = tuple(size if size < 8 else max(size // 256, 2) for size in shape)
    ours, theirs = build(name, **({"method": method} if method else {}))
    others = ("jax",) if name == "delta_orthogonal" else NAMES
    return Draw(
        name=spell(name, shape, "" if dtype == "float32" else dtype, method),
        shape=toy if quick else shape,
        dtype=dtype,
        init=ours,
        law="orthogonal",
        verify=verify.check_bits if method == "qr" else verify.check_orthogonality,
        theirs=theirs,
        peers=choose_peers(*others),
    )
