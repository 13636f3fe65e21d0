"""Paths: the name of a parameter as one text, and which variables are one."""

import hashlib
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import jax

from jaxinit import _check as check

_BOX = jax.tree_util.GetAttrKey("value")
_ADDRESS = re.compile(r" at 0x[0-9a-f]+>")  # differs in every process
_DIGITS = re.compile(r"\d+")

Row = TypeVar("Row")


def named(tree: Any) -> list[tuple[str, Any]]:
    """Returns every leaf of a tree with its path, such as "params/Dense_0/kernel".

    Boxes that Flax puts around an array (variables of NNX, partitioned parameters of
    Linen) are not part of the path. A model of NNX has the paths of its `nnx.state`: a
    variable that it holds in several places occurs once, under the first of them.
    """
    state, _ = split(tree)
    return [(text(keys), leaf) for keys, leaf in leaves(state)]


def leaves(tree: Any) -> list[tuple[tuple[Any, ...], Any]]:
    """Returns every leaf of a tree with its keys, without the keys of boxes."""
    return [
        (keys or (_BOX,), jax.tree.leaves(leaf)[0]) if _is_box(leaf) else (keys, leaf)
        for keys, leaf in jax.tree_util.tree_leaves_with_path(tree, is_leaf=_is_box)
    ]


def _is_box(node: Any) -> bool:
    """Returns whether a node holds one leaf, as its value, and nothing else."""
    if isinstance(node, (dict, list, jax.Array)):
        return False
    inner = jax.tree_util.tree_leaves_with_path(node, is_leaf=lambda x: x is None)
    if len(inner) != 1:
        return False
    keys, leaf = inner[0]
    return leaf is not None and bool(keys) and all(key == _BOX for key in keys)


def unboxed(keys: Sequence[Any]) -> tuple[Any, ...]:
    """Returns the keys of a place without those of the boxes around it."""
    while keys and keys[-1] == _BOX:
        keys = keys[:-1]
    return tuple(keys)


def text(keys: Sequence[Any]) -> str:
    """Writes the keys of a leaf as one text."""
    return jax.tree_util.keystr(tuple(keys), simple=True, separator="/")


def shown(path: str) -> str:
    """Writes a path for people, in one line."""
    plain = path and all(letter.isprintable() for letter in path)
    return path if plain else ascii(path)


def sort_naturally(rows: Sequence[Row], path: Callable[[Row], str]) -> list[Row]:
    """Sorts the rows of a table so that Dense_2 comes before Dense_10.

    Siblings that differ in their numbers alone change places among themselves; all else
    keeps the order of the tree, which may be that of the model's own fields.
    """
    places: dict[str, dict[str, int]] = {}  # of siblings, by what is above them
    for row in rows:
        above = ""
        for name in path(row).split("/"):
            mine = places.setdefault(above, {})
            mine.setdefault(name, len(mine))
            above += f"{name}/"
    for mine in places.values():
        kinds: dict[str, list[str]] = {}
        for name in mine:
            kinds.setdefault(_DIGITS.sub("0", name), []).append(name)
        for names in kinds.values():
            taken = [mine[name] for name in names]
            mine |= zip(sorted(names, key=_read_numbers), taken, strict=True)

    def key(row: Row) -> list[int]:
        names = path(row).split("/")
        starts = ("".join(f"{name}/" for name in names[:i]) for i in range(len(names)))
        return [places[start][name] for start, name in zip(starts, names, strict=True)]

    return sorted(rows, key=key)


def _read_numbers(name: str) -> list[int]:
    return [int(digits) for digits in _DIGITS.findall(name)]


def plain(paths: Iterable[str]) -> dict[str, str]:
    """Returns each path of a tree as the structure of its model writes it.

    A tree of Linen may have the collection of its parameters, ``params/``, or not.
    """
    paths = list(paths)
    start = "params/" if any(path.startswith("params/") for path in paths) else ""
    return {path: path.removeprefix(start) for path in paths}


def by_path(call: str, tree: Any, is_kept: Callable[[Any], bool]) -> dict[str, Any]:
    """Returns the leaves for which `is_kept` is true, by path.

    Raises:
      ValueError: if two have one path, or a path differs in every process.
    """
    keys_of: dict[str, Any] = {}
    kept: dict[str, Any] = {}
    for keys, leaf in leaves(tree):
        if not is_kept(leaf):
            continue
        path = text(keys)
        if path in kept:
            both = " and ".join(map(jax.tree_util.keystr, (keys_of[path], keys)))
            raise ValueError(
                f"{call}(params=...): the path {shown(path)} must be that of one "
                f"parameter, and {both} have it. Rename one of these keys."
            )
        if _ADDRESS.search(path):
            raise ValueError(
                f"{call}(params=...): a path must be the same in every process, and "
                f"{shown(path)} is not. Use strings or integers as keys."
            )
        keys_of[path], kept[path] = keys, leaf
    return kept


def split(tree: Any) -> tuple[Any, Callable[[Any], Any]]:
    """Returns a tree in which each variable of Flax NNX occurs once, and the way back.

    JAX's trees have no ties: the same array in two places is two leaves. Models of NNX
    are graphs, and `nnx.split` takes each variable once, by its first path. The way
    back is a function that takes such a tree with other leaves.
    """
    nnx: Any = sys.modules.get("flax.nnx")  # imported, if there is a model of NNX

    def is_graph(node: Any) -> bool:
        return nnx is not None and isinstance(node, (nnx.Pytree, nnx.Variable))

    structure: Any
    nodes, structure = jax.tree.flatten(tree, is_leaf=is_graph)
    places = [place for place, node in enumerate(nodes) if is_graph(node)]
    once = len({id(nodes[place]) for place in places}) == len(places)
    if once and all(isinstance(nodes[place], nnx.Variable) for place in places):
        return tree, lambda other: other
    graph, state = nnx.split([nodes[place] for place in places])
    kept = list(state)
    for number, place in enumerate(places):
        nodes[place] = state.get(number, {})  # empty, if all of it came before

    def merge(other: Any) -> Any:
        new = structure.flatten_up_to(other)
        merged = {number: new[places[number]] for number in kept}
        for place, node in zip(
            places, nnx.merge(graph, nnx.State(merged)), strict=True
        ):
            new[place] = node
        return jax.tree.unflatten(structure, new)

    return jax.tree.unflatten(structure, nodes), merge


def key_of(key: jax.Array, path: str) -> jax.Array:
    """Returns the key of a path: the same whatever other paths there are.

    Args:
      key: the PRNG key of all paths.
      path: the path of a parameter, as `named` writes it.

    Returns:
      A PRNG key.

    Raises:
      TypeError: if key is not a PRNG key, or path not a string.
    """
    try:
        key = check.key(key)
        written: Any = path
        if not isinstance(written, str):
            rule = "path must be a string, such as 'params/Dense_0/kernel'."
            raise check.Unfit(rule, TypeError, path=path)
    except check.Unfit as error:
        raise error.at("key_of") from None
    digest = hashlib.sha256(path.encode(errors="surrogatepass")).digest()
    for start in (0, 4):
        word = int.from_bytes(digest[start : start + 4], "little")
        key = jax.random.fold_in(key, word)
    return key
