"""Transposed convolutions, in all layouts of kernels."""

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
from architecture import Architecture, data


class Transposed(nn.Module):
    """A generator: from a code to an image, with both layouts of kernels."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(64, name="code")(x)).reshape(2, 2, 2, 16)
        x = nn.ConvTranspose(12, (4, 4), (2, 2), name="plain")(x)
        x = nn.leaky_relu(x)
        x = nn.ConvTranspose(
            6, (4, 4), (2, 2), transpose_kernel=True, name="transposed"
        )(x)
        return jnp.tanh(nn.ConvTranspose(3, (3, 3), name="pixels")(nn.relu(x)))


class EquinoxTransposed(eqx.Module):
    one: eqx.nn.ConvTranspose2d
    two: eqx.nn.ConvTranspose2d

    def __init__(self, key):
        self.one = eqx.nn.ConvTranspose2d(3, 12, 4, 2, key=key)
        self.two = eqx.nn.ConvTranspose2d(12, 6, 4, 2, groups=2, key=key)

    def __call__(self, x):
        return self.two(jax.nn.relu(self.one(x)))


def call_haiku_transposed(x):
    x = jax.nn.relu(hk.Conv2DTranspose(12, 4, 2)(x))
    return hk.Conv2DTranspose(6, 4, 2)(x)


TRANSPOSED = {
    "transposed, Linen": Architecture(
        Transposed(),
        (data(2, 5),),
        {
            "*/code/kernel": ("input", (5, 64)),
            "*/plain/kernel": ("hidden", (256, 192)),
            "*/transposed/kernel": ("hidden", (192, 96)),
            "*/pixels/kernel": ("readout", (54, 27)),
            "*/bias": "bias",
        },
    ),
    "transposed, Equinox": Architecture(
        EquinoxTransposed,
        (data(2, 3, 5, 5),),
        {
            "one/weight": ("input", (48, 192)),
            # two groups: 6 inputs feed 3 outputs, at 16 places
            "two/weight": ("readout", (96, 48)),
            "*/bias": "bias",
        },
    ),
    "transposed, Haiku": Architecture(
        hk.without_apply_rng(hk.transform(call_haiku_transposed)),
        (data(2, 5, 5, 3),),
        {
            "conv2_d_transpose/w": ("input", (48, 192)),
            "conv2_d_transpose_1/w": ("readout", (192, 96)),
            "*/b": "bias",
        },
    ),
}
