"""Assignments: the law that each parameter of a tree gets, and how it is drawn."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit import _check as check
from jaxinit import _paths, _placement, _text
from jaxinit._initializer import Initializer
from jaxinit._result import Result
from jaxinit._table import Column, Table
from jaxinit.model._fill.init_function import InitFunction, jit_init, placed_of
from jaxinit.model._rules import arguments
from jaxinit.model._rules.arguments import is_parameter
from jaxinit.model._rules.patterns import spelt

_STAYS = "stays"  # the law of a parameter that no rule changes


@dataclasses.dataclass(frozen=True, repr=False)
class Assignment:
    """The rule and the law of one parameter.

    Attributes:
      path: the parameter's path.
      shape: its sizes.
      dtype: its type.
      rule: number of the rule, None where none matches.
      pattern: that rule's pattern as text.
      law: the initializer, a number, an array, or None to leave the parameter as it is.
      std: the standard deviation that the law gives an entry; None where it is unknown.
      fans: fan_in and fan_out that the law reads off the shape; None if it reads none.
      role: what the parameter does in the program, if its structure is given.
    """

    path: str
    shape: tuple[int, ...]
    dtype: Any
    rule: int | None
    pattern: str
    law: Any
    std: float | None
    fans: tuple[float, float] | None
    role: str = ""

    def __repr__(self) -> str:
        return f"Assignment({self.path!r}, {self.pattern!r}: {_law_text(self.law)})"


class Assignments(Result):
    """The laws of a tree's parameters; prints as a table, and notebooks show one.

    Attributes:
      rows: an `Assignment` for each parameter.
      unused: patterns of the rules that no parameter follows.
    """

    def __init__(
        self,
        call: str,
        params: Any,
        rows: Sequence[Assignment],
        unused: tuple[str, ...],
    ):
        """Called by `preview` only."""
        self._call = call
        self.rows = tuple(rows)
        self.unused = unused
        self._params, self._merge = _paths.split(params)
        self._fill = self._filler()

    def draw(self, key: jax.Array) -> Any:
        """Returns the tree with the values that the key gives."""
        by_path = self._fill(arguments.checked_key("draw", key, None))
        leaves = []
        for path, leaf in _paths.named(self._params):
            drawn = path in by_path and is_parameter(leaf)
            leaves.append(by_path[path] if drawn else leaf)
            if isinstance(leaves[-1], jax.ShapeDtypeStruct):
                cure = "Give it a rule" if is_parameter(leaf) else "Leave it out"
                raise ValueError(
                    f"{self._call}(params=...): {_paths.shown(path)} has no value that "
                    f"could stay. {cure}."
                )
        structure = jax.tree.structure(self._params)
        return self._merge(jax.tree.unflatten(structure, leaves))

    def _filler(self) -> InitFunction:
        changed = [row for row in self.rows if row.law is not None]

        def fill(key: jax.Array) -> dict[str, jax.Array]:
            return {row.path: _drawn(self._call, key, row) for row in changed}

        found = _paths.by_path(self._call, self._params, is_parameter)
        placed = {path: placed_of(leaf) for path, leaf in found.items()}
        shardings = {row.path: placed[row.path] for row in changed}
        _check_laws(self._call, changed)
        if not any(shardings.values()):
            return jit_init(fill)
        filler = jit_init(fill, out_shardings=shardings)
        filler.plan(jax.eval_shape(lambda: jax.random.key(0)))  # do shardings fit?
        return filler

    def to_dict(self) -> list[dict[str, Any]]:
        """Returns a row for each parameter, of plain Python values; laws are text."""
        rows = []
        for row in self.rows:
            fields = dataclasses.asdict(dataclasses.replace(row, law=None))
            fields |= {"dtype": str(row.dtype), "law": _law_text(row.law)}
            if not row.role:  # no structure was given
                del fields["role"]
            rows.append(fields)
        return rows

    def __repr__(self) -> str:
        return f"Assignments({_text.plural(len(self.rows), 'parameter')})"

    def _table(self) -> Table:
        left_over = f"rules without a parameter: {', '.join(self.unused)}"
        notes = [(left_over, "wrong")] if self.unused else []
        known = any(row.role for row in self.rows)
        columns = [x for x in _COLUMNS if known or x.head != "role"]
        rows = _paths.sort_naturally(self.rows, lambda row: row.path)
        return Table.of(columns, rows, notes)


def _check_laws(call: str, rows: Sequence[Assignment]) -> None:
    """Raises if a law does not fit; of equal parameters only the first is traced."""
    checked = set()
    for row in rows:
        law = row.law if isinstance(row.law, (Initializer, float)) else id(row.law)
        if (kind := (law, row.shape, row.dtype)) not in checked:
            checked.add(kind)
            with _placement.automatic():
                jax.eval_shape(lambda row=row: _drawn(call, jax.random.key(0), row))


def _drawn(call: str, key: jax.Array, row: Assignment) -> jax.Array:
    """Draws one parameter."""
    try:
        if not callable(row.law):
            return _filled(row.law, row.shape, row.dtype)
        made = row.law(_paths.key_of(key, row.path), row.shape, row.dtype)
        if not isinstance(made, (jax.Array, np.ndarray, np.generic)):
            cure = " If it builds an initializer, call it." if callable(made) else ""
            raise TypeError(
                f"the initializer returned {check.show(made)}, not an array.{cure}"
            )
        if made.shape != row.shape:
            raise ValueError(
                f"the initializer returned an array of shape {made.shape}."
            )
        _check_real(made, row.dtype)
        return jnp.asarray(made.astype(row.dtype))
    except Exception as error:  # of any type: the initializer may be the user's
        place = f"{_paths.shown(row.path)} {row.shape}"
        raise unfit(call, place, row.pattern, error) from error


def _filled(value: Any, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
    """Fills a parameter with a number, or an array of its shape."""
    _check_real(value, dtype)
    with np.errstate(over="ignore"):
        lost = np.isfinite(value) & ~np.isfinite(np.asarray(value).astype(dtype))
    if lost.any():
        raise ValueError(f"{dtype} cannot hold {check.show(value)}.")
    return jnp.full(shape, value, dtype)


def _check_real(value: Any, dtype: np.dtype) -> None:
    if np.iscomplexobj(value) and not jnp.issubdtype(dtype, np.complexfloating):
        raise ValueError(f"{check.show(value)} is complex, and {dtype} is not.")


def unfit(call: str, path: str, pattern: str, error: Exception) -> Exception:
    """Returns an error that names the parameter and the rule."""
    kind = TypeError if isinstance(error, TypeError) else ValueError
    ours = isinstance(error, (TypeError, ValueError)) and str(error)
    reason = str(error).splitlines()[0] if ours else check.brief(error)
    return kind(f"{call}(rules=...), {path} by the rule {pattern}: {reason}")


def _law_text(law: Any) -> str:
    if law is None:
        return _STAYS
    if isinstance(law, (np.ndarray, jax.Array)) or not callable(law):
        return check.show(law)
    return repr(law) if isinstance(law, Initializer) else spelt(law)


_COLUMNS: tuple[Column[Assignment], ...] = (
    Column("path", lambda row: _paths.shown(row.path), left=True),
    Column("shape", lambda row: _text.shape(row.shape)),
    Column("dtype", lambda row: str(row.dtype), left=True),
    Column("role", lambda row: row.role, left=True),
    Column("rule", lambda row: "–" if row.rule is None else row.pattern, left=True),
    Column(
        "law",
        lambda row: _law_text(row.law),
        left=True,
        mark=lambda cell: "quiet" if cell == _STAYS else "",
    ),
    Column(
        "fans",
        lambda row: _text.or_dash(row.fans, lambda fans: "{:g} → {:g}".format(*fans)),
    ),
    Column("std", lambda row: _text.or_dash(row.std, "{:.3g}".format)),
)
