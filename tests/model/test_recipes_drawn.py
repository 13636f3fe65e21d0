"""Recipes on real Flax models, alone and stacked: the standard deviations drawn."""

import re
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from marks import slow_but

import jaxinit
from jaxinit import preview, recipes, reinit
from jaxinit._paths import named

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))  # bench is no part of the installed package

from bench import models  # noqa: E402

pytestmark = pytest.mark.usefixtures("quick_compiler")
KEY = jax.random.key(3)

# recipes


class EncoderBlock(nn.Module):
    @nn.compact
    def __call__(self, x):
        width = x.shape[-1]
        h = nn.LayerNorm(name="norm1")(x)
        x = x + nn.MultiHeadDotProductAttention(4, name="attention")(h)
        h = nn.Dense(4 * width, name="fc1")(nn.LayerNorm(name="norm2")(x))
        return x + nn.Dense(width, name="fc2")(nn.gelu(h))


class Encoder(nn.Module):
    """A transformer of Flax's own attention, tokens to classes."""

    layers: int = 2
    width: int = 64

    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(512, self.width)(tokens)
        x = x + self.param("pos", nn.initializers.zeros, (4, self.width))
        for i in range(self.layers):
            x = EncoderBlock(name=f"block_{i}")(x)
        return nn.Dense(10, name="head")(x)


class Generator(nn.Module):
    """DCGAN's generator, small."""

    @nn.compact
    def __call__(self, z):
        x = nn.ConvTranspose(64, (4, 4), padding="VALID", name="first")(z)
        x = nn.relu(nn.BatchNorm(use_running_average=False, name="norm")(x))
        return nn.ConvTranspose(3, (4, 4), (2, 2), name="last")(x)


class Detector(nn.Module):
    """RetinaNet's heads."""

    @nn.compact
    def __call__(self, x):
        for i in range(2):
            x = nn.relu(nn.Conv(32, (3, 3), name=f"tower_{i}")(x))
        boxes = nn.Conv(4 * 9, (3, 3), name="box_head")(x)
        return nn.Conv(9 * 20, (3, 3), name="class_head")(x), boxes


class PlainBlock(nn.Module):
    """A residual block without norm."""

    @nn.compact
    def __call__(self, x):
        h = nn.relu(nn.Conv(32, (3, 3), name="conv1")(x))
        h = nn.Conv(32, (3, 3), name="conv2")(h)
        return nn.relu(h + nn.Conv(32, (1, 1), name="proj")(x))


