"""Reads a layer from a jaxpr: a matrix product or convolution of data with a weight.

Its output is the product, or the sum with a bias that follows; its activation is the
chain of elementwise operations behind that.
"""

import math
from collections.abc import Mapping
from typing import Any

from jax.extend import core

from jaxinit._jaxpr.equation import is_constant
from jaxinit._jaxpr.primitives import DOT, PRODUCTS
from jaxinit._structure.activation import Var, find_activation
from jaxinit.signal._trace.site import Product

# Where a variable comes from: the parameters alone, by the numbers of their leaves, or
# None, for data.
Origin = frozenset[int] | None
NOTHING: Origin = frozenset()  # the origin of constants


def read_origin(origin: Mapping[Var, Origin], atom: Any) -> Origin:
    return NOTHING if is_constant(atom) else origin[atom]


def read_product(
    jaxpr: core.Jaxpr,
    eqn: core.JaxprEqn,
    origin: Mapping[Var, Origin],
    uses: Mapping[Any, list[int]],
    fixed: Mapping[Var, core.Literal],
    number: int,
    loop: int,
) -> Product | None:
    """Reads the layer that an equation computes; None if it computes none."""
    name = eqn.primitive.name
    if name not in PRODUCTS:
        return None
    known = [read_origin(origin, atom) for atom in eqn.invars]
    if (known[0] is None) == (known[1] is None):
        return None
    side = 0 if known[0] is not None else 1
    leaves = known[side]
    if not leaves:  # a constant, not a parameter
        return None
    weight: Var = eqn.invars[side]
    data: Var = eqn.invars[1 - side]
    output: Var = eqn.outvars[0]
    rank = len(output.aval.shape)
    if name == DOT:
        (left, right), (left_batch, right_batch) = eqn.params["dimension_numbers"]
        contracted, batched = (left, left_batch) if side == 0 else (right, right_batch)
        shape = weight.aval.shape
        free = [i for i in range(len(shape)) if i not in (*contracted, *batched)]
        start = len(batched) if side == 0 else rank - len(free)
        unit_axes = tuple(range(start, start + len(free)))
        weight_units, kind = tuple(free), "dense"
        fan_in = math.prod(shape[i] for i in contracted)
    else:
        numbers_of = eqn.params["dimension_numbers"]
        unit_axes, weight_units = (numbers_of.out_spec[1],), (numbers_of.rhs_spec[0],)
        kind = "conv"
        fan_in = math.prod(weight.aval.shape) // weight.aval.shape[weight_units[0]]
    output, unit_axes = _follow_turn(jaxpr, output, unit_axes, uses)
    output = _follow_detour(jaxpr, output, uses)
    output, bias = _follow_bias(jaxpr, output, origin, uses)
    chain, activated = find_activation(jaxpr, output, uses, fixed)
    return Product(
        number=number,
        loop=loop,
        path="",
        output=output,
        leaves=leaves,
        kind=kind,
        fan_in=fan_in,
        unit_axes=unit_axes,
        weight_unit_axes=weight_units,
        eqn=eqn,
        weight=weight,
        bias=bias,
        input=data,
        chain=chain,
        activated=activated,
    )


def _follow_turn(
    jaxpr: core.Jaxpr,
    output: Var,
    unit_axes: tuple[int, ...],
    uses: Mapping[Any, list[int]],
) -> tuple[Var, tuple[int, ...]]:
    """Follows a product whose axes are turned at once, if nothing else reads it.

    `jax.vmap` of ``weight @ x``, as in Equinox, makes units first and turns them last.
    """
    readers = uses.get(output, [])
    eqn = jaxpr.eqns[readers[0]] if len(readers) == 1 and readers[0] >= 0 else None
    if eqn is None or eqn.primitive.name != "transpose":
        return output, unit_axes
    rank, order = len(output.aval.shape), list(eqn.params["permutation"])
    return eqn.outvars[0], tuple(order.index(axis % rank) for axis in unit_axes)


def _follow_detour(
    jaxpr: core.Jaxpr, output: Var, uses: Mapping[Any, list[int]]
) -> Var:
    """Follows reshapes that lead back to the output's shape, if nothing else reads it.

    `jax.vmap` of a convolution of one example, as in Equinox, adds an axis of size 1,
    which the layer takes off. Reshapes keep the order of entries: both undo each other.
    """
    at = output
    while len(readers := uses.get(at, [])) == 1 and readers[0] >= 0:
        eqn = jaxpr.eqns[readers[0]]
        if eqn.primitive.name not in {"reshape", "squeeze"}:
            break
        result: Var = eqn.outvars[0]
        at = result
        if at.aval.shape == output.aval.shape:
            output = at
    return output


def _follow_bias(
    jaxpr: core.Jaxpr,
    output: Var,
    origin: Mapping[Var, Origin],
    uses: Mapping[Any, list[int]],
) -> tuple[Var, Any]:
    """Follows a product to the sum with its bias, if nothing else reads the product.

    Returns:
      The output of the layer, and the bias or None.
    """
    at = output
    while len(readers := uses.get(at, [])) == 1 and readers[0] >= 0:
        eqn = jaxpr.eqns[readers[0]]
        result: Var = eqn.outvars[0]
        if eqn.primitive.name == "add":
            other = next((a for a in eqn.invars if a is not at), at)
            if not read_origin(origin, other):
                break
            if result.aval.shape != output.aval.shape:
                break
            return result, other
        same = result.aval.shape == output.aval.shape
        if eqn.primitive.name not in {"convert_element_type", "copy"} or not same:
            break
        at = result
    return output, None
