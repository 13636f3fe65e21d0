"""Laws: slices whose entries are independent.

Entry i of a draw is a function of the key and of i alone. A law serves all shapes, and
all scales if its last operation is a multiplication, perhaps rounded to a narrow type.

The program of a law is not the one that `jax.jit` would compile for the whole, but must
give the same bits. So a law is made of operations that round alike in every program, in
an order that no reshape interrupts; all else stays a slice, which XLA compiles as in
the whole.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxinit._jaxpr.equation import Fixed, fix, is_key, name_generator, open_body
from jaxinit._jaxpr.evaluation import evaluate, walk
from jaxinit._jaxpr.primitives import (
    BITS,
    CALLS,
    RESHAPES,
    STABLE,
    STABLE_OF_NUMBERS,
)
from jaxinit._jaxpr.spelling import Speller
from jaxinit._law.slices import Graph, Node, Operand, Slice

FEWEST = 32  # entries: below, a shape has axes that cannot be told from scalars
WIDTHS: dict[int, np.dtype] = {32: np.dtype(np.uint32), 64: np.dtype(np.uint64)}
# Between these the product of an entry and a scale is a normal number: XLA flushes
# subnormal ones to 0.
_LEAST, _MOST = 2.0**-64, 2.0**64
# XLA may skip the rounding of narrower floats before the end of a program.
_NARROW = 4  # bytes: a law makes floats of fewer bytes only as its last step
# Operations that may precede the last product, so that XLA leaves the product alone.
_APART = {"clamp", "erf_inv", "max", "min", "select_n"}
_EXACT = {  # by IEEE: the same to the last bit wherever they are computed
    "add": np.add,
    "div": np.divide,
    "mul": np.multiply,
    "neg": np.negative,
    "sqrt": np.sqrt,
    "sub": np.subtract,
}


class Law(NamedTuple):
    """A law of independent entries.

    Attributes:
      steps: equations from a key to the entries, without the last product and what
        rounds it.
      key: number of the key.
      result: number of the value that the steps end with.
      full: numbers of the values that differ by entry.
      dtype: dtype of the entries.
      scale: the factor of the last product; None if there is none.
      factors: the numbers that it is the product of, the last one last.
    """

    steps: tuple[Node, ...]
    key: int
    result: int
    full: frozenset[int]
    dtype: np.dtype
    scale: Any
    factors: tuple[Any, ...]

    def rescale(self, last: Any) -> "Law | None":
        """Returns the law with another last factor; None if it may be another law."""
        if not self.factors or self.factors[-1].dtype != last.dtype:
            return None
        factors = *self.factors[:-1], last
        scale = _joined(factors)
        if scale is None:
            return None
        return self._replace(scale=scale, factors=factors)

    def spell(self, speller: Speller) -> Any:
        """Spells the law: equal for laws that are equal but for shape and scale."""
        names: dict[int, int] = {self.key: 0}
        text = []
        for step in self.steps:
            operands = tuple(
                speller.spell_constant(v) if isinstance(v, Fixed) else names[v]
                for v in step.invars
            )
            names[step.output] = len(names)
            is_bits = step.eqn.primitive.name == BITS
            what = _width(step.eqn) if is_bits else speller.spell(step.eqn)
            text.append((what, operands, step.output in self.full))
        return tuple(text), self.dtype.name, self.scale is None


def find_law(graph: Graph, part: Slice) -> Law | None:
    """Returns the law of a slice, if its entries are independent."""
    if len(part.inputs) != 1 or len(part.targets) != 1:
        return None
    (key,), (target,) = part.inputs, part.targets
    if not isinstance(target, int) or target == key or not is_key(graph.avals[key]):
        return None
    shape = graph.avals[target].shape
    if graph.avals[key].shape or math.prod(shape) < FEWEST or _is_weak(graph, target):
        return None
    reader = _Reader(shape, key)
    result = reader.read_slice(part, target)
    if not isinstance(result, int) or result not in reader.full or reader.draws != 1:
        return None
    steps, result, factors = _split_factors(reader, result)
    dtype = np.dtype(graph.avals[target].dtype)
    return Law(
        steps=tuple(steps),
        key=key,
        result=result,
        full=frozenset(reader.full),
        dtype=dtype,
        scale=_joined(factors),
        factors=factors,
    )


def _is_weak(graph: Graph, target: Operand) -> bool:
    """Returns whether a type is weak, which a NumPy array cannot be."""
    aval = target.aval if isinstance(target, Fixed) else graph.avals[target]
    return bool(aval.weak_type)


class _OtherKind(Exception):
    """Entries depend on each other, or may be rounded differently."""


class _Reader:
    """Reads equations as steps, as long as their entries are independent.

    A value with as many entries as the whole has them in the same order, whatever its
    shape.
    """

    def __init__(self, shape: tuple[int, ...], key: int):
        self.size = math.prod(shape)
        self.steps: list[Node] = []
        self.full: set[int] = set()
        self.ended: set[int] = set()  # values that only a reshape may follow
        self.draws = 0
        self._next = key + 1

    def read_slice(self, part: Slice, target: int) -> Operand | None:
        """Reads a slice; returns the value of its target, None if it is not a law."""

        def read(node: Node, given: list[Operand]) -> list[Operand]:
            return self.read(node.eqn, given)

        values: dict[Any, Operand] = {value: value for value in part.inputs}
        try:
            walk(part.nodes, values, read, fix)
        except _OtherKind:
            return None
        return values[target]

    def read(self, eqn: core.JaxprEqn, given: list[Operand]) -> list[Operand]:
        """Reads one equation and returns its results."""
        body = _open(eqn)
        if body is not None:
            if body.consts:
                raise _OtherKind
            args = given[len(given) - len(body.jaxpr.invars) :]  # without the branch
            return evaluate(body.jaxpr, (), args, self.read, fix)
        name = eqn.primitive.name
        if len(eqn.outvars) != 1:
            raise _OtherKind
        out: Any = eqn.outvars[0].aval
        whole = math.prod(out.shape) == self.size
        if name == "platform_index":  # the branch is chosen already
            return [Fixed(0, out)]
        if not whole and math.prod(out.shape) != 1:
            raise _OtherKind
        many = any(v in self.full for v in given if isinstance(v, int))
        if name == BITS:
            self.draws += 1
            if not (whole and _is_written_out(eqn)):
                raise _OtherKind
            return self._step(eqn, given, full=True)
        if name in RESHAPES and (not many or whole) and not is_key(out):
            if many and out.shape != _aval(eqn.invars[0]).shape:
                self.ended.update(v for v in given if isinstance(v, int))
            return given[:1]
        stable = STABLE if many else STABLE_OF_NUMBERS
        if name not in stable or many and not whole:
            raise _OtherKind
        if not self.ended.isdisjoint(v for v in given if isinstance(v, int)):
            raise _OtherKind
        made = self._step(eqn, given, full=many)
        if many and out.dtype.itemsize < _NARROW and out.dtype != bool:
            self.ended.update(v for v in made if isinstance(v, int))
        return made

    def _step(
        self, eqn: core.JaxprEqn, given: list[Operand], full: bool
    ) -> list[Operand]:
        self.steps.append(Node(eqn, tuple(given), (self._next,)))
        if full:
            self.full.add(self._next)
        self._next += 1
        return [self._next - 1]


def _is_written_out(eqn: core.JaxprEqn) -> bool:
    """Returns whether the bits of a draw are Threefry of the entries' indices."""
    with eqn.ctx.manager:
        by_index = jax.config.jax_threefry_partitionable  # type: ignore[attr-defined]
    threefry = name_generator(_dtype(eqn.invars[0])) == "threefry2x32"
    return bool(by_index and threefry and _width(eqn) in WIDTHS)