class PlainResNet(nn.Module):
    """A residual network without norms."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(16, (3, 3), name="stem")(x)
        for i in range(4):
            x = PlainBlock(name=f"block_{i}")(x)
        return nn.Dense(10, name="head")(x.mean((1, 2)))


TOKENS, IMAGE = jnp.zeros((1, 4), jnp.int32), jnp.zeros((1, 32, 32, 3))
GPT = models.GPT(8, 64, 4, 512, 64)
MODELS = {
    "gpt": lambda key: GPT.init(key, TOKENS)["params"],
    "encoder": lambda key: Encoder().init(key, TOKENS)["params"],
    "vit": lambda key: nnx.state(models.ViT(nnx.Rngs(key), 2, 64, 4, 8, 32, 100)),
    "resnet": lambda key: nnx.state(models.ResNet(nnx.Rngs(key), (2, 1), 16, 100)),
    "generator": lambda key: Generator().init(key, jnp.zeros((1, 1, 1, 32)))["params"],
    "detector": lambda key: Detector().init(key, jnp.zeros((1, 8, 8, 16)))["params"],
    "plain": lambda key: PlainResNet().init(key, IMAGE)["params"],
}
HEADS = {"query": (64, 64), "key": (64, 64), "value": (64, 64), "out": (64, 64)}


def abstract(model):
    """Returns the parameters of a model as shapes and dtypes."""
    tree = jax.eval_shape(MODELS[model], jax.random.key(0))
    return {
        path: leaf
        for path, leaf in named(tree)
        if jnp.issubdtype(leaf.dtype, jnp.floating)
        and not path.endswith(("/mean", "/var"))
    }


def kernel_fans(path, shape):
    """Returns fans by hand: attention is 64 to 64, convolutions count their window."""
    name = path.split("/")[-2]
    if name in HEADS and len(shape) == 3:
        return HEADS[name]
    window = int(np.prod(shape[:-2]))
    return window * shape[-2], window * shape[-1]


def fan_in(power=-0.5, times=1.0):
    return lambda path, shape: times * kernel_fans(path, shape)[0] ** power


def xavier(gain=1.0):
    return lambda path, shape: gain * (2 / sum(kernel_fans(path, shape))) ** 0.5


def he_out(path, shape):
    return (2 / kernel_fans(path, shape)[1]) ** 0.5


def moco(path, shape):
    return (2 / (shape[0] + shape[1] / 3)) ** 0.5


def torch_bias(path, shape):
    return (3 * (256 if "fc2" in path else 64)) ** -0.5


def torch_patches(path, shape):
    return (3 * 3 * 64) ** -0.5  # of the kernel and its bias, by windows of 8×8×3


def by_width(times=1.0):
    return lambda path, shape: times / shape[-1] ** 0.5


CUT = 0.8796256610342398  # standard deviation of a normal law cut at two
RECIPES = {
    # recipe: model, rules, and by the end of the path the standard deviation
    "gpt2": (
        "gpt",
        recipes.gpt2(8),
        {"(c_proj|mlp_out)/kernel": 0.005, "kernel|embedding": 0.02},
    ),
    "llama": (
        "gpt",
        recipes.llama(2, std=0.01),
        {"(c_proj|mlp_out)/kernel": 0.005, "kernel|embedding": 0.01},
    ),
    "gpt_neox": (
        "gpt",
        recipes.gpt_neox(8, 64),
        {"(c_proj|mlp_out)/kernel": 1 / 32, "kernel|embedding": (2 / 320) ** 0.5},
    ),
    "t5": (
        "encoder",
        [("pos", 0.0), *recipes.t5(16)],
        {"query/kernel": fan_in(times=0.25), "kernel": fan_in(), "embedding": 1.0},
    ),
    "bert": ("encoder", recipes.bert(), {"kernel|embedding|pos": 0.02 * CUT}),
    "torch": (
        "encoder",
        [("pos", 0.0), *recipes.torch_default()],
        {
            "(query|key|value)/kernel": (2 / 256) ** 0.5,
            "(query|key|value|out|norm1|norm2)/bias": 0.0,
            "kernel": fan_in(times=3**-0.5),
            "embedding": 1.0,
            "bias": torch_bias,
        },
    ),
    "vit": (
        "vit",
        recipes.vit(""),
        {"patches/(kernel|bias)": torch_patches, "kernel|pos|cls": 0.02},
    ),
    "vit jax": (
        "vit",
        recipes.vit("jax"),
        {
            "head/kernel": 0.0,
            "patches/kernel": fan_in(),
            "mlp_(in|out)/bias": 1e-6,
            "kernel": xavier(),
            "pos": 0.02,
        },
    ),
    "vit jax_nlhb": (
        "vit",
        recipes.vit("jax_nlhb"),
        {
            "head/kernel": 0.0,
            "patches/kernel": fan_in(),
            "mlp_(in|out)/bias": 1e-6,
            "kernel": xavier(),
            "pos": 0.02,
        },
    ),
    "vit moco": (
        "vit",
        recipes.vit("moco", qkv=("**/mlp_in/kernel",)),
        {
            "mlp_in/kernel": moco,
            "patches/kernel": (2 / (3 * 64 + 64)) ** 0.5,
            "kernel": xavier(),
            "pos|cls": 0.02,
        },
    ),
    "resnet": (
        "resnet",
        recipes.resnet(),
        {"head/kernel": 0.01, "kernel": he_out},
    ),
    "dcgan": ("generator", recipes.dcgan(), {"kernel|scale": 0.02}),
    "detection": ("detector", recipes.detection_head(0.01), {"kernel": 0.01}),
    "deepnorm": (
        "encoder",
        [("pos", 0.0), *recipes.deepnorm(18)],
        {
            "(value|out|fc1|fc2)/kernel": xavier(144**-0.25),
            "kernel": xavier(),
            "embedding": by_width(),
        },
    ),
    "deepnorm decoder": (
        "encoder",
        [("pos", 0.0), *recipes.deepnorm(6, decoder_layers=9, part="decoder")],
        {
            "(value|out|fc1|fc2)/kernel": xavier(108**-0.25),
            "kernel": xavier(),
            "embedding": by_width(),
        },
    ),
    "t_fixup": (
        "encoder",
        [("pos", 0.0), *recipes.t_fixup(6)],
        {
            "(value|out|fc1|fc2)/kernel": xavier(0.67 * 6**-0.25),
            "kernel": xavier(),
            "embedding": by_width(54**-0.25),
        },
    ),
    "fixup": (
        "plain",
        recipes.fixup(4),
        {
            "(conv2|head)/kernel": 0.0,
            "conv1/kernel": fan_in(times=2**0.5 / 2),
            "kernel": fan_in(times=2**0.5),
        },
    ),
}


FIRST = ["gpt2", "torch", "vit jax", "resnet"]


@pytest.mark.parametrize("name", slow_but(FIRST, RECIPES))
def test_recipes(name):
    """Every parameter has the standard deviation of the source, to five errors."""
    model, rules, expected = RECIPES[name]
    assignments = preview(abstract(model), rules)
    made = assignments.draw(jax.random.key(11))
    for row in assignments.rows:
        assert row.rule is not None, row.path
        std = next(
            (s for p, s in expected.items() if re.search(f"({p})$", row.path)), 0
        )
        std = std(row.path, row.shape) if callable(std) else std
        values = np.asarray(made[row.path], np.float64)
        found = np.sqrt(np.mean((values - values.mean()) ** 2))
        error = 5 * std / np.sqrt(max(values.size - 1, 1))
        assert abs(found - std) <= error + 1e-12, (row, found, std)
        assert row.std == pytest.approx(std, rel=1e-5, abs=1e-12), row


def test_recipes_beside_their_standard_deviations():
    made = reinit(KEY, abstract("resnet"), recipes.resnet())
    assert not made["blocks/0/bn3/scale"].any() and made["blocks/0/bn2/scale"].all()
    made = reinit(KEY, abstract("vit"), recipes.vit("jax_nlhb"))
    np.testing.assert_allclose(made["head/bias"], -np.log(100), rtol=1e-6)
    made = reinit(KEY, abstract("detector"), recipes.detection_head(0.1))
    np.testing.assert_allclose(jax.nn.sigmoid(made["class_head/bias"]), 0.1, rtol=1e-5)
    assert not made["box_head/bias"].any()
    made = reinit(KEY, abstract("generator"), recipes.dcgan())
    assert abs(made["norm/scale"].mean() - 1) < 0.02
    assert recipes.deepnorm_alpha(18) == pytest.approx(36**0.25)
    assert recipes.deepnorm_alpha(6, decoder_layers=6) == pytest.approx(
        0.81 * 6 ** (5 / 16)
    )


# stacks


class Stacked(nn.Module):
    """Blocks that `nn.scan` stacks along an axis."""

    block: type[nn.Module]
    layers: int = 3
    axis: int = 0

    @nn.compact
    def __call__(self, x):
        class Step(nn.Module):
            block: type[nn.Module]

            @nn.compact
            def __call__(self, x, _):
                return self.block(name="block")(x), None

        scan = nn.scan(
            Step,
            variable_axes={"params": self.axis},
            split_rngs={"params": True},
            length=self.layers,
        )
        return scan(self.block, name="layers")(x, None)[0]


def params_of(module, x):
    return jax.eval_shape(lambda key: module.init(key, x)["params"], KEY)


BLOCKS = {
    EncoderBlock: jnp.ones((1, 4, 64)),
    PlainBlock: jnp.ones((1, 8, 8, 32)),
}
STACKED = {
    "gpt2": (EncoderBlock, recipes.gpt2(3)),
    "gpt_neox": (EncoderBlock, recipes.gpt_neox(3, 64)),
    "t5": (EncoderBlock, recipes.t5(16)),
    "bert": (EncoderBlock, recipes.bert()),
    "torch": (EncoderBlock, recipes.torch_default()),
    "vit": (EncoderBlock, recipes.vit("jax", mlp=("**/fc*/bias",))),
    "deepnorm": (EncoderBlock, recipes.deepnorm(3)),
    "t_fixup": (EncoderBlock, recipes.t_fixup(3)),
    "fixup": (PlainBlock, recipes.fixup(3)),
    "resnet": (PlainBlock, recipes.resnet()),
}


@pytest.mark.parametrize("axis", slow_but([1], [0, 1]))
@pytest.mark.parametrize("name", slow_but(["gpt2", "torch", "resnet"], STACKED))
def test_a_stack_has_the_laws_of_its_layers(name, axis):
    block, rules = STACKED[name]
    alone = preview({"block": params_of(block(), BLOCKS[block])}, rules)
    params = params_of(Stacked(block, axis=axis), BLOCKS[block])
    assigned = preview(params, rules, stacked={"layers/**": axis}, strict=False)
    expected = {f"layers/{row.path}": (row.std, row.fans) for row in alone.rows}
    assert {row.path: (row.std, row.fans) for row in assigned.rows} == expected
    wrong = [row for row in assigned.rows if row.shape[axis] != 3]
    assert not wrong


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2", "deepnorm", "fixup"])
def test_every_layer_of_a_stack_is_drawn_by_the_law_of_one(name):
    block, rules = STACKED[name]
    alone = preview({"block": params_of(block(), BLOCKS[block])}, rules)
    stds = {f"layers/{row.path}": row.std for row in alone.rows}
    params = params_of(Stacked(block), BLOCKS[block])
    made = preview(params, rules, stacked="layers/**").draw(KEY)
    deeper = params_of(Stacked(block, 5), BLOCKS[block])
    more = preview(deeper, rules, stacked="layers/**").draw(KEY)
    others = dict(named(more))
    for path, leaf in named(made):
        np.testing.assert_array_equal(leaf, others[path][:3])
        for i, layer in enumerate(np.asarray(leaf, np.float64)):
            error = 5 * stds[path] / np.sqrt(max(layer.size - 1, 1))
            assert abs(layer.std() - stds[path]) <= error + 1e-12, (path, i)
            assert not stds[path] or (layer != np.asarray(leaf)[i - 1]).all()


def test_rules_see_one_layer_of_a_stack():
    params = {
        "layers": {"kernel": jnp.ones((2, 3, 8, 4)), "bias": jnp.ones((2, 3, 4))},
        "head": {"kernel": jnp.ones((4, 2))},
    }

    def bias(path, leaf, siblings):
        assert leaf.shape == (4,)
        return 1 / siblings["kernel"].shape[0]

    rules = [((8, 4), jax.nn.initializers.orthogonal()), ("bias", bias), ("head/*", 2)]
    assigned = preview(params, rules, stacked={"layers/*": (0, 1)})
    made = assigned.draw(KEY)
    gram = jnp.einsum("abij,abik->abjk", *[made["layers"]["kernel"]] * 2)
    np.testing.assert_allclose(gram, np.broadcast_to(np.eye(4), gram.shape), atol=1e-5)
    assert (made["layers"]["bias"] == 1 / 8).all() and (
        made["head"]["kernel"] == 2
    ).all()
    layer = np.arange(32.0).reshape(8, 4)
    whole = np.arange(24.0).reshape(2, 3, 4)
    made = reinit(
        *(KEY, params, [("layers/kernel", layer), ("bias", whole)]),
        stacked={re.compile("kernel|bias"): (0, 1), "**": ()},
    )
    np.testing.assert_array_equal(made["layers"]["kernel"][1, 2], layer)
    np.testing.assert_array_equal(made["layers"]["bias"], whole)


@pytest.mark.slow
def test_stacks_of_nnx():
    @nnx.split_rngs(splits=3)
    @nnx.vmap(in_axes=0, out_axes=0)
    def layers(rngs):
        return nnx.Linear(64, 32, rngs=rngs)

    model = nnx.Dict(
        layers=layers(nnx.Rngs(0)), head=nnx.Linear(32, 2, rngs=nnx.Rngs(1))
    )
    rules = recipes.torch_default()
    made = reinit(KEY, model, rules, stacked="layers/*")
    assert made.layers.bias[...].shape == (3, 32)
    for leaf in (made.layers.kernel[...], made.layers.bias[...]):
        assert 0.95 / 8 < abs(leaf).max() <= 1 / 8
    rows = jaxinit.describe(nnx.state(made), rules=rules, stacked="layers/*").parameters
    expected = {row.path: row.expected for row in rows}
    assert expected["layers/bias"] == expected["layers/kernel"]
    assert expected["layers/kernel"] == pytest.approx(64**-0.5 / 3**0.5)


def test_messages_of_stacks():
    params = {"layers": {"kernel": jnp.ones((12, 8, 4)), "bias": jnp.ones((12, 4))}}
    he = [("kernel", jaxinit.he_normal())]
    with pytest.raises(
        ValueError,
        match=r"layers/kernel by the rule kernel: sizes \(12, 8, 4\) beside a bias of "
        r"sizes \(12, 4\) are .* a law of one. Say stacked='layers/\*'",
    ):
        reinit(KEY, params, he)
    with pytest.raises(ValueError, match="are those of stacked layers"):
        reinit(KEY, params, recipes.torch_default())
    for rules in ([("kernel", jaxinit.he_normal(batch_axis=0))], recipes.bert()):
        preview(params, rules)
    with pytest.raises(ValueError, match=r"stacked=...\): layer matches no parameter"):
        preview(params, he, stacked="layer")
    with pytest.raises(TypeError, match=r"stacked=3\): needs a pattern, as rules"):
        preview(params, he, stacked=3)
    with pytest.raises(
        ValueError, match=r"stacked=...\), layers/bias\(shape=\(12, 4\)\): axis=2 na"
    ):
        preview(params, he, stacked={"**": 2})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: recipes.gpt2(0),
            r"recipes.gpt2\(layers=0\): layers must be 1 or above",
        ),
        (lambda: recipes.llama(0), r"recipes.llama\(layers=0\)"),
        (lambda: recipes.gpt_neox(1, 0), r"recipes.gpt_neox\(width=0\)"),
        (lambda: recipes.gpt_neox(0, 1), r"recipes.gpt_neox\(layers=0\)"),
        (lambda: recipes.t5(0), r"recipes.t5\(head_dim=0\)"),
        (lambda: recipes.vit("timm"), r"recipes.vit\(scheme='timm'\): scheme must be"),
        (lambda: recipes.detection_head(1.0), r"prior must lie between 0 and 1, both"),
        (lambda: recipes.deepnorm(0), r"recipes.deepnorm\(layers=0\)"),
        (lambda: recipes.t_fixup(2, part="both"), r"part must be one of 'encoder', 'd"),
        (lambda: recipes.fixup(0), r"recipes.fixup\(layers=0\)"),
        (lambda: recipes.fixup(2, convolutions=1), r"convolutions must be 2 or above"),
    ],
)
def test_messages_of_recipes(call, message):
    with pytest.raises(ValueError, match=message):
        call()
