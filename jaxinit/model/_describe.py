"""`describe`: measures a model's parameters, beside what rules ask of them."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit import _check as check
from jaxinit import _paths, _placement, _text
from jaxinit._import import explain_missing
from jaxinit._moments import moments
from jaxinit._result import Result
from jaxinit._structure.result import Structure
from jaxinit._table import Column, Table
from jaxinit._text import number, percent, plural
from jaxinit.model._rules import arguments, stacks
from jaxinit.model._rules.reinit import Rule, _preview
from jaxinit.model._rules.stacks import Stacked

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Plot = Literal["histogram", "heatmap", "bias"]
_BARS = "▁▂▃▄▅▆▇█"
_BINS = 12
_SAMPLE = 2**14  # entries that a histogram is made of
_MOST = 512  # rows or columns of a heat map
_PANELS = 4  # plots side by side
_SICK = "not finite"  # in place of a histogram


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Parameter:
    """One parameter.

    Attributes:
      path: its path in the tree.
      shape: its sizes.
      dtype: its type.
      mean: mean of its entries; of a complex parameter, of the real parts.
      std: their standard deviation.
      expected: the standard deviation that its rule gives; None without rules, or if
        the rule's law states none.
      minimum: the least entry; of a complex parameter, the least modulus.
      maximum: the largest, likewise.
      zeros: the share of entries that are 0.
      finite: whether all entries are finite.
      sample: some entries, spread evenly, [entries].
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    mean: float
    std: float
    expected: float | None
    minimum: float
    maximum: float
    zeros: float
    finite: bool
    sample: np.ndarray

    @property
    def histogram(self) -> np.ndarray:
        """Shares of the entries between minimum and maximum, [12]."""
        finite = self.sample[np.isfinite(self.sample)]
        if not finite.size:
            return np.zeros(_BINS)
        counts, _ = np.histogram(finite.astype(np.float64), _BINS)
        shares: np.ndarray = counts / finite.size
        return shares

    @property
    def sparkline(self) -> str:
        """The histogram in twelve characters; empty for equal entries."""
        shares = self.histogram
        if not self.finite or self.minimum == self.maximum or not shares.any():
            return ""
        levels = np.ceil(shares / shares.max() * (len(_BARS) - 1)).astype(int)
        return "".join(_BARS[level] for level in levels)

    def __repr__(self) -> str:
        size = f"{self.dtype}{list(self.shape)}"
        return f"Parameter({self.path!r}, {size}, std {number(self.std)})"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Description(Result):
    """All parameters of a model; it prints as a table, and notebooks show one.

    Attributes:
      parameters: in the order of the tree.
    """

    parameters: tuple[Parameter, ...]
    _arrays: dict[str, Any]

    @property
    def count(self) -> int:
        """Number of entries of all parameters."""
        return sum(math.prod(x.shape) for x in self.parameters)

    def to_dict(self) -> list[dict[str, Any]]:
        """Returns a row for each parameter, of plain Python values."""
        names = [field.name for field in dataclasses.fields(Parameter)]
        return [
            {name: getattr(x, name) for name in names if name != "sample"}
            | {"histogram": x.histogram.tolist()}
            for x in self.parameters
        ]

    def __repr__(self) -> str:
        return f"Description({plural(len(self.parameters), 'parameter')})"

    def _table(self) -> Table:
        expected = any(x.expected is not None for x in self.parameters)
        columns = [x for x in _COLUMNS if expected or x.head != "expected"]
        rows = _paths.sort_naturally(self.parameters, lambda row: row.path)
        return Table.of(columns, rows, [(self._total(), "")])

    def _total(self) -> str:
        size = sum(
            math.prod(x.shape) * np.dtype(x.dtype).itemsize for x in self.parameters
        )
        count = plural(len(self.parameters), "parameter")
        return f"{count}, {plural(self.count, 'entry', ',')}, {_text.size(size)}"

    def plot(self, what: Plot = "histogram", match: str | None = None) -> "Figure":
        """Draws the parameters, a panel for each.

        Args:
          what: "histogram" of the entries, with the expected standard deviation dashed;
            "heatmap" of every parameter with two axes or more, the last axis across and
            all others down; "bias", bars of the entries of every parameter with one
            axis.
          match: draws only parameters with this in their path.

        Returns:
          A figure of matplotlib; ``figure.savefig("weights.png")`` keeps it.

        Raises:
          ValueError: if what is not one of these, or there is no such parameter.
          TypeError: if match is not a string.
          ModuleNotFoundError: if matplotlib is not installed.
        """
        try:
            check.choice(get_args(Plot), what=what)
            part: Any = match
            if not isinstance(part, (str, type(None))):
                rule = "match must be a part of a path, such as 'kernel'."
                raise check.Unfit(rule, TypeError, match=match)
            ranks = {"histogram": (0, 99), "heatmap": (2, 99), "bias": (1, 1)}[what]
            chosen = [
                x
                for x in self.parameters
                if ranks[0] <= len(x.shape) <= ranks[1]
                and 0 not in x.shape
                and (match is None or match in x.path)
            ]
            if not chosen:
                rule = f"there is no parameter for a {what} with this in its path."
                raise check.Unfit(rule, match=match)
        except check.Unfit as error:
            raise error.at("plot") from None
        return _figure(what, chosen, self._arrays)