def _open(eqn: core.JaxprEqn) -> core.ClosedJaxpr | None:
    """Returns the program that a call runs; JAX's own, if there is one by platform."""
    if eqn.params.get("branches_platforms") is not None:
        branches = eqn.params["branches"]
        platforms = eqn.params["branches_platforms"]
        return next(
            (b for b, p in zip(branches, platforms, strict=True) if p is None), None
        )
    is_call = eqn.primitive.name in CALLS | {"custom_jvp_call"}
    return open_body(eqn) if is_call else None


def _split_factors(
    reader: _Reader, result: int
) -> tuple[list[Node], int, tuple[Any, ...]]:
    """Splits the last products with constants off a law, if they make one scale.

    A conversion to a narrow float behind them is left to the law's dtype.
    """
    makers = {step.output: step for step in reader.steps}
    factors, current, taken = [], _unrounded(makers, result), {result}
    while makers[current].eqn.primitive.name == "mul":
        step = makers[current]
        constants = [v for v in step.invars if v not in reader.full]
        rest = [v for v in step.invars if isinstance(v, int) and v in reader.full]
        value = _compute(constants[0], makers) if constants else None
        if value is None or len(rest) != 1:
            return reader.steps, result, ()
        factors.append(value)
        current = rest[0]
        taken.add(step.output)
    is_apart = makers[current].eqn.primitive.name in _APART
    if not is_apart or _joined(factors[::-1]) is None:
        return reader.steps, result, ()
    needed = {current}
    steps = []
    for step in reversed(reader.steps):
        if step.output in needed and step.output not in taken:
            needed.update(v for v in step.invars if isinstance(v, int))
            steps.append(step)
    return steps[::-1], current, tuple(factors[::-1])


