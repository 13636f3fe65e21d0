"""Peers: the same law from other libraries, each into a fresh array.

A peer that is not installed is left out. torch fills a new ``torch.empty`` at each
call, because our draw makes a fresh array, too: page faults then count for both. Where
a library's preset has another law (torch's ``kaiming_normal_`` is not truncated), its
general functions draw our law.
"""

import importlib
import math
import os
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from typing import Any

import jax
import numpy as np

from bench.meters.race import Contender
from bench.weight.draw import Draw

NAMES = ("jax", "torch", "keras", "numpy")

# Standard deviation of a standard normal number truncated to [-2, 2].
TRUNCATED = math.sqrt(
    1 - 4 * math.exp(-2) / (math.sqrt(2 * math.pi) * math.erf(math.sqrt(2)))
)


def find_installed() -> tuple[str, ...]:
    """Returns the peers that can be imported."""
    return tuple(name for name in NAMES if find_spec(name) is not None)


def _choose_jax(eager: bool) -> dict[str, Callable[[Draw], Contender]]:
    """Returns `jax.nn.initializers` under `jax.jit`, and as it is."""
    return {"jax": _build_jax, **({"jax eager": _build_eager_jax} if eager else {})}


def _build_jax(draw: Draw) -> Contender:
    if draw.reference is None:
        raise NotImplementedError("jax has no such initializer")
    return Contender(draw.reference, jitted=True)


def _build_eager_jax(draw: Draw) -> Contender:
    if (theirs := draw.theirs) is None:
        raise NotImplementedError("jax has no such initializer")
    return Contender(lambda key: theirs(key, draw.shape, draw.dtype))


def find_bounds(draw: Draw) -> tuple[float, float]:
    """Returns the interval of a uniform law."""
    law = draw.init.moments(draw.shape)
    half = math.sqrt(3 * law.variance)
    return law.mean - half, law.mean + half


def find_stddev(draw: Draw) -> float:
    """Returns the standard deviation of a normal law, before truncation."""
    stddev = math.sqrt(draw.init.moments(draw.shape).variance)
    return stddev / TRUNCATED if draw.law == "truncated_normal" else stddev


def _build_torch(draw: Draw) -> Contender:
    """Returns a function of `torch.nn.init`, on the GPU where torch has one."""
    torch = importlib.import_module("torch")
    dtype = getattr(torch, draw.dtype)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    init = torch.nn.init
    if draw.law == "uniform":
        low, high = find_bounds(draw)
        fill = partial(init.uniform_, a=low, b=high)
    elif draw.law == "normal":
        fill = partial(init.normal_, std=find_stddev(draw))
    elif draw.law == "truncated_normal":
        std = find_stddev(draw)
        fill = partial(init.trunc_normal_, std=std, a=-2 * std, b=2 * std)
    elif draw.law == "sparse":
        chosen = draw.init.arguments
        fill = partial(init.sparse_, sparsity=chosen["sparsity"], std=chosen["stddev"])
    else:
        fill = init.orthogonal_

    def run(_: Any) -> Any:
        return fill(torch.empty(draw.shape, dtype=dtype, device=device))

    def wait(_: Any) -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    return Contender(run, int, wait)


def _build_keras(draw: Draw) -> Contender:
    """Returns a class of `keras.initializers`, in Keras's backend."""
    keras = _import_keras()
    kinds = keras.initializers
    if draw.law == "uniform":
        init = kinds.RandomUniform(*find_bounds(draw), seed=0)
    elif draw.law == "normal":
        init = kinds.RandomNormal(0.0, find_stddev(draw), seed=0)
    elif draw.law == "truncated_normal":
        init = kinds.TruncatedNormal(0.0, find_stddev(draw), seed=0)
    else:
        init = kinds.Orthogonal(seed=0)

    def wait(array: Any) -> None:
        if keras.backend.backend() == "torch":
            torch = importlib.import_module("torch")
            if torch.cuda.is_available():
                torch.cuda.synchronize()
        elif hasattr(array, "block_until_ready"):
            jax.block_until_ready(array)
        else:  # TensorFlow: a read of one number waits for all
            np.asarray(array[(0,) * len(draw.shape)])

    return Contender(lambda _: init(draw.shape, dtype=draw.dtype), int, wait)


def _import_keras() -> Any:
    """Imports Keras, on JAX where its own default is missing."""
    if find_spec("tensorflow") is None:
        os.environ.setdefault("KERAS_BACKEND", "jax")
    return importlib.import_module("keras")


def _build_numpy(draw: Draw) -> Contender:
    """Returns a draw of `numpy.random.Generator`."""
    dtype: Any = np.dtype(draw.dtype)
    shape = draw.shape
    generator = np.random.default_rng(0)

    low, high = find_bounds(draw)
    std = find_stddev(draw)

    def uniform(_: Any) -> np.ndarray:
        array: np.ndarray = generator.random(shape, dtype)
        array *= high - low
        array += low
        return array

    def normal(_: Any) -> np.ndarray:
        array: np.ndarray = generator.standard_normal(shape, dtype)
        array *= std
        return array

    def orthogonal(_: Any) -> np.ndarray:
        rows, columns = shape
        tall = (max(rows, columns), min(rows, columns))
        q, r = np.linalg.qr(generator.standard_normal(tall, dtype))
        q *= np.sign(np.diagonal(r))
        return q if rows >= columns else q.T

    runs = {"uniform": uniform, "normal": normal, "orthogonal": orthogonal}
    return Contender(runs[draw.law], int, lambda _: None)


_OTHERS: Mapping[str, Callable[[Draw], Contender]] = {
    "torch": _build_torch,
    "keras": _build_keras,
    "numpy": _build_numpy,
}


def choose_peers(
    *names: str, eager: bool = False
) -> Mapping[str, Callable[[Draw], Contender]]:
    """Returns the builders of the named peers' contenders, in the order of `NAMES`."""
    theirs = _choose_jax(eager) if "jax" in names else {}
    return {**theirs, **{name: _OTHERS[name] for name in names if name != "jax"}}