def describe(
    params: Any,
    *,
    rules: Sequence[Rule] | None = None,
    stacked: Stacked = None,
    structure: Structure | None = None,
) -> Description:
    """Measures every parameter of a model: mean, standard deviation, range, zeros.

    One program is compiled for each kind of parameter, and reads it in place.

    Args:
      params: any tree of arrays: variables of Flax Linen, a model or state of NNX, a
        module of Equinox. Leaves that are not arrays of numbers are left out. A
        variable that a model of NNX shares between layers counts once, under its first
        path.
      rules: rules or a recipe; their standard deviation then stands beside the
        measured one.
      stacked: patterns of parameters that stack layers, as for `reinit`.
      structure: what `structure` says of the model, for rules by role, as for `reinit`.

    Returns:
      A `Description`: prints as a table, has rows as ``to_dict()`` and ``plot()``.

    Raises:
      ValueError: if there is no array in params, two have one path, or a rule does not
        fit.
      TypeError: if a rule is not a pair (pattern, what), or params are traced, as by
        `jax.jit`.

    Example:
      >>> params = {"kernel": jnp.arange(8.0).reshape(2, 4), "bias": jnp.zeros(4)}
      >>> print(describe(params))
      path    shape  dtype    mean   std  least  largest  zeros  histogram
      ──────  ─────  ───────  ────  ────  ─────  ───────  ─────  ────────────
      bias        4  float32     0     0      0        0  100 %
      kernel    2×4  float32   3.5  2.29      0        7   12 %  ██▁█▁██▁█▁██
      <BLANKLINE>
      2 parameters, 12 entries, 48 B
    """
    state, _ = _paths.split(params)
    arrays = _paths.by_path("describe", state, _is_measured)
    if not arrays:
        raise _nothing_to_measure(params)
    for path, x in arrays.items():
        _check_values(path, x)
    expected: dict[str, float | None] = {}
    if rules is not None:
        rows = _preview("describe", params, rules, False, stacked, structure).rows
        expected = {row.path: row.std for row in rows}
    else:
        stacks.axes("describe", stacked, arrays)  # refuses a wrong pattern
    with _placement.automatic():
        measured = jax.device_get(
            {path: _measured(_placement.untyped(x)) for path, x in arrays.items()}
        )
    found = [
        _parameter(path, x, expected.get(path), *measured[path])
        for path, x in arrays.items()  # in the order of the tree
    ]
    return Description(tuple(found), arrays)


def _is_measured(leaf: Any) -> bool:
    abstract = isinstance(leaf, jax.ShapeDtypeStruct)
    return arguments.is_array(leaf) and not abstract


def _nothing_to_measure(params: Any) -> Exception:
    shapes = any(isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(params))
    cure = "Shapes have no values: preview(params, rules) tells what rules give them."
    return arguments.no_array("describe", params, *[cure] * shapes)


