"""Finds the layers that can be calibrated, and the parameters that scale them."""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

import jax.numpy as jnp
import numpy as np

from jaxinit import _check as check
from jaxinit._calibrate._degrees import (
    Degree,
    find_biases,
    find_degrees,
    find_loops,
)
from jaxinit._jaxpr.equation import list_uses
from jaxinit._jaxpr.primitives import DOT
from jaxinit._structure.result import Structure, TracedParameter
from jaxinit.signal.adjusting import Plan, Product, Program


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Layer:
    """A layer, and where its scale and its bias lie.

    Attributes:
      site: where its output is, in the program.
      steps: lengths of the loops around it.
      own: which of these loops have weights of their own for each step, as a stack of
        layers has; in other loops, such as those over time, all steps share weights.
      units: axes of the output that count units, each of which can have a scale.
      leaves: numbers of the parameters that are multiplied; none if it stays as it is.
      scale_axes: for each of them the axes that count steps, and those of units.
      bias: number of the parameter that is its bias, or None.
      bias_axes: its axes, likewise.
      follows: whether an earlier layer has the same parameters: it follows that one.
      reason: why it stays as it is; "" if it can be calibrated.
    """

    site: Product
    steps: tuple[int, ...]
    own: tuple[int, ...] = ()
    units: tuple[int, ...] = ()
    leaves: tuple[int, ...] = ()
    scale_axes: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = ()
    bias: int | None = None
    bias_axes: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    follows: bool = False
    reason: str = ""

    @property
    def shared(self) -> tuple[int, ...]:
        """The loops around it whose steps share its weights."""
        return tuple(i for i in range(len(self.steps)) if i not in self.own)

    @property
    def is_direct(self) -> bool:
        """Whether its scale can be found and used in the same pass."""
        return not (self.shared or self.follows or self.reason)

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many steps it has of its own, for each loop."""
        return tuple(self.steps[i] for i in self.own)

    def list_names(self) -> list[str]:
        """Returns its name, or one for each step that has weights of its own."""
        steps = itertools.product(*map(range, self.sizes))
        return [self.site.path + "".join(f"[{i}]" for i in step) for step in steps]


def find_layers(program: Program, per_unit: bool) -> list[Layer]:
    """Finds the layers of a model in their order of execution.

    Args:
      program: the traced model.
      per_unit: whether each unit has a scale of its own.

    Raises:
      Unfit: if the program cannot be read.
    """
    structure = program.read_structure()
    if structure is None:
        rule = "has a program that jaxinit.structure cannot read."
        raise check.Unfit(rule, model="a model")
    count = len(structure.rows)
    products = [(x, steps) for x, steps in program.sites if isinstance(x, Product)]
    degrees = _find_all_degrees(program, count, [site for site, _ in products])
    biases = find_biases(program.plan, count)
    loops = find_loops(program.plan, count)
    turns = dict(_find_turns(program.plan))
    taken: dict[int, tuple[int, ...]] = {}
    layers = []
    for site, steps in products:
        units = _list_unit_axes(site, turns.get(site.number)) if per_unit else None
        placed = steps, loops[site.number]
        layer = _read_layer(site, *placed, structure, degrees, units)
        layer = _read_bias(layer, biases[site.number], structure.rows)
        others = {taken[leaf] for leaf in layer.leaves if leaf in taken}
        if others == {layer.leaves}:
            layer = dataclasses.replace(layer, follows=True)
        elif others:
            layer = _leave(layer, "shares a part of its weight with an earlier layer")
        taken |= dict.fromkeys(layer.leaves, layer.leaves)
        layers.append(layer)
    return layers


_Degrees = Mapping[frozenset[int], Mapping[int, Degree]]


def _find_all_degrees(
    program: Program, count: int, sites: Sequence[Product]
) -> _Degrees:
    """Finds degrees in each parameter of weights made of several, and in all of one."""
    every = frozenset().union(*(site.leaves for site in sites))
    alone = {leaf for site in sites if len(site.leaves) > 1 for leaf in site.leaves}
    sets = [every, *(frozenset({leaf}) for leaf in alone)]
    return {each: find_degrees(program.plan, count, each) for each in sets}


def _choose_leaves(
    site: Product, rows: Sequence[TracedParameter], degrees: _Degrees
) -> tuple[int, ...]:
    """Chooses parameters of which the weight is a multiple: the smallest, or all."""
    if len(site.leaves) > 1:
        by_size = sorted(site.leaves, key=lambda leaf: math.prod(rows[leaf].shape))
        for leaf in by_size:
            if degrees[frozenset({leaf})].get(site.number) == 1:
                return (leaf,)
    every = next(iter(degrees.values()))
    return tuple(sorted(site.leaves)) if every.get(site.number) == 1 else ()


def _read_layer(
    site: Product,
    steps: tuple[int, ...],
    sliced: tuple[int, ...],
    structure: Structure,
    degrees: _Degrees,
    units: tuple[int, ...] | None,
) -> Layer:
    """Reads a layer, whether or not it can be calibrated."""
    rows = structure.rows
    leaves = _choose_leaves(site, rows, degrees)
    first = rows[leaves[0] if leaves else site.leaf]
    own = _match(first, steps, sliced)
    layer = Layer(site=site, steps=steps, own=own, units=units or ())
    roles = {role for leaf in site.leaves for role in rows[leaf].roles}
    if not jnp.issubdtype(site.output.aval.dtype, np.floating):
        return _leave(layer, f"its output is {site.output.aval.dtype}")
    if "embedding" in roles:
        return _leave(layer, "its weight is an embedding table")
    if not leaves:
        return _leave(layer, "its weight is no multiple of a parameter")
    shape = site.output.aval.shape
    sizes = None if units is None else tuple(shape[axis] for axis in units)
    axes = [_find_axes(rows[leaf], sizes) for leaf in leaves]
    if not all(axes) or any(len(rows[leaf].loops) != len(own) for leaf in leaves):
        return _leave(layer, "the program does not tell which entries make a unit")
    return dataclasses.replace(
        layer, leaves=leaves, scale_axes=tuple(each for each in axes if each)
    )


def _read_bias(
    layer: Layer, number: int | None, rows: Sequence[TracedParameter]
) -> Layer:
    """Reads the bias of a layer that can be calibrated: one that is its own alone."""
    if layer.reason or number is None:
        return layer
    row = rows[number]
    belongs = {rows[leaf].path for leaf in layer.site.leaves}.issuperset(row.of)
    if row.roles != ("bias",) or not (row.of and belongs):
        return layer
    shape, ordered = layer.site.output.aval.shape, sorted(layer.units)
    sizes = tuple(shape[axis] for axis in ordered) or None
    axes = _find_other_axes(row, sizes)
    if not axes or len(row.loops) != len(layer.own):
        return layer
    steps, units = axes
    if len(units) == len(layer.units):  # a bias has them in the order of the output
        units = tuple(units[ordered.index(axis)] for axis in layer.units)
    elif (*ordered,) != layer.units:
        return layer
    return dataclasses.replace(layer, bias=number, bias_axes=(steps, units))


def _leave(layer: Layer, reason: str) -> Layer:
    return dataclasses.replace(layer, leaves=(), scale_axes=(), reason=reason)


def _find_turns(plan: Plan) -> Iterator[tuple[int, Sequence[int]]]:
    """Finds how axes of products are permuted at once, by the number of the site."""
    jaxpr = plan.closed.jaxpr
    uses = list_uses(jaxpr)
    for site in plan.sites:
        readers = uses.get(site.eqn.outvars[0], []) if isinstance(site, Product) else []
        if len(readers) == 1 and readers[0] >= 0:
            eqn = jaxpr.eqns[readers[0]]
            if eqn.primitive.name == "transpose":
                yield site.number, eqn.params["permutation"]
    for body in plan.inner.values():
        yield from _find_turns(body)


def _list_unit_axes(site: Product, turn: Sequence[int] | None) -> tuple[int, ...]:
    """Lists the axes of a layer's output that count units, experts before others."""
    if site.eqn.primitive.name != DOT:
        return tuple(axis % len(site.output.aval.shape) for axis in site.unit_axes)
    _, (batched, _) = site.eqn.params["dimension_numbers"]
    experts = range(len(batched))
    placed = experts if turn is None else map([*turn].index, experts)
    return (*placed, *site.unit_axes)


