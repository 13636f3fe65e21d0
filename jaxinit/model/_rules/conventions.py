"""Conventions: what a parameter is, told by names, sizes and neighbors.

All guesses of recipes about a model are made here and in `readings`. If names and
sizes allow two answers there are two readings, or none, and the recipe asks the user.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxinit.model._rules import _vocabulary as table
from jaxinit.model._rules._vocabulary import Context, Kind, Place, join
from jaxinit.model._rules.readings import Kernel, Reading


class Sites(Mapping[str, "Site"]):
    """Every parameter of a tree, by path.

    Attributes:
      modules: the leaves of each module, by its path.
      children: the names of the modules in each module, by its path.
    """

    def __init__(self, tree: Mapping[str, Any]):
        """Takes parameters by path; a stack is represented by one of its layers."""
        self._sites = {path: self._make_site(path, x) for path, x in tree.items()}
        self._named = {x.full: x for x in self._sites.values()}
        self._contexts: dict[str, Context] = {}
        self._attends: dict[str, bool] = {}
        self._numbered: dict[str, dict[str, list[str]]] = {}
        self.modules: dict[str, dict[str, Any]] = {}
        self.children: dict[str, dict[str, None]] = {}
        for site in self._sites.values():
            self.modules.setdefault(site.module, {})[site.name] = site.leaf
            parts = site.module.split("/") if site.module else []
            for i, part in enumerate(parts):
                self.children.setdefault("/".join(parts[:i]), {})[part] = None

    def _make_site(self, path: str, leaf: Any) -> "Site":
        return Site(self, path, leaf)

    def __getitem__(self, path: str) -> "Site":
        return self._sites[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._sites)

    def __len__(self) -> int:
        return len(self._sites)

    def contains(self, module: str) -> Context:
        """Returns whether a module contains the modules of attention, or of an MLP.

        Attention has at least two of query, key and value, or all three in one.
        """
        if module not in self._contexts:
            inside = " ".join(self.children.get(module, ()))
            met = {part for part, word in table.WORDS.items() if word.search(inside)}
            several = len(met & {"query", "key", "value"}) > 1
            attention = several or met & {"joint", "projection"}
            inner: Context = "mlp" if "mlp in" in met else ""
            self._contexts[module] = "attention" if attention else inner
        return self._contexts[module]

    def attends(self, module: str) -> bool:
        """Returns whether a module contains one that is called attention."""
        if module not in self._attends:
            near = self.children.get(module, ())
            self._attends[module] = any(map(table.ATTENTION.search, near))
        return self._attends[module]

    def numbered(self, module: str) -> dict[str, list[str]]:
        """Returns, by name, the modules in a module whose names differ only in number.

        Haiku's first linear is numbered too, though it has no number.
        """
        if module not in self._numbered:
            stems: dict[str, list[tuple[int, str]]] = {}
            for name in self.children.get(module, ()):
                match = re.fullmatch(r"(.*?)_?(\d*)", name)
                if match and (match[2] or name == "linear"):
                    stems.setdefault(match[1], []).append((int(match[2] or -1), name))
            peers = [[name for _, name in sorted(stem)] for stem in stems.values()]
            self._numbered[module] = {name: stem for stem in peers for name in stem}
        return self._numbered[module]

    @functools.cached_property
    def last_norms(self) -> dict[str, int]:
        """Number of norms by module, if it convolves and has several numbered norms."""
        lasts = (x for x in self.values() if x.kind == "gain" and x.is_last_norm)
        return {x.parent: len(x.norms) for x in lasts}

    def kernel(self, module: str) -> "Site | None":
        """Returns the kernel of a module, if it has one."""
        return self.first(module, "kernel")

    def first(self, module: str, kind: Kind) -> "Site | None":
        """Returns the first of a module's parameters of a kind, if it has one."""
        names = self.modules.get(module, ())
        sites = (self._named[join(module, name)] for name in names)
        return next((site for site in sites if site.kind == kind), None)


