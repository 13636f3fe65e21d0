"""The rules that draw a large model, from those that draw the small one."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxinit import _check as check
from jaxinit import _paths
from jaxinit import initializers as init
from jaxinit._arithmetic import change_inner
from jaxinit._initializer import Initializer
from jaxinit._structure.result import Structure
from jaxinit.model import Assignment, Rule, preview
from jaxinit.scaling._row import ScaledParameter

_CALL = "Scale.rules"
_SAME = 1e-9  # relative; the law has the standard deviation already
# Vectors that are no constants of a system, as rates of a state space are.
_SPREAD = frozenset({"bias", "gain", "offset", "table"})


@dataclasses.dataclass(frozen=True)
class At:
    """A pattern that matches one parameter, whether collections of Linen are named."""

    path: str

    @property
    def __name__(self) -> str:
        return self.path

    def __call__(self, path: str, leaf: Any) -> bool:
        """Returns whether a parameter is this one."""
        return path.removeprefix("params/") == self.path


@dataclasses.dataclass(frozen=True)
class Looped:
    """The law of a parameter that a loop stacks: of one layer, or of all of them.

    `reinit` stacks the law itself where it knows of the loop.
    """

    law: Any
    loops: tuple[int, ...]
    rank: int

    def __call__(self, path: str, leaf: Any, siblings: Mapping[str, Any]) -> Any:
        """Returns the law of what came."""
        if len(leaf.shape) < self.rank or not isinstance(self.law, Initializer):
            return self.law
        axis = self.loops if len(self.loops) > 1 else self.loops[0]
        return init.stacked(self.law, axis)


def make_rules(
    rows: Sequence[ScaledParameter],
    base: Structure,
    rules: Sequence[Rule],
    params: Any,
    strict: bool | None,
) -> list[Rule]:
    """Returns a rule for each parameter of the target.

    Args:
      rows: the target's parameters.
      base: what `structure` says of the base.
      rules: the rules that draw the base.
      params: the base's parameters; None if no rule asks for their values.
      strict: as for `preview`.

    Raises:
      ValueError: if the rules do not fit the base, or a law cannot be scaled.
      TypeError: as `preview`.
    """
    tree = _list_shapes(base, rules) if params is None else params
    try:
        found = preview(tree, rules, strict=strict, structure=base).rows
    except (TypeError, ValueError) as error:
        raise check.retell(error, {"preview(": f"{_CALL}("}) from None
    laws = {each.path.removeprefix("params/"): each for each in found}
    return [
        (At(row.path), _scale(row, laws[row.base])) for row in rows if row.base in laws
    ]


def _list_shapes(base: Structure, rules: Any) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns a stand-in for the base's parameters, by path."""
    listed = rules if isinstance(rules, (list, tuple)) else ()
    patterns = [rule[0] for rule in listed if isinstance(rule, (list, tuple)) and rule]
    named = any(isinstance(x, str) and x.startswith("params/") for x in patterns)
    prefix = "params/" if named else ""
    return {
        prefix + path: jax.ShapeDtypeStruct(row.shape, row.dtype)
        for path, row in base.items()
    }


def _scale(row: ScaledParameter, found: Assignment) -> Any:
    """Returns the law of a parameter of the target, from that of the base."""
    law, loops = found.law, row.traced.loops
    try:
        if not isinstance(law, Initializer):
            return _scale_value(row, law)
        if not loops:
            return _scale_law(row, law, found.std, row.traced.shape)
        inner = law.arguments["init"] if law.name == "stacked" else law
        shape = row.traced.layer.shape
        std = _std(inner, row.traced_base.layer.shape)
        return Looped(_scale_law(row, inner, std, shape), loops, len(found.shape))
    except ValueError as error:
        raise ValueError(
            f"{_CALL}(rules=...), {_paths.shown(row.path)}: {error}"
        ) from None


def _std(law: Initializer, shape: tuple[int, ...]) -> float | None:
    moments = law.moments(shape)
    return None if moments is None else float(moments.variance) ** 0.5


def _scale_value(row: ScaledParameter, law: Any) -> Any:
    """Returns a number, an array, a function or nothing for the target."""
    # Models draw most tables by their width.
    by_width = row.kind == "embedding" and row.width_out != 1
    if law is None and row.std == 1 and not by_width:
        return None  # as the model draws it
    if law is None or callable(law):
        what = "no rule draws it" if law is None else f"{law!r} is a function"
        if callable(law) and row.std == 1 and not row.grown:
            return law
        raise ValueError(
            f"its standard deviation must be {row.std:.6g} times that of "
            f"{_paths.shown(row.base)}, and {what}. Give it an initializer of jaxinit."
        )
    if np.ndim(law) and row.traced.shape != row.traced_base.shape:
        raise ValueError(
            f"an array of sizes {np.shape(law)} cannot fill {row.traced.shape}. Give "
            "it an initializer."
        )
    return law if row.std == 1 else law * row.std


def _scale_law(
    row: ScaledParameter, law: Initializer, std: float | None, shape: tuple[int, ...]
) -> Any:
    """Returns a law whose standard deviation is row.std times that in the base."""
    law = _regroup(row, _fit_parts(row, law))
    own = _std(law, shape)
    factor = row.std
    if spreads(row) and (std is None or own is None):
        if row.std != 1 or row.grown:
            raise ValueError(
                f"{law!r} states no standard deviation, which must be {row.std:.6g} "
                f"times that of {_paths.shown(row.base)}. Give it another law."
            )
    elif spreads(row) and std and own:
        factor = std * row.std / own
    return law if math.isclose(factor, 1, rel_tol=_SAME) else law * factor


def spreads(row: ScaledParameter) -> bool:
    """Returns whether the entries of a parameter have a standard deviation to keep."""
    return row.traced.is_kernel or not _SPREAD.isdisjoint(row.traced.roles)


def _regroup(row: ScaledParameter, law: Any) -> Any:
    """Gives a law that was fitted to the base's groups those of the target."""
    groups, mine = row.traced_base.groups, row.traced.groups
    if law.is_combined or "groups" not in law.arguments:
        return change_inner(law, lambda part: _regroup(row, part))
    if law.arguments["groups"] != groups or groups == mine:
        return law
    return law._build(**{**law.arguments, "groups": mine})


def _fit_parts(row: ScaledParameter, law: Initializer) -> Any:
    """Gives the parts of a joint kernel the sizes that they have in the target."""
    joint = row.traced.layer.joint
    if law.name != "concatenated" or joint is None:
        return law
    sizes = {"sizes": joint.sizes, "repeats": joint.repeats}
    return init.concatenated(**{**law.arguments, **sizes})
