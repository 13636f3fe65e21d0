"""A model of one size: its traced program, its optimizer, and its initial weights."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxinit import _paths
from jaxinit._adapt.adapt import adapt
from jaxinit._adapt.functions import Call, OfArrays, of_arrays
from jaxinit._structure.result import TracedParameter
from jaxinit.model import jit_init, reinit
from jaxinit.scaling._coordinate_match import BEHIND, Name
from jaxinit.scaling._initial import spreads
from jaxinit.scaling._scale import Scale
from jaxinit.signal.watching import Values, Watch

# Parameters whose entries are numbers of the size that a coordinate has; those of a
# product are measured by it.
_ENTRIES = {"embedding", "bias", "gain", "offset", "table", "state"}


class First(NamedTuple):
    """What later values are compared with."""

    places: Mapping[int, Mapping[str, Any]]
    entries: Mapping[str, Any]  # parameters in no product, by path


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Sized:
    """A model of one size.

    Attributes:
      size: its width or depth.
      model: the model itself.
      of: its functions.
      stored: the types of its parameters, and of what else it stores.
      init: draws both from a key.
      draw_targets: draws what multiplies the outputs, without a loss: the same at all
        sizes whose outputs are alike.
      watch: its traced program.
      first: the types of what later values are compared with.
      loss: a function of the output, if one is given.
      optimizer: the optimizer of this size.
      rules: of the initial weights, if it does not draw them itself.
      scale: what a parameterization says of it, if one was asked.
      factors: by path, on what the model itself draws.
    """

    size: int
    model: Any
    of: OfArrays
    stored: tuple[Any, Any]
    init: Callable[[jax.Array], tuple[Any, Any]]
    draw_targets: Callable[[jax.Array], list[jax.Array]]
    watch: Watch
    first: First
    loss: Callable[[Any], Any] | None
    optimizer: Any = None
    rules: Any = None
    scale: Scale | None = None
    factors: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def rows(self) -> Mapping[str, TracedParameter]:
        """What each parameter does, as far as it can be read."""
        return self.watch.structure or {}

    @property
    def unseen(self) -> list[str]:
        """The paths of kernels that are neither in a place nor measured by entries."""
        seen = {leaf for place in self.watch.places for leaf in place.leaves}
        seen.update(self.first.entries)
        return [
            r.path for r in self.rows.values() if r.is_kernel and r.path not in seen
        ]

    def list_names(self) -> Iterator[tuple[Name, Any, float]]:
        """Yields the name, the source, and the order of what is measured."""
        order = 0.0
        for place in self.watch.places:
            roles = [self.rows[leaf].role for leaf in place.leaves if leaf in self.rows]
            places = [self.rows[x].order for x in place.leaves if x in self.rows]
            known = [number for number in places if number is not None]
            if known:
                order = max(known) + BEHIND.get(place.kind, 0.0)
            role = "" if place.kind in BEHIND else "+".join(dict.fromkeys(roles))
            yield Name(place.path, place.kind, role), place.number, order
        for path in self.first.entries:
            row = self.rows[path]
            if any("key" in self.rows[of].roles for of in row.of if of in self.rows):
                continue  # softmax leaves it no gradient but rounding
            yield Name(path, "parameter", row.role), path, row.order or 0.0

    def draw(self, key: jax.Array) -> tuple[Any, Any]:
        """Draws the parameters, and what else the model stores."""
        params, rest = self.init(key)
        if self.rules is not None:
            structure = self.watch.structure
            params = reinit(key, params, self.rules, structure=structure)
        elif self.factors:
            leaves = [
                leaf * self.factors[path] if path in self.factors else leaf
                for path, leaf in _paths.named(params)
            ]
            params = jax.tree.unflatten(jax.tree.structure(params), leaves)
        return params, rest

    def measure_draw(self, key: jax.Array) -> dict[str, float]:
        """Measures the root mean square of what a model draws, by path."""
        return {path: _measure(leaf) for path, leaf in _paths.named(self.init(key)[0])}

    def fit_draws(self, small: Mapping[str, float], key: jax.Array) -> dict[str, float]:
        """Finds the factors that give what a model draws the scale that it should have.

        That is what was measured in the base, times the factor of the parameterization;
        what is zero stays so.
        """
        own = self.measure_draw(key)
        factors = {}
        for path, row in (self.scale or {}).items():
            grown = small[row.base] / own[path] if spreads(row) and own[path] else 1.0
            if (factor := float(row.std * grown)) not in (0.0, 1.0):
                factors[path] = factor
        return factors


def _measure(leaf: Any) -> float:
    return float(np.sqrt(np.square(np.abs(np.asarray(leaf, np.float64))).mean()))


def prepare(
    size: int, model: Any, call: Call, loss: Callable[[Any], Any] | None
) -> Sized:
    """Traces a model."""
    inputs = call.inputs
    adapted = adapt(model, inputs, call.arguments, call.streams)
    of = of_arrays(lambda _: adapted, inputs)
    key = jax.eval_shape(lambda: jax.random.key(0))
    stored = jax.eval_shape(of.init, key, *of.arrays)
    watch = Watch(of.apply, *stored, key, *of.arrays)
    before = jax.eval_shape(watch.make_before)
    _, values = jax.eval_shape(watch.run, before, *stored, key, of.arrays)
    return Sized(
        size=size,
        model=model,
        of=of,
        stored=stored,
        init=jit_init(lambda key: of.init(key, *of.arrays)),
        draw_targets=jit_init(
            lambda key: [] if loss else _draw_targets(watch.outputs, key)
        ),
        watch=watch,
        first=pick_first(watch, values, stored[0]),
        loss=loss,
    )


def _draw_targets(outputs: Sequence[Any], key: jax.Array) -> list[jax.Array]:
    keys = jax.random.split(key, len(outputs))
    pairs = zip(keys, outputs, strict=True)
    return [jax.random.normal(key, y.shape) for key, y in pairs]


def pick_first(watch: Watch, values: Values, params: Any) -> First:
    """Picks what later values are compared with."""
    parts = {
        number: {name: v for name, v in place.items() if name != "moved"}
        for number, place in values.items()
    }
    rows: Mapping[str, TracedParameter] = watch.structure or {}
    leaves = dict(_paths.named(params))
    measured = [path for path in rows if _ENTRIES.intersection(rows[path].roles)]
    return First(parts, {path: leaves[path] for path in measured})
