"""Spells equations as values that can be compared, so that equal ones are found."""

from typing import Any

import numpy as np
from jax.extend import core


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
