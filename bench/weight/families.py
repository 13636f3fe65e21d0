"""Families of draws, beside JAX's builders of the same names."""

from typing import Any

import jax

import jaxinit
from bench.weight import verify
from bench.weight.draw import Draw, Init, Law, Shape
from bench.weight.peers import choose_peers

# The laws of the builders whose entries are independent.
LAWS: dict[str, Law] = {
    "uniform": "uniform",
    "glorot_uniform": "uniform",
    "lecun_uniform": "uniform",
    "he_uniform": "uniform",
    "normal": "normal",
    "variance_scaling": "normal",
    "truncated_normal": "truncated_normal",
    "glorot_normal": "truncated_normal",
    "lecun_normal": "truncated_normal",
    "he_normal": "truncated_normal",
}
LARGE = (4096, 4096)
TOY = (16, 16)
_ARGUMENTS = {"variance_scaling": (1.0, "fan_in", "normal")}
# How a dtype's independent entries are verified, and who else draws them.
_VERIFY = {
    "float32": verify.check_bits,
    "float64": verify.check_bits,
    "bfloat16": verify.check_rounded,
    "float16": verify.check_rounded,
    "complex64": verify.check_moments,
}
_PEERS = {
    "float32": ("jax", "torch", "keras", "numpy"),
    "float64": ("jax", "torch", "keras", "numpy"),
    "bfloat16": ("jax", "torch", "keras"),
    "float16": ("jax", "torch", "keras"),
    "complex64": ("jax", "torch"),
}


def spell(name: str, shape: Shape, *words: str) -> str:
    """Writes the name of a case: builder, shape, and the words that are not empty."""
    return " ".join(filter(None, (name, "×".join(map(str, shape)), *words)))


def build(name: str, **options: Any) -> tuple[Any, Init]:
    """Builds our initializer, with our own options, and JAX's of the same name."""
    arguments = _ARGUMENTS.get(name, ())
    ours = getattr(jaxinit, name)(*arguments, **options)
    return ours, getattr(jax.nn.initializers, name)(*arguments)


def draw_independent(
    name: str,
    shape: Shape,
    dtype: str = "float32",
    *,
    label: Shape = (),
    eager: bool = False,
) -> Draw:
    """Returns a draw of independent entries; its name says ``label``, the full size."""
    law = LAWS[name]
    lacking = {"numpy"} if law == "truncated_normal" else set()
    if dtype == "complex64" and law != "normal":
        lacking.add("torch")
    ours, theirs = build(name)
    return Draw(
        name=spell(name, label or shape, "" if dtype == "float32" else dtype),
        shape=shape,
        dtype=dtype,
        init=ours,
        law=law,
        verify=_VERIFY[dtype],
        theirs=theirs,
        peers=choose_peers(
            *(p for p in _PEERS[dtype] if p not in lacking), eager=eager
        ),
        eager=eager,
    )
