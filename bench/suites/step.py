"""The suite `step`: a step of AdamW with factors by parameter, beside optax's own.

Both update the same tree from the same state, in one compiled program each. A third of
the kernels and all vectors are as in the base model; the others have factors on
learning rate, ε and decay. Where all factors are 1, the bits are optax's.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bench.meters.race import Contender
from bench.meters.row import (
    KEY,
    Case,
    Row,
    Unverified,
    add_times,
    start_row,
    verify_row,
)
from bench.meters.settings import Settings
from jaxinit._structure.result import TracedParameter
from jaxinit.scaling import ScaledParameter, _transforms

QUESTION = "a step of AdamW with factors by parameter"
_GROWTH = 4.0  # of the width


@dataclass(frozen=True, kw_only=True)
class Step(Case):
    """A step over a stack of kernels, each with a vector; the shape is that of all."""


def cases(quick: bool) -> list[Step]:
    """Returns one step over 25 million parameters."""
    full = (96, 512, 512)
    name = f"adamw {'×'.join(map(str, full))}"
    return [Step(name=name, shape=(6, 4, 4) if quick else full)]


def measure(case: Step, settings: Settings) -> Row:
    """Times both steps by turns."""
    row = start_row(case)
    params = {
        f"layer_{number}": {"bias": jnp.ones(case.shape[1:2]), "kernel": kernel}
        for number, kernel in enumerate(
            jax.random.normal(jax.random.key(KEY), case.shape)
        )
    }
    plain = optax.adamw(1e-3)
    given = jax.block_until_ready((params, params, plain.init(params)))
    ways = {"ours": _scale(params, _GROWTH), "optax": plain}
    contenders = {
        name: Contender(_make_step(way), lambda _: given, jitted=True)
        for name, way in ways.items()
    }

    def compare() -> str:
        same = _make_step(_scale(params, 1.0))(given)
        pairs = zip(
            *map(jax.tree.leaves, (same, contenders["optax"].once())), strict=True
        )
        if not all(np.array_equal(a, b) for a, b in pairs):
            raise Unverified("factors of 1 give other values than optax.")
        return "the same bits where all factors are 1"

    if verify_row(row, compare):
        add_times(row, settings.race(contenders))
    return row


def _make_step(optimizer: Any) -> Any:
    @jax.jit
    def step(given: Any) -> Any:
        params, gradients, state = given
        with jax.numpy_dtype_promotion("standard"):  # as optax needs it
            updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    return step


def _scale(params: Any, growth: float) -> Any:
    """Returns AdamW with muP's factors: two of three kernels are hidden."""
    rows = {}
    for number, (name, layer) in enumerate(params.items()):
        for part, leaf in layer.items():
            path, hidden = f"{name}/{part}", part == "kernel" and number % 3 > 0
            traced = TracedParameter(
                path=path, shape=leaf.shape, dtype=leaf.dtype, roles=("hidden",)
            )
            rows[path] = ScaledParameter(
                path=path,
                base=path,
                traced=traced,
                traced_base=traced,
                kind="hidden" if hidden else "vector",
                in_block=False,
                lr={"adam": 1 / growth if hidden else 1.0},
                eps=1 / growth,
                decay=growth if hidden else 1.0,
            )
    return _transforms.adamw(rows, 1e-3)
