"""Layout: which axes of a kernel a recipe takes for inputs, and where it asks."""

import math

import jax
import jax.numpy as jnp
import pytest
from marks import slow_but

import jaxinit
from jaxinit import preview, recipes

KEY = jax.random.key(0)
TORCH = recipes.torch_default()
HE_OUT = recipes.resnet()


def sizes(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def layer(kernel, bias=None, name="kernel"):
    return {name: sizes(*kernel)} | ({} if bias is None else {"bias": sizes(*bias)})


def fans(params, rules=TORCH, **options):
    return {row.path: row.fans for row in preview(params, rules, **options).rows}


def stds(params, rules=TORCH, **options):
    return {row.path: row.std for row in preview(params, rules, **options).rows}


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        (layer((2304, 768), (2304,)), (768, 2304)),  # GPT-2's Conv1D of Hugging Face
        (layer((768, 2304), (2304,)), (768, 2304)),
        (layer((768, 2304)), (768, 2304)),
        (layer((64, 64), (64,)), (64, 64)),
        (layer((2304, 768), (2304,), "weight"), (768, 2304)),
        (layer((768, 2304), (2304,), "weight"), (768, 2304)),
        (layer((2304, 768), None, "weight"), (768, 2304)),
        ({"w": sizes(768, 2304), "b": sizes(2304)}, (768, 2304)),
        ({"w": sizes(2304, 768), "b": sizes(2304)}, (768, 2304)),
        (layer((3, 3, 64, 128), (128,)), (576, 1152)),
        (layer((128, 64, 3, 3), (128,), "weight"), (576, 1152)),
        (layer((128, 64, 3, 3), (128, 1, 1), "weight"), (576, 1152)),  # Equinox
        (layer((3, 3, 64, 128), (128,), "weight"), (576, 1152)),
        (layer((128, 64, 3, 3), (128,)), (576, 1152)),
        (layer((128, 64, 5), (128, 1), "weight"), (320, 640)),
    ],
)
def test_the_bias_and_the_name_tell_the_layout(params, expected):
    """Of the kernel, and the fan_in of its bias is the kernel's."""
    table = preview({"c": params}, TORCH)
    std = math.sqrt(1 / (3 * expected[0]))
    for row in table.rows:
        assert row.std == pytest.approx(std)
        assert row.path.endswith(("bias", "/b")) or row.fans == expected


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"q_proj": (1024, 16, 64), "o_proj": (16, 64, 1024)}, {"*": (1024, 1024)}),
        ({"to_q": (1024, 16, 64), "to_out": (16, 64, 1024)}, {"*": (1024, 1024)}),
        ({"first": (1024, 16, 64), "last": (16, 64, 1024)}, {"*": (1024, 1024)}),
        (
            {"query": (96, 4, 8), "key": (96, 2, 8), "out": (4, 8, 96)},
            {"query": (96, 32), "key": (96, 16), "out": (32, 96)},
        ),
        ({"qkv": (64, 3, 4, 16), "out": (4, 16, 64)}, {"qkv": (64, 192)}),
        ({"experts": (8, 64, 128)}, {"*": (64, 128)}),
        ({"moe_up": (8, 64, 128)}, {"*": (64, 128)}),
        ({"conv1d": (3, 64, 128)}, {"*": (192, 384)}),
        (
            {"conv": (3, 3, 8, 8), "attention|0": (1, 1, 16, 4)},
            {},
        ),  # squeeze and excite
    ],
)
def test_axes_for_heads_and_experts(params, expected):
    found = fans({name: layer(shape) for name, shape in params.items()})
    for name in params if "*" in expected else expected:
        assert found[f"{name}/kernel"] == expected.get("*", expected.get(name))


def test_axes_for_heads_by_the_bias():
    found = fans({"a": layer((32, 4, 16), (4, 16))})
    assert found["a/kernel"] == (32, 64)
    found = fans({"experts": layer((8, 64, 128), (8, 128))})
    assert found["experts/kernel"] == (64, 128)


