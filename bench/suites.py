"""Suites: which cases there are, at full size and at toy size."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp

import jaxinit
from bench import filling, health, measure, training, verify
from bench.cases import Case, Law, Shape
from bench.measure import Row, Settings
from bench.peers import peers
from jaxinit import _moments, random

_UNIFORM: dict[str, Law] = {
    "uniform": "uniform",
    "glorot_uniform": "uniform",
    "lecun_uniform": "uniform",
    "he_uniform": "uniform",
}
_NORMAL: dict[str, Law] = {
    "normal": "normal",
    "variance_scaling": "normal",
    "truncated_normal": "truncated_normal",
    "glorot_normal": "truncated_normal",
    "lecun_normal": "truncated_normal",
    "he_normal": "truncated_normal",
}
_LAWS = _UNIFORM | _NORMAL
_ARGUMENTS = {"variance_scaling": (1.0, "fan_in", "normal")}
_LARGE = (4096, 4096)
_TOY = (16, 16)


@dataclass(frozen=True)
class Suite:
    """Cases that answer one question.

    Attributes:
      question: what the table is about.
      cases: returns the cases, of toy size if asked so.
      measure: turns a case into a row.
    """

    question: str
    cases: Callable[[bool], list[Case]]
    measure: Callable[[Case, Settings], Row] = measure.draw


def _label(shape: Shape) -> str:
    return "×".join(map(str, shape))


# How a dtype's independent entries are verified, and who else draws them.
_VERIFY = {
    "float32": verify.same_bits,
    "float64": verify.same_bits,
    "bfloat16": verify.rounded,
    "float16": verify.rounded,
    "complex64": verify.moments,
}
_PEERS = {
    "float32": ("jax", "torch", "keras", "numpy"),
    "float64": ("jax", "torch", "keras", "numpy"),
    "bfloat16": ("jax", "torch", "keras"),
    "float16": ("jax", "torch", "keras"),
    "complex64": ("jax", "torch"),
}


def independent(
    name: str,
    shape: Shape,
    dtype: str = "float32",
    *,
    label: Shape = (),
    eager: bool = False,
) -> Case:
    """Returns a case of independent entries, beside JAX's builder of the same name.

    The name of the case says ``label``, the shape at full size.
    """
    arguments = _ARGUMENTS.get(name, ())
    law = _LAWS[name]
    lacking = {"numpy"} if law == "truncated_normal" else set()
    if dtype == "complex64" and law != "normal":
        lacking.add("torch")
    return Case(
        f"{name} {_label(label or shape)}{'' if dtype == 'float32' else f' {dtype}'}",
        getattr(jaxinit, name)(*arguments),
        shape,
        dtype,
        law,
        _VERIFY[dtype],
        getattr(jax.nn.initializers, name)(*arguments),
        peers(*(p for p in _PEERS[dtype] if p not in lacking), eager=eager),
        eager,
    )


def _draws(quick: bool) -> list[Case]:
    large = (
        *("uniform", "normal", "truncated_normal", "variance_scaling"),
        *("lecun_normal", "he_normal", "glorot_uniform", "glorot_normal"),
    )
    cases = [
        independent(name, _TOY if quick else _LARGE, label=_LARGE, eager=True)
        for name in large
    ]
    for side in (1, 3, 10, 100, 1000):
        shape = (side, side)
        small = _TOY if quick and side > 3 else shape
        for name in ("uniform", "normal", "truncated_normal", "he_normal"):
            cases.append(independent(name, small, label=shape, eager=True))
    return cases


def _dtypes(quick: bool) -> list[Case]:
    shape = _TOY if quick else _LARGE
    real = ("uniform", "normal", "truncated_normal", "he_normal")
    # JAX has no complex uniform or truncated law outside variance scaling.
    complex_ = ("normal", "variance_scaling", "lecun_uniform", "he_normal")
    return [
        independent(name, shape, dtype, label=_LARGE)
        for dtype in ("bfloat16", "float16", "float64", "complex64")
        for name in (complex_ if dtype == "complex64" else real)
    ]


def _haar(
    name: str, shape: Shape, quick: bool, dtype: str = "float32", method: str = ""
) -> Case:
    """Returns a case of orthonormal rows or columns."""
    toy = tuple(size if size < 8 else max(size // 256, 2) for size in shape)
    given = {"method": method} if method else {}
    words = (name, _label(shape), "" if dtype == "float32" else dtype, method)
    delta = name == "delta_orthogonal"
    return Case(
        " ".join(filter(None, words)),
        getattr(jaxinit, name)(**given),
        toy if quick else shape,
        dtype,
        "orthogonal",
        verify.same_bits if method == "qr" else verify.orthogonality,
        getattr(jax.nn.initializers, name)(),
        peers("jax") if delta else peers("jax", "torch", "keras", "numpy"),
    )


def _orthogonal(quick: bool) -> list[Case]:
    return [
        _haar("orthogonal", (256, 256), quick),
        _haar("orthogonal", (1024, 1024), quick),
        _haar("orthogonal", (4096, 4096), quick),
        _haar("orthogonal", (4096, 512), quick),
        _haar("orthogonal", (512, 4096), quick),
        _haar("orthogonal", (1024, 1024), quick, "float64"),
        _haar("orthogonal", (1024, 1024), quick, method="qr"),
        _haar("delta_orthogonal", (3, 3, 512, 512), quick),
    ]


def _sparse(quick: bool) -> list[Case]:
    return [
        Case(
            f"sparse({sparsity}) {_label(_LARGE)}",
            jaxinit.sparse(sparsity),
            (20, 10) if quick else _LARGE,
            "float32",
            "sparse",
            verify.exact_zeros(sparsity),
            None,
            peers("torch"),
        )
        for sparsity in (0.1, 0.9)
    ]


def _compile(quick: bool) -> list[Case]:
    cases = []
    for label, toy in (((512, 512), _TOY), ((3, 3, 64, 64), (1, 1, *_TOY))):
        shape = toy if quick else label
        cases += [independent(name, shape, label=label) for name in _LAWS]
    return [
        *cases,
        _haar("orthogonal", (1024, 1024), quick),
        _haar("delta_orthogonal", (3, 3, 1024, 1024), quick),
    ]


# Ours takes impl too.
_DRAWS: dict[Law, tuple[Any, Any]] = {
    "uniform": (random.uniform, jax.random.uniform),
    "normal": (random.normal, jax.random.normal),
    "truncated_normal": (
        lambda key, *rest, impl=None: random.truncated_normal(
            key, -2, 2, *rest, impl=impl
        ),
        lambda key, *rest: jax.random.truncated_normal(key, -2, 2, *rest),
    ),
}


def _moments_of(
    x: jax.Array, shape: Shape, dtype: str, impl: Literal["pallas"] | None = None
) -> jax.Array:
    """Computes the moments of an array as one array."""
    return jnp.stack(_moments.moments(x, impl=impl))


def _array(case: Case) -> jax.Array:
    return jax.random.normal(jax.random.key(verify.KEY), case.shape, case.dtype)


def _kernels(quick: bool) -> list[Case]:
    cases = []
    for label in ((1024, 1024), (8192, 8192)):
        shape = _TOY if quick else label
        for law, (ours, theirs) in _DRAWS.items():
            cases.append(
                Case(
                    f"random.{law} {_label(label)}",
                    ours,
                    shape,
                    "float32",
                    law,
                    verify.same_bits,
                    theirs,
                    impls=("jax", "fused", "pallas", "paired"),
                )
            )
        cases.append(
            Case(
                f"moments {_label(label)}",
                _moments_of,
                shape,
                "float32",
                "normal",
                verify.numbers,
                impls=("pallas",),
                argument=_array,
            )
        )
    return cases


SUITES = {
    "draws": Suite("float32 draws of independent entries", _draws),
    "dtypes": Suite("draws in other dtypes", _dtypes),
    "orthogonal": Suite(
        "orthonormal rows or columns, by the Haar measure", _orthogonal
    ),
    "sparse": Suite("an exact share of zeros in each column", _sparse),
    "compile": Suite("seconds to trace and compile", _compile, measure.compilation),
    "kernels": Suite(
        "our programs for one draw, or for moments, by impl", _kernels, measure.programs
    ),
    "check": Suite(
        "signal and gradient of all seeds, from cold", health.cases, health.health
    ),
    "model": Suite("whole models, from cold", filling.cases, filling.model),
    "lab": Suite(
        "a comparison's cells, beside loops over them",
        training.cases,
        training.training,
    ),
}
