"""Paths: what a parameter is called, as one text."""

import hashlib
from typing import Any

import jax


def named(tree: Any) -> list[tuple[str, Any]]:
    """Returns every leaf of a tree with its path, such as "params/Dense_0/kernel".

    Boxes that Flax puts around an array (variables of NNX, partitioned parameters of
    Linen) are no part of the path.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [(text(keys), leaf) for keys, leaf in leaves]


def text(keys: Any) -> str:
    """Writes the keys of a leaf as one text."""
    box = jax.tree_util.GetAttrKey("value")
    while len(keys) > 1 and keys[-1] == box:
        keys = keys[:-1]
    return jax.tree_util.keystr(keys, simple=True, separator="/")


def key_of(key: jax.Array, path: str) -> jax.Array:
    """Returns the key of a path: the same whatever other paths there are."""
    digest = hashlib.sha256(path.encode()).digest()
    for start in (0, 4):
        word = int.from_bytes(digest[start : start + 4], "little")
        key = jax.random.fold_in(key, word)
    return key
