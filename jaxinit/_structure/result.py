"""What `structure` returns: a row for each parameter, and the order of the layers."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxinit import _check as check
from jaxinit import _paths, _text
from jaxinit._axes import Connections
from jaxinit._result import Result
from jaxinit._structure.roles import ROLES
from jaxinit._table import Column, Table


@dataclasses.dataclass(frozen=True, kw_only=True)
class Joint:
    """Where queries, keys and values lie in a kernel that makes several of them.

    Attributes:
      roles: what its parts are, in their order.
      axis: the axis along which they lie side by side.
      sizes: how many entries of the axis each has.
      repeats: how often all of them follow each other along the axis: once, or once
        for each head.
    """

    roles: tuple[str, ...]
    axis: int
    sizes: tuple[int, ...]
    repeats: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class TracedParameter:
    """What one parameter does in the program.

    A parameter that is used in several ways has several roles; its axes, activation and
    place are then those of its first product, or else of its first use.

    Attributes:
      path: its path, as `reinit` and `describe` write it.
      shape: its sizes.
      dtype: its type.
      roles: what it does, such as ``("hidden",)``; a tied table is
        ``("embedding", "readout")``.
      in_axis: axes that inputs run along: a product sums over them.
      out_axis: axes that outputs run along.
      batch_axis: axes that stack independent weights: layers, experts, rows of a table.
      window: axes that a convolution slides over.
      groups: blocks of the outputs, each with inputs of its own.
      joint: of a kernel that makes queries, keys and values, where they lie; None if
        the program does not tell.
      head: of a kernel that makes queries or keys, the size of a head: how many of its
        outputs a product of a query and a key sums over; 0 where there is none.
      fans: fan_in and fan_out, as `fans` computes them; None where no product or lookup
        has it.
      activation: the function behind the layer, if it has a name here; "function" for
        any other; None for none.
      norm: whether data are normalized ``"before"`` the product, ``"after"`` it,
        ``"around"`` it (both) or not, ``""``; the gain of a norm is ``"before"``.
      order: its place in the order of execution, from 0; None if it is not used.
      depth: the number of products on the longest way to it, its own included.
      branch: the number of the residual branch that it lies in, from 1; 0 for none.
      loops: axes that `nn.scan` or another loop runs along; they are in batch_axis too.
      uses: how often the program uses it.
      of: paths of what it belongs to: a bias to its kernel, an offset to its gain.
      before: paths of the kernels whose products are the last before its own.
      ends: of a kernel that writes into the residual stream, what its branch ends with
        and scales with: itself, or the gain of a norm behind it; empty if a function
        bends the result before it is added.
      curved: whether what data meet is not in proportion to it, as that of a gain that
        is stored as w for 1 + w, or of a weight that is normalized.
      reason: why its role is ``"other"``; "" for all else.
    """

    path: str
    shape: tuple[int, ...]
    dtype: Any
    roles: tuple[str, ...]
    in_axis: tuple[int, ...] = ()
    out_axis: tuple[int, ...] = ()
    batch_axis: tuple[int, ...] = ()
    window: tuple[int, ...] = ()
    groups: int = 1
    joint: Joint | None = None
    head: int = 0
    activation: str | None = None
    norm: str = ""
    order: int | None = None
    depth: int = 0
    branch: int = 0
    loops: tuple[int, ...] = ()
    uses: int = 0
    of: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    ends: tuple[str, ...] = ()
    curved: bool = False
    reason: str = ""

    @property
    def role(self) -> str:
        """Its roles as one text, such as ``"query+key+value"``."""
        return "+".join(self.roles)

    @property
    def axes(self) -> dict[str, Any]:
        """The arguments of builders and of `fans` that say how it connects.

        Empty where they read (*window, inputs, outputs) of themselves.
        """
        groups = {"groups": self.groups} if self.groups > 1 else {}
        last = len(self.shape) - 1
        if (self.in_axis, self.out_axis, self.batch_axis) == ((last - 1,), (last,), ()):
            return groups
        axes = {"in_axis": self.in_axis, "out_axis": self.out_axis}
        axes |= {"batch_axis": self.batch_axis} if self.batch_axis else {}
        single = {
            name: axis[0] if len(axis) == 1 else axis for name, axis in axes.items()
        }
        return single | groups

    @property
    def is_kernel(self) -> bool:
        """Whether it is multiplied with data in a product, or looked up by them."""
        return bool(self.in_axis or self.out_axis)

    @property
    def fans(self) -> tuple[float, float] | None:
        """Its fan_in and fan_out; None where it is no kernel."""
        if not self.is_kernel or math.prod(self.shape) == 0:
            return None
        return Connections(**self.axes).fans(self.shape)

    @property
    def copies(self) -> int:
        """How many layers loops stack in it; 1 outside of loops."""
        return math.prod(self.shape[axis] for axis in self.loops)

    @property
    def layer(self) -> "TracedParameter":
        """The same of one layer, without the axes that loops run along."""
        kept = [place for place in range(len(self.shape)) if place not in self.loops]
        moved = {place: new for new, place in enumerate(kept)}

        def move(axes: tuple[int, ...]) -> tuple[int, ...]:
            return tuple(moved[axis] for axis in axes if axis in moved)

        return dataclasses.replace(
            self,
            shape=tuple(self.shape[place] for place in kept),
            in_axis=move(self.in_axis),
            out_axis=move(self.out_axis),
            batch_axis=move(self.batch_axis),
            window=move(self.window),
            joint=self.joint
            and dataclasses.replace(self.joint, axis=moved[self.joint.axis]),
            loops=(),
        )

    @property
    def layout(self) -> str:
        """What its axes are, such as ``"(inputs, outputs)"``."""
        names = {
            "inputs": self.in_axis,
            "outputs": self.out_axis,
            "layers": self.loops,
            "batch": self.batch_axis,
            "window": self.window,
        }
        if not self.is_kernel:
            return ""
        each = (
            next((name for name, axes in names.items() if place in axes), "?")
            for place in range(len(self.shape))
        )
        return f"({', '.join(each)})"

    def __repr__(self) -> str:
        return f"TracedParameter({self.path!r}, {self.role})"


class Structure(Result, Mapping[str, TracedParameter]):
    """What each parameter of a model does; prints as a table, and maps paths to rows.

    Attributes:
      rows: a `TracedParameter` for each parameter.
      branches: the number of residual branches, those in loops over layers counted at
        each step; a transformer of L blocks has 2 L. Branches that do not read each
        other, as those of a parallel block, are one.
    """

    def __init__(self, rows: Sequence[TracedParameter], branches: int):
        """Called by `structure` only."""
        self.rows = tuple(rows)
        self.branches = branches
        self._by_path = {row.path: row for row in rows}

    def __getitem__(self, path: str) -> TracedParameter:
        return self._by_path[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_path)

    def __len__(self) -> int:
        return len(self.rows)

    def __eq__(self, other: object) -> bool:
        same = isinstance(other, Structure) and self.rows == other.rows
        return same and self.branches == other.branches  # type: ignore[attr-defined]

    __hash__ = None  # type: ignore[assignment]

    def find(self, role: str) -> tuple[TracedParameter, ...]:
        """Returns the parameters that have a role.

        Args:
          role: one of the roles that `structure` tells.

        Raises:
          ValueError: if there is no such role.
        """
        try:
            check.choice(tuple(ROLES), role=role)
        except check.Unfit as error:
            raise error.at("Structure.find") from None
        return tuple(row for row in self.rows if role in row.roles)

    def to_dict(self) -> dict[str, Any]:
        """Returns the branches, and a row for each parameter, as plain values."""
        rows = []
        for row in self.rows:
            fields = dataclasses.asdict(row) | {"dtype": str(row.dtype)}
            more = {"fans": row.fans, "layout": row.layout}
            if row.joint is None:  # as of most
                del fields["joint"]
            unusual = "head", "ends", "curved"
            fields = {k: v for k, v in fields.items() if v or k not in unusual}
            rows.append({k: _plain(v) for k, v in (fields | more).items()})
        return {"branches": self.branches, "parameters": rows}

    def outline(self) -> str:
        """Returns the order of the layers as text, with residual branches set apart.

        Layers stand in the order of execution, and those of a branch behind a line that
        leaves the stream.
        """
        kernels = [row for row in self.rows if row.is_kernel and row.order is not None]
        lines: list[str] = []
        last = 0
        for row in sorted(kernels, key=lambda row: row.order or 0):
            mark = (
                "│ " if row.branch and row.branch == last else "├─" * bool(row.branch)
            )
            last = row.branch
            behind = f" → {row.activation}" if row.activation else ""
            text = f"{mark or '│'} {_paths.shown(row.path)}  {row.role}{behind}"
            lines.append(text)
        return "\n".join(lines)

    def __repr__(self) -> str:
        count = _text.plural(len(self.rows), "parameter")
        branches = "1 branch" if self.branches == 1 else f"{self.branches} branches"
        return f"Structure({count}, {branches})"

    def _table(self) -> Table:
        rows = _paths.sort_naturally(self.rows, lambda row: row.path)
        notes = [
            (f"{_paths.shown(row.path)}: {row.reason}", "wrong")
            for row in rows
            if row.reason
        ]
        return Table.of(_COLUMNS, rows, notes)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _show_fans(row: TracedParameter) -> str:
    fans = row.fans
    return "" if fans is None else "{:g} → {:g}".format(*fans)


def _show_count(count: int) -> str:
    return str(count) if count else ""


_COLUMNS: list[Column[TracedParameter]] = [
    Column("path", lambda row: _paths.shown(row.path), left=True, wraps=True),
    Column("shape", lambda row: _text.shape(row.shape)),
    Column("role", lambda row: row.role, left=True),
    Column("fans", _show_fans),
    Column("axes", lambda row: row.layout, left=True, rank=2),
    Column(
        "behind it",
        lambda row: "" if row.activation is None else row.activation,
        left=True,
        rank=1,
    ),
    Column("norm", lambda row: row.norm, left=True, rank=3),
    Column("branch", lambda row: _show_count(row.branch), rank=2),
    Column("depth", lambda row: _show_count(row.depth), rank=3),
]
