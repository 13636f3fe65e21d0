"""What parameters are, as the model's program tells: see `jaxinit.structure`."""

import dataclasses
import functools
import inspect
import itertools
from collections.abc import Mapping
from typing import Any

from jaxinit import _check as check
from jaxinit import _paths
from jaxinit._arithmetic import OF_EQUAL_AXES, change_inner
from jaxinit._initializer import Initializer
from jaxinit._structure.result import Structure, TracedParameter
from jaxinit.model._rules._vocabulary import Kind
from jaxinit.model._rules.conventions import Site, Sites
from jaxinit.model._rules.readings import Reading

_ATTENDS = ("query", "key", "value")
_JOINED = frozenset({*_ATTENDS, "joint"})
_ATTENTION = _JOINED | {"attention out"}
_PRODUCTS = frozenset(
    {*_ATTENDS, "residual", "recurrent", "readout", "input", "hidden"}
)


def find_rows(
    call: str, structure: Any, parameters: Mapping[str, Any]
) -> dict[str, TracedParameter]:
    """Returns the row of each parameter of a tree, by the tree's own paths.

    The tree may have the collection of Linen's parameters, ``params/``, or not; what a
    model stores beside its parameters has no row.

    Raises:
      ValueError: if the structure is that of another model.
      TypeError: if it is none.
    """
    if not isinstance(structure, Structure):
        raise TypeError(
            f"{call}(structure={check.show(structure)}): must be what "
            "jaxinit.structure(model, x) returns."
        )
    rows, plain, found = dict(structure), _paths.plain(parameters), {}
    for path, leaf in parameters.items():
        row = rows.pop(plain[path], None)
        if row is not None and row.shape != tuple(leaf.shape):
            raise ValueError(
                f"{call}(structure=...): the structure is that of another model: "
                f"{_paths.shown(path)} has sizes {tuple(leaf.shape)} in the tree, and "
                f"{row.shape} in the structure."
            )
        if row is not None:
            found[path] = row
    if rows:
        raise ValueError(
            f"{call}(structure=...): the structure is that of another model: the tree "
            f"has no {_paths.shown(next(iter(rows)))}. Paths are such as "
            f"{', '.join(list(parameters)[:3])}."
        )
    return found


def fit_axes(law: Any, row: TracedParameter) -> Any:
    """Lets a law of fans read the axes of a kernel, unless it names axes of its own."""
    if not isinstance(law, Initializer) or not row.is_kernel:
        return law
    if law.name in ("blocks", "concatenated"):  # one part is one of the groups
        row = dataclasses.replace(row, groups=1)
    if law.is_combined or law.name in OF_EQUAL_AXES:
        return change_inner(law, lambda part: fit_axes(part, row))
    builder, given = law.source._build, law.arguments
    usual = inspect.signature(builder).parameters
    axes = dict(row.axes)
    if "column_axis" in given and len(row.out_axis) == 1 and "out_axis" in axes:
        axes = {"column_axis": row.out_axis[0]}
    elif "layout" in given and (row.in_axis, row.out_axis) == ((1,), (0,)):
        axes = {"layout": "torch"}
    named = {name: value for name, value in axes.items() if name in given}
    if not named or any(given[name] != usual[name].default for name in named):
        return law
    return builder(**{**given, **named})


