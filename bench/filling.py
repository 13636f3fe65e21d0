"""The suite `model`: whole models from cold, beside the ways it replaces.

Every contender starts as in a fresh process after its imports: JAX has forgotten what
it compiled; tracing, keys, compiling and filling all count. Each finds as much memory
that was used just before: a virtual machine asks its host for what was not, which has
been seen to take twenty times as long as filling it.

- ours: `jaxinit.jit_init` of the model's init function;
- plan: its trace and plan alone, before anything is compiled or filled;
- jit: `jax.jit` of the stock model's init function;
- eager: the model's constructor, called as it is (NNX);
- torch: the layers of the same model, built with torch's defaults, which are uniform;
- torch laws: its parameters alone, drawn by torch from the laws of the Flax model.
"""

import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import jaxinit
from bench import memory, models, verify
from bench.cases import Case
from bench.measure import Row, Settings, finish, start
from bench.timing import Contender, forgotten
from jaxinit.initializers._variance_scaling import TRUNCATED_STDDEV
from jaxinit.model import named


@dataclass(frozen=True)
class Filling:
    """One model.

    Attributes:
      init: its init function, of a key.
      stock: that of the same model as most people write it.
      torch: builds it in torch; None if it is not raced.
      constructor: whether init is also a way to make the model without `jax.jit`.
    """

    init: Callable[[jax.Array], Any]
    stock: Callable[[jax.Array], Any]
    torch: Callable[[], Any] | None = None
    constructor: bool = False


def cases(quick: bool) -> list[Case]:
    """Returns the models; the shape is the number of parameters."""
    gpt = (2, 8, 2, 16, 8) if quick else (12, 768, 12, 50257, 1024)
    medium = (3, 8, 2, 16, 8) if quick else (24, 1024, 16, 50257, 1024)
    resnet = ((1, 1), 4, 3) if quick else ((3, 4, 6, 3), 64, 1000)
    vit = (1, 8, 2, 4, 8, 3) if quick else (12, 768, 12, 16, 224, 1000)
    found = {
        "GPT-2 small, stock": _gpt(gpt),
        "GPT-2 small, jaxinit": _gpt(gpt, ours=True),
        "GPT-2 medium, stock": _gpt(medium),
        "ResNet-50 NNX, stock": Filling(
            lambda key: models.ResNet(nnx.Rngs(key), *resnet),
            lambda key: models.ResNet(nnx.Rngs(key), *resnet),
            lambda: models.torch_resnet(*resnet),
            constructor=True,
        ),
        "ViT-B NNX, stock": Filling(
            lambda key: models.ViT(nnx.Rngs(key), *vit),
            lambda key: models.ViT(nnx.Rngs(key), *vit),
            lambda: models.torch_vit(*vit[:4], vit[-1]),
            constructor=True,
        ),
    }
    for layers in (12, 48):
        sizes = (layers, 8, 2, 16, 8) if quick else (layers, 256, 4, 1000, 128)
        found[f"GPT of {layers} layers, width 256"] = _gpt(sizes)
    return [
        Case(name, filling, (_count(filling),), "float32", "normal", _same)
        for name, filling in found.items()
    ]


def _gpt(sizes: tuple[int, ...], ours: bool = False) -> Filling:
    tokens = jnp.zeros((1, 8), jnp.int32)
    names = ("layers", "width", "heads", "vocabulary", "context")
    named: dict[str, Any] = dict(zip(names, sizes, strict=True))
    stock = model = models.GPT(**named)
    if ours:
        kernel = jaxinit.lecun_normal()
        laws: dict[str, Any] = {"kernel": kernel, "residual": kernel}
        model = models.GPT(**named, **laws, embedding=jaxinit.normal(0.02))
    layers, width, _, vocabulary, context = sizes
    return Filling(
        lambda key: model.init(key, tokens),
        lambda key: stock.init(key, tokens),
        lambda: models.torch_gpt(layers, width, vocabulary, context),
    )


