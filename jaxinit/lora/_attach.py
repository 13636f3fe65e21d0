"""Adapters of a whole model: those that its tree has, or new ones."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from jaxinit import _check as check
from jaxinit import _paths
from jaxinit._structure.result import Structure
from jaxinit.lora import _methods
from jaxinit.lora._adapter import Adapter
from jaxinit.model import preview, reinit

_METHODS: dict[str, Callable[..., Adapter]] = {
    "lora": _methods.lora,
    "orthogonal": _methods.orthogonal,
    "pissa": _methods.pissa,
    "olora": _methods.olora,
    "mica": _methods.mica,
    "lora_ga": _methods.lora_ga,
}
_KEYED = "lora", "orthogonal"
_HALVES = {"lora_a": "lora_b", "lora_A": "lora_B"}


class Attached(NamedTuple):
    """A model with adapters.

    Attributes:
      params: the tree; its weights have lost what adapters that are not zero add, and
        pairs that it had are filled.
      adapters: the adapter of each weight, by its path.
    """

    params: Any
    adapters: dict[str, Adapter]


def attach(
    key: jax.Array,
    params: Any,
    rules: Sequence[tuple[Any, int]],
    method: str = "lora",
    alpha: float | None = None,
    *,
    gradients: Any = None,
    structure: Structure | None = None,
    **options: Any,
) -> Attached:
    """Begins the adapters of a model's weights.

    A tree that has pairs ``lora_a`` and ``lora_b``, such as that of a model with
    `nnx.LoRALinear`, gets them filled, and computes what it did before. For others the
    adapters are returned apart: the model is to add ``scale * x @ a @ b``.
    Such pairs have no scale, so that alpha must stay None there.

    Args:
      key: a PRNG key. Each weight has its own, which depends on its path.
      params: the tree of parameters, as `reinit` takes it: of loaded weights, any
        framework's whose weights are [..., inputs, outputs]. Axes before these count
        layers: weights with several axes of inputs or outputs, such as the heads of
        attention, are to be made matrices first.
      rules: pairs (which weights, rank); patterns are those of `reinit`, and the first
        that matches wins. A rank of 0 leaves a weight without an adapter.
      method: "lora", "orthogonal", "pissa", "olora", "mica" or "lora_ga".
      alpha: the scale is alpha / rank, or alpha / sqrt(rank); by default 1.
      gradients: a tree like params, of the gradients that "lora_ga" needs.
      structure: what `structure` says of the model: rules may then name roles, such as
        ``("role:query", 8)``.
      **options: further arguments of the method, such as ``rank_stabilized=True``. With
        ``randomized=True`` "pissa" and "lora_ga" factorize nothing exactly.

    Returns:
      The tree and the adapters.

    Raises:
      TypeError: if an option is none of the method's, or a rule is not a pair.
      ValueError: if no weight matches, method is unknown, a rank does not fit a weight
        or its pair, two weights have one pair, a bias shows that a weight is stored in
        another order, or gradients are missing.

    Example:
      >>> params = {"dense": {"kernel": jnp.ones((64, 32)), "bias": jnp.zeros(32)}}
      >>> attached = jaxinit.lora.attach(
      ...     jax.random.key(0), params, [("kernel", 4)], "pissa")
      >>> bool(jnp.allclose(attached.adapters["dense/kernel"].merged, 1, atol=1e-5))
      True

    References:
      Mangrulkar et al. PEFT: Parameter-Efficient Fine-Tuning methods. 2022.
      https://github.com/huggingface/peft
    """
    call = "lora.attach"
    try:
        make = _METHODS[check.choice(tuple(_METHODS), method=method)]
        if (gradients is None) == (method == "lora_ga"):
            rule = 'gradients belong to method="lora_ga", which needs them.'
            raise check.Unfit(rule, TypeError, method=method)
        key = check.key(key)
        _check_rules(rules)
        _check_options(method, make, options)
    except check.Unfit as error:
        raise error.at(call) from None
    randomized = options.pop("randomized", False)
    leaves = dict(_paths.named(_paths.split(params)[0]))
    slopes = {} if gradients is None else dict(_paths.named(_paths.split(gradients)[0]))
    ranks = [rank for _, rank in rules]
    new, adapters = {}, {}
    for row in _find_weights(call, params, rules, structure):
        if row.rule is None or not ranks[row.rule] or _is_half(row.path):
            continue
        _check_axes(call, method, leaves, row.path)
        own = _paths.key_of(key, row.path)
        given: tuple[Any, ...] = (leaves[row.path], ranks[row.rule], alpha)
        if method == "lora_ga":
            given = given[0], _find_slope(call, slopes, row.path), *given[1:]
        named = {"key": own} if randomized else {}
        try:
            made = make(
                *((own,) if method in _KEYED else ()), *given, **options, **named
            )
        except (TypeError, ValueError) as error:
            kind = type(error)
            raise kind(f"{call}, {_paths.shown(row.path)}: {error}") from None
        pair = _find_pair(call, leaves, row.path, made)
        if shared := [half for half in pair if half in new]:
            raise ValueError(
                f"{call}(rules=...): {_paths.shown(shared[0])} must belong to one "
                f"weight, and {_paths.shown(row.path)} is another. Give one rank 0."
            )
        adapters[row.path], new[row.path] = made, made.w
        new |= pair
    if not adapters:
        raise ValueError(f"{call}(rules=...): no weight has a rank above 0.")

    def place(path: str, leaf: Any, siblings: Mapping[str, Any]) -> Any:
        return new[path]

    filled = reinit(
        key, params, [(lambda path, leaf: path in new, place)], strict=False
    )
    return Attached(filled, adapters)


def _check_rules(rules: Any) -> None:
    pairs = isinstance(rules, (list, tuple)) and all(
        isinstance(rule, (list, tuple)) and len(rule) == 2 for rule in rules
    )
    if not pairs or not rules:
        raise check.Unfit(
            "rules must be a list of (pattern, rank).", TypeError, rules=rules
        )
    for _, rank in rules:
        check.at_least(0, rank=rank)


def _check_options(
    method: str, make: Callable[..., Adapter], options: Mapping[str, Any]
) -> None:
    kinds = inspect.signature(make).parameters.values()
    names = [x.name for x in kinds if x.kind is x.KEYWORD_ONLY]
    names = ["randomized" if name == "key" else name for name in names]
    for name, value in options.items():
        if name not in names:
            rule = f"{method} has no such option, but {', '.join(names)}."
            rule += check.suggestion(name, names)
            raise check.Unfit(rule, TypeError, **{name: value})
    check.boolean(randomized=options.get("randomized", False))


def _find_weights(
    call: str,
    params: Any,
    rules: Sequence[tuple[Any, int]],
    structure: Structure | None,
) -> Any:
    """Returns the row of each parameter, which tells its rule."""
    try:
        targets = [(which, 0.0) for which, _ in rules]
        return preview(params, targets, strict=False, structure=structure).rows
    except (TypeError, ValueError) as error:
        raise check.retell(error, {"preview(": f"{call}("}) from None


def _check_axes(call: str, method: str, leaves: Mapping[str, Any], path: str) -> None:
    """Raises if its bias shows that a weight is not [..., inputs, outputs]."""
    home, shape = path.removesuffix(path.rpartition("/")[2]), tuple(leaves[path].shape)
    near = [leaves.get(f"{home}{name}") for name in ("bias", "b")]
    shapes = [getattr(leaf, "shape", None) for leaf in near]
    bias = next((tuple(sizes) for sizes in shapes if sizes is not None), ())
    order = ""
    if len(shape) == 2 and bias == shape[:1] != shape[1:]:
        order, form = "(outputs, inputs)", "w.T"
    if 1 < len(bias) < len(shape) and bias == shape[-len(bias) :]:
        if bias != (*shape[:-2], shape[-1]):  # a stack of as many layers as inputs
            order, form = "several axes of outputs", "w.reshape(inputs, outputs)"
    if order:
        raise ValueError(
            f"{call}(params=...): a weight must be [..., inputs, outputs], and "
            f"{_paths.shown(path)} of sizes {shape} has {order}, by its bias of sizes "
            f"{bias}. Write lora.{method} of {form}."
        )


def _is_half(path: str) -> bool:
    return path.rpartition("/")[2] in {*_HALVES, *_HALVES.values()}


def _find_slope(call: str, slopes: Mapping[str, Any], path: str) -> Any:
    if path not in slopes:
        raise ValueError(f"{call}(gradients=...): has no {_paths.shown(path)}.")
    return slopes[path]


def _find_pair(
    call: str, leaves: Mapping[str, Any], path: str, made: Adapter
) -> dict[str, Any]:
    """Returns the values of the pair beside a weight, if the tree has one."""
    home, found = path.rpartition("/")[0], {}
    for first, second in _HALVES.items():
        for half in leaves:
            place, _, name = half.rpartition("/")
            other = f"{place}/{second}" if place else second
            if name != first or other not in leaves or not _is_near(place, home):
                continue
            a, b = leaves[half], leaves[other]
            if (a.shape[-2], b.shape[-1]) == (made.a.shape[-2], made.b.shape[-1]):
                if a.shape != made.a.shape or b.shape != made.b.shape:
                    rank = made.a.shape[-1]
                    raise ValueError(
                        f"{call}(rules=...): {_paths.shown(half)} has rank "
                        f"{a.shape[-1]}, and the rule of {_paths.shown(path)} {rank}."
                    )
                if made.scale != 1:
                    raise ValueError(
                        f"{call}(alpha=...): the pair {_paths.shown(half)} has no "
                        "scale: leave alpha out, so that it is 1."
                    )
                found = {half: made.a, other: made.b}
    return found


def _is_near(place: str, home: str) -> bool:
    """Returns whether a pair lies in a weight's own module, or around that."""
    if place == home:
        return True
    inner, outer = sorted((place, home), key=len, reverse=True)
    return inner.rpartition("/")[0] == outer
