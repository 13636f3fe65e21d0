"""Spells equations as values that can be compared, so that equal ones are found."""

import hashlib
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxinit._jaxpr.equation import bind, is_constant, is_key
from jaxinit._jaxpr.primitives import CUSTOM


class Speller:
    """Spells what equations do: equations that do the same have equal spellings.

    Programs within equations are spelled once: JAX shares them between equal calls.
    """

    def __init__(self) -> None:
        """Begins with nothing spelled."""
        self._texts: dict[int, tuple[Any, Any]] = {}

    def spell(self, eqn: core.JaxprEqn) -> Any:
        """Spells an equation, operands aside."""
        params = eqn.params.items()
        return eqn.primitive, tuple(
            (name, self._spell_value(value)) for name, value in params
        )

    def spell_constant(self, atom: Any) -> Any:
        """Spells a constant operand, which has a val and an aval."""
        return _spell_array(np.asarray(atom.val)), str(atom.aval)

    def _spell_value(self, value: Any) -> Any:
        if isinstance(value, (tuple, list)):
            return tuple(map(self._spell_value, value))
        if isinstance(value, np.ndarray):
            return _spell_array(value)
        if not isinstance(value, (core.ClosedJaxpr, core.Jaxpr)):
            return str(value)
        if id(value) not in self._texts:
            consts = getattr(value, "consts", ())
            # The value is kept, so that no other takes its id.
            self._texts[id(value)] = value, (str(value), tuple(map(id, consts)))
        return self._texts[id(value)][1]


def _spell_array(array: np.ndarray) -> Any:
    return array.dtype.name, array.shape, array.tobytes()


def spell_program(closed: core.ClosedJaxpr, derivatives: bool = False) -> Hashable:
    """Spells a program: equal for programs that do the same, whoever traced them.

    Constants are spelled by their content.

    Args:
      closed: the program.
      derivatives: whether its first derivatives are to be the same too: functions may
        have rules of their own for these.
    """
    return _ProgramSpeller(derivatives).spell(closed.jaxpr, closed.consts)


class _ProgramSpeller:
    """Spells programs; one that stands in several places is spelled once."""

    def __init__(self, derivatives: bool) -> None:
        self._derivatives = derivatives
        # By id, what was spelled and how; it is kept, so that no other takes its id.
        self._known: dict[int, tuple[Any, Hashable]] = {}

    def spell(self, jaxpr: core.Jaxpr, consts: Sequence[Any]) -> Hashable:
        numbers: dict[Any, int] = {}

        def name(atom: Any) -> Hashable:
            if is_constant(atom):
                return self._spell_value(atom.val), atom.aval
            return numbers.setdefault(atom, len(numbers))

        heads = tuple(
            (name(variable), variable.aval)
            for variable in (*jaxpr.constvars, *jaxpr.invars)
        )
        equations = []
        for eqn in jaxpr.eqns:
            wrapper = eqn.primitive.name in CUSTOM
            params = tuple(
                (key, self._spell_value(value))
                for key, value in eqn.params.items()
                if not wrapper or key == "call_jaxpr"
            )
            if wrapper and self._derivatives:
                params = *params, ("derivative", self._once(eqn, _spell_derivative))
            operands = tuple(map(name, eqn.invars))
            results = tuple(map(name, eqn.outvars))
            context = self._once(eqn.ctx, str)
            equations.append((eqn.primitive, params, operands, results, context))
        constants = tuple(map(self._spell_value, consts))
        return heads, tuple(equations), tuple(map(name, jaxpr.outvars)), constants

    def _spell_value(self, value: Any) -> Hashable:
        if isinstance(value, (tuple, list)):
            return type(value), tuple(map(self._spell_value, value))
        if isinstance(value, core.ClosedJaxpr):
            return self._once(value, lambda v: self.spell(v.jaxpr, v.consts))
        if isinstance(value, core.Jaxpr):
            return self._once(value, lambda v: self.spell(v, ()))
        if isinstance(value, jax.Array) and is_key(value):
            words = _digest(np.asarray(jax.random.key_data(value)))
            return words, str(value.dtype)
        if isinstance(value, (np.ndarray, np.generic, jax.Array)):
            return self._once(value, lambda v: _digest(np.asarray(v)))
        try:
            hash(value)
        except TypeError:
            return self._once(value, _Same)
        if isinstance(value, (float, complex)):  # 0.0 and -0.0 are equal
            return type(value), repr(value)
        return type(value), value

    def _once(self, value: Any, spell: Callable[[Any], Hashable]) -> Hashable:
        if id(value) not in self._known:
            self._known[id(value)] = value, spell(value)
        return self._known[id(value)][1]


def _spell_derivative(eqn: core.JaxprEqn) -> Hashable:
    """Spells the first derivative of a call that has rules of its own for it."""
    if eqn.params.get("symbolic_zeros"):  # its rule may ask what is differentiated
        return _Same(eqn)
    try:
        return spell_program(_trace_derivative(eqn))
    except Exception:  # of the rule: whoever differentiates the program is told
        return _Same(eqn)


def _trace_derivative(eqn: core.JaxprEqn) -> core.ClosedJaxpr:
    if rule := eqn.params.get(
        "jvp_jaxpr_fun"
    ):  # JAX traces it for itself, and keeps it
        operands = len(eqn.invars) - eqn.params["num_consts"]
        jaxpr, consts, _ = rule.call_wrapped(*[False] * operands)
        return core.ClosedJaxpr(jaxpr, consts)

    def types(atoms: Sequence[Any]) -> list[jax.ShapeDtypeStruct]:
        return [jax.ShapeDtypeStruct(a.aval.shape, a.aval.dtype) for a in atoms]

    def pick(values: Sequence[Any]) -> list[Any]:
        return [x for x in values if jnp.issubdtype(x.dtype, np.inexact)]

    def derive(operands: list[Any], cotangents: list[Any]) -> Any:
        def run(*floats: Any) -> list[Any]:
            rest = iter(floats)
            return pick(bind(eqn, [next(rest) if pick([x]) else x for x in operands]))

        return jax.vjp(run, *pick(operands))[1](cotangents)

    traced: core.ClosedJaxpr = jax.make_jaxpr(derive)(
        types(eqn.invars), pick(types(eqn.outvars))
    )
    return traced


class _Same(NamedTuple):
    """Something that is equal to itself alone."""

    value: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def _digest(array: np.ndarray) -> Hashable:
    """Returns type, shape and a digest of the entries: constants may be large."""
    digest = hashlib.blake2b(np.ascontiguousarray(array).tobytes(), digest_size=32)
    return array.dtype.name, array.shape, digest.digest()
