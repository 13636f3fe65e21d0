"""Finds attention in a jaxpr: a softmax between two products of data by data.

A row of attention weights p is saturated where softmax is flat, as an activation is.
The Jacobian diag(p) - p p^T of softmax has the trace 1 - sum p^2: zero where one key
has all the weight, and at most 1 - 1/n, where n keys share it equally. Below 1/20 of
that maximum (the share of the steepest slope at which activations count as flat) the
first key has more than 97 % of the weight, and no gradient tells a query of the others.
With logits of standard deviation s the first of n keys leads by s / sqrt(2 log n) on
average, and half of the rows are saturated where s is 12 for 16 keys, 16 for 128. Usual
attention starts at s = 1, where one row in a thousand is.

A row in which a mask leaves a single key is always saturated, and does not count.
"""

import dataclasses
import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from jaxinit._jaxpr.equation import find_variables, is_constant
from jaxinit._jaxpr.evaluation import begin, read, walk
from jaxinit._jaxpr.primitives import DOT, ELEMENTWISE, SAME
from jaxinit._structure.activation import Var
from jaxinit.signal._trace.gates import FLAT
from jaxinit.signal._trace.site import Product
from jaxinit.signal._trace.softmax import Graph, read_aval

_MASKED = 1e3  # a mask lowers logits by more, usually by 1e4 or to the lowest number
_LOWEST = -1e8  # below any logit; used where logits and scores differ in shape
_ON_THE_WAY = (
    ELEMENTWISE
    | SAME
    | {"alias", "broadcast_in_dim", "concatenate", "pad", "slice", "transpose"}
    | {"stop_gradient"}
)

_NONE: frozenset[int] = frozenset()  # no layers


@dataclasses.dataclass(frozen=True, eq=False)
class Attention:
    """A softmax over the products of queries and keys, in a jaxpr.

    Attributes:
      number: unique among sites and attentions.
      logits: the product of queries and keys, scaled.
      scores: the argument of the softmax: logits, masked and with a bias.
      weights: the result of the softmax.
      axis: the axis of the keys.
      size: the number of entries of a query.
      operands: the two factors of the product.
    """

    number: int
    logits: Var
    scores: Var
    weights: Var
    axis: int
    size: int
    operands: tuple[Var, Var]

    def measure(self, env: Mapping[Any, Any]) -> dict[str, jax.Array]:
        """Computes the share of saturated rows and the size of the logits."""
        logits, scores, weights = (
            jax.lax.stop_gradient(env[var]).astype(jnp.float32)
            for var in (self.logits, self.scores, self.weights)
        )
        if logits.shape == scores.shape:
            visible = scores > logits - _MASKED
        else:
            logits, visible = scores, scores > _LOWEST
        seen = visible.astype(jnp.float32)
        keys = seen.sum(self.axis, keepdims=True)
        steepest = 1 - 1 / jnp.maximum(keys, 1)
        trace = 1 - (weights**2).sum(self.axis, keepdims=True)
        several = (keys > 1).astype(jnp.float32)
        flat = jnp.where(trace < FLAT * steepest, several, 0)
        mean = jnp.where(visible, logits, 0).sum(self.axis, keepdims=True)
        free = jnp.maximum(jnp.maximum(keys - 1, 0).sum(), 1)
        around = jnp.where(visible, logits - mean / jnp.maximum(keys, 1), 0)
        return {
            "attention_saturated": flat.sum() / jnp.maximum(several.sum(), 1),
            "attention_std": jnp.sqrt((around**2).sum() / free),
        }


def find_attentions(
    jaxpr: core.Jaxpr, data: set[Any], numbers: Iterator[int]
) -> tuple[Attention, ...]:
    """Finds attention in a jaxpr.

    Args:
      jaxpr: a jaxpr without inner calls that hold products.
      data: the variables that depend on the inputs.
      numbers: yields a number for each attention.
    """
    products = {
        eqn.outvars[0]: eqn
        for eqn in jaxpr.eqns
        if eqn.primitive.name == DOT and data.issuperset(eqn.invars)
    }
    if len(products) < 2:
        return ()
    graph = Graph(jaxpr)
    values = [atom for eqn in products.values() for atom in eqn.invars]
    mixing = set(_go_back(graph, values))
    candidates = [var for eqn in jaxpr.eqns for var in eqn.outvars if var in mixing]
    attentions = (
        _read_attention(jaxpr, graph, products, var, numbers) for var in candidates
    )
    return tuple(attention for attention in attentions if attention)


