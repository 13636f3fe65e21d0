"""`CoordinateReport`, the result of `coordinate_check`."""

import dataclasses
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, get_args

from jaxinit import _check as check
from jaxinit import _paths, _text
from jaxinit._import import explain_missing
from jaxinit._result import Result
from jaxinit._table import Column, Table
from jaxinit.scaling._slopes import (
    CARRIED,
    LEVEL,
    MINOR,
    Along,
    Condition,
    CoordinateRow,
    Finding,
    Measured,
    Slope,
    Slopes,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FINE = "transfers"
_ALLOWED: tuple[Condition, ...] = ("aligned",)


class CoordinateReport(Result):
    """Which layers of a model transfer to other sizes; prints as a table.

    Attributes:
      rows: a `CoordinateRow` for each layer, in the order of execution.
      findings: what does not transfer, causes first: each has a ``condition``, the
        ``path``, the ``step``, the ``slope`` and the ``reason``.
      sizes: the widths, or the depths.
      along: "width" or "depth".
      seeds: the number of seeds.
      steps: the number of steps that were taken.
      tolerance: the exponent that an interval must reach below.
      unseen: kernels whose layers were not measured, such as those in a while loop.
      notes: what to know of the run.
    """

    def __init__(
        self,
        *,
        things: Sequence[Measured],
        slopes: Sequence[Slopes],
        findings: Sequence[Finding],
        sizes: Sequence[int],
        along: Along,
        seeds: int,
        steps: int,
        tolerance: float,
        unseen: Sequence[str],
        notes: Sequence[str] = (),
    ):
        """Called by `coordinate_check` only."""
        self.findings = tuple(findings)
        self.sizes = tuple(sizes)
        self.along = along
        self.seeds = seeds
        self.steps = steps
        self.tolerance = tolerance
        self.unseen = tuple(unseen)
        self.notes = tuple(notes)
        self.rows = tuple(
            self._make_row(each, its) for each, its in zip(things, slopes, strict=True)
        )

    def _make_row(self, each: Measured, its: Slopes) -> CoordinateRow:
        mine = [x for x in self.findings if x.path == each.path and x.of == each.kind]
        words = [_name(finding) for finding in mine]
        grows = any(slope.low > self.tolerance for slope in its.size)
        if not words and not self.transfers and grows and each.kind != "parameter":
            words = [CARRIED]
        return CoordinateRow(
            path=each.path,
            kind=each.kind,
            role=each.role,
            slopes=tuple(its.size),
            update=tuple(its.update or its.change),
            verdict=", ".join(words) or _FINE,
            measured=each,
        )

    @property
    def transfers(self) -> bool:
        """Whether all layers transfer, as `assert_transfers` asserts."""
        return not self._list_wrong(_ALLOWED)

    def _list_wrong(self, allow: Collection[str]) -> list[Finding]:
        return [x for x in self.findings if x.condition not in allow]

    def assert_transfers(
        self, *, allow: Condition | Collection[Condition] = _ALLOWED
    ) -> None:
        """Asserts that all layers transfer, for test suites.

        Args:
          allow: a condition to tolerate, or several. By default "aligned": the standard
            parameterization has it by design, and μP has not.

        Raises:
          AssertionError: if a layer does not transfer; the message lists the layers and
            causes.
          ValueError: if a condition is unknown.
        """
        allowed = (allow,) if isinstance(allow, str) else tuple(allow)
        try:
            for condition in allowed:
                check.choice(get_args(Condition), allow=condition)
        except check.Unfit as error:
            raise error.at("assert_transfers") from None
        if wrong := self._list_wrong(allowed):
            rule = "assert_transfers(): the model must transfer over its "
            rule += f"{self.along}, and it does not:"
            raise AssertionError("\n- ".join([rule, *(x.reason for x in wrong)]))

    def to_dict(self) -> dict[str, Any]:
        """Returns sizes, findings, and a row for each layer, as plain values.

        The ``values`` of a row are means of absolute values by size, seed and step.
        """
        return {
            "along": self.along,
            "sizes": list(self.sizes),
            "seeds": self.seeds,
            "steps": self.steps,
            "tolerance": self.tolerance,
            "transfers": self.transfers,
            "findings": [
                dataclasses.asdict(x) | {"slope": x.slope._asdict()}
                for x in self.findings
            ],
            "rows": [
                {
                    "path": row.path,
                    "kind": row.kind,
                    "role": row.role,
                    "slopes": [slope._asdict() for slope in row.slopes],
                    "update": [slope._asdict() for slope in row.update],
                    "verdict": row.verdict,
                    "values": {k: v.tolist() for k, v in row.measured.values.items()},
                }
                for row in self.rows
            ],
            "unseen": list(self.unseen),
            "notes": list(self.notes),
        }

    def summarize(self) -> str:
        """Returns the answer in one line."""
        wrong = dict.fromkeys(x.path for x in self._list_wrong(_ALLOWED))
        layers = _text.plural(len(self.rows), "row")
        over = f"over {self.along}s {self.sizes[0]}–{self.sizes[-1]}"
        if not wrong:
            return f"transfers {over}: {layers}"
        shown = _paths.shown(next(iter(wrong)))
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        return f"does not transfer {over}: {shown}{more}"

    def __repr__(self) -> str:
        text = self.summarize()
        return f"CoordinateReport({text if len(text) < 60 else text[:57] + '...'})"

    def __str__(self) -> str:
        return f"{self.summarize()}\n\n{super().__str__()}"

    def _table(self) -> Table:
        columns: list[Column[CoordinateRow]] = [
            Column("layer", lambda row: _paths.shown(row.path), left=True, wraps=True),
            Column("role", lambda row: row.role or row.kind, left=True, rank=2),
        ]
        for step in range(self.steps + 1):
            head = f"step {step}" if step else "start"
            show = _make_cell(step)
            columns.append(Column(head, show, rank=0 if step in (0, 1) else 1))
        columns.append(Column("update", lambda row: _show(row.update[-1])))
        columns.append(
            Column("verdict", lambda row: row.verdict, left=True, mark=_mark)
        )
        letter = "n" if self.along == "width" else "L"
        notes = [(x.reason, _mark(x.condition)) for x in self.findings]
        notes += [
            (f"{_paths.shown(path)}: its layer is not measured", "quiet")
            for path in self.unseen
        ]
        rows = [x for x in self.rows if x.verdict != _FINE or x.role not in MINOR]
        if left := len(self.rows) - len(rows):
            notes.append((f"{left} biases and gains transfer too.", "quiet"))
        notes += [(note, "") for note in self.notes]
        about = f"Exponents of {letter}, with {LEVEL:.0%} intervals over "
        about += f"{_text.plural(self.seeds, 'seed')}: of the mean absolute output, "
        about += "and of what the last update makes of the input. 0 is right; a "
        about += "readout may fall at the start."
        return Table.of(columns, rows, [*notes, (about, "quiet")])

    def plot(self) -> "Figure":
        """Draws mean absolute outputs against the size, a line for each step.

        Lines are flat where a layer transfers. Of many layers those are drawn that do
        not, then others.

        Returns:
          A figure of matplotlib, which notebooks show.

        Raises:
          ModuleNotFoundError: if matplotlib is not installed.
        """
        with explain_missing("CoordinateReport.plot()", "lab"):
            from jaxinit.scaling._coordinate_plot import draw
        return draw(self.rows, self.sizes, self.along, self.summarize())


def _make_cell(step: int) -> Callable[[CoordinateRow], str]:
    return lambda row: _show(row.slopes[step])


def _show(slope: Slope) -> str:
    """Writes a slope with half the width of its interval."""
    if not slope.known or slope.value in (float("inf"), float("-inf")):
        return _text.number(slope.value)
    reach = (slope.high - slope.low) / 2
    return f"{slope.value:+.2f}±{reach:.2f}".replace("0.", ".")


def _name(finding: Finding) -> str:
    word = "falls" if finding.slope.value < 0 else "grows"
    return f"{finding.condition} {word}"


def _mark(cell: str) -> str:
    if cell == _FINE:
        return "healthy"
    return "" if cell.startswith(("aligned", CARRIED)) else "wrong"
