"""Scales of a perceptron by hand, as those of `jaxinit.scaling` are used."""

import jax
import optax

from jaxinit._paths import named


class Scale:
    """muP of Table 3 of Tensor Programs V, relative to the base.

    Beside laws of fan_in the readout has 1 / m^½ more; hidden kernels and the readout
    have 1 / m on Adam's rate.
    """

    def __init__(self, base, target):
        self.growth = {
            path: row.fans[0] / base[path].fans[0]
            for path, row in target.items()
            if "kernel" in path
        }
        self.readout = [path for path, row in target.items() if "readout" in row.roles]

    def rules(self, recipe):
        (_, init), *_ = recipe
        (path,) = self.readout
        return [(path, init / self.growth[path] ** 0.5), *recipe]

    def lr(self, optimizer):
        assert optimizer == "adam"

        def update(updates, state, params=None):
            leaves = [
                change / self.growth.get(path, 1.0) for path, change in named(updates)
            ]
            return jax.tree.unflatten(jax.tree.structure(updates), leaves), state

        return optax.GradientTransformation(lambda params: optax.EmptyState(), update)

    def adamw(self, learning_rate, **more):
        return optax.chain(optax.adamw(learning_rate, **more), self.lr("adam"))

    def sgd(self, learning_rate, momentum=None):
        return optax.sgd(learning_rate, momentum)

    def lion(self, learning_rate, **more):
        return optax.chain(optax.lion(learning_rate, **more), self.lr("adam"))


def mup(base, target):
    """Makes a scale."""
    return Scale(base, target)
