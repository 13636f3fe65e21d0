"""Weights that a calibration scales step by step."""

from typing import Any

import jax
import numpy as np

from jaxinit._calibrate._unit_moments import widen
from jaxinit._calibrate.scales import Layer, spread

Stored = tuple[Any, Any]  # the parameters, and what else a model stores


class Weights:
    """Weights that are scaled step by step, and rounded once.

    Attributes:
      stored: the weights as they are now, and what else the model stores.
      changed: the numbers of the parameters that are no longer as they came.
      factors: those on layers, by the numbers of their parameters.
    """

    def __init__(self, stored: Stored):
        """Takes the parameters, and what else the model stores."""
        params, self._rest = stored
        leaves, self._tree = jax.tree.flatten(params)
        self._first = leaves
        self._now = list(leaves)
        self._scales: dict[int, np.ndarray] = {}
        self.changed: set[int] = set()
        self.factors: dict[tuple[int, ...], np.ndarray] = {}

    @property
    def stored(self) -> Stored:
        """The weights as they are now, and what else the model stores."""
        return jax.tree.unflatten(self._tree, self._now), self._rest

    @property
    def leaves(self) -> list[Any]:
        """The parameters as they are now."""
        return self._now

    def save(self) -> tuple[Any, ...]:
        """Returns all that changes, for `load`."""
        return [*self._now], {*self.changed}, {**self._scales}, {**self.factors}

    def load(self, kept: tuple[Any, ...]) -> None:
        """Goes back to what `save` returned."""
        now, changed, scales, factors = kept
        self._now, self.changed = [*now], {*changed}
        self._scales, self.factors = {**scales}, {**factors}

    def scale(self, leaf: int, factors: np.ndarray) -> None:
        """Multiplies a parameter by factors that broadcast against it."""
        if np.all(factors == 1):
            return
        self._scales[leaf] = self._scales.get(leaf, np.float64(1)) * factors
        first = np.asarray(self._first[leaf])
        wide = widen(first.dtype)
        made = first.astype(wide) * self._scales[leaf].astype(_real(wide))
        self._put(leaf, made.astype(first.dtype))

    def set(self, leaf: int, values: np.ndarray) -> None:
        """Gives a parameter values that broadcast to its shape."""
        now = np.asarray(self._now[leaf])
        made = np.broadcast_to(values, now.shape).astype(now.dtype)
        if not np.array_equal(made, now):
            self._put(leaf, made)

    def _put(self, leaf: int, value: np.ndarray) -> None:
        device = self._now[leaf].sharding
        self._now[leaf] = jax.device_put(value, device)
        self.changed.add(leaf)


def _real(dtype: Any) -> Any:
    return np.zeros((), dtype).real.dtype


def scale_layer(weights: Weights, layer: Layer, factors: np.ndarray) -> None:
    """Multiplies a layer's weight by factors, [own steps..., units...]."""
    weights.factors[layer.leaves] = weights.factors.get(layer.leaves, 1.0) * factors
    for leaf, axes in zip(layer.leaves, layer.scale_axes, strict=True):
        shape = weights.leaves[leaf].shape
        weights.scale(leaf, spread(factors, shape, axes))
