"""GradInit: scales with which one step of training leads to the least loss."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxinit._calibrate._tensors import halve

DECREASE = 0.1  # of the loss by one step, to first order: what gamma allows
_MEAN, _SQUARE, _EPSILON = 0.9, 0.999, 1e-8  # Adam's, of the scales
_CLIP = 1.0  # the norm of the scales' gradient


@jax.tree_util.register_dataclass  # numbers are arguments of one program
@dataclasses.dataclass(frozen=True, kw_only=True)
class GradInit:
    """Settings of GradInit.

    Attributes:
      optimizer: "adam", whose first step is the sign of the gradient, or "sgd".
      learning_rate: that of the step that is looked ahead.
      gamma: the norm of the gradient beyond which the norm is lowered instead.
      rate: the learning rate of the scales.
    """

    columns: ClassVar = ("loss after a step", "gradient norm", "loss")

    optimizer: str = dataclasses.field(metadata={"static": True})
    learning_rate: float
    gamma: float
    rate: float

    def differentiate(
        self,
        loss: Callable[[Sequence[Any], Any], jax.Array],
        scale: Callable[[Any], list[jax.Array]],
        scales: jax.Array,
        batch: Any,
    ) -> tuple[jax.Array, list[jax.Array], list[jax.Array]]:
        """Computes the gradient for the scales, the columns, and the weights' gradient.

        With the loss L and its gradient g on the first half of the batch, and A[g] = g
        for SGD, sign(g) for Adam: while ||g|| is above gamma, the gradient is that of
        ||g||, and else that of the loss of the whole batch at θ(scales) − η A[g], where
        η A[g] counts as constant. The norm is that over all weights together, of order
        2 for SGD and 1 for Adam: η ||g||² or η ||g||₁ is then what the step takes from
        the loss, to first order.

        Args:
          loss: ``loss(weights, batch)``.
          scale: ``weights = scale(scales)``.
          scales: # [scales]
          batch: arrays whose first axis is over examples.
        """
        half = halve(batch)
        weights, pull = jax.vjp(scale, scales)
        differentiate = jax.value_and_grad(lambda weights: loss(weights, half))
        value, gradient = differentiate(weights)
        if self.optimizer == "adam":
            direction = [jnp.sign(g) for g in gradient]
            norm = add(jnp.sum(jnp.abs(g)) for g in gradient)
            step = [self.learning_rate * sign for sign in direction]
        else:
            norm = jnp.sqrt(add(jnp.sum(jnp.square(g)) for g in gradient))
            least = jnp.finfo(jnp.float32).tiny
            direction = [g / jnp.maximum(norm, least).astype(g.dtype) for g in gradient]
            step = [self.learning_rate * g for g in gradient]

        def look_ahead(scales: jax.Array) -> jax.Array:
            moved = [w - each for w, each in zip(scale(scales), step, strict=True)]
            return loss(moved, batch)

        def lower_norm() -> tuple[jax.Array, jax.Array]:
            # The norm's slope for the weights: the Hessian times its own gradient.
            _, (_, slopes) = jax.jvp(differentiate, (weights,), (direction,))
            return look_ahead(scales), pull(slopes)[0]

        def lower_loss() -> tuple[jax.Array, jax.Array]:
            return jax.value_and_grad(look_ahead)(scales)

        ahead, slope = jax.lax.cond(norm > self.gamma, lower_norm, lower_loss)
        return slope, [ahead, norm, value], gradient

    def advance(
        self,
        slope: jax.Array,
        scales: jax.Array,
        moments: tuple[jax.Array, jax.Array],
        step: jax.Array,
        norms: jax.Array,
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """Takes a step of Adam."""
        size = jnp.sqrt(jnp.sum(jnp.square(slope)))
        slope = slope * (_CLIP / jnp.maximum(size, _CLIP))
        mean = _MEAN * moments[0] + (1 - _MEAN) * slope
        square = _SQUARE * moments[1] + (1 - _SQUARE) * jnp.square(slope)
        count = step.astype(jnp.float32) + 1
        first = mean / (1 - _MEAN**count)
        second = square / (1 - _SQUARE**count)
        moved = scales - self.rate * first / (jnp.sqrt(second) + _EPSILON)
        return moved, (mean, square)


def add(parts: Any) -> jax.Array:
    """Adds scalars of any types in float32."""
    return jnp.sum(jnp.stack([part.astype(jnp.float32) for part in parts]))
