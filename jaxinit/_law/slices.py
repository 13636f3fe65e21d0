"""Slices: what each parameter of a traced init function needs, and no more.

The trace of an init function is laid out flat, as a graph of equations. Those that
derive keys are small and exact, and run one by one; the equations between the keys and
a parameter are that parameter's slice. Parameters that share an equation which depends
on a key or an argument share a slice, unless it is a loop over layers. Slices of equal
spelling run the same program.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.extend import core

from jaxinit._jaxpr.equation import Fixed, draws, fix, is_key, keep, open_body
from jaxinit._jaxpr.evaluation import evaluate
from jaxinit._jaxpr.primitives import SCAN, WRAPPERS
from jaxinit._jaxpr.spelling import Speller

Operand = int | Fixed  # the number of a value, or a constant


class Node(NamedTuple):
    """An equation with the numbers of the values that it takes and makes."""

    eqn: core.JaxprEqn
    invars: tuple[Operand, ...]
    outvars: tuple[int, ...]

    @property
    def output(self) -> int:
        """The first value that it makes, which is often the only one."""
        return self.outvars[0]


class Graph(NamedTuple):
    """A program without calls.

    Attributes:
      avals: types of the values, by number.
      nodes: in the order of execution.
      arguments: values that the caller gives.
      constants: values that are part of the program.
      outputs: what it returns.
    """

    avals: list[Any]
    nodes: list[Node]
    arguments: tuple[int, ...]
    constants: dict[int, Any]
    outputs: tuple[Operand, ...]


class Slice(NamedTuple):
    """A part of a graph.

    Attributes:
      nodes: in the order of execution.
      inputs: values that it takes.
      targets: values that it makes.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[int, ...]
    targets: tuple[Operand, ...]

    def arguments(self, graph: Graph) -> tuple[int, ...]:
        """Returns what its program is called with."""
        return tuple(v for v in self.inputs if v not in graph.constants)


def flatten(closed: core.ClosedJaxpr) -> Graph:
    """Lays a program out flat; calls whose results may be needed apart are opened.

    Equal draws from one key become one, as in XLA: results computed from a value with
    several users may be rounded differently.
    """
    avals: list[Any] = []
    nodes: list[Node] = []
    constants: dict[int, Any] = {}
    drawn: dict[Any, tuple[int, ...]] = {}
    speller = Speller()

    def new(variables: Sequence[Any]) -> tuple[int, ...]:
        avals.extend(variable.aval for variable in variables)
        return tuple(range(len(avals) - len(variables), len(avals)))

    def add(eqn: core.JaxprEqn, given: list[Operand]) -> Sequence[Operand]:
        body = _open(eqn)
        if body is not None:
            return add_all(body, given)
        token = _spell_draw(eqn, given, speller) if draws(eqn) else None
        if token is not None and token in drawn:
            return drawn[token]
        made = new(eqn.outvars)
        nodes.append(Node(eqn, tuple(given), made))
        if token is not None:
            drawn[token] = made
        return made

    def add_all(closed: core.ClosedJaxpr, operands: Sequence[Operand]) -> list[Operand]:
        held = new(closed.jaxpr.constvars)
        constants.update(zip(held, map(keep, closed.consts), strict=True))
        return evaluate(closed.jaxpr, held, operands, add, fix)

    arguments = new(closed.jaxpr.invars)
    outputs = add_all(closed, arguments)
    return Graph(avals, nodes, arguments, constants, tuple(outputs))


def _spell_draw(eqn: core.JaxprEqn, given: list[Operand], speller: Speller) -> Any:
    """Spells an equation with its operands: equal for equal values."""
    operands = (speller.spell_constant(v) if isinstance(v, Fixed) else v for v in given)
    types = tuple(str(atom.aval) for atom in eqn.invars)
    return speller.spell(eqn), types, tuple(operands)


def _open(eqn: core.JaxprEqn) -> core.ClosedJaxpr | None:
    """Returns the program of a call that is opened: one that makes several values.

    A call for one value, such as the draw of a law, stays whole.
    """
    if eqn.primitive.name not in WRAPPERS or not draws(eqn):
        return None
    if len(eqn.outvars) < 2 and not any(is_key(v.aval) for v in eqn.outvars):
        return None
    if any("Unspecified" not in str(s) for s in eqn.params.get("out_shardings", ())):
        return None
    return open_body(eqn)


