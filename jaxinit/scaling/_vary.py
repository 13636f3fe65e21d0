"""Transformations of optax whose setting depends on the parameter."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from jaxinit import _check as check
from jaxinit import _paths
from jaxinit._import import explain_missing
from jaxinit.scaling._row import ScaledParameter

if TYPE_CHECKING:
    import optax

Rows = Mapping[str, ScaledParameter]  # by path, of all parameters of the target


def vary(
    call: str,
    rows: Rows,
    read: Callable[[ScaledParameter], Any],
    build: Callable[[Any], "optax.GradientTransformation"],
    *,
    usual: Any = 1.0,
    held: Sequence[str] = (),
) -> "optax.GradientTransformation":
    """Lets a transformation of optax have another setting for each parameter.

    Parameters of one setting are updated together, by one call of optax, and the state
    is the one that optax has for a single setting. Settings are constants of the
    program, so that a compiled step has as many passes over memory as optax's own.

    Args:
      call: what a message begins with.
      rows: of the parameters, by path.
      read: the setting of a parameter: a number, or another value that can be hashed.
      build: the transformation of a setting.
      usual: the setting of what has no row: integers, which are not trained.
      held: the fields of the state that are trees like the parameters.
    """
    optax = import_optax(call)

    def init(params: Any) -> Any:
        find_each(call, rows, params)
        return build(usual).init(params)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        structure: Any
        leaves, structure = jax.tree.flatten(updates, is_leaf=_is_none)
        places: dict[Any, list[int]] = {}
        for place, row in enumerate(find_each(call, rows, updates)):
            if leaves[place] is not None:
                setting = usual if row is None else read(row)
                places.setdefault(setting, []).append(place)
        if len(places) < 2:
            return build(next(iter(places), usual)).update(updates, state, params)  # type: ignore[no-any-return]
        trees = {name: structure.flatten_up_to(getattr(state, name)) for name in held}
        weights = None if params is None else structure.flatten_up_to(params)
        after = state
        for setting, here in places.items():
            part = {name: _take(tree, here) for name, tree in trees.items()}
            new, after = build(setting).update(
                _take(leaves, here),
                state._replace(**part) if held else state,
                None if weights is None else _take(weights, here),
            )
            _put(leaves, here, new)
            for name, tree in trees.items():
                _put(tree, here, getattr(after, name))
        if held:
            joined = {name: structure.unflatten(tree) for name, tree in trees.items()}
            after = after._replace(**joined)
        return structure.unflatten(leaves), after

    return optax.GradientTransformation(init, update)


def times(factor: float, number: Any) -> Any:
    """Returns a factor times a number, or times a schedule."""
    if factor == 1:  # so that the bits are those of optax
        return number
    if callable(number):
        return lambda count: factor * number(count)
    return factor * number


def map_rows(
    call: str, rows: Rows, tree: Any, read: Callable[[ScaledParameter], Any], other: Any
) -> Any:
    """Returns the tree with what is read of each row, and `other` where there is none.

    Raises:
      ValueError: if the tree does not fit.
    """
    structure: Any = jax.tree.structure(tree, is_leaf=_is_none)
    found = find_each(call, rows, tree)
    return structure.unflatten(other if row is None else read(row) for row in found)


def find_each(call: str, rows: Rows, tree: Any) -> list[ScaledParameter | None]:
    """Returns the row of each leaf of a tree; None for integers, and for None.

    The tree may have the collection of Linen's parameters or not, and None or a masked
    node of optax in the place of leaves.

    Raises:
      ValueError: if a leaf has no row, a row no leaf, or they differ in sizes.
      TypeError: if a leaf is no array.
    """
    masked = import_optax(call).MaskedNode

    def is_hidden(node: Any) -> bool:
        return node is None or isinstance(node, masked)

    nodes = jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_hidden)
    if not nodes:  # optax.tree.map_params has a stand-in without leaves
        return []
    # A box is told by its key: what is hidden beside a leaf may look like one.
    paths = [
        [_paths.text(_paths.unboxed(keys)), _paths.text(keys)] for keys, _ in nodes
    ]
    plain = _paths.plain(f"{path}/" for path in itertools.chain(*paths))
    left = {f"{path}/": row for path, row in rows.items()}
    found: list[ScaledParameter | None] = []
    hidden: list[str] = []
    for names, (_, node) in zip(paths, nodes, strict=True):
        here = [plain[f"{name}/"] for name in names]
        if is_hidden(node):
            hidden += ["" if name == "/" else name for name in here]
            found += [None] if node is None else []
            continue
        row = next((left.pop(name) for name in here if name in left), None)
        found.append(row)
        if row is not None:
            _check_sizes(call, names[0], node, row)
        elif not hasattr(node, "dtype"):
            raise TypeError(
                f"{call}(params=...): parameters must be arrays, and "
                f"{_paths.shown(names[0])} is {check.show(node)}. Of a model of "
                "Equinox, give eqx.filter(model, eqx.is_inexact_array)."
            )
        elif jnp.issubdtype(node.dtype, jnp.inexact):
            raise ValueError(
                f"{call}(params=...): each parameter must be one of the target's, and "
                f"{_paths.shown(names[0])} is not. Paths are such as "
                f"{', '.join(list(rows)[:3])}. Leave what the target does not have to "
                "another transformation, by optax.partition."
            )
    for path in left:
        if not any(path.startswith(name) for name in hidden):
            raise ValueError(
                f"{call}(params=...): the parameters must be all of the target's, and "
                f"{_paths.shown(path[:-1])} is missing. Hide what is not trained by "
                "optax.masked or optax.partition, or put None in its place."
            )
    return found


def _check_sizes(call: str, path: str, leaf: Any, row: ScaledParameter) -> None:
    """Refuses a leaf of other sizes; `jax.shard_map` shows only a part of it."""
    sizes = tuple(jnp.shape(leaf))
    if sizes != row.traced.shape and not jax.sharding.get_abstract_mesh().manual_axes:
        raise ValueError(
            f"{call}(params=...): the parameters must be those of the target, and "
            f"{_paths.shown(path)} has sizes {sizes} instead of {row.traced.shape}. "
            "Give those of the model that is scaled to, or make the scale for this one."
        )


def import_optax(call: str) -> Any:
    """Imports optax, which only those need who train."""
    with explain_missing(f"{call}()", "lab"):
        import optax
    return optax


def _is_none(node: Any) -> bool:
    return node is None


def _take(leaves: Sequence[Any], places: Sequence[int]) -> list[Any]:
    return [leaves[place] for place in places]


def _put(leaves: list[Any], places: Sequence[int], new: Sequence[Any]) -> None:
    for place, leaf in zip(places, new, strict=True):
        leaves[place] = leaf
