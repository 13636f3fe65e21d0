"""The suite `check`: signal and gradient of all seeds, beside the ways it replaces.

Every contender starts cold, as a user does: JAX has forgotten what it compiled, and
tracing and compiling count. All measure a multilayer perceptron from many seeds:

- ours: `jaxinit.check`, in parts that do not depend on the seed;
- loop: one compiled program for the same statistics of one seed, called for each seed;
- eager: code as one writes it by hand: ``init``, ``apply`` with captured intermediates
  and a gradient for each seed, and the standard deviation of each.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxinit
from bench.meters import memory
from bench.meters.race import Contender, make_cold_key
from bench.meters.row import KEY, Case, Row, add_times, start_row
from bench.meters.settings import Settings
from bench.models import Perceptron
from jaxinit import _adapt
from jaxinit.signal._measure import _kept
from jaxinit.signal._measure._draw import Seed, draw_cotangents
from jaxinit.signal._measure.flow import run_model
from jaxinit.signal._measure.program import Program, prepare
from jaxinit.signal._measure.seeds import count_bytes
from jaxinit.signal._measure.summary import sum_up

QUESTION = "signal and gradient of all seeds, from cold"

# depth, and seeds, examples, width
_FULL, _TOY = (50, (32, 256, 256)), (2, (2, 4, 8))


@dataclass(frozen=True, kw_only=True)
class Health(Case):
    """A check of a perceptron; the shape is seeds, examples and width.

    Attributes:
      depth: the perceptron's layers, the readout among them.
    """

    depth: int

    @property
    def model(self) -> Perceptron:
        """The perceptron."""
        init, width = jaxinit.he_normal(), self.shape[-1]
        return Perceptron(self.depth - 1, init, width=width, outputs=width)


def cases(quick: bool) -> list[Health]:
    """Returns the one check; its name says the full size."""
    depth, shape = _TOY if quick else _FULL
    layers, sizes = _FULL
    name = f"check {layers} layers {'×'.join(map(str, sizes))}"
    return [Health(name=name, shape=shape, depth=depth)]


def measure(case: Health, settings: Settings) -> Row:
    """Measures the seconds from cold to all statistics."""
    row = start_row(case)
    seeds, *sizes = case.shape
    x = jax.random.normal(jax.random.key(KEY), sizes)
    make_key = jax.random.key if settings.quick else _make_cold_key
    contenders = {
        name: Contender(way, make_key, lambda _: None)
        for name, way in (
            ("ours", lambda key: _check(case.model, x, key, seeds)),
            ("loop", lambda key: _check_by_seed(case.model, x, key, seeds)),
            ("eager", lambda key: _apply_eagerly(case.model, x, key, seeds)),
        )
    }
    key = jax.random.key(KEY)
    stds = {name: contender.run(key) for name, contender in contenders.items()}
    error = float(np.abs(stds["ours"] / stds["loop"] - 1).max())
    row["found"] = f"loop's numbers to {error:.0e}"
    row["verified"] = bool(error < 1e-3 and stds["eager"].shape == stds["ours"].shape)
    if row["verified"]:
        add_times(row, settings.race(contenders, warm=False))
        if not settings.quick:
            row["memory"] = memory.measure_in_child("check", case.name)
    return row


def _make_cold_key(repeat: int) -> jax.Array:
    """Makes a key, after the check too has forgotten what it compiled."""
    _kept.forget()
    return make_cold_key(repeat)


def _check(model: Any, x: jax.Array, key: jax.Array, seeds: int) -> np.ndarray:
    report = jaxinit.check(model, x, key=key, seeds=seeds, jacobian=0)
    layers = [layer for layer in report.layers if layer.kind == "dense"]
    return np.stack([layer.forward["std"] for layer in layers])


def _prepare(model: Any, x: jax.Array, key: jax.Array) -> tuple[Any, Program]:
    adapted = _adapt.adapt.adapt(model, (x,), {}, ("dropout",))
    return adapted, prepare(adapted, (x,), key)


def _check_by_seed(model: Any, x: jax.Array, key: jax.Array, seeds: int) -> np.ndarray:
    adapted, program = _prepare(model, x, key)

    @jax.jit
    def one(key: jax.Array) -> Any:
        first, noise, last = jax.random.split(key, 3)
        cotangents = draw_cotangents(program, last)
        seed = Seed(adapted.init(first), noise, cotangents, None)
        return sum_up(program, run_model(program, seed, (x,)))

    by_seed = jax.device_get([one(key) for key in jax.random.split(key, seeds)])
    by_site = {
        site.number: [
            statistics.groups[place].forward.std[row] for statistics in by_seed
        ]
        for place, group in enumerate(program.groups)
        for row, (site, _) in enumerate(group.members)
        if site.kind == "dense"
    }
    return np.asarray([by_site[number] for number in sorted(by_site)])


def _apply_eagerly(model: Any, x: jax.Array, key: jax.Array, seeds: int) -> np.ndarray:
    rows = []
    for each in jax.random.split(key, seeds):
        first, second = jax.random.split(each)
        variables = model.init(first, x)
        output, state = model.apply(variables, x, capture_intermediates=True)
        cotangent = jax.random.normal(second, output.shape)

        def total(variables: Any, cotangent: jax.Array = cotangent) -> jax.Array:
            product: jax.Array = (model.apply(variables, x) * cotangent).sum()
            return product

        gradients = jax.grad(total)(variables)
        jax.device_get(jax.tree.map(jnp.std, gradients))
        stds = jax.device_get(jax.tree.map(jnp.std, state["intermediates"]))
        layers = [stds[f"Dense_{i}"]["__call__"][0] for i in range(model.depth + 1)]
        rows.append(layers)
    return np.asarray(rows).T


def measure_memory(case: Health) -> dict[str, int] | None:
    """Measures the peak of a check in this process.

    The extra bytes are those beyond what flows from one seed for each worker.
    """
    seeds, *sizes = case.shape
    x, key = jnp.ones(sizes), jax.random.key(0)
    _, program = _prepare(case.model, x, key)
    flows = count_bytes(program)
    return memory.measure(lambda: _check(case.model, x, key, seeds), flows)
