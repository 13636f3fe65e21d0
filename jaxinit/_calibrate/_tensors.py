"""The tensors of a tree that get scales, and the tree with scales put in."""

import dataclasses
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit import _check as check
from jaxinit import _paths
from jaxinit._structure.result import Structure
from jaxinit.model import preview

_BIAS = re.compile(r"b|beta|offset|bias(_.*)?|.*_bias")  # when no structure tells


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """How a tree is taken apart and put together again.

    It can be hashed, and equal layouts share a program, unless the tree is a model of
    NNX or has leaves that cannot be hashed.

    Attributes:
      tree: its structure, with each variable of NNX once.
      weights: places of the arrays of real numbers, which train.
      others: places of all other arrays.
      kept: places and values of the leaves that are no arrays.
      sizes: for each weight, the sizes of its scales, which broadcast against it; None
        if it has none.
      merge: the way back to a model of NNX; None if the tree is as the user gave it.
    """

    tree: Any
    weights: tuple[int, ...]
    others: tuple[int, ...]
    kept: tuple[tuple[int, Any], ...]
    sizes: tuple[tuple[int, ...] | None, ...]
    merge: Callable[[Any], Any] | None

    def restore(self, weights: Sequence[Any], others: Sequence[Any]) -> Any:
        """Returns the tree with these arrays."""
        leaves = dict(self.kept)
        leaves |= zip(self.weights, weights, strict=True)
        leaves |= zip(self.others, others, strict=True)
        ordered = [leaves[place] for place in range(len(leaves))]
        state = jax.tree.unflatten(self.tree, ordered)
        return state if self.merge is None else self.merge(state)

    def scale(self, weights: Sequence[jax.Array], scales: jax.Array) -> list[jax.Array]:
        """Returns the weights times their scales."""
        scaled, start = [], 0
        for w, sizes in zip(weights, self.sizes, strict=True):
            if sizes is None:
                scaled.append(w)
                continue
            stop = start + math.prod(sizes)
            scaled.append(w * scales[start:stop].reshape(sizes).astype(w.dtype))
            start = stop
        return scaled

    def measure_norms(self, weights: Sequence[jax.Array]) -> jax.Array:
        """Computes the norm of the entries that each scale multiplies."""
        norms = []
        for w, sizes in zip(weights, self.sizes, strict=True):
            if sizes is not None:
                ahead = w.ndim - len(sizes)
                axes = [i for i in range(w.ndim) if i < ahead or sizes[i - ahead] == 1]
                squares = jnp.sum(jnp.square(w), tuple(axes)).ravel()
                norms.append(jnp.sqrt(squares).astype(jnp.float32))
        return jnp.concatenate(norms)  # [scales]


class Tensor(NamedTuple):
    """A tensor that has scales."""

    path: str
    shape: tuple[int, ...]
    scales: int
    is_bias: bool


class Parts(NamedTuple):
    """A tree that was taken apart.

    Attributes:
      layout: how.
      weights: the arrays that train.
      others: all other arrays.
      paths: those of the weights.
      tensors: the weights that have scales.
    """

    layout: Layout
    weights: list[Any]
    others: list[Any]
    paths: list[str]
    tensors: list[Tensor]


def widen(w: Any) -> jax.Array:
    """Returns a weight in a type that holds what small steps add up to."""
    narrow = jnp.finfo(w.dtype).bits < 32
    return jnp.asarray(w, jnp.float32) if narrow else jnp.asarray(w)


def take_apart(
    params: Any, where: Any, stacked: Any, structure: Structure | None, rank: int
) -> Parts:
    """Takes a tree apart into what has scales and what has none.

    Args:
      params: the tree.
      where: a pattern, a list of them, or None for all of this rank or above.
      stacked: a pattern, or a list of them, of weights whose first axis counts layers.
      structure: what `structure` says of the model.
      rank: the least number of axes, those that count layers aside.

    Raises:
      ValueError: if nothing is left to scale, or a pattern matches nothing.
      TypeError: if a pattern is none, or the weights are not real arrays.
    """
    state, merge = _paths.split(params)
    _refuse_statistics(params)
    leaves, tree = jax.tree.flatten(state)
    trained = _find_trained(state)
    fixed = [x if train else None for x, train in zip(leaves, trained, strict=True)]
    found = _paths.by_path("tune", jax.tree.unflatten(tree, fixed), _is_weight)
    _check_arrays(params, found)
    layers = _select("stacked", params, stacked, structure, found)
    chosen = (
        None if where is None else _select("where", params, where, structure, found)
    )
    biases = _find_biases(params, structure, found)
    sizes, tensors = [], []
    for path, w in found.items():
        own = (w.shape[0], *[1] * (w.ndim - 1)) if path in layers and w.ndim else ()
        is_chosen = w.ndim - bool(own) >= rank if chosen is None else path in chosen
        sizes.append(own if is_chosen and w.size else None)
        if sizes[-1] is not None:
            count = math.prod(own)
            tensors.append(Tensor(path, tuple(w.shape), count, path in biases))
    if not tensors:
        rule = f"no tensor of {rank} axes or more" if chosen is None else "no entry"
        raise ValueError(f"tune(params=...): {rule} is left that a scale could change.")
    places = {
        is_weight: tuple(
            place
            for place, leaf in enumerate(leaves)
            if _is_array(leaf) and (_is_weight(leaf) and trained[place]) is is_weight
        )
        for is_weight in (True, False)
    }
    layout = Layout(
        tree=tree,
        weights=places[True],
        others=places[False],
        kept=tuple((i, x) for i, x in enumerate(leaves) if not _is_array(x)),
        sizes=tuple(sizes),
        merge=None if state is params else merge,
    )
    return Parts(
        layout=layout,
        weights=[leaves[place] for place in layout.weights],
        others=[leaves[place] for place in layout.others],
        paths=list(found),
        tensors=tensors,
    )


