"""Convolutional networks: grouped, transposed, residual, with skips."""

import functools

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
from architecture import Architecture, data, make
from flax import nnx

IMAGES = (data(2, 8, 8, 3),)
CHANNELS_FIRST = (data(2, 3, 8, 8),)


class Conv(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(16, (3, 3), name="one")(x))
        x = nn.max_pool(x, (2, 2), (2, 2))
        x = nn.relu(nn.Conv(32, (5, 3), (2, 2), name="two")(x))
        return nn.Dense(4, name="three")(x.mean((1, 2)))


class NnxConv(nnx.Module):
    def __init__(self, rngs):
        self.one = nnx.Conv(3, 16, (3, 3), rngs=rngs)
        self.two = nnx.Conv(16, 32, (5, 3), (2, 2), rngs=rngs)
        self.three = nnx.Linear(32, 4, rngs=rngs)

    def __call__(self, x):
        x = nnx.max_pool(nnx.relu(self.one(x)), (2, 2), (2, 2))
        return self.three(nnx.relu(self.two(x)).mean((1, 2)))


class EquinoxConv(eqx.Module):
    one: eqx.nn.Conv2d
    two: eqx.nn.Conv2d
    three: eqx.nn.Linear

    def __init__(self, key):
        self.one = eqx.nn.Conv2d(3, 16, 3, padding=1, key=key)
        self.two = eqx.nn.Conv2d(16, 32, (5, 3), 2, padding="SAME", key=key)
        self.three = eqx.nn.Linear(32, 4, key=key)

    def __call__(self, x):
        x = eqx.nn.MaxPool2d(2, 2)(jax.nn.relu(self.one(x)))
        return self.three(jax.nn.relu(self.two(x)).mean((1, 2)))


def call_haiku_conv(x):
    x = hk.max_pool(jax.nn.relu(hk.Conv2D(16, 3)(x)), (2, 2, 1), (2, 2, 1), "SAME")
    x = jax.nn.relu(hk.Conv2D(32, (5, 3), 2)(x))
    return hk.Linear(4)(x.mean((1, 2)))


def call_conv(p, x):
    """Stores kernels as (outputs, inputs, *window), as torch does."""

    def convolve(x, w, stride):
        numbers = ("NCHW", "OIHW", "NCHW")
        return jax.lax.conv_general_dilated(
            x, w, (stride, stride), "SAME", dimension_numbers=numbers
        )

    x = jax.nn.relu(convolve(x, p["m"], 1) + p["mb"][None, :, None, None])
    x = jax.lax.reduce_window(
        x, -jnp.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID"
    )
    x = jax.nn.relu(convolve(x, p["n"], 2) + p["nb"].reshape(1, 32, 1, 1))
    return x.mean((2, 3)) @ p["o"] + p["ob"]


class Grouped(nn.Module):
    """A stem, four groups, depthwise with two outputs each, pointwise."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(16, (3, 3), name="stem")(x))
        x = nn.relu(nn.Conv(32, (3, 3), feature_group_count=4, name="groups")(x))
        x = nn.Conv(64, (3, 3), feature_group_count=32, name="depth", use_bias=False)(x)
        x = nn.relu(nn.Conv(24, (1, 1), name="point")(x))
        return nn.Dense(4, name="head")(x.mean((1, 2)))


class EquinoxGrouped(eqx.Module):
    stem: eqx.nn.Conv2d
    groups: eqx.nn.Conv2d
    depth: eqx.nn.Conv2d
    head: eqx.nn.Conv2d

    def __init__(self, key):
        self.stem = eqx.nn.Conv2d(3, 16, 3, key=key)
        self.groups = eqx.nn.Conv2d(16, 32, 3, groups=4, key=key)
        self.depth = eqx.nn.Conv2d(32, 64, 3, groups=32, use_bias=False, key=key)
        self.head = eqx.nn.Conv2d(64, 4, 1, key=key)

    def __call__(self, x):
        x = jax.nn.relu(self.groups(jax.nn.relu(self.stem(x))))
        return self.head(jax.nn.relu(self.depth(x)))


class ResNet(nn.Module):
    """Two stages of two blocks; the second narrows, by a product of its own."""

    @nn.compact
    def __call__(self, x, train):
        conv = functools.partial(nn.Conv, use_bias=False)
        norm = functools.partial(nn.BatchNorm, use_running_average=not train)
        x = nn.relu(norm()(conv(16, (3, 3), name="stem")(x)))
        for stage, width in enumerate((16, 32)):
            for block in range(2):
                at = f"{stage}{block}"
                stride = 2 if stage and not block else 1
                h = conv(width, (3, 3), stride, name=f"first_{at}")(x)
                h = conv(width, (3, 3), name=f"second_{at}")(nn.relu(norm()(h)))
                if stride > 1:
                    x = norm()(conv(width, (1, 1), stride, name=f"skip_{at}")(x))
                x = nn.relu(x + norm()(h))
        return nn.Dense(4, name="head")(x.mean((1, 2)))


RESNET = {
    "*/stem/kernel": ("input", (27, 144)),
    "*/first_0?/kernel": ("hidden", (144, 144)),
    "*/second_0?/kernel": ("residual", (144, 144)),
    "*/first_10/kernel": ("hidden", (144, 288)),
    "*/skip_10/kernel": ("hidden", (16, 32)),
    "*/first_11/kernel": ("hidden", (288, 288)),
    "*/second_1?/kernel": ("residual", (288, 288)),
    "*/head/kernel": ("readout", (32, 4)),
    "*/head/bias": "bias",
    "*/BatchNorm_*/scale": "gain",
    "*/BatchNorm_*/bias": "offset",
}


class PreActivation(nn.Module):
    """Bottlenecks behind norms and activations (He et al., 2016), with GroupNorm."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(16, (3, 3), name="stem")(x)
        for block, width in enumerate((16, 32)):
            y = nn.relu(nn.GroupNorm(4)(x))
            if x.shape[-1] != width:
                x = nn.Conv(width, (1, 1), name=f"skip_{block}")(y)
            y = nn.Conv(8, (1, 1), name=f"down_{block}")(y)
            y = nn.Conv(8, (3, 3), name=f"mid_{block}")(nn.relu(nn.GroupNorm(4)(y)))
            y = nn.Conv(width, (1, 1), name=f"up_{block}")(nn.relu(nn.GroupNorm(4)(y)))
            x = x + y
        x = nn.relu(nn.GroupNorm(4)(x))
        return nn.Dense(4, name="head")(x.mean((1, 2)))


