"""The suite `sparse`: weights with as many zeros in each column as asked for."""

import jaxinit
from bench.meters.row import Row
from bench.meters.settings import Settings
from bench.weight import verify
from bench.weight.draw import Draw
from bench.weight.families import LARGE, spell
from bench.weight.measure import measure_draw, measure_draw_memory
from bench.weight.peers import choose_peers

QUESTION = "an exact share of zeros in each column"


def cases(quick: bool) -> list[Draw]:
    """Returns the draws, with few zeros and with many."""
    return [
        Draw(
            name=spell(f"sparse({sparsity})", LARGE),
            shape=(20, 10) if quick else LARGE,
            init=jaxinit.sparse(sparsity),
            law="sparse",
            verify=verify.check_zeros(sparsity),
            peers=choose_peers("torch"),
        )
        for sparsity in (0.1, 0.9)
    ]


def measure(draw: Draw, settings: Settings) -> Row:
    """Times a draw beside torch's and a plain fill."""
    return measure_draw("sparse", draw, settings)


measure_memory = measure_draw_memory