def find_layers_before(
    plan: Any, nearest: Sequence[frozenset[int]]
) -> Iterator[tuple[Attention, frozenset[int]]]:
    """Yields each attention with the layers that its queries and keys come from.

    Args:
      plan: a `Plan`.
      nearest: for each argument of its jaxpr, the numbers of the last layers before it.
    """
    jaxpr = plan.closed.jaxpr
    layers = {x.eqn: x.number for x in plan.sites if isinstance(x, Product)}
    pairs: list[tuple[Attention, frozenset[int]]] = []

    def join(eqn: core.JaxprEqn, before: list[frozenset[int]]) -> Any:
        result: frozenset[int] = _NONE.union(*before)
        if inner := plan.inner.get(eqn):
            pairs.extend(find_layers_before(inner, before))
            result |= {site.number for site, _ in inner.all_sites()}
        if eqn in layers:
            result = frozenset({layers[eqn]})
        return [result] * len(eqn.outvars)

    before = begin(jaxpr, [_NONE] * len(jaxpr.constvars), nearest)
    walk(jaxpr.eqns, before, join, constant=lambda _: _NONE)
    yield from pairs
    for attention in plan.attentions:
        yield attention, _NONE.union(*read(before, attention.operands))


def _read_attention(
    jaxpr: core.Jaxpr,
    graph: Graph,
    products: Mapping[Any, core.JaxprEqn],
    weights: Var,
    numbers: Iterator[int],
) -> Attention | None:
    """Reads the attention whose weights a variable holds; None if it holds none."""
    softmax = graph.read_softmax(weights)
    node = graph.find_node(weights)
    if softmax is None or node is None or node.name in SAME:
        return None
    before = list(_go_back(graph, [softmax.of]))
    product = next((var for var in before if var in products), None)
    shape = read_aval(weights).shape
    outer = [var for var in before if not isinstance(var, tuple)]
    scores = next((var for var in outer if read_aval(var).shape == shape), None)
    if product is None or scores is None:
        return None
    eqn = products[product]
    (contracted, _), _ = eqn.params["dimension_numbers"]
    size = math.prod(read_aval(eqn.invars[0]).shape[axis] for axis in contracted)
    logits, operands = _follow_scaling(jaxpr, product), (eqn.invars[0], eqn.invars[1])
    number = next(numbers)
    return Attention(number, logits, scores, weights, softmax.axis, size, operands)


def _go_back(graph: Graph, atoms: Iterable[Any]) -> Iterator[Any]:
    """Yields the variables that others come from entry by entry, the nearest first."""
    waiting, seen = deque(atoms), set()
    while waiting:
        atom = waiting.popleft()
        if is_constant(atom) or atom in seen or not _is_array(atom):
            continue
        seen.add(atom)
        yield atom
        node = graph.find_node(atom)
        if node is not None and node.name in _ON_THE_WAY:
            waiting.extend(node.inputs)


def _is_array(key: Any) -> bool:
    """Returns whether a variable, perhaps one inside a call, is a real array."""
    aval = read_aval(key)
    return bool(aval.shape) and bool(jnp.issubdtype(aval.dtype, jnp.floating))


def _follow_scaling(jaxpr: core.Jaxpr, product: Var) -> Var:
    """Follows a product through operations with scalars, such as 1 / sqrt(size)."""
    at = product
    for eqn in jaxpr.eqns:
        arrays = [v for v in find_variables(eqn.invars) if read_aval(v).shape]
        same = eqn.primitive.name in ELEMENTWISE | SAME
        if same and arrays == [at] and read_aval(eqn.outvars[0]).shape == at.aval.shape:
            at = eqn.outvars[0]
    return at
