"""Factors of the forward pass: where they stand, and the code that applies them."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from jaxinit import _paths
from jaxinit.scaling._fold import fold_paths
from jaxinit.scaling._row import ScaledParameter

# What is multiplied, and the code to paste; {} is the factor.
_CODE = {
    "readout": "logits = h @ readout * {}  # before a bias is added",
    "product": "y = x @ kernel * {}  # before a bias is added",
    "vector": "vector = vector * {}  # and rows of tables",
    "branch": "x = x + branch(x) * {}",
    "attention": "scores = scores * {}  # of queries and keys, besides what is there",
}

_NORMED = ("after", "around")
# Activations f with f(θ x) = θ f(x) for θ > 0.
_HOMOGENEOUS = (None, "relu", "leaky_relu")


@dataclasses.dataclass(frozen=True)
class Multiplier:
    """A factor of the forward pass.

    Attributes:
      what: what is multiplied: a key of `_CODE`.
      theta: the factor.
      paths: the parameters whose result it is.
    """

    what: str
    theta: float
    paths: tuple[str, ...]


class Forward(Mapping[str, float]):
    """What the model has to multiply: factors by path; prints as code to paste.

    Attributes:
      multipliers: each factor, and what it multiplies.
    """

    def __init__(self, multipliers: Sequence[Multiplier]):
        """Called by the parameterizations only."""
        self.multipliers = tuple(multipliers)
        self._by_path: dict[str, float] = {}
        for each in multipliers:
            for path in each.paths:
                self._by_path[path] = self._by_path.get(path, 1.0) * each.theta

    def __getitem__(self, path: str) -> float:
        return self._by_path[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_path)

    def __len__(self) -> int:
        return len(self._by_path)

    def __repr__(self) -> str:
        return f"Forward({self._by_path!r})"

    def __str__(self) -> str:
        groups: dict[tuple[str, float], list[str]] = {}
        for each in self.multipliers:
            groups.setdefault((each.what, each.theta), []).extend(each.paths)
        lines = []
        for (what, theta), paths in groups.items():
            folded = [_paths.shown(path) for path in fold_paths(paths)]
            lines += [f"# {what}: {', '.join(folded)}"]
            lines += [_CODE[what].format(f"{theta:.6g}")]
        return "\n".join(lines) or "# The model stays as it is."


def list_branches(
    rows: Sequence[ScaledParameter], theta: float
) -> tuple[list[Multiplier], list[Multiplier]]:
    """Lists the factor of each residual branch, by the parameters that end it.

    These are the products that write into the stream, with their biases; or the gain
    behind them, with its offset: what a normalization follows, no factor changes.

    Returns:
      Those of branches that such parameters end, and those of all others, by the
      products that write them, or by all that is in them.
    """
    branches: dict[int, list[ScaledParameter]] = {}
    for row in rows:
        if row.in_block:
            branches.setdefault(row.traced.branch, []).append(row)
    found, left = [], []
    for mine in branches.values():
        writers = [row for row in mine if "residual" in row.traced.roles]
        ends = [_find_end(row, mine) for row in writers]
        if ends and all(ends):
            paths = dict.fromkeys(path for each in ends for path in each)
            found.append(Multiplier("branch", theta, tuple(paths)))
        else:
            paths = dict.fromkeys(row.path for row in writers or mine)
            left.append(Multiplier("branch", theta, tuple(paths)))
    return found, left


def _find_end(row: ScaledParameter, branch: Sequence[ScaledParameter]) -> list[str]:
    """Finds what ends a branch behind a product; nothing if no parameter does."""
    ends = [each for each in branch if each.path in row.traced.ends]
    bent = row.traced.activation if row.traced.norm not in _NORMED else None
    if not ends and bent is not None and bent in _HOMOGENEOUS:
        ends = [row]
    if any(each.traced.curved for each in ends):
        return []
    return [path for each in ends for path in (each.path, *_list_owned(each, branch))]


def _list_owned(row: ScaledParameter, rows: Sequence[ScaledParameter]) -> list[str]:
    """Lists the biases of a kernel, or the offsets of a gain."""
    return [
        each.path
        for each in rows
        if row.path in each.traced.of and {"bias", "offset"} & {*each.traced.roles}
    ]


def list_attention(
    rows: Sequence[ScaledParameter], power: float
) -> tuple[list[Multiplier], list[Multiplier]]:
    """Lists the factors of products of queries and keys.

    Most models divide them by the square root of a head's size; muP divides by the size
    (Tensor Programs V, definition 4.1): (size in the base / size)^1/2 is left.

    Args:
      rows: the target's parameters.
      power: what is left, as a power of the size.

    Returns:
      Those that the parameters of queries alone can have: the kernel and its bias, or
      the gain of a norm behind it; and those that they cannot, if one kernel makes keys
      as well, say.
    """
    found, left = [], []
    for row in rows:
        if "query" not in row.traced.roles or "head size" not in row.grown:
            continue
        theta = row.grown["head size"] ** -power
        last = row if row.traced.activation in _HOMOGENEOUS else None
        if row.traced.norm in _NORMED:
            last = _find_norm(row, rows)
        fits = last is not None and not last.traced.curved
        if row.traced.roles == ("query",) and last is not None and fits:
            paths = last.path, *_list_owned(last, rows)
            found.append(Multiplier("attention", theta, paths))
        else:
            left.append(Multiplier("attention", theta, (row.path,)))
    return found, left


def _find_norm(
    row: ScaledParameter, rows: Sequence[ScaledParameter]
) -> ScaledParameter | None:
    """Finds the gain of the norm behind a kernel of queries; None if it is not told.

    Queries and keys of a branch are normalized in the order in which they are made.
    """
    near = [each for each in rows if each.traced.branch == row.traced.branch]
    makers = [
        each
        for each in near
        if each.traced.roles in (("query",), ("key",)) and each.traced.norm in _NORMED
    ]
    first = min(each.traced.order or 0 for each in makers)
    gains = [
        each
        for each in near
        if each.traced.roles == ("gain",)
        and (each.traced.order or 0) > first
        and each.traced.layer.shape[-1:] == (row.traced.head,)
    ]
    if len(gains) != len(makers):
        return None
    makers.sort(key=lambda each: each.traced.order or 0)
    gains.sort(key=lambda each: each.traced.order or 0)
    return gains[[each.path for each in makers].index(row.path)]