def _unrounded(makers: dict[int, Node], result: int) -> int:
    """Returns the float32 that a law rounds to a narrow float as its last step."""
    eqn, operand = makers[result].eqn, makers[result].invars[0]
    out = _dtype(eqn.outvars[0])
    rounds = eqn.primitive.name == "convert_element_type" and _is_float(out)
    narrow = out.itemsize < _NARROW and _dtype(eqn.invars[0]) == np.float32
    return operand if rounds and narrow and isinstance(operand, int) else result


def _joined(factors: Sequence[Any]) -> Any:
    """Multiplies successive factors of a law, in the order of XLA.

    From ((x a) b) c and more, one pass of XLA makes x (a b) and leaves c for the next:
    neighbors are joined in pairs, then pairs of those. None if there is no factor, or a
    product could round to a number that is not normal.
    """
    if not all(map(is_ordinary, factors)):
        return None
    if len(factors) > 1:
        last = len(factors) - len(factors) % 2
        pairs = zip(factors[:last:2], factors[1:last:2], strict=True)
        return _joined([*(a * b for a, b in pairs), *factors[last:]])
    return factors[0] if factors else None


def is_ordinary(factor: Any) -> bool:
    """Returns whether products with a factor round as in every other program."""
    return _is_float(factor.dtype) and _LEAST <= abs(factor) <= _MOST


def _compute(operand: Operand, makers: dict[int, Node]) -> Any:
    """Computes a scalar that depends on literals alone, if that is exact."""
    if isinstance(operand, Fixed):
        return np.asarray(operand.val, operand.aval.dtype)[()]
    step = makers.get(operand)
    if step is None:
        return None
    values = [_compute(v, makers) for v in step.invars]
    name, dtype = step.eqn.primitive.name, _dtype(step.eqn.outvars[0])
    if any(value is None for value in values) or not _is_float(dtype):
        return None
    with np.errstate(all="ignore"):
        if name == "convert_element_type":
            made = np.asarray(values[0]).astype(dtype)[()]
        elif name in _EXACT and dtype.itemsize >= _NARROW:
            made = _EXACT[name](*values)
        else:
            return None
    return made if not made or is_ordinary(made) else None


def _is_float(dtype: Any) -> bool:
    return bool(jnp.issubdtype(dtype, np.floating))


def _width(eqn: core.JaxprEqn) -> Any:
    return eqn.params["bit_width"]


def _aval(atom: Any) -> Any:
    return atom.aval


def _dtype(atom: Any) -> Any:
    return atom.aval.dtype


def find_constant(graph: Graph, part: Slice) -> Any:
    """Returns the number that a slice repeats; None if there is no such number."""
    if part.inputs or len(part.targets) != 1:
        return None
    (target,) = part.targets
    if _is_weak(graph, target):
        return None
    if isinstance(target, Fixed):
        return _compute(target, {})
    reader = _Reader(graph.avals[target].shape, target)
    result = reader.read_slice(part, target)
    makers = {step.output: step for step in reader.steps}
    return None if result is None else _compute(result, makers)