class TracedSites(Sites):
    """Every parameter of a tree whose structure is known.

    Attributes:
      rows: the row of each parameter, of one layer where a loop stacks layers.
      writes: how many kernels write into the residual stream, those in loops counted at
        each step: 2 L in a transformer of L blocks.
      looped: paths of the parameters that loops stack.
    """

    def __init__(
        self, tree: Mapping[str, Any], rows: Mapping[str, TracedParameter]
    ) -> None:
        """Takes parameters by path, and their rows."""
        self.rows = {path: row.layer for path, row in rows.items()}
        self.writes = sum(
            row.copies for row in rows.values() if "residual" in row.roles
        )
        self.looped = {path for path, row in rows.items() if row.loops}
        self._paths = {row.path: path for path, row in rows.items()}
        super().__init__(tree)

    def _make_site(self, path: str, leaf: Any) -> Site:
        row = self.rows.get(path)
        return Site(self, path, leaf) if row is None else TracedSite(self, path, leaf)

    def get_traced(self, path: str) -> "TracedSite | None":
        """Returns the site of a path of the structure."""
        site = self.get(self._paths.get(path, ""))
        return site if isinstance(site, TracedSite) else None

    @property
    def layers(self) -> float | None:
        """Half the kernels that write into the stream; None if there are none."""
        return self.writes / 2 or None

    @property
    def residual_branches(self) -> int | None:
        """How many residual branches the model has; None if it has none."""
        return max(self.branches, default=0) or None

    @property
    def width(self) -> int | None:
        """The width of the residual stream; None if there is none."""
        rows = (row for row in self.rows.values() if "residual" in row.roles)
        return next((int(row.fans[1]) for row in rows if row.fans), None)

    @functools.cached_property
    def traced(self) -> "list[TracedSite]":
        """The sites whose rows are known, in the order of execution."""
        sites = [site for site in self.values() if isinstance(site, TracedSite)]
        return sorted(sites, key=lambda site: site.row.order or 0)

    @functools.cached_property
    def branches(self) -> "dict[int, list[TracedSite]]":
        """The parameters of each residual branch, in the order of execution."""
        found: dict[int, list[TracedSite]] = {}
        for site in self.traced:
            if site.row.branch:
                found.setdefault(site.row.branch, []).append(site)
        return found

    @functools.cached_property
    def kernels(self) -> "dict[int, list[TracedSite]]":
        """The kernels of each residual branch, in order; of none, under 0."""
        found: dict[int, list[TracedSite]] = {}
        for site in self.traced:
            if site.kind == "kernel":
                found.setdefault(site.row.branch, []).append(site)
        return found

    @functools.cached_property
    def blocks(self) -> "dict[int, int] | str":
        """The number of the block of each residual branch; or why there is none.

        A block begins with attention, behind a branch without. Numbers begin at 1, and
        anew where blocks have another number of branches, as a decoder's have.
        """
        attends = {
            number: any(site.part in _ATTENTION for site in near)
            for number, near in sorted(self.branches.items())
        }
        if not next(iter(attends.values()), False):
            return "its residual branches do not begin with attention"
        if all(attends.values()):
            return "attention stands in each of its residual branches"
        blocks: list[list[int]] = []
        before = False
        for number, mine in attends.items():
            if mine and not before:
                blocks.append([])
            blocks[-1].append(number)
            before = mine
        kinds = [len(block) for block in blocks]
        first = len(list(itertools.takewhile(lambda size: size == kinds[0], kinds)))
        if len({*kinds[first:]}) > 1:
            return "its blocks have different numbers of residual branches"
        ordered = [*enumerate(blocks[:first], 1), *enumerate(blocks[first:], 1)]
        return {branch: number for number, block in ordered for branch in block}

    @functools.cached_property
    def last_norms(self) -> dict[str, int]:
        """One number: in all branches the last norm is known."""
        return {"": 1} if self.branches else {}


