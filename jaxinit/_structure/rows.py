"""Turns what a walk noted into a row for each parameter."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from jaxinit._structure._read.cuts import count_blocks, find_joint
from jaxinit._structure._read.facts import GONE, Notes, Use
from jaxinit._structure.result import TracedParameter
from jaxinit._structure.roles import explain, name_roles

_NORM = {(True, True): "around", (True, False): "before", (False, True): "after"}


def list_rows(
    leaves: Sequence[tuple[str, Any]], notes: Notes, last: frozenset[int]
) -> list[TracedParameter]:
    """Returns a row for each parameter.

    Args:
      leaves: the parameters, with their paths.
      notes: what a walk over the program noted.
      last: numbers of the uses that are the last products before a result.
    """
    by_leaf: dict[int, list[Use]] = {number: [] for number in range(len(leaves))}
    for number, use in enumerate(notes.uses):
        if number in last and not notes.followed >> use.order & 1:
            use.roles.add("last")
        if use.kind != GONE:
            by_leaf[use.leaf].append(use)
    paths = [path for path, _ in leaves]
    orders = sorted(
        {min(use.order for use in uses) for uses in by_leaf.values() if uses}
    )
    places = {order: place for place, order in enumerate(orders)}
    return [
        _make_row(
            path,
            leaf,
            by_leaf[number],
            tuple(sorted(notes.stacked.get(number, ()))),
            tuple(sorted({paths[n] for use in by_leaf[number] for n in use.of})),
            _list_before(by_leaf[number], notes.uses, paths),
            _list_ends(by_leaf[number], notes.uses, paths),
            places,
        )
        for number, (path, leaf) in enumerate(leaves)
    ]


def _make_row(
    path: str,
    leaf: Any,
    uses: Sequence[Use],
    loops: tuple[int, ...],
    of: tuple[str, ...],
    before: tuple[str, ...],
    ends: tuple[str, ...],
    places: dict[int, int],
) -> TracedParameter:
    roles = name_roles(uses)
    known: dict[str, Any] = {}
    if uses:
        use = _mix(min(uses, key=_rank))
        # Parts of queries alone are heads.
        one = len({"query", "key", "value"}.intersection(roles)) == 1
        known = {
            "in_axis": use.inputs,
            "out_axis": use.outputs,
            "batch_axis": use.batch,
            "window": use.window,
            "groups": max(use.groups, 1 if one else count_blocks(use.cuts)),
            "joint": find_joint(uses, leaf.shape),
            "head": max(use.head for use in uses),
            "activation": use.activation,
            "norm": _NORM.get(use.normed, ""),
            "order": places[min(use.order for use in uses)],
            "depth": use.depth,
            "branch": use.branch,
        }
    return TracedParameter(
        path=path,
        shape=tuple(leaf.shape),
        dtype=leaf.dtype,
        roles=roles,
        loops=loops,
        uses=len(uses),
        of=of,
        before=before,
        ends=ends,
        curved=any(use.curved for use in uses),
        reason=explain(uses) if roles == ("other",) else "",
        **known,
    )


def _mix(use: Use) -> Use:
    """Turns a product that mixes kernels into those kernels; not one of heads."""
    if use.mixed is None or use.roles & {"query", "key", "value"}:
        return use
    inputs, outputs = use.mixed
    window = tuple(sorted({*use.outputs} - {*inputs, *outputs}))
    batch = tuple(sorted((*use.batch, *use.inputs)))
    return dataclasses.replace(
        use, inputs=inputs, outputs=outputs, batch=batch, window=window
    )


def _list_before(
    uses: Sequence[Use], every: Sequence[Use], paths: Sequence[str]
) -> tuple[str, ...]:
    found = {paths[every[number].leaf] for use in uses for number in use.before}
    return tuple(sorted(found))


def _list_ends(
    uses: Sequence[Use], every: Sequence[Use], paths: Sequence[str]
) -> tuple[str, ...]:
    """Lists what ends a branch; nothing if a use of it has no such end."""
    writers = [use for use in uses if "residual" in use.roles]
    found = [{n for n in use.ends if n >= 0} for use in writers]
    if not all(found):
        return ()
    ends = {every[number].leaf for numbers in found for number in numbers}
    return tuple(sorted(paths[leaf] for leaf in ends))


def _rank(use: Use) -> tuple[int, int]:
    """Ranks the uses of a parameter: products first, then lookups, then by order."""
    kinds = {"product": 0, "lookup": 1}
    return kinds.get(use.kind, 2), use.order