class EquinoxBlock(eqx.Module):
    """A residual block of Equinox, with GroupNorm, between two convolutions."""

    stem: eqx.nn.Conv2d
    one: eqx.nn.Conv2d
    two: eqx.nn.Conv2d
    norms: list
    head: eqx.nn.Linear

    def __init__(self, key):
        self.stem = eqx.nn.Conv2d(3, 16, 3, padding=1, key=key)
        self.one = eqx.nn.Conv2d(16, 16, 3, padding=1, use_bias=False, key=key)
        self.two = eqx.nn.Conv2d(16, 16, 3, padding=1, use_bias=False, key=key)
        self.norms = [eqx.nn.GroupNorm(4, 16), eqx.nn.GroupNorm(4, 16)]
        self.head = eqx.nn.Linear(16, 4, key=key)

    def __call__(self, x):
        x = self.stem(x)
        h = self.norms[1](self.one(jax.nn.relu(self.norms[0](x))))
        x = x + self.two(jax.nn.relu(h))
        return self.head(x.mean((1, 2)))


class UNet(nn.Module):
    """One step down and up; what was before is joined to what comes back."""

    @nn.compact
    def __call__(self, x):
        x = nn.silu(nn.Conv(8, (3, 3), name="stem")(x))
        h = nn.silu(nn.Conv(16, (3, 3), (2, 2), name="down")(x))
        h = nn.silu(nn.Conv(16, (3, 3), name="middle")(h))
        h = jnp.repeat(jnp.repeat(h, 2, 1), 2, 2)
        h = nn.silu(nn.Conv(8, (3, 3), name="up")(h))
        h = jnp.concatenate([x, h], -1)
        h = nn.silu(nn.Conv(8, (3, 3), name="join")(h))
        h = jax.image.resize(h, (2, 16, 16, 8), "bilinear")
        return nn.Conv(3, (1, 1), name="pixels")(h)


class SqueezeExcite(nn.Module):
    """Gates of channels from their means, in a residual block."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(16, (3, 3), name="stem")(x)
        h = nn.relu(nn.Conv(16, (3, 3), name="conv")(nn.relu(x)))
        h = nn.Conv(16, (3, 3), name="last")(h)
        s = nn.relu(nn.Dense(4, name="squeeze")(h.mean((1, 2))))
        s = nn.sigmoid(nn.Dense(16, name="excite")(s))
        x = x + h * s[:, None, None]
        return nn.Dense(4, name="head")(nn.relu(x).mean((1, 2)))


class OneDimension(nn.Module):
    """Dilated and causal, as WaveNet's; gated, with skips to the output."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(8, (1,), name="stem")(x)
        skips = 0.0
        for step in range(2):
            conv = functools.partial(
                nn.Conv, 8, (2,), padding="CAUSAL", kernel_dilation=2**step
            )
            gate = nn.sigmoid(conv(name=f"gate_{step}")(x))
            h = jnp.tanh(conv(name=f"filter_{step}")(x)) * gate
            skips = skips + nn.Conv(12, (1,), name=f"skip_{step}")(h)
            x = x + nn.Conv(8, (1,), name=f"back_{step}")(h)
        return nn.Conv(5, (1,), name="head")(nn.relu(skips))


CONV = [("input", (27, 144)), ("hidden", (240, 480)), ("readout", (32, 4))]


def _conv(*paths):
    return dict(zip(paths, CONV, strict=True)) | {"*": "bias"}


