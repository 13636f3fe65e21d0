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


def aval_of(key: Any) -> Any:
    """Returns the type of a variable, which may lie inside a call."""
    return (key[1] if isinstance(key, tuple) else key).aval


class Graph:
    """Knows the primitive that computes each variable of a jaxpr, inside calls too.

    A variable of the jaxpr is its own key. The key of one inside a call is a pair of
    the way to the call and the variable, since calls share their bodies.
    """

    def __init__(self, jaxpr: core.Jaxpr):
        """Reads a jaxpr."""
        self.made: dict[Any, Node] = {}
        self._read(jaxpr, ())

    def _read(self, jaxpr: core.Jaxpr, way: tuple[int, ...]) -> None:
        def key(atom: Any) -> Any:
            return atom if is_constant(atom) or not way else (way, atom)

        for index, eqn in enumerate(jaxpr.eqns):
            inputs = tuple(map(key, eqn.invars))
            bodies = list(find_bodies(eqn))
            if eqn.primitive.name not in WRAPPERS or not bodies:
                node = Node(eqn.primitive.name, eqn.params, inputs)
                self.made |= dict.fromkeys(map(key, eqn.outvars), node)
                continue
            body, inner = bodies[0], (*way, index)
            self._read(body, inner)
            results = [
                atom if is_constant(atom) else (inner, atom) for atom in body.outvars
            ]
            entering = [(inner, var) for var in body.invars]
            places = [*entering, *map(key, eqn.outvars)]
            for var, atom in zip(places, [*inputs, *results], strict=True):
                self.made[var] = Node("alias", {}, (atom,))

    def root(self, var: Any, through: Set[str] = COPIES) -> Any:
        """Goes back to the variable that another one is a copy of."""
        while (node := self.node(var)) and node.name in through:
            var = node.inputs[0]
        return var

    def node(self, var: Any) -> Node | None:
        return None if is_constant(var) else self.made.get(var)

    def softmax(self, var: Any) -> Softmax | None:
        """Reads the softmax whose result a variable is; None if it is not a softmax."""
        node = self.node(self.root(var))
        if node is None:
            return None
        if node.name == "div":
            return self._over_sum(*node.inputs)
        if node.name == "mul":
            for one, other in (node.inputs, node.inputs[::-1]):
                inverse = self.node(self.root(other, _SPREADS))
                if inverse is None or not inverse.inputs:
                    continue
                if inverse.name == "integer_pow" and inverse.params["y"] == -1:
                    return self._over_sum(one, inverse.inputs[0])
                if inverse.name == "div":
                    return self._over_sum(one, inverse.inputs[1])
        if node.name == "exp":  # exp(log_softmax(x))
            inner = self.node(self.root(node.inputs[0]))
            if inner is not None and inner.name == "sub":
                found = self.normalizer(inner.inputs[1])
                if found and self._same(found.of, self._unshifted(inner.inputs[0])):
                    return found
        return None

    def normalizer(self, var: Any) -> Softmax | None:
        """Reads the softmax that a variable is the log-normalizer of, if it is one."""
        node = self.node(self.root(var, _SPREADS))
        if node is None:
            return None
        if node.name == "add":  # adds the largest entry, which was subtracted
            found = (self.normalizer(each) for each in node.inputs)
            return next((each for each in found if each), None)
        return self._sum_of(node.inputs[0]) if node.name == "log" else None

    def normalizers(self) -> Iterator[Softmax]:
        """Yields each softmax that a logarithm is taken of, as in a cross-entropy."""
        names = {node.name for node in self.made.values()}
        for var, node in self.made.items():
            if node.name == "log" and (found := self.normalizer(var)):
                yield found
            elif node.name == "div" and "log" in names and (found := self.softmax(var)):
                yield found

    def _over_sum(self, top: Any, bottom: Any) -> Softmax | None:
        node = self.node(self.root(top))
        found = self._sum_of(bottom)
        if node is None or node.name != "exp" or found is None:
            return None
        return found if self._same(found.of, self._unshifted(node.inputs[0])) else None

    def _same(self, one: Any, other: Any) -> bool:
        return bool(self.root(one) == self.root(other))

    def _sum_of(self, var: Any) -> Softmax | None:
        """Reads the softmax whose normalizer, a sum of exponentials, a variable is."""
        node = self.node(self.root(var, _SPREADS))
        while node is not None and node.name in ("add", "max"):  # with an epsilon, say
            node = next((self.node(self.root(v, _SPREADS)) for v in node.inputs), None)
        if node is None or node.name != "reduce_sum" or len(node.params["axes"]) != 1:
            return None
        inner = self.node(self.root(node.inputs[0]))
        if inner is None or inner.name != "exp":
            return None
        return Softmax(self._unshifted(inner.inputs[0]), int(node.params["axes"][0]))

    def _unshifted(self, var: Any) -> Any:
        """Goes back before the subtraction of a shift that an axis has in common."""
        node = self.node(self.root(var))
        if node is None or node.name != "sub":
            return var
        one, shift = node.inputs
        spread = self.node(self.root(shift))
        repeats = spread is not None and spread.name in ("broadcast_in_dim", "reshape")
        return one if repeats or aval_of(shift).shape != aval_of(one).shape else var
