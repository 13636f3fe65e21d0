"""Links layers that follow each other: the activation of one is the next one's input.

Two layers are linked only where mean-field theory may continue through both: nothing
else reads the activation, and it is known where each entry goes. A reshaped activation
may feed a dense layer that sums over all axes but the examples; a copied and padded
one, a convolution.
"""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jax.extend import core

from jaxinit._jaxpr.equation import find_bodies, is_constant
from jaxinit._jaxpr.primitives import CALLS, SAME
from jaxinit.signal._trace.site import Placed, Places, Product, Site

_MOVES = SAME | CALLS | {"slice", "rev", "pad", "concatenate"}
_ZERO = "zero"  # the root of a literal

# (root, places): the variable that the entries were copied from, and where in it they
# lie; places is None when the shapes differ.
_Source = tuple[Any, Places | None]


def link(
    jaxpr: core.Jaxpr, sites: Sequence[Site], uses: Mapping[Any, list[int]]
) -> Iterator[Site]:
    """Yields each site, with ``behind`` set to the layer that feeds it.

    It is set where mean-field theory may continue through both.
    """
    sources, eqns = _find_sources(jaxpr), jaxpr.eqns
    readers: dict[Any, set[int]] = {}
    for var, indices in uses.items():
        root, _ = sources.get(var, (var, None))
        readers.setdefault(root, set()).update(
            i for i in indices if i < 0 or sources.keys().isdisjoint(eqns[i].outvars)
        )
    ends = {}
    for site in sites:
        if isinstance(site, Product):
            end = site.output if site.activated is None else site.activated
            ends[sources.get(end, (end, None))[0]] = site
    for site in sites:
        if isinstance(site, Product):
            root, places = _find_source(sources, site.input)
            before = ends.get(root)
            if before and len(readers[root]) == 1 and _follows(site, before, places):
                site = dataclasses.replace(site, behind=before.number, places=places)
        yield site


def find_chains(placed: Iterable[Placed]) -> list[list[Product]]:
    """Finds sequences of two or more layers that follow each other, outside loops."""
    sites = [x for x, steps in placed if isinstance(x, Product) and not steps]
    following = {site.behind: site for site in sites}
    chains = []
    for site in sites:
        if site.behind is None and site.number in following:
            chain = [site]
            while after := following.get(chain[-1].number):
                chain.append(after)
            chains.append(chain)
    return chains


def _follows(site: Product, before: Product, places: Places | None) -> bool:
    """Returns whether the variances before a layer determine those behind it."""
    shape: tuple[int, ...] = before.output.aval.shape
    size: int = math.prod(site.input.aval.shape)
    whole = size == math.prod(shape)  # nothing is padded
    if site.kind == "dense" and before.kind == "dense":
        return whole
    if site.kind == "dense":
        return whole and _is_usual(before) and site.fan_in * shape[0] == size
    if before.kind == "dense":
        return whole and _is_usual(site)
    # Examples and channels are averaged over: they stay as they are.
    outer = before.eqn.params["dimension_numbers"].out_spec
    inner = site.eqn.params["dimension_numbers"].lhs_spec
    return (
        places is not None
        and outer == inner
        and _is_usual(site)
        and _is_usual(before)
        and all(np.array_equal(places[i], np.arange(shape[i])) for i in outer[:2])
    )


def _is_usual(site: Product) -> bool:
    """Returns whether a convolution is one of data by a weight, with axes in order."""
    numbers = site.eqn.params["dimension_numbers"]
    return (
        site.eqn.invars[1] is site.weight
        and site.eqn.params["batch_group_count"] == 1
        and numbers.out_spec[0] == numbers.lhs_spec[0] == 0
        and all(list(spec[2:]) == sorted(spec[2:]) for spec in numbers)
    )


def _find_sources(
    jaxpr: core.Jaxpr, known: Mapping[Any, _Source] | None = None
) -> dict[Any, _Source]:
    """Finds the sources of variables made of another one's entries, and of zeros."""
    sources = dict(known or {})
    for eqn in jaxpr.eqns:
        if eqn.primitive.name in _MOVES and len(eqn.outvars) == 1:
            moved = _move(eqn, [_find_source(sources, atom) for atom in eqn.invars])
            if moved:
                sources[eqn.outvars[0]] = moved
    return sources


def _find_source(sources: Mapping[Any, _Source], atom: Any) -> _Source:
    if is_constant(atom):
        return _ZERO if np.all(atom.val == 0) else None, ()
    itself = atom, tuple(np.arange(size) for size in atom.aval.shape)
    return sources.get(atom, itself)


def _move(eqn: Any, sources: list[_Source]) -> _Source | None:
    """Finds the source of a result, if its entries are copied."""
    name, params = eqn.primitive.name, eqn.params
    roots = [root for root, _ in sources]
    if name in CALLS:  # jnp.pad is one
        (body,) = find_bodies(eqn)
        inside = _find_sources(body, dict(zip(body.invars, sources, strict=True)))
        source = _find_source(inside, body.outvars[0])
        return source if source[0] in roots else None
    root, places = sources[0]
    if name in SAME:
        before, after = (atom.aval.shape for atom in (eqn.invars[0], eqn.outvars[0]))
        return root, places if before == after else None
    if places is None:
        return None
    if name == "slice":
        strides = params["strides"] or [1] * len(places)
        cuts = map(slice, params["start_indices"], params["limit_indices"], strides)
        return root, tuple(x[cut] for x, cut in zip(places, cuts, strict=True))
    if name == "rev":
        turned = params["dimensions"]
        flipped = (x[::-1] if i in turned else x for i, x in enumerate(places))
        return root, tuple(flipped)
    if name == "pad":
        config = params["padding_config"]
        if roots[1] is not _ZERO or any(
            low < 0 or high < 0 or inner for low, high, inner in config
        ):
            return None
        padded = (
            np.pad(x, c[:2], constant_values=-1)
            for x, c in zip(places, config, strict=True)
        )
        return root, tuple(padded)
    if set(roots) != {root} or any(others is None for _, others in sources):
        return None
    joined = []
    for axis, pieces in enumerate(zip(*(others for _, others in sources), strict=True)):
        if axis == params["dimension"]:
            joined.append(np.concatenate(pieces))
        elif all(np.array_equal(pieces[0], piece) for piece in pieces):
            joined.append(pieces[0])
        else:
            return None
    return root, tuple(joined)
