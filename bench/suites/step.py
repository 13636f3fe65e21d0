"""The suite `step`: a step of AdamW with factors by parameter, beside optax's own.

Both update the same tree from the same state, in one compiled program each. Factors
are muP's, on learning rate, ε and decay, for a perceptron that was tuned at a quarter
of the width. Where nothing grows, the bits are optax's.
"""

import itertools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxinit
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

QUESTION = "a step of AdamW with factors by parameter"
_FEATURES = 8


@dataclass(frozen=True, kw_only=True)
class Step(Case):
    """A step over a perceptron; the shape is that of its hidden kernels."""


def cases(quick: bool) -> list[Step]:
    """Returns one step over 25 million parameters."""
    full = (96, 512, 512)
    name = f"adamw {'×'.join(map(str, full))}"
    return [Step(name=name, shape=(6, 4, 4) if quick else full)]


def measure(case: Step, settings: Settings) -> Row:
    """Times both steps by turns."""
    row = start_row(case)
    layers, width, _ = case.shape
    params = _perceptron(width, layers + 1)[0](jax.random.key(KEY))
    plain = optax.adamw(1e-3)
    given = jax.block_until_ready((params, params, plain.init(params)))
    ways = {"ours": _scale(width, width // 4, layers + 1), "optax": plain}
    contenders = {
        name: Contender(_make_step(way), lambda _: given, jitted=True)
        for name, way in ways.items()
    }

    def compare() -> str:
        same = _make_step(_scale(width, width, layers + 1))(given)
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


def _scale(width: int, base: int, layers: int) -> Any:
    """Returns AdamW with muP's factors for a perceptron that was tuned at a width."""
    x = jnp.ones((1, _FEATURES))
    small, large = _perceptron(base, layers), _perceptron(width, layers)
    return jaxinit.scaling.mup(small, large, x).adamw(1e-3)


def _perceptron(width: int, layers: int) -> Any:
    """Returns a model as a pair of functions: linear layers with biases."""
    sizes = [_FEATURES, *[width] * layers, _FEATURES]

    def init(key: jax.Array) -> Any:
        return {
            f"layer_{i}": {"bias": jnp.ones(n), "kernel": jnp.ones((m, n))}
            for i, (m, n) in enumerate(itertools.pairwise(sizes))
        }

    def apply(params: Any, x: jax.Array) -> jax.Array:
        for i in range(len(sizes) - 1):
            x = jnp.tanh(
                x @ params[f"layer_{i}"]["kernel"] + params[f"layer_{i}"]["bias"]
            )
        return x

    return init, apply
