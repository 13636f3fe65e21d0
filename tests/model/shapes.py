"""Parameters without values, by their paths, and what recipes make of them."""

import jax
import jax.numpy as jnp

from jaxinit import preview


def sizes(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def tree(flat):
    """Makes a tree of paths."""
    nested = {}
    for path, shape in flat.items():
        *parents, name = path.split("|")
        inner = nested
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[name] = sizes(*shape)
    return nested


def stds(params, rules, **options):
    return {row.path: row.std for row in preview(params, rules, **options).rows}
