"""Slices: what each parameter of a traced init function needs, and no more.

The trace of an init function is laid out flat, as a graph of equations. Those that
derive keys are small and exact, and run one by one; what is left between the keys and a
parameter is that parameter's slice. Parameters that share an equation which depends on
a key or an argument share a slice, unless it is a loop over layers. Slices that spell
alike run the same program.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxinit.model._equation import Speller, draws, is_key


@dataclass(frozen=True, eq=False)
class Fixed:
    """A constant that stands in a program."""

    val: Any
    aval: Any


Operand = int | Fixed  # the number of a value, or a constant

_CALLS = ("jit", "pjit", "closed_call", "core_call", "checkpoint", "remat2")
_CUSTOM = ("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr")


class Node(NamedTuple):
    """An equation with the numbers of the values that it takes and makes."""

    eqn: core.JaxprEqn
    inputs: tuple[Operand, ...]
    outputs: tuple[int, ...]


class Graph(NamedTuple):
    """A program without calls.

    Attributes:
      avals: types of the values, by number.
      nodes: in the order of execution.
      arguments: values that the caller gives.
      constants: values that the program came with.
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


def flat(closed: core.ClosedJaxpr) -> Graph:
    """Lays a program out without the calls in it whose parts may be needed apart.

    Equal draws of one key are one, as XLA has them: what is made of a value that has
    several users may be rounded otherwise.
    """
    avals: list[Any] = []
    nodes: list[Node] = []
    constants: dict[int, Any] = {}
    drawn: dict[Any, tuple[int, ...]] = {}
    speller = Speller()

    def new(variables: Sequence[Any]) -> tuple[int, ...]:
        avals.extend(variable.aval for variable in variables)
        return tuple(range(len(avals) - len(variables), len(avals)))

    def add(eqn: core.JaxprEqn, given: tuple[Operand, ...]) -> tuple[int, ...]:
        token = _token(eqn, given, speller) if draws(eqn) else None
        if token is not None and token in drawn:
            return drawn[token]
        made = new(eqn.outvars)
        nodes.append(Node(eqn, given, made))
        if token is not None:
            drawn[token] = made
        return made

    def walk(
        jaxpr: core.Jaxpr, consts: Sequence[Any], operands: Sequence[Operand]
    ) -> tuple[Operand, ...]:
        held = new(jaxpr.constvars)
        constants.update(zip(held, map(_kept, consts), strict=True))
        env: dict[Any, Operand] = dict(zip(jaxpr.constvars, held, strict=True))
        env |= dict(zip(jaxpr.invars, operands, strict=True))

        def read(atom: Any) -> Operand:
            if isinstance(atom, core.Literal):
                return Fixed(_kept(atom.val), atom.aval)
            return env[atom]

        for eqn in jaxpr.eqns:
            given = tuple(map(read, eqn.invars))
            body = _opened(eqn)
            if body is not None:
                made = walk(body.jaxpr, body.consts, given)
            else:
                made = add(eqn, given)
            env |= dict(zip(eqn.outvars, made, strict=True))
        return tuple(map(read, jaxpr.outvars))

    arguments = new(closed.jaxpr.invars)
    outputs = walk(closed.jaxpr, closed.consts, arguments)
    return Graph(avals, nodes, arguments, constants, outputs)


def _kept(value: Any) -> Any:
    """Returns a constant as it is now: an array of NumPy may change."""
    return value.copy() if isinstance(value, np.ndarray) else value


def _token(eqn: core.JaxprEqn, given: tuple[Operand, ...], speller: Speller) -> Any:
    """Spells an equation with its operands: equal for equal values."""
    operands = (speller.constant(v) if isinstance(v, Fixed) else v for v in given)
    types = tuple(str(atom.aval) for atom in eqn.invars)
    return speller.equation(eqn), types, tuple(operands)


def _opened(eqn: core.JaxprEqn) -> core.ClosedJaxpr | None:
    """Returns the program of a call that is laid out: one that makes several values.

    A call for one value, such as the draw of a law, stays a unit.
    """
    name = eqn.primitive.name
    if name not in (*_CALLS, *_CUSTOM) or not draws(eqn):
        return None
    if len(eqn.outvars) < 2 and not any(is_key(v.aval) for v in eqn.outvars):
        return None
    if any("Unspecified" not in str(s) for s in eqn.params.get("out_shardings", ())):
        return None
    body = eqn.params.get("call_jaxpr", eqn.params.get("jaxpr"))
    if isinstance(body, core.Jaxpr):
        return core.ClosedJaxpr(body, ()) if not body.constvars else None
    return body if isinstance(body, core.ClosedJaxpr) else None


