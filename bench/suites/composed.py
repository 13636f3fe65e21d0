"""The suite `composed`: arithmetic on initializers, tables, and adapters.

- a draw times a number, beside the draw alone ("plain") and JAX's program of both;
- tables of sines, and HiPPO's matrix, beside NumPy's;
- PiSSA by a randomized factorization, beside that by an exact one ("svd").
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

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
from bench.weight.draw import Shape

QUESTION = "arithmetic on initializers, tables, and adapters"
_RANK = 64


@dataclass(frozen=True, kw_only=True)
class Composed(Case):
    """What can be made in several ways.

    Attributes:
      ways: by contender, ours first, a function of a key; the last makes the same.
      tolerance: by how much its result may differ.
    """

    ways: Mapping[str, Callable[[jax.Array], Any]]
    tolerance: float = 0.0


def cases(quick: bool) -> list[Composed]:
    """Returns a draw times a number, both tables, and the adapter."""

    def size(full: int) -> int:
        return 16 if quick else full

    return [
        _draw((size(4096), size(4096)), "he_normal * 0.5 4096×4096"),
        _sines((size(4096), size(1024)), "sinusoidal 4096×1024"),
        _hippo((size(1024), size(1024)), "hippo_legs 1024×1024"),
        _pissa((size(4096), size(4096)), f"pissa {_RANK} of 4096×4096"),
    ]


def measure(case: Composed, settings: Settings) -> Row:
    """Times the ways, by turns."""
    row, key = start_row(case), jax.random.key(KEY)

    def compare() -> str:
        first, *_, last = case.ways.values()
        far = float(abs(np.asarray(first(key)) - np.asarray(last(key))).max())
        if far > case.tolerance:
            raise Unverified(f"differs by {far:.2g}.")
        return f"within {case.tolerance:g}" if case.tolerance else "the same bits"

    if verify_row(row, compare):
        add_times(row, settings.race({n: Contender(m) for n, m in case.ways.items()}))
    return row


def _draw(shape: Shape, name: str) -> Composed:
    he, theirs = jaxinit.he_normal(), jax.nn.initializers.he_normal()
    half = he * 0.5
    both = jax.jit(lambda key: theirs(key, shape) * 0.5)
    ways: dict[str, Callable[[jax.Array], Any]] = {
        "ours": lambda key: half(key, shape),
        "plain": lambda key: he(key, shape),
        "jax": both,
    }
    return Composed(name=name, shape=shape, ways=ways)


def _sines(shape: Shape, name: str) -> Composed:
    init = jaxinit.sinusoidal()

    def by_numpy(key: jax.Array) -> np.ndarray:
        places, half = np.arange(shape[0])[:, None], np.arange(shape[1] // 2)
        angles = places * 10_000.0 ** (-2 * half / shape[1])
        table = np.empty(shape, np.float32)
        table[:, ::2], table[:, 1::2] = np.sin(angles), np.cos(angles)
        return table

    ways: dict[str, Callable[[jax.Array], Any]] = {
        "ours": lambda key: init(key, shape),
        "numpy": by_numpy,
    }
    return Composed(name=name, shape=shape, ways=ways, tolerance=1e-6)


def _hippo(shape: Shape, name: str) -> Composed:
    init = jaxinit.ssm.hippo_legs()

    def by_numpy(key: jax.Array) -> np.ndarray:
        roots = np.sqrt(2 * np.arange(shape[0]) + 1.0)
        legs = -np.tril(np.outer(roots, roots), -1) - np.diag(np.arange(shape[0]) + 1.0)
        return legs.astype(np.float32)

    ways: dict[str, Callable[[jax.Array], Any]] = {
        "ours": lambda key: init(key, shape),
        "numpy": by_numpy,
    }
    return Composed(name=name, shape=shape, ways=ways, tolerance=1e-3)


def _pissa(shape: Shape, name: str) -> Composed:
    rank = min(_RANK, shape[0] // 2)
    made: dict[str, jax.Array] = {}

    def weight() -> jax.Array:
        if not made:  # with singular values that fall, as those of trained weights
            left, right = jax.random.normal(jax.random.key(KEY), (2, *shape))
            made["w"] = left @ (right / jnp.arange(1.0, shape[0] + 1)[:, None])
        return made["w"]

    def randomized(key: jax.Array) -> jax.Array:
        return jaxinit.lora.pissa(weight(), rank, key=key).merged

    def exact(key: jax.Array) -> jax.Array:
        return jaxinit.lora.pissa(weight(), rank).merged

    ways: dict[str, Callable[[jax.Array], Any]] = {"ours": randomized, "svd": exact}
    return Composed(name=name, shape=shape, ways=ways, tolerance=1e-2)
