"""Finds parameters that take the place of data, as learned queries do.

Two parameters that are multiplied may be factors of one weight, or a weight and what it
is applied to. They are the latter if a bias of the weight is added, if the weight has
heads, or if one is a vector that a function bends thereafter. The same is true of a
parameter and a constant, such as the positions of a table that a network makes.
"""

from collections.abc import Iterable, Sequence

from jax.extend import core

from jaxinit._structure._read.axes import Axes
from jaxinit._structure._read.elementwise import BENT
from jaxinit._structure._read.facts import Fact

Shapes = Sequence[tuple[int, ...]]


def find_token(eqn: core.JaxprEqn, facts: Sequence[Fact], shapes: Shapes) -> set[int]:
    """Returns the parameter that an operation on others shows to be data, if any."""
    name = eqn.primitive.name
    product = next((fact for fact in facts if fact.factors), None)
    if product is None or product.factors is None:
        return set()
    if name in ("add", "add_any") and len(facts) == 2:
        bias = facts[0] if product is facts[1] else facts[1]
        if not bias.leaves or bias.factors:
            return set()
        places = _list_places(bias.leaves.values())
        if len(places) < len(_list_places(product.leaves.values())):
            return _choose(product, places, shapes)
    if name in BENT:
        vectors = [side for side in product.factors if _is_vector(side, shapes)]
        return set(vectors[0]) if len(vectors) == 1 else set()
    return set()


def find_token_of_heads(
    product: Fact, batch: Iterable[int], shapes: Shapes
) -> set[int]:
    """Returns the parameter that is data, as the weight has heads: axes of a batch."""
    return _choose(product, set(batch), shapes) if product.factors else set()


def is_of_constants(fact: Fact) -> bool:
    """Returns whether a value is the product of a parameter and a constant."""
    return fact.factors is not None and not all(fact.factors)


def is_applied_to_constants(
    eqn: core.JaxprEqn, facts: Sequence[Fact], batch: Sequence[int] = ()
) -> bool:
    """Returns whether a weight was applied to constants before this operation."""
    if not any(map(is_of_constants, facts)):
        return False
    name = eqn.primitive.name
    adds = name in ("add", "add_any") and sum(bool(fact.leaves) for fact in facts) == 2
    return adds or name in BENT or bool(batch)


def _list_places(axes: Iterable[Axes]) -> set[int]:
    """Lists the axes along which entries differ."""
    return {
        place
        for each in axes
        for place, axis in enumerate(each)
        if any(piece.size > 1 for piece in axis)
    }


def _choose(product: Fact, places: set[int], shapes: Shapes) -> set[int]:
    """Returns the factor that does not run along the weight's outputs."""
    assert product.factors is not None
    runs = [
        bool(places & _list_places(product.leaves[leaf] for leaf in side))
        for side in product.factors
    ]
    if runs[0] == runs[1]:
        return set()
    return {max(product.factors[runs[0]], key=lambda leaf: len(shapes[leaf]))}


def _is_vector(side: Iterable[int], shapes: Shapes) -> bool:
    return all(len(shapes[leaf]) == 1 for leaf in side)