def _count(filling: Filling) -> int:
    key = jax.eval_shape(lambda: jax.random.key(0))
    leaves = jax.tree.leaves(jax.eval_shape(filling.stock, key))
    return sum(x.size for x in leaves if jnp.issubdtype(x.dtype, jnp.floating))


def _same(case: Case, filled: Any) -> str:
    """Verifies that a model is bit for bit that of `jax.jit`."""
    theirs = jax.jit(case.init.stock)(jax.random.key(verify.KEY))
    pairs = zip(jax.tree.leaves(filled), jax.tree.leaves(theirs), strict=True)
    if not all(bool((a == b).all()) for a, b in pairs):
        raise verify.Unverified("the model is not that of jax.jit.")
    return "jax.jit's bits"


def model(case: Case, settings: Settings) -> Row:
    """Measures the seconds from cold to a filled model."""
    row = start(case)
    filling: Filling = case.init
    key = jax.random.key(verify.KEY)
    try:
        row["found"] = case.verify(case, jaxinit.jit_init(filling.init)(key))
        row["verified"] = True
    except verify.Unverified as error:
        row["found"] = str(error)
        return row
    ways = {
        "ours": lambda key: jaxinit.jit_init(filling.init)(key),
        "plan": lambda key: jaxinit.jit_init(filling.init).plan(key),
        "jit": lambda key: jax.jit(filling.stock)(key),
        **({"eager": filling.init} if filling.constructor else {}),
    }
    shaped = jax.eval_shape(filling.stock, key)
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(shaped))

    def prepare(repeat: int) -> Any:
        if settings.quick:
            return jax.random.key(repeat)
        np.ones(size + size // 4, np.uint8)
        return forgotten(repeat)

    contenders = {name: Contender(way, prepare) for name, way in ways.items()}
    if (build := filling.torch) is not None and "torch" in settings.peers:
        laws = _torch_laws(filling)
        contenders["torch"] = Contender(lambda _: build(), prepare, lambda _: None)
        contenders["torch laws"] = Contender(lambda _: laws(), prepare, lambda _: None)
    finish(row, settings.race(contenders, warm=False))
    jax.clear_caches()
    plan = jaxinit.jit_init(filling.init).report(key)
    row["compile_s"]["ours"] = sum(part.compiled or 0.0 for part in plan.slices)
    row["found"] += f", {len(plan.slices)} programs"
    if not settings.quick:
        row["memory"] = memory.in_child("bench.filling", case.name)
    return row


def _torch_laws(filling: Filling) -> Callable[[], Any]:
    """Returns what draws a model's parameters in torch, of the stock model's laws."""
    from torch import empty
    from torch.nn import init

    shaped = jax.eval_shape(filling.stock, jax.eval_shape(lambda: jax.random.key(0)))
    parameters = [
        (name.rpartition("/")[2], tuple(leaf.shape))
        for name, leaf in named(shaped)
        if jnp.issubdtype(leaf.dtype, jnp.floating)
    ]

    def draw(name: str, shape: tuple[int, ...]) -> Any:
        array = empty(shape)
        if name == "kernel":  # lecun_normal
            stddev = math.prod(shape[:-1]) ** -0.5 / TRUNCATED_STDDEV
            bounds = -2 * stddev, 2 * stddev
            return init.trunc_normal_(array, 0.0, stddev, *bounds)
        if name in ("embedding", "pos"):
            return init.normal_(array, 0.0, 0.02)
        return init.constant_(array, float(name in ("scale", "var")))

    return lambda: [draw(*parameter) for parameter in parameters]


def main(name: str) -> None:
    """Prints the peak memory of filling the model of that name."""
    case = next(case for case in cases(False) if case.name == name)
    key = jax.block_until_ready(jax.random.key(0))
    before = memory.reset()
    filled = jax.block_until_ready(jaxinit.jit_init(case.init.init)(key))
    after = memory.peak()
    size = sum(x.nbytes for x in jax.tree.leaves(filled))
    peak = (after or 0) - (before or 0)
    print(json.dumps({"peak_bytes": peak, "extra_bytes": peak - size}))


if __name__ == "__main__":
    main(sys.argv[1])
