"""The suite `cold`: what a person waits for at first, each way in a process of its own.

- check: `jaxinit.check` of eight seeds, beside a jitted init and a jitted gradient of
  the same model. In the same process then with another key ("again"), and with another
  initializer ("other law").
- eager: twenty shapes that were never drawn before, beside JAX's `he_normal`; a second
  shape of `orthogonal` beside its first.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

import jaxinit
from bench import models
from bench.meters.cold import Failed, time_cold
from bench.meters.row import KEY, Case, Row, add_times, start_row
from bench.meters.settings import Settings

QUESTION = "seconds from cold, in processes of their own"

_SEEDS = 8
_SHAPES = 20


@dataclass(frozen=True, kw_only=True)
class Cold(Case):
    """Work that begins cold.

    Attributes:
      ways: by contender, the calls that are timed one after another, by name.
    """

    ways: dict[str, dict[str, Callable[[], Any]]]


def cases(quick: bool) -> list[Cold]:
    """Returns the checks of eight models, then the draws."""
    width, examples = (4, 2) if quick else (200, 64)
    deep = 3 if quick else 40
    image = (2, 8, 8, 1) if quick else (8, 32, 32, 3)
    rows = (examples, 4 if quick else 50)

    def perceptron(depth: int, norm: bool) -> Callable[..., Any]:
        return lambda law: models.Perceptron(depth, law, norm, width)

    known: dict[str, tuple[Callable[..., Any], Any]] = {
        "5 layers": (perceptron(2 if quick else 5, False), rows),
        "40 layers": (perceptron(deep, False), rows),
        "5 layers, norm": (perceptron(2 if quick else 5, True), rows),
        "40 layers, norm": (perceptron(deep, True), rows),
        "autoencoder": (lambda law: models.Autoencoder(law, width), rows),
        "transformer": (lambda law: models.Transformer(law), None),
        "ResNet-18": (lambda law: models.ResNet18(law, width // 50 * 16 or 4), image),
        "LSTM": (lambda law: models.LSTM(law, 4 if quick else 64), (16, 20, 32)),
    }
    return [
        *(_check(name, make, shape) for name, (make, shape) in known.items()),
        _draws(8, 3) if quick else _draws(400, _SHAPES),
        _orthogonal(8 if quick else 300),
    ]


def measure(case: Cold, settings: Settings) -> Row:
    """Times the ways, by turns."""
    row = start_row(case)
    try:
        quick, repeats = settings.quick, settings.repeats
        add_times(row, time_cold("cold", case.name, list(case.ways), repeats, quick))
    except Failed as error:
        row["found"] = str(error)
        return row
    row["verified"], row["found"] = True, "all calls returned"
    return row


def run_cold(case: Cold, contender: str) -> dict[str, float]:
    """Times the calls of a way in this process."""
    seconds = {}
    for name, call in case.ways[contender].items():
        start = time.perf_counter()
        jax.block_until_ready(call())
        seconds[name] = time.perf_counter() - start
    return seconds


def _check(name: str, make: Callable[..., Any], shape: Any) -> Cold:
    """Makes the case of a model; without a shape its input is tokens."""
    keys = [jax.random.key(KEY + i) for i in range(3)]
    sizes = shape or (8, 32)
    laws = jaxinit.he_normal(), jaxinit.glorot_uniform()

    def x() -> jax.Array:
        if shape is None:
            return jax.random.randint(keys[0], sizes, 0, 100)
        return jax.random.normal(keys[0], sizes)

    def check(law: Any, key: jax.Array) -> Any:
        report = jaxinit.check(make(law), x(), key=key, seeds=_SEEDS)
        return [layer.forward["std"] for layer in report.layers]

    ours = {
        "ours": lambda: check(laws[0], keys[1]),
        "again": lambda: check(laws[0], keys[2]),
        "other law": lambda: check(laws[1], keys[1]),
    }
    peer = {"jit": lambda: _run_once(make(jax.nn.initializers.he_normal()), x())}
    ways = {"ours": ours, "jit": peer}
    return Cold(name=f"check {name}", shape=sizes, ways=ways)


def _run_once(model: Any, x: jax.Array) -> Any:
    """Computes the gradient of a model under new weights, as one writes it by hand."""
    key, noise = jax.random.split(jax.random.key(KEY))
    variables = jax.jit(lambda key: model.init({"params": key, "dropout": noise}, x))(
        key
    )
    params = variables.pop("params")

    def loss(params: Any, rest: Any) -> jax.Array:
        output, _ = model.apply(
            {"params": params, **rest},
            x,
            rngs={"dropout": noise},
            mutable=["batch_stats"],
        )
        return jnp.asarray(sum(leaf.sum() for leaf in jax.tree.leaves(output)))

    return jax.jit(jax.value_and_grad(loss))(params, variables)


def _draws(size: int, count: int) -> Cold:
    """Makes the case of many shapes; its name says how many there are at full size.

    Keys are made beforehand: to split one would take longer than to draw.
    """
    shapes = [(size + i, size - 3 * (i % 2)) for i in range(count)]
    keys = [jax.random.key(KEY + i) for i in range(count)]

    def draw(init: Any) -> list[jax.Array]:
        return [init(key, shape) for key, shape in zip(keys, shapes, strict=True)]

    ours, theirs = jaxinit.he_normal(), jax.nn.initializers.he_normal()
    return Cold(
        name=f"eager he_normal, {_SHAPES} shapes",
        shape=(size, size),
        ways={
            "ours": {"ours": lambda: draw(ours)},
            "jax": {"jax": lambda: draw(theirs)},
        },
    )


def _orthogonal(size: int) -> Cold:
    """Makes the case of a second shape."""

    def draw(init: Any, rows: int) -> Callable[[], jax.Array]:
        return lambda: init(jax.random.key(KEY), (rows, size))

    ours, theirs = jaxinit.orthogonal(), jax.nn.initializers.orthogonal()
    return Cold(
        name="eager orthogonal, second shape",
        shape=(size, size),
        ways={
            "ours": {"ours": draw(ours, size), "again": draw(ours, size + 9)},
            "jax": {"jax": draw(theirs, size), "jax again": draw(theirs, size + 9)},
        },
    )
