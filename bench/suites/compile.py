"""The suite `compile`: how long tracing and compiling a draw takes, ours and JAX's.

Each time a new function is compiled, after JAX has forgotten all that it compiled.
"""

from dataclasses import dataclass
from typing import Any

import jax

from bench.meters.race import Contender
from bench.meters.row import Case, Row, add_times, start_row
from bench.meters.settings import Settings
from bench.weight.draw import Init
from bench.weight.families import LAWS, TOY, build, spell

QUESTION = "seconds to trace and compile"


@dataclass(frozen=True, kw_only=True)
class Program(Case):
    """A draw that is compiled and not run.

    Attributes:
      init: our initializer.
      theirs: JAX's.
    """

    init: Any
    theirs: Init


def cases(quick: bool) -> list[Program]:
    """Returns the programs: each law on a matrix and on a kernel, then Haar draws."""
    sizes = [
        (name, shape, toy)
        for shape, toy in (((512, 512), TOY), ((3, 3, 64, 64), (1, 1, *TOY)))
        for name in LAWS
    ]
    sizes += [
        ("orthogonal", (1024, 1024), (4, 4)),
        ("delta_orthogonal", (3, 3, 1024, 1024), (3, 3, 4, 4)),
    ]
    programs = []
    for name, shape, toy in sizes:
        ours, theirs = build(name)
        programs.append(
            Program(
                name=spell(name, shape),
                shape=toy if quick else shape,
                init=ours,
                theirs=theirs,
            )
        )
    return programs


def measure(program: Program, settings: Settings) -> Row:
    """Times tracing and compiling."""
    row = start_row(program)
    shape, dtype = program.shape, program.dtype
    key = jax.random.key(0)
    abstract = jax.eval_shape(lambda key: program.init(key, shape, dtype), key)
    row["found"] = f"{abstract.dtype}{list(abstract.shape)}"
    row["verified"] = (abstract.shape, abstract.dtype) == (shape, dtype)
    if not row["verified"]:
        return row

    def contender(init: Init) -> Contender:
        def prepare(repeat: int) -> Any:
            jax.clear_caches()
            return jax.jit(lambda key: init(key, shape, dtype))

        return Contender(
            lambda jitted: jitted.lower(key).compile(), prepare, lambda _: None
        )

    contenders = {"ours": contender(program.init)}
    if "jax" in settings.peers:
        contenders["jax"] = contender(program.theirs)
    add_times(row, settings.race(contenders, warm=False))
    return row
