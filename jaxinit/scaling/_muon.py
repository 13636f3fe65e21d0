"""How Muon sees a kernel: as which matrix, and by how much it scales the update."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp

from jaxinit._structure.result import TracedParameter
from jaxinit.scaling._row import ScaledParameter
from jaxinit.scaling._vary import Rows, import_optax, map_rows

_BY_MUON = ("input", "hidden")


def is_matrix(row: ScaledParameter) -> bool:
    """Returns whether Muon updates a parameter.

    It does not update embeddings, readouts, routers and vectors, for which its norm is
    not the right one, and kernels in groups, as those of depthwise convolutions: they
    are one small matrix for each group, which dimension numbers cannot say. None of
    that depends on what grows, so that the base and all targets have one optimizer.
    """
    inputs, outputs = find_axes(row.traced)
    grouped = row.traced.window and row.traced.groups > 1
    fits = row.kind in _BY_MUON or row.narrow
    return fits and bool(inputs and outputs) and not grouped


def find_axes(traced: TracedParameter) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns the axes of a kernel's inputs, with its window, and those of its outputs.

    All others stack matrices: layers, experts, and queries beside keys beside values
    where they have an axis of their own.
    """
    joint = traced.joint
    apart = set()
    if joint is not None and {*joint.sizes} == {1} and joint.repeats == 1:
        apart = {joint.axis}
    inputs = tuple(sorted({*traced.in_axis, *traced.window}))
    return inputs, tuple(sorted({*traced.out_axis} - apart))


def find_sizes(row: ScaledParameter) -> tuple[int, int]:
    """Returns how many inputs and outputs the base's kernel has."""
    base = row.traced_base
    inputs, outputs = (_multiply(base, axes) for axes in find_axes(base))
    return inputs, outputs


def _multiply(traced: TracedParameter, axes: Sequence[int]) -> int:
    return math.prod(traced.shape[axis] for axis in axes)


def scale_update(inputs: int, outputs: int, consistent_rms: Any) -> Any:
    """Returns by how much Muon scales an orthonormal update of these sizes.

    That is max(1, outputs / inputs)^½, or ``consistent_rms`` times max(inputs,
    outputs)^½.
    """
    if consistent_rms is None:
        return jnp.sqrt(jnp.maximum(1, outputs / inputs))
    return jnp.sqrt(jnp.maximum(inputs, outputs)) * consistent_rms


def muon_dimensions(rows: Rows) -> Callable[[Any], Any]:
    """Returns the dimension numbers of `optax.contrib.muon` for each parameter.

    They are read from the program. A kernel whose inputs or outputs run along several
    axes, as those of attention, is one matrix. Stacked layers and experts are one
    matrix each. The window of a convolution counts as inputs. So do queries, keys and
    values of a joint kernel where they have an axis of their own; where they lie side
    by side along one axis, they are one matrix together, since dimension numbers cannot
    cut an axis.

    Returns:
      A function that takes the parameters, or a tree like them, and returns
      `optax.contrib.MuonDimensionNumbers` for what Muon updates and None for all else,
      as ``muon_weight_dimension_numbers`` takes it.
    """
    call = "Scale.muon"
    numbers = import_optax(call).contrib.MuonDimensionNumbers

    def read(row: ScaledParameter) -> Any:
        return numbers(*find_axes(row.traced)) if is_matrix(row) else None

    return lambda params: map_rows(call, rows, params, read, None)
