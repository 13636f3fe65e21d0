"""The suite `kernels`: our programs for the same draw, or for the same moments.

Each program is held against the first, which is the one that users get by default.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp

from bench.meters.race import Contender
from bench.meters.row import (
    KEY,
    LIMIT,
    Case,
    Row,
    add_times,
    first_line,
    start_row,
    verify_row,
)
from bench.meters.settings import Settings
from bench.weight import verify
from bench.weight.draw import Init, Shape
from bench.weight.families import TOY, spell
from bench.weight.limit import limit_copy
from jaxinit import _moments, random

QUESTION = "our programs for one draw, or for moments, by impl"


@dataclass(frozen=True, kw_only=True)
class Kernel(Case):
    """A computation that several of our programs do.

    Attributes:
      run: takes an argument, shape and dtype, and ``impl``, the name of a program.
      impls: the names of the programs, except the one that users get by default.
      verify: takes the argument and the result of `run`; returns what it found, or
        raises `bench.meters.row.Unverified`.
      argument: makes the array that `run` takes; None if it takes a key.
    """

    run: Callable[..., jax.Array]
    impls: tuple[str, ...]
    verify: Callable[[jax.Array, jax.Array], str]
    argument: Callable[[], jax.Array] | None = None


# By law: ours, which takes impl too, and JAX's.
_DRAWS: dict[str, tuple[Init, Init]] = {
    "uniform": (random.uniform, jax.random.uniform),
    "normal": (random.normal, jax.random.normal),
    "truncated_normal": (
        lambda key, *rest, impl=None: random.truncated_normal(
            key, -2, 2, *rest, impl=impl
        ),
        lambda key, *rest: jax.random.truncated_normal(key, -2, 2, *rest),
    ),
}


def cases(quick: bool) -> list[Kernel]:
    """Returns the draws and the moments of each size."""
    kernels = []
    for label in ((1024, 1024), (8192, 8192)):
        shape = TOY if quick else label
        kernels += [_build_draw(law, shape, label) for law in _DRAWS]
        kernels.append(_build_moments(shape, label))
    return kernels


def _build_draw(law: str, shape: Shape, label: Shape) -> Kernel:
    ours, theirs = _DRAWS[law]

    def check_bits(key: jax.Array, weight: jax.Array) -> str:
        reference = jax.jit(lambda key: theirs(key, shape, "float32"))
        return verify.compare_bits(weight, reference(key))

    return Kernel(
        name=spell(f"random.{law}", label),
        shape=shape,
        run=ours,
        impls=("jax", "fused", "pallas", "paired"),
        verify=check_bits,
    )


def _build_moments(shape: Shape, label: Shape) -> Kernel:
    def run(
        x: jax.Array, shape: Shape, dtype: str, impl: Literal["pallas"] | None = None
    ) -> jax.Array:
        return jnp.stack(_moments.moments(x, impl=impl))

    return Kernel(
        name=spell("moments", label),
        shape=shape,
        run=run,
        impls=("pallas",),
        verify=verify.check_numbers,
        argument=lambda: jax.random.normal(jax.random.key(KEY), shape),
    )


def measure(kernel: Kernel, settings: Settings) -> Row:
    """Times the programs beside a copy of an array."""
    row = start_row(kernel)
    argument = kernel.argument() if kernel.argument else None

    def contender(impl: str | None) -> Contender:
        jitted = jax.jit(lambda x: kernel.run(x, kernel.shape, kernel.dtype, impl=impl))
        if argument is None:
            return Contender(jitted, jitted=True)
        return Contender(jitted, lambda repeat: argument, jitted=True)

    known = jax.random.key(KEY) if argument is None else argument
    contenders = {"ours": contender(None)}

    def check() -> str:
        row["compile_s"]["ours"] = contenders["ours"].compile()
        return kernel.verify(known, contenders["ours"].run(known))

    if not verify_row(row, check):
        return row
    ours = contenders["ours"].run(known)
    for impl in kernel.impls:
        if impl == "pallas" and jax.default_backend() == "cpu" and not settings.quick:
            row["left_out"][impl] = "is interpreted on a CPU"
            continue
        try:
            program = contender(impl)
            row["compile_s"][impl] = program.compile()
            verify.check_alike(program.run(known), ours, bits=impl != "paired")
            contenders[impl] = program
        except Exception as error:  # the others still race
            row["left_out"][impl] = first_line(error)
    limit = limit_copy(kernel.shape, kernel.dtype)
    timings = settings.race({**contenders, LIMIT: limit.contender})
    add_times(row, timings)
    row["limit"] = limit.rate(timings)
    row["gb_per_s"] = kernel.bytes / timings["ours"].median / 1e9
    return row
