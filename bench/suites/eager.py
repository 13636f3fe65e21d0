"""The suite `eager`: draws outside of programs, each way in a process of its own.

- shapes: twenty that were never drawn before, beside JAX's `he_normal`;
- small draws: a hundred of one shape, which is drawn for the first time before;
- a second shape of `orthogonal`, beside its first ("first") and JAX's second;
- models of Flax NNX, built by their constructors with our initializers, beside the same
  models with the initializers of Flax.
"""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

import jaxinit
from bench import models
from bench.meters.cold import Cold, measure_cold
from bench.meters.cold import run_cold as run_cold
from bench.meters.row import KEY, Row
from bench.meters.settings import Settings

QUESTION = "draws outside of programs, in processes of their own"

_SHAPES, _DRAWS = 20, 100


def cases(quick: bool) -> list[Cold]:
    """Returns the draws, then the models; names say how many there are at full size."""
    resnet = ((1, 1), 4, 3) if quick else ((3, 4, 6, 3), 64, 1000)
    vit = (1, 8, 2, 4, 8, 3) if quick else (12, 768, 12, 16, 224, 1000)
    size = 8 if quick else 400
    shapes = [(size + i, size - 3 * (i % 2)) for i in range(3 if quick else _SHAPES)]
    return [
        _draws(f"he_normal, {_SHAPES} shapes", [shapes]),
        _draws(f"he_normal, {_DRAWS} small draws", [[(32, 32)], [(32, 32)] * _DRAWS]),
        _orthogonal(8 if quick else 300),
        _model("ResNet-50 NNX", models.ResNet, resnet),
        _model("ViT-B NNX", models.ViT, vit),
    ]


def measure(case: Cold, settings: Settings) -> Row:
    """Times the ways, by turns."""
    return measure_cold("eager", case, settings)


def _draws(name: str, rounds: list[list[tuple[int, int]]]) -> Cold:
    """Makes a case of draws by `he_normal`: of the last round, after the others.

    Keys are made beforehand: to split one would take longer than to draw.
    """
    *before, shapes = rounds
    keys = [jax.random.key(KEY + i) for i in range(len(shapes))]

    def draw(init: Any, shapes: list[tuple[int, int]]) -> Callable[[], Any]:
        return lambda: [init(key, s) for key, s in zip(keys, shapes, strict=False)]

    def calls(way: str, init: Any) -> dict[str, Callable[[], Any]]:
        first = {f"{way} first": draw(init, shapes) for shapes in before}
        return {**first, way: draw(init, shapes)}

    ours, theirs = jaxinit.he_normal(), jax.nn.initializers.he_normal()
    ways = {"ours": calls("ours", ours), "jax": calls("jax", theirs)}
    return Cold(name=name, shape=shapes[0], ways=ways)


def _orthogonal(size: int) -> Cold:
    """Makes the case of a second shape."""

    def draw(init: Any, rows: int) -> Callable[[], jax.Array]:
        return lambda: init(jax.random.key(KEY), (rows, size))

    ours, theirs = jaxinit.orthogonal(), jax.nn.initializers.orthogonal()
    return Cold(
        name="orthogonal, second shape",
        shape=(size, size),
        ways={
            "ours": {"first": draw(ours, size), "ours": draw(ours, size + 9)},
            "jax": {"jax first": draw(theirs, size), "jax": draw(theirs, size + 9)},
        },
    )


def _model(name: str, make: Callable[..., Any], sizes: tuple[Any, ...]) -> Cold:
    """Makes the case of a model, whose laws are the same; the shape is its width."""

    def build(**laws: Any) -> Callable[[], Any]:
        return lambda: nnx.state(make(nnx.Rngs(KEY), *sizes, **laws), nnx.Param)

    ours = build(
        kernel_init=jaxinit.lecun_normal(),
        bias_init=jaxinit.zeros,
        scale_init=jaxinit.ones,
    )
    ways = {"ours": {"ours": ours}, "flax": {"flax": build()}}
    return Cold(name=name, shape=(sizes[1],), ways=ways)
