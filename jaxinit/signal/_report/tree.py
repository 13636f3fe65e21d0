"""Makes the rows of a report's table: a tree of modules, long repetitions folded."""

import dataclasses
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxinit.signal._judge.findings import Layer

_FEWEST = 5  # the least number of repetitions that are folded; first and last stay
_LONGEST = 6  # most siblings that repeat together, such as a layer and its norm


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
      depth: the depth in the tree.
      name: the last part of the path; for folded rows the first and the last name.
      layers: one layer; none for a bare heading, several for folded rows.
      count: the number of siblings that are folded.
    """

    depth: int
    name: str
    layers: tuple[Layer, ...]
    count: int = 1


@dataclasses.dataclass(frozen=True)
class _Node:
    name: str
    layer: Layer | None
    inner: list["_Node"] = dataclasses.field(default_factory=list)

    @property
    def form(self) -> Any:
        """The properties that repeating siblings have in common."""
        layer = self.layer
        own = layer and (layer.kind, layer.shape, layer.activation, layer.condition)
        stem = re.sub(r"\d+", "0", self.name)
        return stem, own, tuple(node.form for node in self.inner)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The node's own layer, or those inside."""
        if self.layer is not None:
            return (self.layer,)
        return tuple(layer for node in self.inner for layer in node.layers)


def make_rows(layers: Sequence[Layer], all_layers: bool = False) -> list[Row]:
    """Makes the rows; a module's own row comes before those of its layers.

    Args:
      layers: the layers, in the order of execution.
      all_layers: whether layers that repeat have rows of their own.
    """
    return list(_yield_rows(_build_tree(layers), 0, all_layers))


def join_runs(layers: Sequence[Layer], paths: Sequence[str]) -> str:
    """Lists layers by path, with runs of more than two as "first – last"."""
    wanted = set(paths)
    kept = [layer for layer in layers if layer.kind != "module" or layer.path in wanted]
    runs: list[list[str]] = [[]]
    for layer in kept:
        if layer.path in wanted:
            runs[-1].append(layer.path)
        elif runs[-1]:
            runs.append([])
    return ", ".join(
        f"{run[0]} – {run[-1]}" if len(run) > 2 else ", ".join(run)
        for run in runs
        if run
    )


def _build_tree(layers: Sequence[Layer]) -> list[_Node]:
    """Hangs layers into the modules that their paths name."""
    modules = {layer.path: layer for layer in layers if layer.kind == "module"}
    waiting = dict(modules)  # modules without a row as yet
    root = _Node("", None)
    way: list[_Node] = [root]  # the nodes from the root to the last row
    for layer in layers:
        if layer.kind == "module" and layer.path not in waiting:
            continue  # its row is the heading of its layers
        *outer, name = _split_path(layer.path, modules)
        pairs = zip((node.name for node in way[1:]), outer, strict=False)
        same = len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)))
        del way[same + 1 :]
        for depth in range(same, len(outer)):
            heading = waiting.pop("/".join(outer[: depth + 1]), None)
            way.append(_Node(outer[depth], heading))
            way[-2].inner.append(way[-1])
        waiting.pop(layer.path, None)
        way.append(_Node(name, layer))
        way[-2].inner.append(way[-1])
    return root.inner


def _split_path(path: str, modules: Mapping[str, Layer]) -> list[str]:
    """Splits a path; the step of a loop goes to the module that is the loop's body.

    "blocks/dense[3]" becomes "blocks[3]" and "dense[3]", if "blocks[3]" has a row.
    """
    parts = path.split("/")
    _, bracket, step = parts[-1].partition("[")
    for depth in range(1, len(parts)):
        if bracket and "/".join(parts[:depth]) + bracket + step in modules:
            parts[depth - 1] += bracket + step
            break
    return parts


def _yield_rows(nodes: Sequence[_Node], depth: int, all_layers: bool) -> Iterator[Row]:
    at = 0
    for length, count in [(1, 1)] * len(nodes) if all_layers else _find_repeats(nodes):
        end = at + length * count
        first = nodes[at : at + length] if count > 1 else nodes[at:end]
        for node in first:
            yield from _yield_subtree(node, depth, all_layers)
        if count > 1:
            for place in range(at + length, at + 2 * length):
                folded = nodes[place : end - length : length]
                name = f"{folded[0].name} … {folded[-1].name}"
                inside = tuple(layer for node in folded for layer in node.layers)
                yield Row(depth, name, inside, len(folded))
            for node in nodes[end - length : end]:
                yield from _yield_subtree(node, depth, all_layers)
        at = end


def _yield_subtree(node: _Node, depth: int, all_layers: bool) -> Iterator[Row]:
    yield Row(depth, node.name, () if node.layer is None else (node.layer,))
    yield from _yield_rows(node.inner, depth + 1, all_layers)


def _find_repeats(nodes: Sequence[_Node]) -> Iterator[tuple[int, int]]:
    """Yields how many nodes repeat together, and how often, from first to last.

    Nodes that repeat fewer than five times stay apart: (1, 1).
    """
    forms = [node.form for node in nodes]
    at = 0
    while at < len(forms):
        best = 1, 1
        for length in range(1, _LONGEST + 1):
            pattern, count = forms[at : at + length], 1
            while forms[(after := at + length * count) : after + length] == pattern:
                count += 1
            if count >= _FEWEST and length * count > best[0] * best[1]:
                best = length, count
        yield best
        at += best[0] * best[1]
