"""What grows from a small model to a large one: widths, depth, heads, experts."""

import math
from collections.abc import Sequence

from jaxinit import _paths
from jaxinit._structure.result import Structure, TracedParameter
from jaxinit.scaling._match import Pair, pair_parameters
from jaxinit.scaling._row import ScaledParameter

ATTENDS = frozenset({"query", "key", "value"})
# Sizes are rounded, to multiples of 64 say: widths that grow 4-fold and 3.9-fold are
# alike.
_ALIKE = 1.25


def read_growth(
    call: str, base: Structure, target: Structure
) -> tuple[ScaledParameter, ...]:
    """Reads how each parameter of the target grows; its factors are 1 as yet.

    An axis is a width if inputs or outputs run along it that the model makes itself.
    The features of its inputs, rows of its tables, its classes and its experts are
    not: they are named in `grown`, and nothing is scaled by them.

    Args:
      call: the public function.
      base: what `structure` says of the small model.
      target: the same of the large one.

    Raises:
      ValueError: if a parameter has no like in the other model, or the window of a
        convolution grows.
    """
    pairs = pair_parameters(call, base, target)
    experts = [_list_experts(rows) for rows in (base, target)]
    depth = target.branches / base.branches if base.branches * target.branches else 1.0
    kernels = {
        pair.target.path: _name_axes(call, pair, experts)
        for pair in pairs
        if pair.target.is_kernel
    }
    widths = [
        _ratio(pair, axes, "width in")
        for pair in pairs
        if (axes := kernels.get(pair.target.path))
    ]
    rows = []
    for pair in pairs:
        axes = kernels.get(pair.target.path) or _name_vector(pair, kernels, widths)
        rows.append(_make_row(pair, axes, depth))
    return tuple(rows)


def _make_row(pair: Pair, axes: Sequence[str], depth: float) -> ScaledParameter:
    new, old, repeated = pair
    grown = {name: _ratio(pair, axes, name) for name in dict.fromkeys(axes)}
    width_in, width_out = (grown.get(name, 1.0) for name in ("width in", "width out"))
    if repeated != 1:
        grown["layers"] = grown.get("layers", 1.0) * repeated
    if ATTENDS & {*new.roles} and new.head and old.head:
        grown["head size"] = new.head / old.head
        if "width out" in grown:
            grown["heads"] = width_out * old.head / new.head
    routes = new.is_kernel and "experts" in (axes[axis] for axis in new.out_axis)
    kind = "readout" if routes else _name_kind(new, width_in, width_out)
    return ScaledParameter(
        path=new.path,
        base=old.path,
        traced=new,
        traced_base=old,
        kind=kind,
        narrow=kind == "readout" and "readout" not in new.roles and not routes,
        in_block=new.branch > 0,
        width_in=width_in,
        width_out=width_out,
        depth=depth,
        grown={name: size for name, size in grown.items() if size != 1},
    )


def _name_kind(row: TracedParameter, width_in: float, width_out: float) -> str:
    """Names what a parameter counts as: by its role, and by which widths grow.

    As in Tensor Programs V a weight is one of inputs, hidden or of outputs by
    which of its axes grow without bound. Kernels of queries, keys and values are hidden
    however many heads there are.
    """
    if not row.is_kernel:
        return "vector"
    if "embedding" in row.roles:
        return "embedding"
    if "readout" in row.roles:
        return "readout"
    if "input" in row.roles or width_in == 1 != width_out:
        return "input"
    if width_out == 1 != width_in and not ATTENDS & {*row.roles}:
        return "readout"
    return "hidden"


def _list_experts(rows: Structure) -> set[tuple[int, int]]:
    """Lists numbers of experts, each with its branch."""
    return {
        (row.branch, row.shape[axis])
        for row in rows.values()
        if row.in_axis and row.out_axis
        for axis in row.batch_axis
        if axis not in row.loops
    }


