"""`Scale`: what a parameterization says of a model; rules and optimizers from it."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxinit import _paths, _text
from jaxinit._result import Result
from jaxinit._structure.result import Structure
from jaxinit._table import Column, Table
from jaxinit.model import Rule
from jaxinit.scaling import _muon, _transforms
from jaxinit.scaling._fold import fold_paths, remove_numbers
from jaxinit.scaling._forward import Forward
from jaxinit.scaling._initial import make_rules
from jaxinit.scaling._row import ScaledParameter


class Scale(Result, Mapping[str, ScaledParameter]):
    """What changes from a small model to a large one; maps paths to rows.

    It prints as the table of the parameterization, filled in: all numbers are factors
    on what the base has, layers with the same numbers are one line.

    Attributes:
      parameterization: its name, such as ``"mup"``.
      rows: a `ScaledParameter` for each parameter of the target.
      forward: what the model has to multiply, by path; prints as code to paste. Empty
        where initial weights and learning rates absorb it all.
      notes: what to know of these models.
    """

    def __init__(
        self,
        parameterization: str,
        rows: Sequence[ScaledParameter],
        forward: Forward,
        notes: Sequence[str],
        base: Structure,
    ):
        """Called by the parameterizations only."""
        self.parameterization = parameterization
        self.rows = tuple(rows)
        self.forward = forward
        self.notes = tuple(notes)
        self._base = base
        self._by_path = {row.path: row for row in rows}

    def __getitem__(self, path: str) -> ScaledParameter:
        return self._by_path[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_path)

    def __len__(self) -> int:
        return len(self.rows)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Scale):
            return False
        mine, theirs = (
            (each.parameterization, each.rows, dict(each.forward))
            for each in (self, other)
        )
        return mine == theirs

    __hash__ = None  # type: ignore[assignment]

    def rules(
        self, rules: Sequence[Rule], params: Any = None, *, strict: bool | None = None
    ) -> list[Rule]:
        """Returns the rules that draw the target, for `reinit` and `preview`.

        Each parameter has the law that the rules give its like in the base, with its
        standard deviation there times the row's factor: ``normal(stddev=0.02)`` becomes
        ``normal(stddev=0.02) * 0.5``, and a law of fans that follows by itself stays.
        What a recipe reads from the model, such as the number of layers, is the
        base's. Laws are made from laws, not from weights, so that drawing twice is
        drawing once.

        Args:
          rules: the rules that draw the base, such as ``recipes.gpt2()``; they may name
            roles.
          params: parameters of the base, if a rule depends on their values.
          strict: as for `preview`, of the base.

        Raises:
          ValueError: if the rules do not fit the base, or a parameter whose standard
            deviation must change has no law that states one.
          TypeError: if a rule is not a pair (pattern, what).
        """
        return make_rules(self.rows, self._base, rules, params, strict)

    # The optimizers take a mapping of rows first, which this is.
    lr = _transforms.lr
    sgd = _transforms.sgd
    adamw = _transforms.adamw
    lion = _transforms.lion
    muon = _transforms.muon
    muon_dimensions = _muon.muon_dimensions

    def to_dict(self) -> dict[str, Any]:
        """Returns the factors of each parameter, and what the model multiplies."""
        rows = []
        for row in self.rows:
            fields = {
                field.name: getattr(row, field.name)
                for field in dataclasses.fields(row)
                if field.name not in ("traced", "traced_base")
            }
            fields |= {"grown": dict(row.grown), "lr": dict(row.lr)}
            rows.append(fields | {"role": row.traced.role})
        return {
            "parameterization": self.parameterization,
            "forward": dict(self.forward),
            "notes": list(self.notes),
            "parameters": rows,
        }

    def __repr__(self) -> str:
        count = _text.plural(len(self.rows), "parameter")
        widths = [row.width_in for row in self.rows if row.width_in != 1] or [1.0]
        depth = self.rows[0].depth if self.rows else 1.0
        width = _text.span(widths)
        return f"Scale({self.parameterization}, {count}, width ×{width}, " + (
            f"depth ×{_text.number(depth)})"
        )

    def _table(self) -> Table:
        lines = _merge(_paths.sort_naturally(self.rows, lambda row: row.path))
        multiplied = any(row.forward != 1 for row in self.rows)
        columns = [x for x in _COLUMNS if multiplied or x.head != "forward"]
        notes = [("Factors on what the base model has.", "quiet")]
        if self.forward:
            notes.append(("The model has to multiply: print(scale.forward).", ""))
        return Table.of(columns, lines, [*notes, *((note, "") for note in self.notes)])


@dataclasses.dataclass(frozen=True)
class _Line:
    """A line of the table: rows that differ in numbers of their paths alone."""

    path: str
    row: ScaledParameter


def _merge(rows: Sequence[ScaledParameter]) -> list[_Line]:
    groups: dict[tuple[str, ...], list[ScaledParameter]] = {}
    for row in rows:
        cells = (column.cell(_Line("", row)) for column in _COLUMNS)
        groups.setdefault((remove_numbers(row.path), *cells), []).append(row)
    return [
        _Line(path, mine[0])
        for mine in groups.values()
        for path in fold_paths([row.path for row in mine])
    ]


def _show_role(row: ScaledParameter) -> str:
    role = row.traced.role
    known = role == row.kind or row.kind == "vector" or row.kind in row.traced.roles
    return role if known else f"{role}, as {row.kind}"


def _show_grown(row: ScaledParameter) -> str:
    return ", ".join(
        f"{name.removeprefix('width ')} ×{_text.number(size)}"
        for name, size in row.grown.items()
    )


def _factor(head: str, value: str) -> Column[_Line]:
    """Returns the column of a factor: an attribute of the row, or a learning rate."""

    def show(line: _Line) -> str:
        lr = line.row.lr
        return _text.number(lr[value] if value in lr else getattr(line.row, value))

    return Column(head, show)


_COLUMNS: list[Column[_Line]] = [
    Column("path", lambda line: _paths.shown(line.path), left=True, wraps=True),
    Column("role", lambda line: _show_role(line.row), left=True),
    Column("grows", lambda line: _show_grown(line.row), left=True, rank=2),
    _factor("std", "std"),
    _factor("forward", "forward"),
    _factor("SGD", "sgd"),
    _factor("Adam", "adam"),
    _factor("Muon", "muon"),
    _factor("ε", "eps"),
    _factor("decay", "decay"),
]