CONVOLUTIONAL = {
    "convolutions, Linen": Architecture(
        Conv(), IMAGES, _conv("*/one/kernel", "*/two/kernel", "*/three/kernel")
    ),
    "convolutions, NNX": Architecture(
        NnxConv, IMAGES, _conv("one/kernel", "two/kernel", "three/kernel")
    ),
    "convolutions, Equinox": Architecture(
        EquinoxConv,
        CHANNELS_FIRST,
        _conv("one/weight", "two/weight", "three/weight"),
    ),
    "convolutions, Haiku": Architecture(
        hk.without_apply_rng(hk.transform(call_haiku_conv)),
        IMAGES,
        _conv("conv2_d/w", "conv2_d_1/w", "linear/w"),
    ),
    "convolutions, functions": Architecture(
        (
            make(
                m=(16, 3, 3, 3),
                mb=(16,),
                n=(32, 16, 5, 3),
                nb=(32,),
                o=(32, 4),
                ob=(4,),
            ),
            call_conv,
        ),
        CHANNELS_FIRST,
        _conv("m", "n", "o"),
    ),
    "grouped and depthwise, Linen": Architecture(
        Grouped(),
        IMAGES,
        {
            "*/stem/kernel": ("input", (27, 144)),
            # 4 inputs of a group feed 8 outputs of it, at 9 places
            "*/groups/kernel": ("hidden", (36, 72)),
            "*/depth/kernel": ("hidden", (9, 18)),
            "*/point/kernel": ("hidden", (64, 24)),
            "*/head/kernel": ("readout", (24, 4)),
            "*/bias": "bias",
        },
    ),
    "grouped and depthwise, Equinox": Architecture(
        EquinoxGrouped,
        (data(2, 3, 12, 12),),
        {
            "stem/weight": ("input", (27, 144)),
            "groups/weight": ("hidden", (36, 72)),
            "depth/weight": ("hidden", (9, 18)),
            "head/weight": ("readout", (64, 4)),
            "*/bias": "bias",
        },
    ),
    # The shortcut's product stands in the stream: it is not the end of a branch.
    "ResNet, training": Architecture(ResNet(), IMAGES, RESNET, 4, {"train": True}),
    "ResNet, evaluation": Architecture(ResNet(), IMAGES, RESNET, 4, {"train": False}),
    "ResNet, pre-activation": Architecture(
        PreActivation(),
        IMAGES,
        {
            "*/stem/kernel": ("input", (27, 144)),
            "*/skip_1/kernel": ("hidden", (16, 32)),
            "*/down_?/kernel": ("hidden", (16, 8)),
            "*/mid_?/kernel": ("hidden", (72, 72)),
            "*/up_0/kernel": ("residual", (8, 16)),
            "*/up_1/kernel": ("residual", (8, 32)),
            "*/head/kernel": ("readout", (32, 4)),
            "*/GroupNorm_?/scale": "gain",
            "*/GroupNorm_?/bias": "offset",
            "*/bias": "bias",
        },
        branches=2,
    ),
    "residual block, Equinox": Architecture(
        EquinoxBlock,
        CHANNELS_FIRST,
        {
            "stem/weight": ("input", (27, 144)),
            "one/weight": ("hidden", (144, 144)),
            "two/weight": ("residual", (144, 144)),
            "head/weight": ("readout", (16, 4)),
            "norms/?/weight": "gain",
            "norms/?/bias": "offset",
            "*/bias": "bias",
        },
        branches=1,
    ),
    "U-Net": Architecture(
        UNet(),
        IMAGES,
        {
            "*/stem/kernel": ("input", (27, 72)),
            "*/down/kernel": ("hidden", (72, 144)),
            "*/middle/kernel": ("hidden", (144, 144)),
            "*/up/kernel": ("hidden", (144, 72)),
            "*/join/kernel": ("hidden", (144, 72)),
            "*/pixels/kernel": ("readout", (8, 3)),
            "*/bias": "bias",
        },
    ),
    # The gates of channels end no branch: they are a factor of one.
    "squeeze and excite": Architecture(
        SqueezeExcite(),
        IMAGES,
        {
            "*/stem/kernel": ("input", (27, 144)),
            "*/conv/kernel": ("hidden", (144, 144)),
            "*/last/kernel": ("residual", (144, 144)),
            "*/squeeze/kernel": ("hidden", (16, 4)),
            "*/excite/kernel": ("hidden", (4, 16)),
            "*/head/kernel": ("readout", (16, 4)),
            "*/bias": "bias",
        },
        branches=1,
    ),
    # The skips are a second stream, which starts with the first of them. Nothing reads
    # the last block's way back, which is told to be what it is in the other blocks.
    "WaveNet": Architecture(
        OneDimension(),
        (data(2, 16, 3),),
        {
            "*/stem/kernel": ("input", (3, 8)),
            "*/filter_?/kernel": ("hidden", (16, 16)),
            "*/gate_?/kernel": ("hidden", (16, 16)),
            "*/back_?/kernel": ("residual", (8, 8)),
            "*/skip_0/kernel": ("hidden", (8, 12)),
            "*/skip_1/kernel": ("residual", (8, 12)),
            "*/head/kernel": ("readout", (12, 5)),
            "*/bias": "bias",
        },
        branches=3,
    ),
}