def _name_axes(
    call: str, pair: Pair, experts: Sequence[set[tuple[int, int]]]
) -> list[str]:
    """Names the axes of a kernel."""
    new, old, _ = pair
    looked_up = "embedding" in new.roles
    outputs, inputs, batch = "width out", "width in", "experts"
    if "input" in new.roles:
        inputs = "features"
    if not (new.in_axis and new.out_axis):  # a kernel for each channel
        batch = outputs
    if looked_up:
        inputs, batch = "vocabulary", "vocabulary"
    if "readout" in new.roles and looked_up:  # one table, with the axes of its product
        inputs, outputs = "width out", "vocabulary"
    elif "readout" in new.roles:
        outputs = "classes"
    elif new.roles == ("hidden",) and all(
        (row.branch, math.prod(row.shape[axis] for axis in row.out_axis)) in known
        for row, known in zip((old, new), experts, strict=True)
    ):
        outputs = "experts"  # a router's
    names = [""] * len(new.shape)
    for axes, name in (
        (new.in_axis, inputs),
        (new.out_axis, outputs),
        (new.batch_axis, batch),
        (new.loops, "layers"),
    ):
        for axis in axes:
            names[axis] = name
    for axis, name in enumerate(names):
        if not name and new.shape[axis] != old.shape[axis]:
            raise ValueError(
                f"{call}(target=...): windows must be as large in both models, and "
                f"{_paths.shown(new.path)} has sizes {new.shape}, {old.shape} in the "
                "base. Change widths and depth alone."
            )
    return names


def _name_vector(
    pair: Pair, kernels: dict[str, list[str]], widths: Sequence[float]
) -> list[str]:
    """Names the axes of what is no kernel: those of its kernel, or what grows alike."""
    new, old, _ = pair
    names = ["layers" if axis in new.loops else "" for axis in range(len(new.shape))]
    owner = next((kernels[path] for path in new.of if path in kernels), None)
    rest = [axis for axis, name in enumerate(names) if not name]
    if owner is not None and "bias" in new.roles:
        outputs: tuple[str, ...] = ("width out", "classes", "experts")
        if "vocabulary" in owner and "width out" in owner:  # a table that is tied
            outputs = ("vocabulary",)
        kept = [name for name in owner if name in outputs]
        if len(kept) != len(rest):  # heads that were joined, or axes of size 1
            kept = ["classes" if "classes" in kept else "width out"] * len(rest)
        for axis, name in zip(rest, kept, strict=True):
            names[axis] = name
        return names
    grows = [axis for axis in rest if new.shape[axis] != old.shape[axis]]
    for axis in grows:
        ratio = new.shape[axis] / old.shape[axis]
        alike = any(_is_alike(ratio, width) for width in widths)
        # Positions come before features.
        first = axis != rest[-1]
        unlike = "positions" if "table" in new.roles else "width out"
        names[axis] = "width out" if alike and not first else unlike
    return names


def _is_alike(one: float, other: float) -> bool:
    return 1 / _ALIKE <= one / other <= _ALIKE


def _ratio(pair: Pair, axes: Sequence[str], name: str) -> float:
    """Returns how much larger all axes of a name are, together."""
    return math.prod(
        new / old if old else 1.0
        for new, old, each in zip(pair.target.shape, pair.base.shape, axes, strict=True)
        if each == name
    )


def check_widths(call: str, rows: Sequence[ScaledParameter]) -> None:
    """Raises if widths grow by different factors.

    Every width is summed over by a product, so that those of inputs are all.
    """
    grown = {row.width_in: row for row in rows if row.width_in != 1}
    if grown and not _is_alike(max(grown), min(grown)):
        least, most = grown[min(grown)], grown[max(grown)]
        raise ValueError(
            f"{call}(target=...): all widths must grow alike, and the inputs of "
            f"{_paths.shown(least.path)} grow {min(grown):.3g}-fold, those of "
            f"{_paths.shown(most.path)} {max(grown):.3g}-fold. Grow them alike, or use "
            "scaling.spectral, which takes the sizes of each kernel: inputs that join "
            "data with widths cannot grow alike."
        )


def check_depth(call: str, rows: Sequence[ScaledParameter]) -> None:
    """Raises if layers are added that lie in no residual branch."""
    alone = next(
        (r for r in rows if "layers" in r.grown and not r.in_block and r.traced.uses),
        None,
    )
    if alone is not None:
        raise ValueError(
            f"{call}(target=...): depth must grow by residual branches, and "
            f"{_paths.shown(alone.path)} is one of "
            f"{alone.grown['layers']:.3g} times as many layers outside of any. Use "
            "scaling.mup, which leaves depth alone."
        )