@pytest.mark.parametrize(
    ("params", "rules", "message"),
    [
        (
            layer((8, 64, 128)),
            TORCH,
            r"\(8, 64, 128\) can be read as .*experts, inputs",
        ),
        (layer((8, 8, 4), (8, 4)), HE_OUT, r"\(inputs, outputs, outputs\).*\(layers, "),
        (layer((64, 10), (5,)), TORCH, r"\(inputs, outputs\), 64 → 10, .* 10 → 64"),
        (layer((64, 3, 7, 7)), TORCH, r"\(\*window, inputs, outputs\).*\(outputs, in"),
        (layer((3, 3, 64, 32), None, "weight"), TORCH, r"\(outputs, inputs, \*window"),
        (
            layer((3, 64, 128), (128,)),
            HE_OUT,
            r"\(\*window, in.*384.*\(heads, size, out",
        ),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(params, rules, message):
    kernel = next(iter(params))
    with pytest.raises(ValueError, match=message) as caught:
        preview({"c": params}, rules, strict=False)
    assert "a rule before the recipe's" in str(caught.value)
    settled = [(f"c/{kernel}", 0.0), ("c/bias", 0.0), *rules]
    preview({"c": params}, settled, strict=False)


def test_what_all_readings_agree_on_is_no_question():
    both = {"c": layer((3, 64, 128), (128,))}
    assert stds(both)["c/kernel"] == pytest.approx(576**-0.5)
    for rules in (recipes.bert(), recipes.dcgan()):
        preview({"c": layer((8, 64, 128))}, rules)


@pytest.mark.parametrize("name", ["kernel", "w", "weight"])
def test_a_users_law_of_fans_does_not_misread_the_layout(name):
    bias = "b" if name == "w" else "bias"
    params = {name: sizes(32, 8), bias: sizes(32)}
    dotted = {f"a.0.{path}": x for path, x in params.items()}
    for tree, pattern in ((params, name), (dotted, f"*.{name}")):
        with pytest.raises(
            ValueError, match=r"\(outputs, inputs\), and he_normal\(\) "
        ):
            preview(tree, [(pattern, jaxinit.he_normal())])
    for law in (jaxinit.he_normal(in_axis=1, out_axis=0), jaxinit.normal(0.1)):
        preview(params, [(name, law)])


# torch's layers


def test_attention_is_what_has_all_four():
    widths = {"query": 64, "key": 48, "value": 48}
    heads = {name: layer((n, 4, 16), (4, 16)) for name, n in widths.items()}
    found = stds({"mha": heads | {"out": layer((4, 16, 64), (64,))}})
    assert found["mha/query/kernel"] == pytest.approx(math.sqrt(2 / 128))
    for name in ("key", "value"):
        assert found[f"mha/{name}/kernel"] == pytest.approx(math.sqrt(2 / 112))
        assert found[f"mha/{name}/bias"] == 0 == found["mha/out/bias"]
    critic = {"value": layer((64, 1), (1,)), "out": layer((64, 3), (3,))}
    assert list(stds(critic).values()) == pytest.approx([192**-0.5] * 4)


def cell(entries, states, size, biased):
    """Makes a recurrent cell with state 32, of kernels of the input and the state."""
    kernels = {name: (8, size) for name in entries} | {x: (32, size) for x in states}
    return {
        name: layer(shape, (size,) if name in biased else None)
        for name, shape in kernels.items()
    }


LSTM = [f"h{gate}" for gate in "ifgo"]
CELLS = {
    "linen lstm": cell(["ii", "if", "ig", "io"], LSTM, 32, LSTM),
    "nnx lstm": cell(["ii", "if_", "ig", "io"], LSTM, 32, LSTM),
    "nnx fast lstm": cell(["dense_i"], ["dense_h"], 128, ["dense_h"]),
    "linen gru": cell(["ir", "iz", "in"], ["hr", "hz", "hn"], 32, ["ir", "in", "hn"]),
    "nnx gru": cell(["dense_i"], ["dense_h"], 96, ["dense_i"]),
    "linen rnn": cell(["i"], ["h"], 32, ["i"]),
    "haiku lstm": {"lstm": {"linear": {"w": sizes(40, 128), "b": sizes(128)}}},
    "haiku gru": {"w_i": sizes(8, 96), "w_h": sizes(32, 96), "b": sizes(96)},
    "equinox": {"weight_ih": sizes(96, 8), "weight_hh": sizes(96, 32)}
    | {"bias": sizes(96), "bias_n": sizes(32)},
    "torch": {"weight_ih_l0": sizes(128, 8), "weight_hh_l0": sizes(128, 32)}
    | {"bias_ih_l0": sizes(128), "bias_hh_l0": sizes(128)},
}


@pytest.mark.parametrize("name", CELLS)
def test_recurrent_cells_by_their_state(name):
    found = list(stds({"cell": CELLS[name]}).values())
    assert found == pytest.approx([96**-0.5] * len(found)) and len(found) > 1


def test_slopes_and_transposed_convolutions():
    params = {"PReLU_0": {"negative_slope": sizes()}, "act_prelu": {"weight": sizes(1)}}
    params["ConvTranspose_0"] = layer((4, 4, 8, 2), (2,))
    table = preview(params, TORCH)
    assert [row.law for row in table.rows if "prelu" in row.path.lower()] == [0.25] * 2
    for path in ("kernel", "bias"):
        found = stds(params)[f"ConvTranspose_0/{path}"]
        assert found == pytest.approx(1 / math.sqrt(3 * 4 * 4 * 2))


# whole models of other frameworks


def equinox():
    eqx = pytest.importorskip("equinox")
    return {
        "attention": eqx.nn.MultiheadAttention(2, 8, key=KEY),
        "norm": eqx.nn.LayerNorm((4, 8)),
        "mlp": eqx.nn.MLP(8, 8, 32, 1, key=KEY),
        "embedding": eqx.nn.Embedding(10, 8, key=KEY),
        "rms": eqx.nn.RMSNorm(8),
    }


def haiku():
    hk = pytest.importorskip("haiku")
    init = hk.initializers.VarianceScaling(1.0)

    def net(x):
        h = hk.Embed(10, 8)(x)
        h = hk.MultiHeadAttention(2, 4, w_init=init, name="attn")(h, h, h)
        h = hk.LayerNorm(-1, True, True)(h)
        return hk.nets.MLP([32, 8])(h)

    x = jnp.zeros((1, 4), int)
    return jax.eval_shape(lambda key: hk.transform(net).init(key, x), KEY)


@pytest.mark.parametrize("make", slow_but([haiku], [equinox, haiku]))
def test_whole_models(make):
    tree = make()
    rows = preview(tree, recipes.gpt2(2)).rows
    residual = {"output_proj", "linear", "1", "linear_1"}
    assert sum(row.path.split("/")[-2] in residual for row in rows) >= 2
    for row in rows:
        module, name = row.path.split("/")[-2:]
        if module in ("norm", "rms", "layer_norm"):
            assert row.law == (1.0 if name in ("weight", "scale") else 0.0)
        elif name in ("weight", "w", "embeddings"):
            assert row.std == pytest.approx(0.01 if module in residual else 0.02)
        else:
            assert row.law == 0.0
    rows = {row.path: row for row in preview(tree, recipes.deepnorm(2)).rows}
    table = next(row for path, row in rows.items() if "embed" in path)
    assert table.std == pytest.approx(8**-0.5)
    betas = [row.std for row in rows.values() if row.fans in ((8, 32), (32, 8))]
    assert betas == pytest.approx([0.5 * math.sqrt(2 / 40)] * 2)


def test_stacked_layers_are_read_as_one():
    params = {"layers": layer((5, 2304, 768), (5, 2304))}
    table = preview(params, TORCH, stacked="layers/*")
    assert {row.path: row.fans for row in table.rows}["layers/kernel"] == (768, 2304)
    assert [row.std for row in table.rows] == pytest.approx([2304**-0.5] * 2)
