"""The programs of a plan: which arrays each fills, and its row in the table."""

import collections
import functools
import math
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxinit import _text
from jaxinit._jaxpr.equation import is_divisible, is_key
from jaxinit._law import chunks
from jaxinit._law.slices import Slice
from jaxinit._table import Column

Kind = Literal["law", "constant", "slice"]


class Output(NamedTuple):
    """An array of the result.

    Attributes:
      path: its name in the tree, such as "params/Dense_0/kernel".
      shape: its sizes.
      dtype: its type.
      sharding: where it goes; None for JAX's choice.
    """

    path: str
    shape: tuple[int, ...]
    dtype: Any
    sharding: Any

    @property
    def bytes(self) -> int:
        """Its size in memory."""
        size = 0 if is_key(self) else np.dtype(self.dtype).itemsize
        return int(np.prod(self.shape, dtype=object)) * size


class Program:
    """Equal slices, which share an executable.

    Attributes:
      kind: "law" of independent entries, which one program draws for all shapes;
        "constant", which needs none; "slice" for any other.
      parts: the slices.
      made: the law or constant of each slice; None if it is neither.
      members: the outputs of each slice.
      compiled: seconds that compiling took; None before.
      filled: seconds that filling all members took in `measure`; None before.
    """

    def __init__(self, kind: Kind) -> None:
        """Begins without slices."""
        self.kind = kind
        self.parts: list[Slice] = []
        self.made: list[Any] = []
        self.members: list[tuple[Output, ...]] = []
        self.compiled: float | None = None
        self.filled: float | None = None
        self.executable: Any = None

    @property
    def chunk(self) -> int:
        """Entries that the program of a law draws at once."""
        return chunks.chunk_of([math.prod(o.shape) for o in self.outputs])

    @functools.cached_property
    def is_summed(self) -> bool:
        """Whether values would depend on how devices share the work.

        Then every device does the whole.
        """
        return not all(is_divisible(node.eqn) for node in self.parts[0].nodes)

    @property
    def needed(self) -> bool:
        """Whether there is something to compile."""
        return self.executable is None and self.kind != "constant"

    @property
    def bytes(self) -> int:
        """Size of all its outputs."""
        return sum(output.bytes for output in self.outputs)

    @property
    def outputs(self) -> list[Output]:
        """All arrays that it fills."""
        return [output for member in self.members for output in member]

    def to_dict(self) -> dict[str, Any]:
        """Returns its row as plain Python values."""
        return {
            "parameters": [output.path for output in self.outputs],
            "kind": self.kind,
            "shapes": [list(output.shape) for output in self.outputs],
            "bytes": self.bytes,
            "compile_seconds": self.compiled,
            "fill_seconds": self.filled,
        }


def _name(program: Program) -> str:
    first, *rest = (output.path for output in program.outputs)
    return f"{first} and {len(rest)} more" if rest else first or "the result"


def _shapes(program: Program) -> str:
    """Counts arrays by shape, the largest first."""
    counts = collections.Counter(output.shape for output in program.outputs)
    found = [
        f"{count} × {_text.shape(shape)}"
        for shape, count in sorted(
            counts.items(), key=lambda pair: math.prod(pair[0]), reverse=True
        )
    ]
    more = len(found) - 3
    return ", ".join(found[:3]) + (
        f" and {_text.plural(more, 'shape')} more" if more > 0 else ""
    )


def _duration(seconds: float | None) -> str:
    return _text.or_dash(seconds, lambda seconds: f"{1e3 * seconds:.0f} ms")


COLUMNS = (
    Column("parameters", _name, left=True),
    Column[Program]("kind", lambda program: program.kind, left=True),
    Column("arrays", _shapes, left=True),
    Column[Program]("bytes", lambda program: _text.size(program.bytes)),
    Column[Program]("compile", lambda program: _duration(program.compiled)),
    Column[Program]("fill", lambda program: _duration(program.filled)),
)
