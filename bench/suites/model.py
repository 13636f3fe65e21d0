"""The suite `model`: whole models from cold, beside the ways it replaces.

Every contender starts as in a fresh process after its imports: JAX has forgotten what
it compiled; tracing, keys, compiling and filling all count. As much memory as the model
needs is used just before: a virtual machine asks its host for memory that it has not
used yet, which has been seen to take twenty times as long as filling it.

- ours: `jaxinit.jit_init` of the model's init function;
- plan: its trace and plan alone, before anything is compiled or filled;
- jit: `jax.jit` of the stock model's init function;
- eager: the model's constructor, called as it is (NNX);
- torch: the layers of the same model, built with torch's defaults, which are uniform;
- torch laws: its parameters alone, drawn by torch from the laws of the Flax model.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import jaxinit
from bench import models
from bench.meters import memory
from bench.meters.race import Contender, make_cold_key
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
from bench.weight.peers import TRUNCATED

QUESTION = "whole models, from cold"


@dataclass(frozen=True, kw_only=True)
class Filling(Case):
    """One model; the shape is the number of its parameters.

    Attributes:
      init: its init function, which takes a key.
      stock: the init function of the same model as most people write it.
      torch: builds the model in torch; None if torch does not race.
      constructor: whether init is also a way to make the model without `jax.jit`.
    """

    init: Callable[[jax.Array], Any]
    stock: Callable[[jax.Array], Any]
    torch: Callable[[], Any] | None = None
    constructor: bool = False


def cases(quick: bool) -> list[Filling]:
    """Returns the models."""
    gpt = (2, 8, 2, 16, 8) if quick else (12, 768, 12, 50257, 1024)
    medium = gpt if quick else (24, 1024, 16, 50257, 1024)
    resnet = ((1, 1), 4, 3) if quick else ((3, 4, 6, 3), 64, 1000)
    vit = (1, 8, 2, 4, 8, 3) if quick else (12, 768, 12, 16, 224, 1000)
    return [
        _build_gpt("GPT-2 small, stock", gpt),
        _build_gpt("GPT-2 small, jaxinit", gpt, ours=True),
        _build_gpt("GPT-2 medium, stock", medium),
        _build_nnx(
            "ResNet-50 NNX, stock",
            lambda key: models.ResNet(nnx.Rngs(key), *resnet),
            lambda: models.build_torch_resnet(*resnet),
        ),
        _build_nnx(
            "ViT-B NNX, stock",
            lambda key: models.ViT(nnx.Rngs(key), *vit),
            lambda: models.build_torch_vit(*vit[:4], vit[-1]),
        ),
        *(
            _build_gpt(
                f"GPT of {layers} layers, width 256",
                gpt if quick else (layers, 256, 4, 1000, 128),
            )
            for layers in (12, 48)
        ),
    ]


def _build_gpt(name: str, sizes: tuple[int, ...], ours: bool = False) -> Filling:
    tokens = jnp.zeros((1, 8), jnp.int32)
    words = ("layers", "width", "heads", "vocabulary", "context")
    named: dict[str, Any] = dict(zip(words, sizes, strict=True))
    stock = model = models.GPT(**named)
    if ours:
        kernel = jaxinit.lecun_normal()
        laws: dict[str, Any] = {"kernel": kernel, "residual": kernel}
        model = models.GPT(**named, **laws, embedding=jaxinit.normal(0.02))
    layers, width, _, vocabulary, context = sizes
    return Filling(
        name=name,
        shape=(_count_parameters(lambda key: stock.init(key, tokens)),),
        init=lambda key: model.init(key, tokens),
        stock=lambda key: stock.init(key, tokens),
        torch=lambda: models.build_torch_gpt(layers, width, vocabulary, context),
    )


def _build_nnx(
    name: str, construct: Callable[[jax.Array], Any], torch: Callable[[], Any]
) -> Filling:
    return Filling(
        name=name,
        shape=(_count_parameters(construct),),
        init=construct,
        stock=construct,
        torch=torch,
        constructor=True,
    )


def _trace(init: Callable[[jax.Array], Any]) -> Any:
    """Returns the shapes and dtypes of a model."""
    return jax.eval_shape(init, jax.eval_shape(lambda: jax.random.key(0)))


def _count_parameters(init: Callable[[jax.Array], Any]) -> int:
    leaves = jax.tree.leaves(_trace(init))
    return sum(x.size for x in leaves if jnp.issubdtype(x.dtype, jnp.floating))


def measure(filling: Filling, settings: Settings) -> Row:
    """Measures the seconds from cold to a filled model."""
    row = start_row(filling)
    if not verify_row(row, lambda: _verify(filling)):
        return row
    add_times(row, settings.race(_build_contenders(filling, settings), warm=False))
    make_cold_key(0)
    plan = jaxinit.jit_init(filling.init).report(jax.random.key(KEY))
    row["compile_s"]["ours"] = sum(part.compiled or 0.0 for part in plan.slices)
    row["found"] += f", {len(plan.slices)} programs"
    if not settings.quick:
        row["memory"] = memory.measure_in_child("model", filling.name)
    return row


def measure_memory(filling: Filling) -> dict[str, int] | None:
    """Measures the memory of filling a model in this process."""
    key = jax.block_until_ready(jax.random.key(0))
    return memory.measure(
        lambda: jaxinit.jit_init(filling.init)(key), _count_bytes(filling.init)
    )


def _verify(filling: Filling) -> str:
    """Holds a model against that of `jax.jit`, bit for bit."""
    key = jax.random.key(KEY)
    ours = jaxinit.jit_init(filling.init)(key)
    theirs = jax.jit(filling.stock)(key)
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    if not all(bool((a == b).all()) for a, b in pairs):
        raise Unverified("the model is not that of jax.jit.")
    return "jax.jit's bits"


def _count_bytes(init: Callable[[jax.Array], Any]) -> int:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(_trace(init)))


def _build_contenders(filling: Filling, settings: Settings) -> dict[str, Contender]:
    ways = {
        "ours": lambda key: jaxinit.jit_init(filling.init)(key),
        "plan": lambda key: jaxinit.jit_init(filling.init).plan(key),
        "jit": lambda key: jax.jit(filling.stock)(key),
        **({"eager": filling.init} if filling.constructor else {}),
    }
    size = _count_bytes(filling.stock)

    def prepare(repeat: int) -> Any:
        if settings.quick:
            return jax.random.key(repeat)
        np.ones(size + size // 4, np.uint8)
        return make_cold_key(repeat)

    contenders = {name: Contender(way, prepare) for name, way in ways.items()}
    if (build := filling.torch) is not None and "torch" in settings.peers:
        draw = _build_torch_laws(filling)
        contenders["torch"] = Contender(lambda _: build(), prepare, lambda _: None)
        contenders["torch laws"] = Contender(lambda _: draw(), prepare, lambda _: None)
    return contenders


def _name_leaf(keys: tuple[Any, ...]) -> str:
    """Returns the last key of a leaf's path; the box around it has none."""
    path = jax.tree_util.keystr(keys, simple=True, separator="/")
    return path.removesuffix("/value").rpartition("/")[2]


def _build_torch_laws(filling: Filling) -> Callable[[], Any]:
    """Returns a function that draws the stock model's parameters in torch."""
    from torch import empty
    from torch.nn import init

    parameters = [
        (_name_leaf(keys), tuple(leaf.shape))
        for keys, leaf in jax.tree_util.tree_leaves_with_path(_trace(filling.stock))
        if jnp.issubdtype(leaf.dtype, jnp.floating)
    ]

    def draw(name: str, shape: tuple[int, ...]) -> Any:
        array = empty(shape)
        if name == "kernel":  # lecun_normal
            stddev = math.prod(shape[:-1]) ** -0.5 / TRUNCATED
            bounds = -2 * stddev, 2 * stddev
            return init.trunc_normal_(array, 0.0, stddev, *bounds)
        if name in ("embedding", "pos"):
            return init.normal_(array, 0.0, 0.02)
        return init.constant_(array, float(name in ("scale", "var")))

    return lambda: [draw(*parameter) for parameter in parameters]