def key_nodes(graph: Graph) -> list[Node]:
    """Returns the equations that derive keys which the outputs need.

    They are those before a key that work on keys and integers alone, which give the
    same values one by one as in a compiled program.
    """
    needed = _needed(graph)
    wanted: set[int] = set()
    for node in reversed(needed):
        makes_key = any(is_key(graph.avals[value]) for value in node.outputs)
        if makes_key or not wanted.isdisjoint(node.outputs):
            wanted.update(v for v in node.inputs if isinstance(v, int))
            wanted.update(node.outputs)
    known = {*graph.arguments, *graph.constants}
    found = []
    for node in needed:
        exact = all(_exact(graph.avals[value]) for value in node.outputs)
        ready = all(not isinstance(v, int) or v in known for v in node.inputs)
        if exact and ready and not wanted.isdisjoint(node.outputs):
            known.update(node.outputs)
            found.append(node)
    return found


def _exact(aval: Any) -> bool:
    """Returns whether a value is of keys, integers or booleans."""
    return is_key(aval) or not jnp.issubdtype(aval.dtype, jnp.inexact)


def _needed(graph: Graph) -> list[Node]:
    """Returns the equations that the outputs wait for."""
    wanted = {value for value in graph.outputs if isinstance(value, int)}
    found = []
    for node in reversed(graph.nodes):
        if not wanted.isdisjoint(node.outputs):
            wanted.update(v for v in node.inputs if isinstance(v, int))
            found.append(node)
    return found[::-1]


def slices(graph: Graph, known: set[int], every: bool = False) -> list[Slice]:
    """Cuts what is not known out of a graph.

    Args:
      graph: the whole.
      known: values that are there before.
      every: whether outputs that are known are made too, by slices that do nothing.

    Returns:
      Slices whose targets are all outputs, each once.
    """
    producer = {
        value: i for i, node in enumerate(graph.nodes) for value in node.outputs
    }
    free = _free(graph)
    owner: dict[int, int] = {}  # by equation, the first output that needs it
    parts: dict[Operand, set[int]] = {}
    groups: dict[int, list[Operand]] = {}
    for number, target in enumerate(dict.fromkeys(graph.outputs)):
        is_known = isinstance(target, Fixed) or target in known
        if is_known and not every:
            continue
        parts[target] = set() if is_known else _before(graph, producer, target, known)
        shared = {owner[i] for i in parts[target] if i in owner}
        joined = [x for one in sorted(shared) for x in groups.pop(one)]
        group = min(shared, default=number)
        groups[group] = [*joined, target]
        for member in groups[group] if joined else (target,):
            owner |= {i: group for i in parts[member] if i not in free}
    return [
        _slice(graph, targets, set().union(*(parts[target] for target in targets)))
        for targets in groups.values()
    ]


def _free(graph: Graph) -> set[int]:
    """Returns the equations that slices may have in common.

    They depend on literals alone, or are loops over layers, of which each slice keeps
    what its output needs.
    """
    values: set[int] = set()
    found = set()
    for i, node in enumerate(graph.nodes):
        if all(not isinstance(v, int) or v in values for v in node.inputs):
            values.update(node.outputs)
            found.add(i)
        elif node.eqn.primitive.name == "scan":
            found.add(i)
    return found


def _before(
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
            waiting.extend(graph.nodes[producer[value]].inputs)
    return found


def _slice(graph: Graph, targets: list[Operand], part: set[int]) -> Slice:
    nodes = tuple(graph.nodes[i] for i in sorted(part))
    made = {value for node in nodes for value in node.outputs}
    taken = (*(v for node in nodes for v in node.inputs), *targets)
    inputs = [v for v in taken if isinstance(v, int) and v not in made]
    return Slice(nodes, tuple(dict.fromkeys(inputs)), tuple(targets))


def spelt(graph: Graph, part: Slice, speller: Speller) -> Any:
    """Spells a slice: equal for slices that run the same program.

    A constant that the whole came with is part of a program, as of `jax.jit`'s.
    """
    names: dict[int, Any] = {v: ("constant", v) for v in graph.constants}

    def name(values: Sequence[Operand]) -> Iterator[Any]:
        for value in values:
            if isinstance(value, Fixed):
                yield speller.constant(value)
            else:
                yield names.setdefault(value, len(names))

    inputs = tuple(str(graph.avals[value]) for value in part.arguments(graph))
    tuple(name(part.inputs))
    text = []
    for node in part.nodes:
        operands = tuple(name(node.inputs))
        tuple(name(node.outputs))
        text.append((speller.equation(node.eqn), operands))
    return inputs, tuple(text), tuple(name(part.targets))
