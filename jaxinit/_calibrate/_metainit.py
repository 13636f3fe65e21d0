"""MetaInit: norms of the weights at which a step changes the gradient least."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxinit._calibrate._gradinit import add

_MOMENTUM = 0.5
_EPSILON = 1e-5  # keeps the quotient finite where the gradient is zero


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class MetaInit:
    """Settings of MetaInit.

    Attributes:
      rate: the learning rate of the norms.
    """

    columns: ClassVar = ("gradient quotient", "loss")

    rate: float

    def differentiate(
        self,
        loss: Callable[[Sequence[Any], Any], jax.Array],
        scale: Callable[[Any], list[jax.Array]],
        scales: jax.Array,
        batch: Any,
    ) -> tuple[jax.Array, list[jax.Array], list[jax.Array]]:
        """Computes the gradient for the scales, the columns, and the weights' gradient.

        The gradient quotient of N weights is (1/N) Σ |(g − Hg) / (g ± ε) − 1| with the
        gradient g and the Hessian H of the loss; the sign of ε is that of g.

        Args:
          loss: ``loss(weights, batch)``.
          scale: ``weights = scale(scales)``.
          scales: # [scales]
          batch: what the loss takes.
        """

        def quotient(scales: jax.Array) -> tuple[jax.Array, Any]:
            weights = scale(scales)
            differentiate = jax.value_and_grad(lambda weights: loss(weights, batch))
            value, gradient = differentiate(weights)
            _, (_, change) = jax.jvp(differentiate, (weights,), (gradient,))
            terms = []
            for g, hg in zip(gradient, change, strict=True):
                away = jnp.where(g >= 0, _EPSILON, -_EPSILON).astype(g.dtype)
                terms.append(jnp.sum(jnp.abs((g - hg) / (g + away) - 1)))
            return add(terms) / sum(w.size for w in weights), (value, gradient)

        measure = jax.value_and_grad(quotient, has_aux=True)
        (objective, (value, gradient)), slope = measure(scales)
        return slope, [objective, value], gradient

    def advance(
        self,
        slope: jax.Array,
        scales: jax.Array,
        moments: tuple[jax.Array, jax.Array],
        step: jax.Array,
        norms: jax.Array,
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """Takes a step of the norms along signs."""
        # The slope for a norm has the sign of that for the scale, norm / initial norm.
        velocity = _MOMENTUM * moments[0] + jnp.sign(slope)
        unit = jnp.where(norms > 0, norms, jnp.inf)
        return scales - self.rate * velocity / unit, (velocity, moments[1])