@dataclasses.dataclass(frozen=True, eq=False)
class Site:
    """A parameter, and what it is in its model.

    Attributes:
      sites: all parameters of the tree.
      path: its path in the tree.
      leaf: the parameter; a stack is represented by one of its layers.
    """

    sites: Sites = dataclasses.field(repr=False)
    path: str
    leaf: Any = dataclasses.field(repr=False)

    @functools.cached_property
    def shape(self) -> tuple[int, ...]:
        """Its sizes."""
        return tuple(self.leaf.shape)

    @functools.cached_property
    def full(self) -> str:
        """The path with slashes for dots, as keys of a ``state_dict`` have them."""
        return self.path.replace(".", "/")

    @functools.cached_property
    def name(self) -> str:
        """The last part of the path."""
        return self.full.rpartition("/")[2]

    @functools.cached_property
    def module(self) -> str:
        """The path of the module that has it."""
        return self.full.rpartition("/")[0]

    @functools.cached_property
    def parent(self) -> str:
        """The path of the module around that module."""
        return self.module.rpartition("/")[0]

    @functools.cached_property
    def owner(self) -> str:
        """The name of its module."""
        return self.module.rpartition("/")[2]

    @functools.cached_property
    def ancestors(self) -> tuple[str, ...]:
        """Names of the modules around its module, without the collection's."""
        parts = tuple(self.module.split("/")[:-1])
        return parts[1:] if parts[:1] == ("params",) else parts

    @property
    def cousins(self) -> dict[str, None]:
        """Names of the modules beside its module, itself among them."""
        return self.sites.children.get(self.parent, {}) if self.module else {}

    @functools.cached_property
    def beside(self) -> dict[str, Any]:
        """The leaves of its module, itself among them, by name."""
        return self.sites.modules[self.module]

    @functools.cached_property
    def kind(self) -> Kind:
        """What kind of parameter it is, by its name and rank."""
        name, flat = self.name, len(self.shape) < 2
        if name == "negative_slope" or (flat and "prelu" in self.owner.lower()):
            return "slope"
        if self._is_layer_scale:
            return "unknown"
        row = flat or set(self.shape[:-1]) == {1}  # Haiku's norms keep every axis
        norm = flat or self._bias == self.shape
        if name == "scale" or (norm and name in ("gamma", "g", "weight")):
            return "gain"
        if name in ("embedding", "embeddings", "wte") or self._is_table:
            return "embedding"
        if table.KERNEL.fullmatch(name):
            return "unknown" if flat else "kernel"
        of_kernel = row or any(map(table.KERNEL.fullmatch, self.beside))
        if name == "bias" or (of_kernel and table.BIAS.fullmatch(name)):
            return "bias"
        if table.POSITION.fullmatch(name):
            return "position"
        return "token" if table.TOKEN.fullmatch(name) else "unknown"

    @property
    def _is_layer_scale(self) -> bool:
        """Whether it is a small factor of a branch, and not the scale of a norm."""
        if self.name == "gamma" and self.module in self.sites.children:
            return True
        return table.LAYER_SCALE.fullmatch(self.owner) is not None

    @property
    def _is_table(self) -> bool:
        """Whether it is a "weight" of an embedding: a matrix without a bias."""
        alone = self.name == "weight" and len(self.beside) == 1
        named = table.TABLE.search(self.owner) and not self._is_named("head")
        return alone and len(self.shape) == 2 and bool(named)

    @property
    def _bias(self) -> tuple[int, ...] | None:
        """Sizes of the bias beside it, without sizes of 1 in place of a window."""
        bias = next((self.beside[x] for x in ("bias", "b") if x in self.beside), None)
        if bias is None:
            return None
        sizes = tuple(bias.shape)
        # Equinox's convolutions have biases of sizes (outputs, 1, 1).
        windowed = len(sizes) == len(self.shape) - 1 and set(sizes[1:]) == {1}
        return sizes[:1] if windowed else sizes

    @functools.cached_property
    def kernel(self) -> "Site | None":
        """The kernel of its module: itself, if it is one."""
        return self if self.kind == "kernel" else self.sites.kernel(self.module)

    @functools.cached_property
    def readings(self) -> tuple[Reading, ...]:
        """The ways in which a kernel's axes can be read; one if there is no doubt."""
        near = (self.sites.kernel(join(self.parent, name)) for name in self.cousins)
        return Kernel(
            shape=self.shape,
            bias=self._bias,
            torch=self._is_torch,
            owner=self.owner,
            part=self.part,
            in_attention=self.context == "attention",
            in_experts=any(map(table.EXPERTS.search, (*self.ancestors, self.owner))),
            beside=lambda: [x.shape for x in near if x and x is not self],
        ).readings()

    def _is_named(self, part: str) -> bool:
        return re.fullmatch(table.NAMES[part], self.owner) is not None

    @functools.cached_property
    def context(self) -> Context:
        """The innermost of attention and MLP that its module stands in."""
        for part in reversed(self.ancestors):
            if table.ATTENTION.search(part):
                return "attention"
            if table.MLP.search(part):
                return "mlp"
        return self.sites.contains(self.parent) if self.module else ""

    @functools.cached_property
    def part(self) -> str:
        """Which part of a model its module is, by `_vocabulary`; "" if nothing tells.

        The parameter's own name may tell, such as torch's ``in_proj_weight``.
        """
        if self.name.startswith("in_proj_") or self._is_named("joint"):
            return "joint"
        for part in ("query", "key", "value"):
            near = self.sites.contains(self.parent)
            if self._is_named(part) and near == "attention":
                return part
        for part in ("attention out", "mlp in", "mlp out"):
            if self._is_named(part):
                return part
        if self.context and re.fullmatch(table.WITHIN[self.context], self.owner):
            return f"{self.context} out"
        outer = not self.ancestors and self.owner == "out"
        if outer or self._is_named("head") or self._is_last_of_head:
            return "head"
        if self.owner == "dense":  # in Hugging Face's BERT and its kin
            around = self.ancestors[-1] if self.ancestors else ""
            return {"intermediate": "mlp in", "output": "mlp out"}.get(around, "")
        return self._dense_part

    @property
    def _is_last_of_head(self) -> bool:
        """Whether it is the last dense layer of a sequence, as ``classifier/6``."""
        around = self.ancestors[-1] if self.ancestors else ""
        if not (self.owner.isdigit() and re.fullmatch(table.NAMES["head"], around)):
            return False
        near = (self.sites.kernel(join(self.parent, name)) for name in self.peers)
        kernels = [kernel.module for kernel in near if kernel]
        return kernels[-1:] == [self.module]

    @property
    def _dense_part(self) -> str:
        """Tells layers named only by a number, Dense_0 and Dense_1, apart by sizes."""
        kernel, place = self.kernel, self.place
        if kernel is None or len(kernel.shape) != 2 or self.context == "attention":
            return ""
        last = place is not None and place.order == place.total - 1
        if self.context == "mlp" and place is not None and place.total > 1:
            return "mlp out" if last else "mlp in"
        dense = place and re.fullmatch(r"(Dense|Linear|linear)_?\d*", self.owner)
        if dense and last and not self.ancestors:
            return "head"
        if dense and not self.ancestors:
            blocks = self.sites.attends(self.parent)
        else:  # four in one block may be attention's
            near = self.ancestors[-1] if self.ancestors else ""
            few = place is not None and place.total < 3
            blocks = bool(dense and few and table.BLOCK.search(near))
        if not blocks and self.context != "mlp":
            return ""
        inputs, outputs = kernel.sizes
        if inputs == outputs:
            return "" if place is None else ("mlp in", "mlp out")[place.order % 2]
        return "mlp in" if inputs < outputs else "mlp out"

    @property
    def sizes(self) -> tuple[int, int]:
        """Inputs and outputs of a matrix, by its usual reading."""
        torch = self._is_torch
        outputs = self._bias[0] if self._bias else self.shape[0 if torch else 1]
        return math.prod(self.shape) // max(outputs, 1), outputs

    @property
    def _is_torch(self) -> bool:
        """Whether its name is one of torch and Equinox."""
        return self.name.startswith("weight") or self.name.endswith("_weight")

    @functools.cached_property
    def place(self) -> Place | None:
        """Where its module stands among those whose names differ only in number."""
        peers = self.peers
        return Place(peers.index(self.owner), len(peers)) if peers else None

    @functools.cached_property
    def peers(self) -> list[str]:
        """Modules beside its own, itself included, whose names differ only in number.

        In order; none if it has no number, except for Haiku's first linear.
        """
        return self.sites.numbered(self.parent).get(self.owner, [])

    @functools.cached_property
    def is_patches(self) -> bool:
        """Whether its module embeds the patches of an image."""
        near = (*self.ancestors[-1:], self.owner)
        named = any("patch" in part.lower() for part in near)
        return named or self.owner in ("embedding", "conv_proj")

    @functools.cached_property
    def in_block(self) -> bool:
        """Whether its module stands in one of many alike, such as "block_3"."""
        return any(map(table.BLOCK.search, self.ancestors))

    @functools.cached_property
    def in_branch(self) -> bool:
        """Whether it is one of several numbered convolutions of a residual block."""
        if len(self.peers) < 2 or "conv" not in self.owner.lower():
            return False
        if self.ancestors or table.BLOCK.search(self.owner):
            return True
        peers = {join(self.parent, name) for name in self.peers}
        kernels = (x.module for x in self.sites.values() if x.kind == "kernel")
        return peers.issuperset(kernels)  # the tree is that of one block

    @property
    def branch(self) -> "Sequence[Site]":
        """The kernels among its peers, in order: those of its residual branch."""
        near = (self.sites.kernel(join(self.parent, name)) for name in self.peers)
        return [site for site in near if site]

    @property
    def is_in_named_block(self) -> bool:
        """Whether its module, or one around it, is called a block."""
        return "lock" in "".join((*self.ancestors, self.owner))

    @functools.cached_property
    def is_last_norm(self) -> bool:
        """Whether it is in the last of several numbered norms beside convolutions."""
        if not self.ancestors or len(self.norms) < 2 or self.owner != self.norms[-1]:
            return False
        near = (self.sites.kernel(join(self.parent, name)) for name in self.cousins)
        return any(kernel and len(kernel.shape) > 2 for kernel in near)

    @functools.cached_property
    def norms(self) -> list[str]:
        """The norms among its peers, in order."""
        first = self.sites.first
        return [name for name in self.peers if first(join(self.parent, name), "gain")]

    @functools.cached_property
    def multihead(self) -> "dict[str, Site] | None":
        """Kernels of attention by role, if it has query, key, value and output."""
        for names in table.MULTIHEAD:
            if self.owner in names and all(name in self.cousins for name in names):
                near = (self.sites.kernel(join(self.parent, name)) for name in names)
                roles = zip(("query", "key", "value", "out"), near, strict=True)
                return {role: kernel for role, kernel in roles if kernel is not None}
        return None

    @functools.cached_property
    def is_packed(self) -> bool:
        """Whether it belongs to MultiheadAttention, under torch's own names."""
        around = self.sites.modules.get(self.parent, {})
        return "in_proj_weight" in self.beside or (
            self.owner == "out_proj" and "in_proj_weight" in around
        )
