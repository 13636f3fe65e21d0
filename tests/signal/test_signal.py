"""`check`: known networks get their verdict, in every form that a model can have."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from inputs import draw_normal, draw_tokens
from marks import slow_but

import jaxinit as ji
from jaxinit._adapt.adapt import adapt
from jaxinit._gain import ACTIVATIONS
from jaxinit.signal import theory
from jaxinit.signal._judge.judge import judge
from jaxinit.signal._measure.program import prepare
from jaxinit.signal._measure.seeds import measure
from jaxinit.signal._recommend import find_weight_variance
from jaxinit.signal._trace.links import find_chains

pytestmark = pytest.mark.usefixtures("quick_compiler")

KEY = jax.random.key(0)
SEEDS = 20
X = draw_normal(64, 64)
IMAGES = draw_normal(16, 8, 8, 3)
TOKENS = draw_tokens(8, 16)


class Step(nn.Module):
    kernel: object
    act: object
    bias: object = ji.zeros
    norm: bool = False

    @nn.compact
    def __call__(self, x, _=None):
        dense = nn.Dense(x.shape[-1], kernel_init=self.kernel, bias_init=self.bias)
        x = dense(x)
        return self.act(nn.LayerNorm()(x) if self.norm else x), None


class Deep(nn.Module):
    """Equal layers in a loop, so that depth costs no compiling, and a head."""

    kernel: object
    act: object = nn.relu
    depth: int = 50
    bias: object = ji.zeros
    norm: bool = False
    head: object = nn.initializers.lecun_normal()
    units: int = 10

    @nn.compact
    def __call__(self, x):
        loop = nn.scan(
            Step,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=self.depth,
        )
        x, _ = loop(self.kernel, self.act, self.bias, self.norm, name="steps")(x, None)
        return nn.Dense(self.units, kernel_init=self.head, name="head")(x)


class Block(nn.Module):
    pre: bool

    @nn.compact
    def __call__(self, x, _=None):
        before = nn.LayerNorm() if self.pre else lambda x: x
        after = (lambda x: x) if self.pre else nn.LayerNorm()
        h = before(x)
        x = after(x + nn.MultiHeadDotProductAttention(4, name="attention")(h, h))
        before = nn.LayerNorm() if self.pre else lambda x: x
        after = (lambda x: x) if self.pre else nn.LayerNorm()
        h = nn.gelu(nn.Dense(128, name="up")(before(x)))
        return after(x + nn.Dense(32, name="down")(h)), None


class Transformer(nn.Module):
    pre: bool

    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(100, 32, embedding_init=ji.normal(0.02))(tokens)
        loop = nn.scan(
            Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=12
        )
        x, _ = loop(self.pre, name="blocks")(x, None)
        return nn.Dense(100)(nn.LayerNorm()(x))


class Residual(nn.Module):
    gamma: object
    train: bool

    @nn.compact
    def __call__(self, x, _=None):
        y = x
        for scale, act in ((ji.ones, nn.relu), (self.gamma, lambda y: y)):
            y = nn.Conv(16, (3, 3), use_bias=False, kernel_init=ji.he_normal())(y)
            norm = nn.BatchNorm(use_running_average=not self.train, scale_init=scale)
            y = act(norm(y))
        return nn.relu(x + y), None


class ResNet(nn.Module):
    gamma: object = ji.ones

    @nn.compact
    def __call__(self, x, train=True):
        x = nn.Conv(16, (3, 3))(x)
        loop = nn.scan(
            Residual,
            variable_axes={"params": 0, "batch_stats": 0},
            split_rngs={"params": True},
            length=8,
        )
        x, _ = loop(self.gamma, train, name="blocks")(x, None)
        return nn.Dense(10)(x.mean((1, 2)))


def variance(scale):
    return ji.variance_scaling(scale, "fan_in", "normal")


HEALTHY = {
    "relu, he": (Deep(ji.he_normal()), X),
    "tanh, critical": (Deep(variance(1.0), nn.tanh, 100), X),
    "tanh, orthogonal": (Deep(ji.orthogonal(), nn.tanh, 100), X),
    "gelu, gain": (Deep(ji.he_normal(gain="gelu"), nn.gelu, 20), X),
    "selu": (Deep(ji.lecun_normal(), nn.selu, 30), X),
    "LayerNorm": (Deep(ji.lecun_normal(), norm=True), X),
    "small head": (Deep(ji.he_normal(), depth=5, head=ji.normal(0.01)), X),
    "closed head": (Deep(ji.he_normal(), depth=5, head=ji.zeros), X),
    "pixels": (Deep(ji.he_normal(), depth=5), 255 * jnp.abs(X)),
    "pre-norm": (Transformer(True), TOKENS),
    "post-norm": (Transformer(False), TOKENS),
    "ResNet": (ResNet(), IMAGES),
    "ResNet, zero gamma": (ResNet(ji.zeros), IMAGES),
    "LSTM": (nn.RNN(nn.OptimizedLSTMCell(16)), X.reshape(8, 8, 64)),
}
SICK = {
    "relu, lecun": (Deep(ji.lecun_normal()), X, "vanishing"),
    "relu, normal(1)": (Deep(ji.normal(1.0)), X, "exploding"),
    "zeros": (Deep(ji.zeros), X, "symmetric"),
    "constant": (Deep(ji.constant(0.01)), X, "symmetric"),
    "tanh, ordered": (Deep(variance(0.7), nn.tanh, 100), X, "vanishing"),
    "tanh, chaotic": (Deep(variance(3.0), nn.tanh, 100), X, "exploding gradient"),
    "sigmoid": (Deep(ji.glorot_normal(), nn.sigmoid, 20), X, "vanishing gradient"),
    "dead": (Deep(ji.he_normal(), depth=5, bias=ji.constant(-10.0)), X, "dead"),
    "saturated": (Deep(ji.normal(1.0), nn.tanh, 5), X, "saturated"),
}


def run(model, x, seeds=SEEDS):
    return measure(adapt(model, (x,), {}, ()), (x,), KEY, seeds, None, None, 0).layers


def of_seed(layers, seed):
    """Takes one seed of what was measured."""
    return [
        dataclasses.replace(
            m,
            forward={k: v[seed : seed + 1] for k, v in m.forward.items()},
            backward={k: v[seed : seed + 1] for k, v in m.backward.items()},
        )
        for m in layers
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", HEALTHY)
def test_no_healthy_network_is_accused(name, request):
    if "ResNet" in name:
        request.getfixturevalue("full_compiler")  # its convolutions run long
    layers = run(*HEALTHY[name])
    assert not judge(layers, 100.0)[1]
    for seed in range(SEEDS):
        assert not judge(of_seed(layers, seed), 100.0)[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", SICK)
def test_no_sick_network_passes(name):
    model, x, condition = SICK[name]
    layers = run(model, x)
    assert judge(layers, 100.0)[1][0].condition == condition
    for seed in range(SEEDS):
        found = judge(of_seed(layers, seed), 100.0)[1]
        assert found[0].condition == condition
        assert found[0].layers and found[0].reason and found[0].cure


@pytest.mark.slow
def test_an_orthogonal_linear_network_has_equal_singular_values():
    model = Deep(ji.orthogonal(), lambda x: x, head=ji.orthogonal(), units=64)
    report = ji.check(model, X, key=KEY, seeds=3, jacobian=3)
    assert report.healthy
    np.testing.assert_allclose(report.jacobian["mean_square"], 1, rtol=1e-3)
    np.testing.assert_allclose(report.jacobian["largest"], 1, rtol=1e-3)


@pytest.mark.slow
def test_the_jacobian_is_that_of_the_matrix_product():
    model = (lambda key: ji.normal(0.1)(key, (8, 5)), lambda w, x: x @ w)
    report = ji.check(model, jnp.eye(3, 8), key=KEY, seeds=2, jacobian=2)
    for seed, key in enumerate(jax.random.split(KEY, 2)):
        w = model[0](jax.random.split(key, 3)[0])
        values = np.linalg.svd(np.asarray(w), compute_uv=False)
        assert abs(report.jacobian["largest"][seed] / values[0] - 1) < 1e-3
        np.testing.assert_allclose(
            report.jacobian["mean_square"][seed], np.mean(values**2), rtol=1e-4
        )


EIGHT = ("relu", "tanh", "gelu", "silu", "selu", "sigmoid", "elu", "sin")


@pytest.mark.slow
@pytest.mark.usefixtures("full_compiler")
@pytest.mark.parametrize("name", EIGHT)
def test_measured_variances_agree_with_theory(name):
    """Width 1024, depth 30: variances lie within three standard errors of theory.

    All three bounds are on numbers fixed by the key: the last layer, and of all layers
    no more outside than one run in a thousand would have (layers hang together, so the
    share is tested, 90 %).
    """
    depth, seeds = 30, 12
    scale = min(find_weight_variance(name)[0], 3.0)
    act = ACTIVATIONS[name]
    x = jax.random.normal(jax.random.key(2), (8, 1024))
    layers = run(Deep(variance(scale), act, depth), x, seeds)[: 2 * depth]
    dense = [m for m in layers if m.site.kind == "dense"][:depth]
    moment = float(np.mean(np.square(dense[0].forward["input_rms"])))
    weights = [
        float(np.mean(np.square(m.forward["weight_std"], dtype=float))) * 1024
        for m in dense
    ]
    profile = theory.profile(name, weights, depth=depth, input_moment=moment)
    off = []
    for layer, q in zip(dense, profile.variance, strict=True):
        measured = np.square(layer.forward["rms"], dtype=float)
        error = measured.std(ddof=1) / np.sqrt(seeds)
        off.append(abs(measured.mean() - q) / max(error, 1e-6 * q))
    assert np.mean(np.array(off) < 3) >= 0.9, off
    assert off[-1] < 3


class Convolutions(nn.Module):
    kernel: object
    act: object = nn.relu
    window: tuple = (3, 3)
    padding: object = "SAME"
    strides: tuple = (1,)
    bias: object = ji.zeros
    channels: int = 128
    depth: int = 10

    @nn.compact
    def __call__(self, x):
        for i in range(self.depth):
            x = nn.Conv(
                self.channels,
                self.window,
                self.strides[i % len(self.strides)],
                padding=self.padding,
                kernel_init=self.kernel,
                bias_init=self.bias,
            )(x)
            x = self.act(x)
        return x


LINE = draw_normal(4, 16, 8)
IMAGE = draw_normal(4, 8, 8, 16)
GELU = ji.he_normal(gain="gelu")
CONVOLUTIONS = {
    "line, SAME, tanh": (Convolutions(variance(1.0), jnp.tanh, (3,), depth=4), LINE),
    "line, CAUSAL, relu": (
        Convolutions(ji.he_normal(), window=(3,), padding="CAUSAL", channels=256),
        LINE,
    ),
    "SAME, relu": (Convolutions(ji.he_normal()), IMAGE),
    "SAME, tanh, bias": (
        Convolutions(variance(1.7), jnp.tanh, bias=ji.normal(0.3)),
        IMAGE,
    ),
    "VALID, gelu": (
        Convolutions(GELU, nn.gelu, (2, 2), "VALID", channels=256, depth=6),
        IMAGE,
    ),
    "strided, gelu": (
        Convolutions(GELU, nn.gelu, strides=(1, 1, 1, 2)),
        IMAGE,
    ),
    "circular, tanh": (
        Convolutions(variance(1.0), jnp.tanh, padding="CIRCULAR"),
        IMAGE,
    ),
    "solid, SAME, tanh": (
        Convolutions(variance(1.0), jnp.tanh, (3, 3, 3), channels=64, depth=4),
        IMAGE.reshape(4, 4, 4, 4, 16),
    ),
}


@pytest.mark.usefixtures("full_compiler")
@pytest.mark.parametrize("name", slow_but(["line, SAME, tanh"], CONVOLUTIONS))
@pytest.mark.slow
def test_measured_convolutions_agree_with_theory(name):
    """As above, of signals and gradients; the last gradient is where theory starts."""
    layers, _ = judge(run(*CONVOLUTIONS[name]), 100.0)
    layers = [layer for layer in layers if layer.kind == "conv"]
    assert len(layers) == CONVOLUTIONS[name][0].depth
    for side, theirs in (("rms", "std"), ("gradient_rms", "gradient_std")):
        off = []
        for layer in layers[: None if side == "rms" else -1]:
            measured = np.square(layer.values(side))
            error = measured.std(ddof=1) / np.sqrt(SEEDS)
            off.append(abs(measured.mean() - layer.predicted[theirs] ** 2) / error)
        assert np.mean(np.array(off) < 3) >= 0.9, off
        assert off[-1] < 3


@pytest.mark.slow
def test_theory_knows_of_zero_padding():
    """At the border of a 4 x 4 image a third or more of the signal is missing."""
    convolutions = Convolutions(ji.he_normal(), channels=64, depth=4)
    model = nn.Sequential([convolutions, flat, nn.Dense(64)])
    report = ji.check(model, IMAGE[:, :4, :4], key=KEY, seeds=12, jacobian=0)
    layers = [layer for layer in report.layers if layer.kind != "module"]
    assert [layer.kind for layer in layers] == ["conv"] * 4 + ["dense"]
    for name in ("std", "gradient_std"):
        for layer in layers:
            assert abs(layer.predicted[name] / layer.mean(name) - 1) < 0.1
    assert 2.0**0.5 > 1.5 * layers[3].mean("std")  # what it is in dense layers
    assert "theory" in str(report)
    assert all(layer["predicted"] for layer in report.to_dict()["layers"][:4])


@pytest.mark.slow
def test_theory_knows_which_taps_have_weights():
    """The taps of delta_orthogonal that are not zero never lie on the padding."""
    model = Convolutions(ji.delta_orthogonal(), jnp.tanh, depth=3)
    report = ji.check(model, IMAGE, key=KEY, seeds=4, jacobian=0)
    for layer in (layer for layer in report.layers if layer.kind == "conv"):
        assert abs(layer.predicted["std"] / layer.mean("std") - 1) < 0.01


WINDOWS = [
    ((7,), (3,), {"padding": "SAME", "rhs_dilation": (2,)}),
    ((5,), (4,), {"padding": [(3, 3)], "lhs_dilation": (2,)}),
    ((6, 5), (3, 2), {"padding": ((2, 0), (-1, 3)), "window_strides": (2, 1)}),
    ((4, 4), (3, 3), {"padding": "SAME", "feature_group_count": 2}),
    ((3, 4, 5), (2, 2, 2), {"padding": "SAME", "window_strides": (1, 2, 3)}),
]


@pytest.mark.parametrize(
    ("shape", "window", "options"), slow_but(WINDOWS[:1], WINDOWS, rows=True)
)
@pytest.mark.slow
def test_windows_are_those_of_the_convolution(shape, window, options):
    """Variances go through the convolution itself, with the variances of its taps."""
    axes, ones = "HWD"[: len(shape)], (1,) * len(shape)
    numbers = f"N{axes}C", f"{axes}IO", f"N{axes}C"
    inputs = 8 // options.get("feature_group_count", 1)
    x = jax.random.normal(KEY, (3, *shape, 4))

    def conv(x, w, **options):
        options = {"window_strides": ones, "padding": "VALID", **options}
        return jax.lax.conv_general_dilated(x, w, dimension_numbers=numbers, **options)

    def init(key):
        one, two = jax.random.split(key)
        window_of_two = jax.random.normal(two, (*window, inputs, 6))
        return jax.random.normal(one, (*ones, 4, 8)), window_of_two

    def apply(params, x):
        return conv(conv(x, params[0]), params[1], **options)

    def law(w):  # [seeds, *taps, inputs, outputs], of one seed: its variance by tap
        taps = (w**2).mean((0, -2, -1), keepdims=True)[0]
        size = w.reshape(len(w), -1).var(1).mean() / taps.mean()
        return jnp.broadcast_to(size * taps, w.shape[1:])

    def by_place(x):
        return jnp.broadcast_to((x**2).mean((0, -1), keepdims=True), x.shape)

    drawn = [init(jax.random.split(key, 3)[0]) for key in jax.random.split(KEY, 2)]
    one, two = (law(jnp.stack(w)) for w in zip(*drawn, strict=True))
    first = conv(by_place(x), one)
    second, pullback = jax.vjp(lambda q: conv(q, two, **options), first)
    y = jax.random.normal(jax.random.key(2), second.shape)
    (gradient,) = pullback(by_place(y))
    found = ji.check(
        (init, apply), x, key=KEY, seeds=2, jacobian=0, loss=lambda z: (z * y).sum()
    )
    for name, expected in (
        ("std", (first, second)),
        ("gradient_std", (gradient, y**2)),
    ):
        for layer, field in zip(found.layers, expected, strict=True):
            assert abs(layer.predicted[name] ** 2 / field.mean() - 1) < 1e-4


def conv(features=8, padding="SAME"):
    return nn.Conv(features, (3, 3), padding=padding)


class Nnx(nnx.Module):
    def __init__(self, *, rngs):
        options = {"kernel_size": (3, 3), "padding": "CIRCULAR", "rngs": rngs}
        self.one = nnx.Conv(3, 8, **options)
        self.two = nnx.Conv(8, 8, **options)
        self.head = nnx.Linear(8 * 8 * 8, 3, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.two(nnx.relu(self.one(x))))
        return self.head(x.reshape(x.shape[0], -1))


def flat(x):
    return x.reshape(len(x), -1)


def pooled(x):
    return nn.max_pool(x, (2, 2))


def image(x):
    return x.reshape(-1, 4, 4, 1)


class Skip(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(conv()(x))
        return conv()(x + conv()(nn.relu(conv()(x))))


@pytest.mark.parametrize(
    ("model", "x", "expected"),
    [
        ([conv(), nn.relu, conv(), jnp.tanh, conv()], IMAGES, ["012"]),
        ([conv(padding=p) for p in ("SAME", "CIRCULAR", "REFLECT")], IMAGES, ["012"]),
        ([nn.Conv(4, (3,), padding="CAUSAL") for _ in range(2)], LINE, ["01"]),
        ([conv(), nn.relu, flat, nn.Dense(8), nn.relu, nn.Dense(3)], IMAGES, ["012"]),
        ([conv(), nn.relu, nn.Dense(8), nn.Dense(3)], IMAGES, ["12"]),
        ([nn.Dense(16), jnp.tanh, image, conv(), flat, nn.Dense(8)], X, ["012"]),
        ([conv(), nn.relu, pooled, conv(), conv()], IMAGES, ["12"]),
        ([conv(), lambda x: x.mean((1, 2)), nn.Dense(8)], IMAGES, []),
        ([conv(), nn.LayerNorm(), nn.relu, conv(), nn.relu, conv()], IMAGES, ["12"]),
        ([conv(), lambda x: jnp.pad(x, 1, constant_values=2.0), conv()], IMAGES, []),
        ([conv(), lambda x: jnp.concatenate([x, x[:1]]), conv()], IMAGES, []),
        ([Skip()], IMAGES, ["12"]),
        (Nnx, IMAGES, ["012"]),
    ],
)
def test_layers_follow_each_other_where_theory_goes_on(model, x, expected):
    model = nn.Sequential(model) if isinstance(model, list) else model
    sites = prepare(adapt(model, (x,), {}, ()), (x,), KEY).sites
    numbers = [site.number for site, _ in sites if site.kind != "module"]
    found = [
        "".join(str(numbers.index(s.number)) for s in c) for c in find_chains(sites)
    ]
    assert found == expected


def mlp(depth):
    def init(key):
        keys = jax.random.split(key, depth)
        return [{"w": ji.he_normal()(k, (64, 64)), "b": jnp.zeros(64)} for k in keys]

    def apply(params, x):
        for layer in params:
            x = jnp.tanh(x @ layer["w"] + layer["b"])
        return x

    return init, apply


def test_a_report_predicts_a_chain():
    report = ji.check(mlp(6), X, key=KEY, seeds=8, jacobian=0)
    assert [layer.path for layer in report.layers] == list("012345")
    assert {layer.activation for layer in report.layers} == {"tanh"}
    for layer in report.layers:
        assert abs(layer.predicted["std"] / layer.mean("std") - 1) < 0.1
        assert (
            abs(layer.predicted["gradient_std"] / layer.mean("gradient_std") - 1) < 0.1
        )


def test_gradients_are_those_of_the_loss():
    init, apply = mlp(2)
    report = ji.check(
        (init, apply),
        X,
        key=KEY,
        seeds=1,
        loss=lambda y: (y**2).mean(),
        jacobian=0,
    )
    params = init(jax.random.split(jax.random.split(KEY, 1)[0], 3)[0])
    value, grads = jax.value_and_grad(lambda p: (apply(p, X) ** 2).mean())(params)
    np.testing.assert_allclose(report.loss, [value], rtol=1e-5)
    for layer, grad in zip(report.layers, grads, strict=True):
        rms = np.sqrt(np.mean(np.square(grad["w"])))
        np.testing.assert_allclose(layer.backward["weight_std"], [rms], rtol=1e-4)
    z = X @ params[0]["w"]
    first = report.layers[0].forward
    np.testing.assert_allclose(first["std"], [z.std()], rtol=1e-5)
    np.testing.assert_allclose(first["mean"], [z.mean()], atol=1e-6)
    np.testing.assert_allclose(
        first["saturated"], [np.mean(1 - np.tanh(z) ** 2 < 0.05)], atol=1e-6
    )
    unit = np.asarray(z) / np.linalg.norm(z, axis=1, keepdims=True)
    cosine = (unit * np.roll(unit, 1, 0)).sum(1).mean()
    np.testing.assert_allclose(first["distance"], [1 - cosine], rtol=1e-4)


class Net(nnx.Module):
    def __init__(self, *, rngs):
        self.lin = nnx.Linear(64, 64, kernel_init=ji.he_normal(), rngs=rngs)
        self.norm = nnx.BatchNorm(64, rngs=rngs)
        self.drop = nnx.Dropout(0.1, rngs=rngs)
        self.head = nnx.Linear(64, 3, rngs=rngs)

    def __call__(self, x):
        return self.head(self.drop(nnx.relu(self.norm(self.lin(x)))))


def factory(rngs):
    return Net(rngs=rngs)


def test_nnx_classes_and_factories():
    call = Net.__call__
    report = ji.check(Net, X, key=KEY, seeds=2, jacobian=1)
    assert [layer.path for layer in report.layers][:2] == ["lin", "norm"]
    assert report.healthy and report.jacobian["largest"].shape == (1,)
    assert Net.__call__ is call
    of_class, of_factory = (
        adapt(model, (X,), {}, ("dropout",)) for model in (Net, factory)
    )
    one, same = (str(jax.make_jaxpr(m.init)(KEY)) for m in (of_class, of_factory))
    assert one == same
    weights = jax.eval_shape(of_class.init, KEY)
    jax.eval_shape(of_factory.init, KEY)
    one, same = (
        str(jax.make_jaxpr(m.apply)(*weights, KEY, X)) for m in (of_class, of_factory)
    )
    assert one == same


@pytest.mark.slow
def test_statistics_of_nnx_factories_are_those_of_classes():
    one, same = (
        ji.check(m, X, key=KEY, seeds=2, jacobian=0).layers for m in (Net, factory)
    )
    for a, b in zip(one, same, strict=True):
        np.testing.assert_array_equal(a.forward["std"], b.forward["std"])


class Several(nn.Module):
    @nn.compact
    def __call__(self, tokens, x, train=False):
        embed = nn.Embed(10, 16)
        h = embed(tokens) + nn.Dense(16)(x)
        h = nn.Dropout(0.5, deterministic=not train)(nn.relu(nn.Dense(16)(h)))
        return {"logits": embed.attend(h), "pooled": h.mean(0)}


@pytest.mark.slow
def test_several_inputs_streams_and_outputs():
    inputs = (jnp.arange(4), X[:4, :3])
    report = ji.check(
        Several(), inputs, key=KEY, seeds=2, arguments={"train": True}, jacobian=1
    )
    paths = [layer.path for layer in report.layers]
    assert paths[:2] == ["Dense_0", "Dense_1"] and "Embed_0" in paths
    assert report.jacobian["largest"].shape == (1,)  # by x, since tokens have none


@pytest.mark.slow
def test_loops_have_a_row_for_each_step_and_chunks_change_nothing():
    model = Deep(ji.he_normal(), depth=3)
    one, two = (
        ji.check(model, X, key=KEY, seeds=3, jacobian=0, chunk=chunk)
        for chunk in (1, 2)
    )
    paths = [layer.path for layer in one.layers if layer.kind == "dense"]
    assert paths == [*(f"steps/Dense_0[{i}]" for i in range(3)), "head"]
    for a, b in zip(one.layers, two.layers, strict=True):
        np.testing.assert_allclose(a.forward["std"], b.forward["std"], rtol=1e-5)
        np.testing.assert_allclose(a.backward["rms"], b.backward["rms"], rtol=1e-4)


class Normed(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        return nn.BatchNorm(use_running_average=not train)(nn.Dense(8)(x))


@pytest.mark.parametrize(
    ("model", "x", "path"),
    [
        (Normed(), 3 * X[:, :16], "BatchNorm_0"),
        pytest.param(ResNet(), IMAGES, "BatchNorm_0[0]", marks=pytest.mark.slow),
    ],
)
def test_statistics_of_train_and_eval_differ(model, x, path):
    report, other = (
        ji.check(model, x, key=KEY, seeds=1, arguments={"train": t}, jacobian=0)
        for t in (True, False)
    )
    by_path = {layer.path: layer for layer in other.layers}
    layer = next(m for m in report.layers if path in m.path)
    assert abs(layer.mean("std") - 1) < 0.01
    assert abs(by_path[layer.path].mean("std") - 1) > 0.05


def test_a_model_that_fails_says_so_itself():
    class Broken(nn.Module):
        @nn.compact
        def __call__(self, x):
            raise RuntimeError("my own mistake")

    with pytest.raises(RuntimeError, match="my own mistake"):
        ji.check(Broken(), X, key=KEY)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"seeds": 0}, ValueError, r"check\(seeds=0\): seeds must be 1 or above"),
        ({"jacobian": -1}, ValueError, "jacobian must be 0 or above"),
        ({"chunk": 0}, ValueError, "chunk must be 1 or above"),
        ({"limit": 1.0}, ValueError, "limit must be above 1"),
        ({"loss": 3}, TypeError, "loss must be a function of the output"),
        ({"loss": lambda y: y}, ValueError, "loss must return one real number"),
        ({"key": 0}, TypeError, "key must be a PRNG key"),
        ({"x": "text"}, TypeError, "x must be an array, or a tuple of arrays"),
        ({"model": 3}, TypeError, "must be a Flax module, an NNX class or factory"),
        ({"model": nn.Dense}, ValueError, "is a Linen class: pass a module, Dense"),
        ({"model": (len,)}, ValueError, r"a model of functions is the pair \(init_fn"),
        ({"model": lambda rngs: 3}, TypeError, "must take rngs and return an nnx.Modu"),
        (
            {"model": (lambda key: jnp.ones(3), lambda p, x: x.sum())},
            ValueError,
            "has no layer: no matrix product or convolution",
        ),
    ],
)
def test_bad_arguments(arguments, error, message):
    given = {"model": mlp(1), "x": X, "key": KEY, "seeds": 1, **arguments}
    with pytest.raises(error, match=message):
        ji.check(given.pop("model"), given.pop("x"), **given)


def test_a_module_that_has_weights_is_refused():
    with pytest.raises(ValueError, match="weights are drawn already"):
        ji.check(Net(rngs=nnx.Rngs(0)), X, key=KEY, seeds=1)


@pytest.mark.parametrize(
    ("arguments", "initializer"),
    [
        ({"activation": "relu"}, ji.he_normal()),
        ({"activation": "tanh"}, ji.lecun_normal()),
        ({"activation": "relu", "layer": "output"}, ji.lecun_normal()),
        ({"activation": "tanh", "layer": "recurrent"}, ji.orthogonal()),
        ({"activation": "relu", "layer": "embedding"}, ji.normal(0.02)),
        ({"activation": "relu", "residual": True}, ji.zeros()),
        ({"activation": "tanh", "layer": "conv"}, ji.delta_orthogonal(1.0)),
        ({"activation": "relu", "norm": "batch"}, ji.he_normal()),
    ],
)
def test_recommendations(arguments, initializer):
    found = ji.recommend(**arguments)
    assert found.initializer == initializer
    assert found.reason and str(initializer) in str(found)


@pytest.mark.parametrize("name", slow_but(EIGHT, sorted(ACTIVATIONS)))
def test_every_activation_has_a_recommendation_that_keeps_the_signal(name):
    found = ji.recommend(name, norm="layer")
    moments = found.initializer.moments((256, 256))
    profile = theory.profile(name, moments.variance * 256, depth=10)
    assert 1e-2 < profile.variance[-1] / profile.variance[0] < 1e2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"activation": "reluu"}, "activation must be one of .* Did you mean 'relu'"),
        ({"layer": "lstm"}, "layer must be one of"),
        ({"norm": "layers"}, "norm must be one of .* Did you mean 'layer'"),
        ({"depth": 0}, "depth must be 1 or above"),
    ],
)
def test_bad_recommendations(arguments, message):
    with pytest.raises(ValueError, match=message):
        ji.recommend(**{"activation": "relu", **arguments})


def test_residual_must_be_a_boolean():
    with pytest.raises(TypeError, match="residual must be True or False"):
        ji.recommend("relu", residual=1)
