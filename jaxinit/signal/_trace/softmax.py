"""Finds softmax in a jaxpr, in any spelling, and the logarithms of its normalizers.

A softmax is exp(x) over its sum along an axis. A shift that is subtracted from x first,
such as the largest entry, is constant along that axis and changes nothing. Bodies of
calls and of functions with custom derivatives are read as if they stood inline.
"""

from collections.abc import Iterator, Set
from typing import Any, NamedTuple

from jax.extend import core

from jaxinit._jaxpr.equation import find_bodies, is_constant
from jaxinit._jaxpr.primitives import SAME, WRAPPERS

COPIES = SAME | {"stop_gradient", "alias"}
_SPREADS = COPIES | {"broadcast_in_dim", "abs"}


class Node(NamedTuple):
    """The primitive that computes a variable; "alias" where a call passes it on."""

    name: str
    params: Any
    inputs: tuple[Any, ...]


class Softmax(NamedTuple):
    """The argument x of exp(x) / sum, and the axis of the sum."""

    of: Any
    axis: int


def read_aval(key: Any) -> Any:
    """Returns the type of a variable, which may lie inside a call."""
    return (key[1] if isinstance(key, tuple) else key).aval


class Graph:
    """Knows the primitive that computes each variable of a jaxpr, inside calls too.

    A variable of the jaxpr is its own key. The key of one inside a call is a pair of
    the way to the call and the variable, since calls share their bodies.
    """

    def __init__(self, jaxpr: core.Jaxpr):
        """Reads a jaxpr."""
        self.nodes: dict[Any, Node] = {}
        self._read(jaxpr, ())

    def _read(self, jaxpr: core.Jaxpr, way: tuple[int, ...]) -> None:
        def key(atom: Any) -> Any:
            return atom if is_constant(atom) or not way else (way, atom)

        for index, eqn in enumerate(jaxpr.eqns):
            inputs = tuple(map(key, eqn.invars))
            bodies = list(find_bodies(eqn))
            if eqn.primitive.name not in WRAPPERS or not bodies:
                node = Node(eqn.primitive.name, eqn.params, inputs)
                self.nodes |= dict.fromkeys(map(key, eqn.outvars), node)
                continue
            body, inner = bodies[0], (*way, index)
            self._read(body, inner)
            results = [
                atom if is_constant(atom) else (inner, atom) for atom in body.outvars
            ]
            entering = [(inner, var) for var in body.invars]
            places = [*entering, *map(key, eqn.outvars)]
            for var, atom in zip(places, [*inputs, *results], strict=True):
                self.nodes[var] = Node("alias", {}, (atom,))

    def find_root(self, var: Any, through: Set[str] = COPIES) -> Any:
        """Goes back to the variable that another one is a copy of."""
        while (node := self.find_node(var)) and node.name in through:
            var = node.inputs[0]
        return var

    def find_node(self, var: Any) -> Node | None:
        return None if is_constant(var) else self.nodes.get(var)

    def read_softmax(self, var: Any) -> Softmax | None:
        """Reads the softmax that a variable is the result of; None if it is not one."""
        node = self.find_node(self.find_root(var))
        if node is None:
            return None
        if node.name == "div":
            return self._read_quotient(*node.inputs)
        if node.name == "mul":
            for one, other in (node.inputs, node.inputs[::-1]):
                inverse = self.find_node(self.find_root(other, _SPREADS))
                if inverse is None or not inverse.inputs:
                    continue
                if inverse.name == "integer_pow" and inverse.params["y"] == -1:
                    return self._read_quotient(one, inverse.inputs[0])
                if inverse.name == "div":
                    return self._read_quotient(one, inverse.inputs[1])
        if node.name == "exp":  # exp(log_softmax(x))
            inner = self.find_node(self.find_root(node.inputs[0]))
            if inner is not None and inner.name == "sub":
                softmax = self.read_normalizer(inner.inputs[1])
                logits = self._undo_shift(inner.inputs[0])
                if softmax and self._is_same(softmax.of, logits):
                    return softmax
        return None

    def read_normalizer(self, var: Any) -> Softmax | None:
        """Reads the softmax that a variable is the log-normalizer of, if it is one."""
        node = self.find_node(self.find_root(var, _SPREADS))
        if node is None:
            return None
        if node.name == "add":  # adds the largest entry, which was subtracted
            normalizers = (self.read_normalizer(each) for each in node.inputs)
            return next((each for each in normalizers if each), None)
        return self._read_sum(node.inputs[0]) if node.name == "log" else None

    def find_normalizers(self) -> Iterator[Softmax]:
        """Yields each softmax that a logarithm is taken of, as in a cross-entropy."""
        names = {node.name for node in self.nodes.values()}
        for var, node in self.nodes.items():
            if node.name == "log" and (softmax := self.read_normalizer(var)):
                yield softmax
            elif (
                node.name == "div"
                and "log" in names
                and (softmax := self.read_softmax(var))
            ):
                yield softmax

    def _read_quotient(self, top: Any, bottom: Any) -> Softmax | None:
        node = self.find_node(self.find_root(top))
        softmax = self._read_sum(bottom)
        if node is None or node.name != "exp" or softmax is None:
            return None
        same = self._is_same(softmax.of, self._undo_shift(node.inputs[0]))
        return softmax if same else None

    def _is_same(self, one: Any, other: Any) -> bool:
        return bool(self.find_root(one) == self.find_root(other))

    def _read_sum(self, var: Any) -> Softmax | None:
        """Reads the softmax whose normalizer, a sum of exponentials, a variable is."""
        node = self.find_node(self.find_root(var, _SPREADS))
        while node is not None and node.name in ("add", "max"):  # with an epsilon, say
            node = next(
                (self.find_node(self.find_root(v, _SPREADS)) for v in node.inputs), None
            )
        if node is None or node.name != "reduce_sum" or len(node.params["axes"]) != 1:
            return None
        inner = self.find_node(self.find_root(node.inputs[0]))
        if inner is None or inner.name != "exp":
            return None
        return Softmax(self._undo_shift(inner.inputs[0]), int(node.params["axes"][0]))

    def _undo_shift(self, var: Any) -> Any:
        """Goes back to before a shift, constant along an axis, was subtracted."""
        node = self.find_node(self.find_root(var))
        if node is None or node.name != "sub":
            return var
        one, shift = node.inputs
        spread = self.find_node(self.find_root(shift))
        repeats = spread is not None and spread.name in ("broadcast_in_dim", "reshape")
        return one if repeats or read_aval(shift).shape != read_aval(one).shape else var