class TracedSite(Site):
    """A parameter, and what it is in the program.

    Names tell only what the program does not, such as which gain is PReLU's.
    """

    sites: TracedSites

    @functools.cached_property
    def row(self) -> TracedParameter:
        """What the structure says of it."""
        return self.sites.rows[self.path]

    @functools.cached_property
    def kind(self) -> Kind:
        """What kind of parameter it is."""
        named, roles = super().kind, self.row.roles
        if named == "slope":
            return "slope"
        if "embedding" in roles:
            return "embedding"
        if _PRODUCTS & {*roles}:
            return "kernel"
        if "table" in roles:
            single = len(self.shape) < 2 or set(self.shape[:-1]) == {1}
            return "token" if single else "position"
        if "gain" in roles:
            return "gain" if self.row.norm else "unknown"
        return "bias" if {"bias", "offset"} & {*roles} else "unknown"

    @functools.cached_property
    def kernel(self) -> Site | None:
        """The kernel that it belongs to: itself, if it is one."""
        if self.kind == "kernel":
            return self
        owners = (self.sites.get_traced(path) for path in self.row.of)
        return next((x for x in owners if x is not None and x.kind == "kernel"), None)

    @property
    def relatives(self) -> dict[str, Any]:
        """The leaves beside it by name, and by role what belongs together.

        A bias finds its kernel as ``"role:kernel"`` and by the kernel's own role, such
        as ``"role:hidden"``; a kernel its bias as ``"role:bias"``.
        """
        found = dict(self.beside)
        owners = [self.sites.get_traced(path) for path in self.row.of]
        owned = [site for site in self.sites.traced if self.row.path in site.row.of]
        for site in (*owners, *owned):
            if site is not None:
                found |= {f"role:{role}": site.leaf for role in site.row.roles}
        if self.kernel is not None:
            found["role:kernel"] = self.kernel.leaf
        return found

    @functools.cached_property
    def readings(self) -> tuple[Reading, ...]:
        """The way in which its axes are read."""
        return (Reading(self.row.layout, self.row.axes),)

    @functools.cached_property
    def part(self) -> str:
        """Which part of a model it is, or its kernel is."""
        kernel = self.kernel
        if kernel is not self:
            return "" if kernel is None else kernel.part
        roles = self.row.roles
        met = [role for role in roles if role in _ATTENDS]
        if met:
            return met[0] if len(met) == 1 else "joint"
        if "residual" in roles:
            return "attention out" if self._follows("value") else "mlp out"
        if "readout" in roles:
            return "head"
        return "mlp in" if self._feeds_branch else ""

    def _follows(self, role: str) -> bool:
        """Returns whether a kernel of this role is the last product before its own."""
        before = (self.sites.get_traced(path) for path in self.row.before)
        return any(site is not None and role in site.row.roles for site in before)

    @property
    def _feeds_branch(self) -> bool:
        """Returns whether the last kernel of its branch comes next."""
        near = self.branch
        return any(
            self.row.path in site.row.before and "residual" in site.row.roles
            for site in near
        )

    @functools.cached_property
    def branch(self) -> "list[TracedSite]":
        """The kernels of its residual branch, in the order of execution."""
        return self.sites.kernels.get(self.row.branch, []) if self.in_block else []

    @functools.cached_property
    def is_patches(self) -> bool:
        """Whether it is multiplied with the inputs."""
        return "input" in self.row.roles

    @property
    def in_block(self) -> bool:
        """Whether it stands in a residual branch."""
        return self.row.branch > 0

    in_branch = in_block
    is_in_named_block = in_block

    @functools.cached_property
    def is_last_norm(self) -> bool:
        """Whether it is the last norm's gain of its branch."""
        near = self.sites.branches.get(self.row.branch, ())
        gains = [site for site in near if site.kind == "gain"]
        return self.kind == "gain" and self in gains[-1:]

    @functools.cached_property
    def multihead(self) -> dict[str, Site] | None:
        """Kernels of its attention by role, if each is a kernel of its own."""
        parts: dict[str, Site] = {}
        for site in self._attention:
            role = site.part if site.part in _ATTENDS else "out"
            parts.setdefault(role, site)
        found = {role: parts[role] for role in (*_ATTENDS, "out") if role in parts}
        return found if len(found) == 4 else None

    @property
    def _attention(self) -> "list[TracedSite]":
        """The kernels of attention in its branch, if its own is one of them."""
        mine = self.kernel
        if not isinstance(mine, TracedSite):
            return []
        near = self.sites.kernels.get(mine.row.branch, [])
        found = [x for x in near if x.part in _JOINED or x._follows("value")]
        return found if mine in found else []

    @property
    def is_packed(self) -> bool:
        """Whether it belongs to attention with one kernel for query, key and value."""
        mine = self.kernel
        joint = any(site.part == "joint" for site in self._attention)
        return joint and mine is not None and mine.part not in _ATTENDS
