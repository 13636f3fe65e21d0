"""Probes: signal, gradient and updates of every layer, at a few moments of training.

A probe computes one training step of a cell and discards it. It measures how large each
layer's output is on the rows of the step, and the gradient with respect to it, and by
how much the step would change each kernel. It is a pure function of the state of
training.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxinit._paths import named
from jaxinit.lab._tried._model import MLP, stack_layers, widen
from jaxinit.lab._tried.networks import Network

Loss = Callable[[jax.Array, jax.Array], jax.Array]


class Probe(NamedTuple):  # each [cells, layers]; of a run [..., moments, layers]
    """Signal, gradient and update by layer, at a moment of training.

    Attributes:
      forward: standard deviation of the layer's output, before the activation; nan for
        networks other than the perceptron.
      gradient: that of the gradient with respect to the output, likewise.
      update: norm of the change of a kernel in one step over the norm of the kernel:
        infinite for a kernel of zeros that moves, nan for one that stays. Kernels are
        in the order of the layers, for other networks in that of `kernel_names`.
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
    model: MLP | Network,
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

    def probe(cell: Any) -> Probe:
        variables, state, rate = cell
        params = variables["params"]
        forward = backward = None
        if isinstance(model, MLP):
            value, gradient, seen = _run(model, loss, variables, x, y, also=("params",))
            forward, backward = _stddev(seen), _stddev(gradient["perturbations"])
        else:
            train = model.train

            def compute_loss(varied: Any) -> jax.Array:
                z, _ = train({**variables, **varied}, x, jax.random.key(0))
                return loss(z, y)

            value, gradient = jax.value_and_grad(compute_loss)({"params": params})
        change, _ = optimizer(rate).update(
            gradient["params"], state, params, value=value
        )
        layers = isinstance(model, MLP)
        ratios = _norms(change, layers) / _norms(params, layers)
        unknown = jnp.full_like(ratios, jnp.nan)
        if forward is None or backward is None:
            return Probe(unknown, unknown, ratios)
        return Probe(forward, backward, ratios)

    return probe


def make_signals(
    model: MLP, loss: Loss, x: jax.Array, y: jax.Array
) -> Callable[[Any], tuple[jax.Array, jax.Array]]:
    """Returns a function of one network's variables.

    It computes the standard deviations of each layer's output and of the gradient with
    respect to it. # each [layers]
    """

    def signals(variables: Any) -> tuple[jax.Array, jax.Array]:
        _, gradient, seen = _run(model, loss, variables, x, y)
        return _stddev(seen), _stddev(gradient["perturbations"])

    return signals


def kernel_names(params: Any) -> list[str]:
    """Returns the paths of one network's kernels: parameters of two axes or more."""
    return [path for path, _ in _kernels(params)]


def _run(
    model: MLP,
    loss: Loss,
    variables: Any,
    x: jax.Array,
    y: jax.Array,
    also: tuple[str, ...] = (),
) -> tuple[jax.Array, Any, Any]:
    """Runs a network forward and backward.

    Returns the loss, its gradients by the layers' outputs ("perturbations") and by the
    collections named, and the layers' outputs.
    """

    def forward(varied: Any) -> Any:
        z, seen = model.apply(
            {**variables, **varied},
            x,
            train=True,
            mutable=["intermediates", "batch_stats"],
        )
        return loss(z, y), seen["intermediates"]

    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=True))
    varied = {name: variables[name] for name in also}
    varied["perturbations"] = jax.tree.map(
        lambda a: jnp.zeros(a.shape, a.dtype), shapes["perturbations"]
    )
    (value, seen), gradient = jax.value_and_grad(forward, has_aux=True)(varied)
    return value, gradient, seen


def _stddev(collection: Any) -> jax.Array:
    """Computes the standard deviation of each layer's entries. # [layers]."""
    return stack_layers(
        collection, lambda block: widen(jax.tree.leaves(block["z"])[0]).std((1, 2))
    )


def _norms(params: Any, layers: bool) -> jax.Array:
    """Computes the norm of each kernel, of `MLP` layer by layer. # [layers]."""
    if layers:
        return stack_layers(
            params,
            lambda block: jnp.linalg.norm(block["Dense_0"]["kernel"], axis=(1, 2)),
        )
    return jnp.stack([jnp.linalg.norm(leaf.ravel()) for _, leaf in _kernels(params)])


def _kernels(params: Any) -> list[tuple[str, Any]]:
    return [(path, leaf) for path, leaf in named(params) if len(leaf.shape) > 1]