def _match(
    row: TracedParameter, steps: tuple[int, ...], sliced: tuple[int, ...]
) -> tuple[int, ...]:
    """Returns which loops around a layer take a slice of its weight at each step.

    The program tells of loops that slice it themselves. Where the body of one chooses
    the entries, it is the first that fits, as loops over layers are mostly outermost.
    """
    if [steps[i] for i in sliced] == [row.shape[axis] for axis in row.loops]:
        return sliced
    own: list[int] = []
    for axis in row.loops:
        start = own[-1] + 1 if own else 0
        fits = (i for i in range(start, len(steps)) if steps[i] == row.shape[axis])
        if (place := next(fits, None)) is not None:
            own.append(place)
    return tuple(own)


def _find_axes(
    row: TracedParameter, sizes: tuple[int, ...] | None
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Finds a weight's axes of steps and of units; None if their sizes do not fit.

    Units stand in the order of `_list_unit_axes`: those that are batched first.
    """
    batched = (axis for axis in row.batch_axis if axis not in row.loops)
    units = (*batched, *row.out_axis)
    if sizes and units and _fits([row.shape[axis] for axis in units], sizes):
        return row.loops, units
    return _find_other_axes(row, sizes)


def _find_other_axes(
    row: TracedParameter, sizes: tuple[int, ...] | None
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Finds the axes of steps and of units, which are all the others."""
    if sizes is None:
        return row.loops, ()
    units = tuple(axis for axis in range(len(row.shape)) if axis not in row.loops)
    fits = _fits([row.shape[axis] for axis in units], sizes)
    return (row.loops, units) if fits else None


def _fits(found: Sequence[int], sizes: Sequence[int]) -> bool:
    """Returns whether axes count the units of these sizes, in the same order."""
    alike = len(found) != len(sizes) or [*found] == [*sizes]
    return alike and math.prod(found) == math.prod(sizes)


def list_rows(layers: Sequence[Layer]) -> Iterator[tuple[Layer, int, str]]:
    """Yields each layer with the number and the name of each step of its own."""
    for layer in layers:
        for number, name in enumerate(layer.list_names()):
            yield layer, number, name


def spread(
    values: np.ndarray,
    shape: Sequence[int],
    axes: tuple[tuple[int, ...], tuple[int, ...]],
) -> np.ndarray:
    """Lays values of steps and units along the axes of a parameter.

    Args:
      values: by step and unit. # [steps..., units...]
      shape: the parameter's.
      axes: its axes of steps, and those of units.

    Returns:
      An array that broadcasts against the parameter.
    """
    order = (*axes[0], *axes[1])
    laid = np.asarray(values).reshape([shape[axis] for axis in order])
    laid = laid.transpose(np.argsort(order)) if order else laid
    sizes = [shape[axis] if axis in order else 1 for axis in range(len(shape))]
    return laid.reshape(sizes)