def _check_values(path: str, x: Any) -> None:
    """Checks that an array has values: it is neither traced nor deleted."""
    where = f"describe(params=...): {_paths.shown(path)} must have values, and it"
    if isinstance(x, jax.core.Tracer):
        raise TypeError(
            f"{where} is traced. Describe outside of jit, grad and vmap what they "
            "return."
        )
    if isinstance(x, jax.Array) and x.is_deleted():
        raise ValueError(
            f"{where} has been deleted, as an argument that jit may overwrite "
            "(donate_argnums). Describe what that function returned."
        )


@functools.partial(jax.jit, inline=True)
def _measured(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns numbers of an array, and some of its entries."""
    flat = x.ravel()
    sample = flat[:: max(1, x.size // _SAMPLE)][:_SAMPLE]
    if not x.size:
        return jnp.full(5, np.nan), sample
    if jnp.iscomplexobj(x):
        real, imag, modulus = moments(flat.real), moments(flat.imag), moments(abs(flat))
        variance = real.variance + imag.variance
        mean, least, most, zeros = (
            real.mean,
            modulus.minimum,
            modulus.maximum,
            modulus.zeros,
        )
    else:
        wide = (
            flat if jnp.issubdtype(x.dtype, jnp.floating) else flat.astype(np.float32)
        )
        mean, variance, _, least, most, zeros = moments(wide)
    numbers = [mean, jnp.sqrt(variance), least, most, zeros]
    return jnp.stack([number.astype(np.float32) for number in numbers]), sample


def _parameter(
    path: str, x: Any, expected: float | None, numbers: np.ndarray, sample: np.ndarray
) -> Parameter:
    mean, std, least, most, zeros = map(float, numbers)
    finite = math.isfinite(mean) and math.isfinite(least) and math.isfinite(most)
    values = np.abs(sample) if np.iscomplexobj(sample) else sample
    return Parameter(
        *(path, tuple(x.shape), str(x.dtype), mean, std, expected),
        *(least, most, zeros, finite or not x.size, values),
    )


_COLUMNS: tuple[Column[Parameter], ...] = (
    Column("path", lambda x: _paths.shown(x.path), left=True),
    Column("shape", lambda x: _text.shape(x.shape)),
    Column("dtype", lambda x: x.dtype, left=True),
    Column("mean", lambda x: number(x.mean)),
    Column("std", lambda x: number(x.std)),
    Column("expected", lambda x: _text.or_dash(x.expected, number)),
    Column("least", lambda x: number(x.minimum)),
    Column("largest", lambda x: number(x.maximum)),
    Column("zeros", lambda x: percent(x.zeros)),
    Column(
        "histogram",
        lambda x: x.sparkline if x.finite else _SICK,
        left=True,
        mark=lambda cell: "wrong" if cell == _SICK else "bars",
    ),
)


def _figure(
    what: Plot, chosen: Sequence[Parameter], arrays: dict[str, Any]
) -> "Figure":
    with explain_missing("Description.plot()", "lab"):
        from matplotlib.figure import Figure

        from jaxinit import _panels

    columns = min(_PANELS, len(chosen))
    rows = -(-len(chosen) // columns)
    figure = Figure((3.2 * columns, 2.4 * rows + 0.3), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for axis in axes[len(chosen) :]:
        axis.set_visible(False)
    for axis, x in zip(axes, chosen, strict=False):
        axis.set_title(x.path, fontsize=8)
        axis.tick_params(labelsize=7)
        if what == "histogram":
            bins = min(80, max(4, math.isqrt(x.sample.size)))
            _panels.histogram(axis, x.sample, _panels.COLORS[1], bins=bins)
            if x.expected:
                _panels.spread(axis, x.mean, x.expected)
        elif what == "bias":
            values = np.asarray(arrays[x.path]).astype(float)
            axis.bar(np.arange(values.size), values, width=1.0, color=_panels.COLORS[1])
        else:
            figure.colorbar(_panels.heatmap(axis, _thinned(arrays[x.path])), ax=axis)
    return figure


def _thinned(x: Any) -> np.ndarray:
    """Returns a weight as a matrix of at most 512 rows and columns."""
    matrix = x.reshape(-1, x.shape[-1])
    rows, columns = (-(-size // _MOST) for size in matrix.shape)
    thin = np.asarray(matrix[::rows, ::columns])
    return np.abs(thin) if np.iscomplexobj(thin) else thin.astype(float)
