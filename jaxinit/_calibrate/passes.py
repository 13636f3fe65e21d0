"""The one program of a calibration: measures all layers, and scales them on the way."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._calibrate._unit_moments import Moments, Solution, measure, pool, widen
from jaxinit._calibrate.scales import Layer
from jaxinit.signal.adjusting import (
    Product,
    Program,
    keep,
    read_settings,
    run_adjusting,
)

Solve = Callable[[Moments, jax.Array, jax.Array], Solution]


class Outcome(NamedTuple):
    """What a pass tells of a layer; arrays are [own steps..., units...].

    Attributes:
      moments: those of its output, with the weights that came and, in a pass that
        scales, the layers before it scaled.
      solution: what becomes of it.
    """

    moments: Moments
    solution: Solution


class Aim(NamedTuple):
    """What a method does to the layers.

    Attributes:
      solve: finds a layer's scale from its moments; None measures alone.
      stds: the standard deviation for each layer.
      chosen: whether each layer is scaled.
      offset: the mean of units; None if the method leaves it as it is.
      has_targets: whether the standard deviations are what the method is after.
    """

    solve: Solve | None
    stds: Sequence[float]
    chosen: Sequence[bool]
    offset: float | None = None
    has_targets: bool = True


class Pass:
    """A model's pass: compiled once, whatever the weights and the standard deviations.

    It runs on one device, on which all arguments lie: sums over a batch that devices
    share would depend on how many these are.
    """

    def __init__(
        self, program: Program, layers: Sequence[Layer], inputs: Sequence[Any]
    ):
        """Takes a traced model, its layers, and the arrays of its inputs."""
        self.layers, self._inputs = layers, list(inputs)
        self._program = program

    def __call__(self, stored: Any, key: jax.Array, aim: Aim, active: bool) -> Any:
        """Measures the layers, and scales them on the way if active.

        Args:
          stored: the parameters, and what else the model stores.
          key: the key of its noise.
          aim: what the method does.
          active: whether layers are scaled; else they are measured as they are.

        Returns:
          An `Outcome` for each layer, of NumPy arrays.
        """
        solve, layers = aim.solve, self.layers
        units = tuple(layer.units for layer in layers)
        token = ("calibrate", self._program.spelling, solve, units, read_settings())
        chosen = np.asarray(aim.chosen) & active
        run = keep(token, lambda: jax.jit(_build(self._program, layers, solve)))
        flat = jax.tree.leaves((stored, key, self._inputs))
        given = np.asarray(aim.stds, np.float32), np.float32(aim.offset or 0.0)
        return jax.device_get(run(flat, chosen, *given))


def _build(
    program: Program, layers: Sequence[Layer], solve: Solve | None
) -> Callable[..., list[Outcome]]:
    """Makes the function that is compiled, of the arguments of a model's program."""
    numbers = {layer.site.number: number for number, layer in enumerate(layers)}
    plan = program.plan  # alone: what is kept should not keep weights alive

    def run(
        args: list[Any], chosen: jax.Array, stds: jax.Array, offset: jax.Array
    ) -> list[Outcome]:
        def settle(number: int, moments: Moments) -> Solution:
            """Solves for a layer, if it is chosen."""
            same = Solution(jnp.ones_like(moments.spread), moments.bias)
            if solve is None or layers[number].reason:
                return same
            dtype = moments.spread.dtype
            target, mean = stds[number].astype(dtype), offset.astype(dtype)
            scale, bias = solve(moments, target, mean)
            if bias is None or layers[number].bias is None:
                bias = moments.bias
            return Solution(
                jnp.where(chosen[number], scale, same.scale),
                jnp.where(chosen[number], bias, moments.bias),
            )

        def rule(
            site: Product, product: jax.Array, bias: Any, notes: dict[Any, Any]
        ) -> tuple[jax.Array, Any]:
            layer = layers[numbers[site.number]]
            if not jnp.issubdtype(product.dtype, np.floating):
                return (product if bias is None else product + bias), None
            dtype = widen(product.dtype)
            z = product.astype(dtype)
            b = None if bias is None else bias.astype(dtype)
            moments = measure(z, b, layer.units)
            if layer.is_direct:
                solved = settle(numbers[site.number], moments)
                notes[layer.leaves] = solved, layer.bias
            solution, owner = notes.get(layer.leaves, (None, None))
            output = z
            if solution is not None:
                output = z * _lay(solution.scale, layer.units, z.ndim)
                if layer.bias is not None and layer.bias == owner and layer.units:
                    b = _lay(solution.bias, layer.units, z.ndim)
            if b is not None:
                output = output + b
            kept = moments, solution if layer.is_direct else None
            return output.astype(product.dtype), kept

        _, kept = run_adjusting(plan, args, rule)
        outcomes = []
        for number, layer in enumerate(layers):
            if kept[layer.site.number] is None:  # complex numbers are not measured
                nothing = jnp.full(layer.sizes, jnp.nan, np.float32)
                moments, solution = Moments(*[nothing] * 5), None
            else:
                moments, solution = kept[layer.site.number]
                moments = pool(moments, layer.shared)
            outcomes.append(Outcome(moments, solution or settle(number, moments)))
        return outcomes

    return run


def _lay(values: jax.Array, units: Sequence[int], rank: int) -> jax.Array:
    """Lays values of units along the axes of a layer's output."""
    if not units:
        return values
    laid = values.transpose([int(i) for i in np.argsort(units)])
    others = [i for i in range(rank) if i not in units]
    spaced: jax.Array = jax.lax.expand_dims(laid, others)
    return spaced