def _find_trained(state: Any) -> list[bool]:
    """Returns for each leaf whether training changes it: of NNX, an `nnx.Param`."""
    nnx: Any = sys.modules.get("flax.nnx")

    def is_variable(node: Any) -> bool:
        return nnx is not None and isinstance(node, nnx.Variable)

    return [
        not is_variable(node) or isinstance(node, nnx.Param)
        for node in jax.tree.leaves(state, is_leaf=is_variable)
        for _ in jax.tree.leaves(node)
    ]


def _refuse_statistics(params: Any) -> None:
    """Refuses variables of Linen whose running means would count as weights."""
    if isinstance(params, Mapping) and {"params", "batch_stats"} <= params.keys():
        raise ValueError(
            "tune(params=...): params must hold weights, and batch_stats are none. "
            'Pass variables["params"], and let loss call model.apply with '
            '{**variables, "params": params}.'
        )


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, (jax.Array, np.ndarray))


def _is_weight(leaf: Any) -> bool:
    return _is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.floating)


def _check_arrays(params: Any, found: dict[str, Any]) -> None:
    for path, leaf in _paths.named(params):
        where = f"tune(params=...): {_paths.shown(path)} must be "
        if isinstance(leaf, jax.ShapeDtypeStruct):
            raise TypeError(f"{where}an array, not a shape. Draw the weights first.")
        if isinstance(leaf, jax.core.Tracer):
            raise TypeError(f"{where}an array, and it is traced. Tune outside of jit.")
        if _is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.complexfloating):
            raise TypeError(f"{where}real, and it is {leaf.dtype}.")
    if not found:
        raise ValueError(
            "tune(params=...): there is no array of real numbers in the tree. Pass "
            'model.init(key, x)["params"], or nnx.state(model, nnx.Param).'
        )


def _select(
    name: str,
    params: Any,
    patterns: Any,
    structure: Structure | None,
    found: dict[str, Any],
) -> set[str]:
    """Returns the paths that patterns match; a tuple is a pattern of sizes."""
    listed = patterns if isinstance(patterns, list) else [patterns]
    if patterns is None:
        return set()
    try:
        rules = [(pattern, None) for pattern in listed]
        rows = preview(params, rules, strict=False, structure=structure)
    except (TypeError, ValueError) as error:
        words = {"preview(rules=": f"tune({name}=", "preview(": "tune("}
        raise check.retell(error, words) from None
    if rows.unused:
        raise ValueError(
            f"tune({name}=...): {rows.unused[0]} matches no parameter that is left for "
            f"it. Paths are such as {', '.join(map(_paths.shown, list(found)[:3]))}."
        )
    return {row.path for row in rows.rows if row.rule is not None}


def _find_biases(
    params: Any, structure: Structure | None, found: dict[str, Any]
) -> set[str]:
    """Returns the paths of what is added: by role, or else by name."""
    if structure is None:
        return {p for p in found if _BIAS.fullmatch(re.split("[/.]", p)[-1])}
    rows = preview(params, [("**", None)], strict=False, structure=structure).rows
    return {row.path for row in rows if {"bias", "offset"} & {*row.role.split("+")}}


def halve(batch: Any) -> Any:
    """Returns the first half of a batch's examples.

    Raises:
      Unfit: if its arrays have no common number of examples, or fewer than two.
    """
    arrays = [x for x in jax.tree.leaves(batch) if np.ndim(x)]
    counts = {np.shape(x)[0] for x in arrays}
    if len(counts) != 1 or min(counts) < 2:
        rule = "a batch must have one number of examples, 2 or more, along the first "
        rule += f"axis of all its arrays, and has {sorted(counts)}."
        raise check.Unfit(rule, batches=batch)
    half = counts.pop() // 2
    return jax.tree.map(lambda x: x[:half] if np.ndim(x) else x, batch)
