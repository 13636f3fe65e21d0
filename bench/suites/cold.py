"""The suite `cold`: how long a person waits for the first check of a model.

Each way runs in a process of its own: `jaxinit.check` of eight seeds, beside a jitted
init and a jitted gradient of the same model. In the same process then with another key
("again"), and with another initializer ("other law").
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import jaxinit
from bench import models
from bench.meters.cold import Cold, measure_cold
from bench.meters.cold import run_cold as run_cold
from bench.meters.row import KEY, Row
from bench.meters.settings import Settings

QUESTION = "checks from cold, in processes of their own"

_SEEDS = 8


def cases(quick: bool) -> list[Cold]:
    """Returns the checks of eight models."""
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
    return [_check(name, make, shape) for name, (make, shape) in known.items()]


def measure(case: Cold, settings: Settings) -> Row:
    """Times the ways, by turns."""
    return measure_cold("cold", case, settings)


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
