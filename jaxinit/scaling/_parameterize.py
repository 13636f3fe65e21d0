"""A table, and the factors of depth and attention, applied to what grows."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from jaxinit import _paths
from jaxinit._structure.result import Structure
from jaxinit.scaling._forward import (
    Forward,
    Multiplier,
    list_attention,
    list_branches,
)
from jaxinit.scaling._growth import check_depth, check_widths, read_growth
from jaxinit.scaling._row import ScaledParameter
from jaxinit.scaling._tables import Factors

Applied = Literal["absorbed", "model"]
Attention = Literal["root", "size", "nothing"]
# How much is left to divide by, as a power of a head's size.
_LEFT: dict[Attention, float] = {"root": 0.5, "size": 0.0, "nothing": 1.0}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parameterization:
    """What is scaled by what.

    Attributes:
      name: the public function that it belongs to.
      table: returns a parameter's factors by width.
      alpha: residual branches are multiplied by depth^-alpha; None if nothing depends
        on depth.
      attention: what the model divides products of queries and keys by, where they
        should be divided by a head's size; None where they stay as they are.
      unequal: whether widths may grow by different factors.
    """

    name: str
    table: Callable[[ScaledParameter], Factors]
    alpha: float | None = None
    attention: Attention | None = None
    unequal: bool = False

    @property
    def call(self) -> str:
        """What is called."""
        return f"scaling.{self.name}"


def parameterize(
    how: Parameterization, base: Structure, target: Structure, applied: Applied
) -> tuple[tuple[ScaledParameter, ...], Forward, tuple[str, ...]]:
    """Returns the target's parameters with their factors.

    Returns:
      The rows; what the model has to multiply; and notes for the reader.
    """
    rows = read_growth(how.call, base, target)
    if not how.unequal:
        check_widths(how.call, rows)
    if how.alpha is not None:
        check_depth(how.call, rows)
    factors = {row.path: _find_factors(how, row, applied) for row in rows}
    inner, left, notes = _list_multipliers(how, rows)
    of_width = [
        Multiplier(_name_use(row), factors[row.path].forward, (row.path,))
        for row in rows
        if factors[row.path].forward != 1
    ]
    absorbed = dict(Forward(inner)) if applied == "absorbed" else {}
    for path, theta in Forward(inner).items():
        forward = factors[path].forward * theta
        factors[path] = dataclasses.replace(factors[path], forward=forward)
    if applied == "absorbed":
        factors = {path: each.absorb(each.forward) for path, each in factors.items()}
        inner, of_width = [], []
    scaled = tuple(
        _with_factors(row, factors[row.path], absorbed.get(row.path, 1.0))
        for row in rows
    )
    return scaled, Forward([*of_width, *inner, *left]), notes


def _name_use(row: ScaledParameter) -> str:
    if "readout" in row.traced.roles:
        return "readout"
    return "product" if row.traced.in_axis else "vector"


def _with_factors(
    row: ScaledParameter, factors: Factors, absorbed: float
) -> ScaledParameter:
    lr = {"sgd": factors.sgd, "adam": factors.adam, "muon": factors.muon}
    return dataclasses.replace(
        row,
        std=factors.std,
        forward=factors.forward,
        lr=lr,
        eps=factors.eps,
        decay=factors.decay,
        absorbed=absorbed,
        learns=factors.learns,
    )


_DUTIES = {"embedding", "input", "readout", "hidden", "residual"}


def _find_factors(
    how: Parameterization, row: ScaledParameter, applied: Applied
) -> Factors:
    factors = how.table(row)
    twice = _DUTIES & {*row.traced.roles}
    if len(twice) > 1 and twice != {"embedding", "readout"} and row.grown:
        uses = " and ".join(sorted(twice))
        raise ValueError(
            f"{how.call}(target=...): a weight with two uses has one rule, and "
            f"{_paths.shown(row.path)} is both {uses}. Give each use its own weight."
        )
    if row.kind == "embedding" and "readout" in row.traced.roles:
        factors = _tie(how, row, factors, applied)
    if how.alpha is not None and row.in_block:
        factors = factors.deepen(row.depth, how.alpha)
    return factors


def _tie(
    how: Parameterization, row: ScaledParameter, looked_up: Factors, applied: Applied
) -> Factors:
    """Returns the factors of a table that is the readout too, if there are any.

    Raises:
      ValueError: if the two uses need different ones.
    """
    as_readout = dataclasses.replace(
        row, kind="readout", width_in=row.width_out, width_out=1.0
    )
    read = how.table(as_readout)
    same = looked_up.forward == 1 and all(
        math.isclose(getattr(looked_up, name), getattr(read, name))
        for name in ("std", "adam", "eps")
    )
    if same and (applied == "model" or read.forward == 1):
        return dataclasses.replace(looked_up, forward=read.forward)
    came = f"and {_paths.shown(row.path)} is both embedding and readout"
    if same:
        raise ValueError(
            f"{how.call}(forward='absorbed'): a factor of the readout alone cannot be "
            f"absorbed by a weight that has another use, {came}. Say forward='model', "
            f"and multiply the logits by {read.forward:.6g} in the model."
        )
    raise ValueError(
        f"{how.call}(target=...): a weight must have one standard deviation and one "
        f"learning rate, {came}, which differ in them. Use scaling.mup(..., "
        "forward='model'), or give the readout a weight of its own."
    )


def _list_multipliers(
    how: Parameterization, rows: Sequence[ScaledParameter]
) -> tuple[list[Multiplier], list[Multiplier], tuple[str, ...]]:
    """Lists factors of branches and of attention: those of a parameter, and others."""
    inner: list[Multiplier] = []
    left: list[Multiplier] = []
    notes: list[str] = []
    depth = rows[0].depth if rows else 1.0
    if how.alpha is None and depth != 1:
        notes.append(
            f"Residual branches grow {depth:.3g}-fold, by which nothing is scaled: "
            "scaling.completep does."
        )
    if how.alpha is not None and depth != 1:
        found, others = list_branches(rows, depth**-how.alpha)
        inner += found
        left += others
        for each in others:
            notes.append(
                f"No parameter ends the branch of {_paths.shown(each.paths[0])} alone: "
                "multiply it in the model, as forward says."
            )
    if power := _LEFT[how.attention] if how.attention else 0.0:
        found, others = list_attention(rows, power)
        inner += found
        left += others
        for each in others:
            notes.append(
                f"No parameter belongs to the queries of {_paths.shown(each.paths[0])} "
                "alone: multiply their products with keys in the model, as forward "
                "says."
            )
    if how.attention is None and any("head size" in row.grown for row in rows):
        notes.append(
            "The size of heads grows, and nothing is scaled by it: products of queries "
            "and keys that are divided by its root grow in training. scaling.mup "
            "divides them by the size."
        )
    return inner, left, (*notes, *_tell_unclear(rows), *_tell_data(rows))


def _tell_unclear(rows: Sequence[ScaledParameter]) -> list[str]:
    """Tells of parameters for which the table may not hold."""
    notes = []
    for row in rows:
        path, several = _paths.shown(row.path), len(row.grown.keys() - {"layers"}) > 1
        if not row.traced.uses:
            continue
        if row.kind == "vector" and ("other" in row.traced.roles or several):
            if row.grown:
                reason = row.traced.reason
                why = f"it {reason}" if reason else "it is in no product with data"
                notes.append(
                    f"{path} counts as a vector, since {why}: see for yourself."
                )
        elif row.traced.curved and row.traced.is_kernel and row.grown:
            notes.append(
                f"{path} is not in proportion to what data meet (it is normalized, "
                "say): its std and learning rate may not do what the table says."
            )
        if row.traced.uses > row.traced_base.uses:
            notes.append(
                f"{path} is used {row.traced.uses} times, and in the base "
                f"{row.traced_base.uses} times: its gradient is a sum over uses, which "
                "ε and the rate of SGD leave out."
            )
    return notes


def _tell_data(rows: Sequence[ScaledParameter]) -> list[str]:
    """Tells of axes that grow with the data, by which nothing is scaled."""
    grown: dict[str, Mapping[str, float]] = {}
    for row in rows:
        for name in ("features", "classes", "vocabulary", "positions"):
            if name in row.grown:
                grown.setdefault(name, {row.path: row.grown[name]})
    return [
        f"The {name} of {_paths.shown(path)} grow {size:.3g}-fold; they are no width, "
        "and nothing is scaled by them."
        for name, each in grown.items()
        for path, size in each.items()
    ]