def find_key_nodes(graph: Graph) -> list[Node]:
    """Returns the equations that derive the keys which the outputs need.

    They lead to a key and work on keys and integers alone, so that they give the same
    values one by one as in a compiled program.
    """
    needed = _find_needed(graph)
    wanted: set[int] = set()
    for node in reversed(needed):
        makes_key = any(is_key(graph.avals[value]) for value in node.outvars)
        if makes_key or not wanted.isdisjoint(node.outvars):
            wanted.update(v for v in node.invars if isinstance(v, int))
            wanted.update(node.outvars)
    known = {*graph.arguments, *graph.constants}
    found = []
    for node in needed:
        exact = all(_is_exact(graph.avals[value]) for value in node.outvars)
        ready = all(not isinstance(v, int) or v in known for v in node.invars)
        if exact and ready and not wanted.isdisjoint(node.outvars):
            known.update(node.outvars)
            found.append(node)
    return found


def _is_exact(aval: Any) -> bool:
    """Returns whether a value has keys, integers or booleans for entries."""
    return is_key(aval) or not jnp.issubdtype(aval.dtype, jnp.inexact)


def _find_needed(graph: Graph) -> list[Node]:
    """Returns the equations that the outputs depend on."""
    wanted = {value for value in graph.outputs if isinstance(value, int)}
    found = []
    for node in reversed(graph.nodes):
        if not wanted.isdisjoint(node.outvars):
            wanted.update(v for v in node.invars if isinstance(v, int))
            found.append(node)
    return found[::-1]


def cut(graph: Graph, known: set[int], every: bool = False) -> list[Slice]:
    """Cuts a graph into slices, from known values to outputs.

    Args:
      graph: the whole graph.
      known: values that are computed before.
      every: whether known outputs get slices too, which do nothing.

    Returns:
      Slices whose targets are all outputs, each once.
    """
    producer = {
        value: i for i, node in enumerate(graph.nodes) for value in node.outvars
    }
    free = _find_free(graph)
    owner: dict[int, int] = {}  # by equation, the first output that needs it
    parts: dict[Operand, set[int]] = {}
    groups: dict[int, list[Operand]] = {}
    for number, target in enumerate(dict.fromkeys(graph.outputs)):
        is_known = isinstance(target, Fixed) or target in known
        if is_known and not every:
            continue
        parts[target] = (
            set() if is_known else _find_before(graph, producer, target, known)
        )
        shared = {owner[i] for i in parts[target] if i in owner}
        joined = [x for one in sorted(shared) for x in groups.pop(one)]
        group = min(shared, default=number)
        groups[group] = [*joined, target]
        for member in groups[group] if joined else (target,):
            owner |= {i: group for i in parts[member] if i not in free}
    return [
        _cut_one(graph, targets, set().union(*(parts[target] for target in targets)))
        for targets in groups.values()
    ]


def _find_free(graph: Graph) -> set[int]:
    """Returns the equations that slices may have in common.

    They depend on literals alone, or are loops over layers, from which each slice keeps
    the part that its output needs.
    """
    values: set[int] = set()
    found = set()
    for i, node in enumerate(graph.nodes):
        if all(not isinstance(v, int) or v in values for v in node.invars):
            values.update(node.outvars)
            found.add(i)
        elif node.eqn.primitive.name == SCAN:
            found.add(i)
    return found


def _find_before(
    graph: Graph, producer: dict[int, int], target: Any, known: set[int]
) -> set[int]:
    """Returns the equations between known values and a target."""
    found: set[int] = set()
    waiting = [target]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Fixed) or value in known:
            continue
        if producer[value] not in found:
            found.add(producer[value])
            waiting.extend(graph.nodes[producer[value]].invars)
    return found


def _cut_one(graph: Graph, targets: list[Operand], part: set[int]) -> Slice:
    nodes = tuple(graph.nodes[i] for i in sorted(part))
    made = {value for node in nodes for value in node.outvars}
    taken = (*(v for node in nodes for v in node.invars), *targets)
    inputs = [v for v in taken if isinstance(v, int) and v not in made]
    return Slice(nodes, tuple(dict.fromkeys(inputs)), tuple(targets))


def spell(graph: Graph, part: Slice, speller: Speller) -> Any:
    """Spells a slice: equal for slices that run the same program.

    Constants of the whole are part of a slice's program, as in one of `jax.jit`.
    """
    names: dict[int, Any] = {v: ("constant", v) for v in graph.constants}

    def name(value: Operand) -> Any:
        if isinstance(value, Fixed):
            return speller.spell_constant(value)
        return names.setdefault(value, len(names))

    inputs = tuple(str(graph.avals[value]) for value in part.arguments(graph))
    for value in part.inputs:  # their numbers come first
        name(value)
    text = []
    for node in part.nodes:
        operands = tuple(map(name, node.invars))
        for value in node.outvars:
            name(value)
        text.append((speller.spell(node.eqn), operands))
    return inputs, tuple(text), tuple(map(name, part.targets))
