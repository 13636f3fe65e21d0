"""Probes: signal, gradient and updates of every layer, at a few moments of training.

A probe computes one training step of a cell and discards it. It measures how large each
layer's output is on the rows of the step, and the gradient with respect to it, as
`jaxinit.check` does; and by how much the step would change each kernel. It is a pure
function of the state of training.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxinit._paths import named
from jaxinit.lab._tried._network import Network, list_stacks
from jaxinit.signal.steps import Deviations, differentiate

Loss = Callable[[jax.Array, jax.Array], jax.Array]


class Probe(NamedTuple):  # each [cells, layers]; of a run [..., moments, layers]
    """Signal, gradient and update by layer, at a moment of training.

    Attributes:
      forward: standard deviation of the layer's output, before the activation. Layers
        are those of `jaxinit.check`; it is nan for networks that have none.
      gradient: that of the gradient with respect to the output, likewise.
      update: norm of the change of a kernel in one step over the norm of the kernel:
        infinite for a kernel of zeros that moves, nan for one that stays. Kernels are
        in the order of `kernel_names`, those of a loop layer by layer.
    """

    forward: Any
    gradient: Any
    update: Any


def moments(blocks: int) -> tuple[int, ...]:
    """Returns the numbers of blocks after which a run is probed.

    They are none, one, a quarter, half and all of the blocks.
    """
    return tuple(sorted({0, 1, blocks // 4, blocks // 2, blocks}))


def stack(probes: Sequence[Probe], axis: int = 0) -> Probe:
    """Stacks the probes of a run along an axis of moments."""
    return Probe(*(np.stack(parts, axis) for parts in zip(*probes, strict=True)))


def unstack(probe: Probe) -> tuple[Probe, ...]:
    """Returns a probe for each moment, the inverse of `stack`."""
    return tuple(Probe(*parts) for parts in zip(*probe, strict=True))


def make_probe(
    model: Network,
    loss: Loss,
    optimizer: Callable[[jax.Array], optax.GradientTransformationExtraArgs],
    x: jax.Array,
    y: jax.Array,
) -> Callable[[Any], Probe]:
    """Returns a function that probes one cell.

    Args:
      model: the model in training.
      loss: computes the loss from outputs and targets.
      optimizer: builds the optimizer for a learning rate.
      x: inputs of the step.
      y: targets of the step.

    Returns:
      A function of (variables, state of the optimizer, learning rate).
    """
    stack = model.written_out.stack

    def probe(cell: Any) -> Probe:
        variables, state, rate = cell
        params = variables["params"]
        value, gradient, deviations = _observe(model, loss, variables, x, y)
        change, _ = optimizer(rate).update(gradient, state, params, value=value)
        ratios = _norms(change, stack) / _norms(params, stack)
        unknown = jnp.full_like(ratios, jnp.nan)
        return Probe(*(deviations or (unknown, unknown)), ratios)

    return probe


def make_signals(
    model: Network, loss: Loss, x: jax.Array, y: jax.Array
) -> Callable[[Any], Deviations | None]:
    """Returns a function of the variables of one network that measures its layers."""
    return lambda variables: _observe(model, loss, variables, x, y)[2]


def kernel_names(params: Any) -> list[str]:
    """Returns the paths of one network's kernels: parameters of two axes or more."""
    return [path for path, leaf in named(params) if len(leaf.shape) > 1]


def _observe(
    model: Network, loss: Loss, variables: Any, x: jax.Array, y: jax.Array
) -> tuple[jax.Array, Any, Deviations | None]:
    """Runs a network forward and backward; measures its layers, if it has any.

    Returns the loss, its gradient with respect to the parameters, and the deviations.
    """
    rest = {name: part for name, part in variables.items() if name != "params"}

    def run(params: Any, rest: Any, x: jax.Array, key: jax.Array) -> jax.Array:
        return model.watch({**rest, "params": params}, x, key)

    return differentiate(
        lambda z: loss(z, y),
        run,
        variables["params"],
        rest,
        x,
        jax.random.key(0),
        stack=model.written_out.stack,
    )


def _norms(params: Any, stack: str) -> jax.Array:
    """Computes the norm of each kernel, those of a loop by layer. # [layers]."""
    return jnp.concatenate(
        [
            jnp.sqrt((kernel * kernel.conj()).real.sum(tuple(range(1, kernel.ndim))))
            for _, kernel in list_stacks(params, stack)
            if kernel.ndim > 2
        ]
    )
