"""The suite `check`: one program for all seeds, beside the ways it replaces.

Every contender starts cold, as a user does: JAX has forgotten what it compiled, and
tracing and compiling count. All measure a multilayer perceptron from many seeds:

- ours: `jaxinit.check`, one program;
- loop: the same statistics of one seed compiled, and called for each seed;
- eager: what one writes by hand: ``init``, ``apply`` with captured intermediates and a
  gradient for each seed, and the standard deviation of each.
"""

import json
import sys
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import jaxinit
from bench import memory, verify
from bench.cases import Case
from bench.measure import Row, Settings, finish, start
from bench.timing import Contender, forgotten
from jaxinit.signal._measure.program import prepare
from jaxinit.signal._model import adapt

# depth, width, examples, seeds
_FULL, _TOY = (50, 256, 256, 32), (2, 8, 4, 2)


class Perceptron(nn.Module):
    """Dense layers with relu."""

    depth: int
    width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies all layers."""
        for _ in range(self.depth - 1):
            x = nn.relu(nn.Dense(self.width, kernel_init=jaxinit.he_normal())(x))
        return nn.Dense(self.width)(x)


def cases(quick: bool) -> list[Case]:
    """Returns the case: its shape is seeds, examples and width."""
    depth, width, examples, seeds = _TOY if quick else _FULL
    layers, *shape = _FULL
    return [
        Case(
            f"check {layers} layers {'×'.join(map(str, reversed(shape)))}",
            Perceptron(depth, width),
            (seeds, examples, width),
            "float32",
            "normal",
            verify.numbers,
        )
    ]


def health(case: Case, settings: Settings) -> Row:
    """Measures the seconds from cold to all statistics."""
    row = start(case)
    seeds, examples, width = case.shape
    quick = settings.quick
    x = jax.random.normal(jax.random.key(verify.KEY), (examples, width))
    contenders = {
        name: Contender(way, jax.random.key if quick else forgotten, lambda _: None)
        for name, way in (
            ("ours", lambda key: _ours(case.init, x, key, seeds)),
            ("loop", lambda key: _loop(case.init, x, key, seeds)),
            ("eager", lambda key: _eager(case.init, x, key, seeds)),
        )
    }
    key = jax.random.key(verify.KEY)
    found = {name: contender.run(key) for name, contender in contenders.items()}
    error = float(np.abs(found["ours"] / found["loop"] - 1).max())
    row["found"] = f"loop's numbers to {error:.0e}"
    row["verified"] = bool(error < 1e-3 and found["eager"].shape == found["ours"].shape)
    if row["verified"]:
        finish(row, settings.race(contenders, warm=False))
        if not quick:
            row["memory"] = _memory()
    return row


def _ours(model: Any, x: jax.Array, key: jax.Array, seeds: int) -> np.ndarray:
    report = jaxinit.check(model, x, key=key, seeds=seeds, jacobian=0)
    layers = [layer for layer in report.layers if layer.kind == "dense"]
    return np.stack([layer.forward["std"] for layer in layers])


def _loop(model: Any, x: jax.Array, key: jax.Array, seeds: int) -> np.ndarray:
    program = prepare(adapt(model, (x,), {}, ("dropout",)), (x,), key)
    one = jax.jit(program.one)
    found = [one(key, (x,))[1] for key in jax.random.split(key, seeds)]
    found = jax.device_get(found)
    by_site = {
        site.number: [statistics.groups[place].forward.std[row] for statistics in found]
        for place, group in enumerate(program.groups)
        for row, (site, _) in enumerate(group.members)
        if site.kind == "dense"
    }
    return np.asarray([by_site[number] for number in sorted(by_site)])


def _eager(model: Any, x: jax.Array, key: jax.Array, seeds: int) -> np.ndarray:
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
        layers = [stds[f"Dense_{i}"]["__call__"][0] for i in range(model.depth)]
        rows.append(layers)
    return np.asarray(rows).T


def _memory() -> dict[str, int] | None:
    """Measures the peak of all seeds and of one, each in a process of its own."""
    one, every = (
        memory.in_child("bench.health", str(seeds)) for seeds in (1, _FULL[-1])
    )
    if one is None or every is None:
        return None
    return {"peak_bytes": every, "extra_bytes": every - one}


def main(seeds: str) -> None:
    """Prints the peak memory of a check with that many seeds."""
    depth, width, examples, _ = _FULL
    x = jnp.ones((examples, width))
    before = memory.reset()
    _ours(Perceptron(depth, width), x, jax.random.key(0), int(seeds))
    after = memory.peak()
    print(json.dumps((after or 0) - (before or 0)))


if __name__ == "__main__":
    main(sys.argv[1])
