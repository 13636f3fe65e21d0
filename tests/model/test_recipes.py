"""Recipes on models with the names of many frameworks: numbers by hand, or an error."""

import math

import jax
import pytest
from shapes import sizes, stds, tree

from jaxinit import preview, recipes, reinit

W, H, V, T = 64, 256, 512, 16  # width, hidden units, vocabulary, places
CUT = 0.8796256610342398  # standard deviation of a normal law cut at two
BLOCK = ("query", "key", "value", "out", "fc1", "fc2")


def scheme(prefix, modules, kernel="kernel", gain="scale", bias="bias", flip=False):
    """Makes a block and its embedding: {path: (role, shape, fan_in, fan_out)}.

    `modules` are those of BLOCK, then a norm's, and the embedding's whole path.
    """
    fans = {"fc1": (W, H), "fc2": (H, W)}
    rows = {}
    *layers, norm, embedding = modules
    for role, module in zip(BLOCK, layers, strict=True):
        fan_in, fan_out = fans.get(role, (W, W))
        shape = (fan_out, fan_in) if flip else (fan_in, fan_out)
        rows[f"{prefix}{module}|{kernel}"] = (role, shape, fan_in, fan_out)
        rows[f"{prefix}{module}|{bias}"] = (f"{role} bias", (fan_out,), fan_in, 0)
    rows[f"{prefix}{norm}|{gain}"] = ("gain", (W,), 0, 0)
    rows[f"{prefix}{norm}|{bias}"] = ("shift", (W,), 0, 0)
    rows[embedding] = ("embedding", (V, W), 0, 0)
    return rows


ATTENTION = "attn|{}"
MHA = ("MultiHeadDotProductAttention_0", "MlpBlock_0", "LayerNorm_0")
LINEN = [f"{MHA[0]}|{name}" for name in BLOCK[:4]]
LINEN += [f"{MHA[1]}|Dense_0", f"{MHA[1]}|Dense_1", MHA[2]]
BERT = [f"attention|self|{name}" for name in BLOCK[:3]]
BERT += ["attention|output|dense", "intermediate|dense", "output|dense"]
LLAMA = [f"self_attn|{name}_proj" for name in "qkvo"]
HAIKU = [f"attn|{name}" for name in (*BLOCK[:3], "linear")]
EQUINOX = [f"attention|{name}_proj" for name in (*BLOCK[:3], "output")]
NNX = [*(f"attention|{name}" for name in BLOCK[:4]), "mlp_in", "mlp_out", "norm"]
SCHEMES = {
    "linen": scheme("encoderblock_0|", [*LINEN, "Embed_0|embedding"]),
    "linen variables": scheme(
        "params|encoderblock_0|", [*LINEN, "params|Embed_0|embedding"]
    ),
    "wmt": scheme(
        "encoder|encoderblock_0|",
        [
            *(x.replace(MHA[0], "SelfAttention_0") for x in LINEN),
            "shared_embedding|embedding",
        ],
    ),
    "nnx": scheme("blocks|0|", [*NNX, "embed|embedding"]),
    "bert": scheme(
        "bert|encoder|layer|0|",
        [*BERT, "output|LayerNorm", "bert|embeddings|word_embeddings|embedding"],
    ),
    "hf vit": scheme(
        "vit|encoder|layer|0|",
        [
            *(f"attention|attention|{name}" for name in BLOCK[:3]),
            *(*BERT[3:], "layernorm_before", "wte|embedding"),
        ],
    ),
    "llama": scheme(
        "model|layers|0|",
        [
            *LLAMA,
            "mlp|up_proj",
            "mlp|down_proj",
            "norm",
            "model|embed_tokens|embedding",
        ],
    ),
    "haiku": scheme(
        "",
        [*HAIKU, "mlp|~|linear_0", "mlp|~|linear_1", "norm", "embed|embeddings"],
        *("w", "scale", "b"),
    ),
    "equinox": scheme(
        "layers|0|",
        [*EQUINOX, "mlp|layers|0", "mlp|layers|1", "norm", "embedding|weight"],
        *("weight", "weight", "bias", True),
    ),
    "torch": scheme(
        "h|0|",
        [
            *("attn|q_proj", "attn|k_proj", "attn|v_proj", "attn|out_proj"),
            *("linear1", "linear2", "norm1", "wte|weight"),
        ],
        *("weight", "weight", "bias", True),
    ),
}
MULTIHEAD = ("linen", "linen variables", "wmt", "nnx", "haiku", "equinox")


def normal(std, residual):
    return lambda role, n, m, name: {
        "out": residual,
        "fc2": residual,
        "embedding": std,
    }.get(role, std if role in BLOCK else 0.0)


def xavier(scaled, embedding):
    def expected(role, n, m, name):
        if role == "embedding":
            return embedding
        factor = scaled if role in ("value", "out", "fc1", "fc2") else 1.0
        return factor * math.sqrt(2 / (n + m)) if role in BLOCK else 0.0

    return expected


def t5(role, n, m, name):
    if role not in BLOCK:
        return 1.0 if role == "embedding" else 0.0
    return n**-0.5 / (4 if role == "query" else 1)


def torch(role, n, m, name):
    kind, _, bias = role.partition(" ")
    if kind in ("gain", "shift", "embedding"):
        return 1.0 if kind == "embedding" else 0.0
    if name in MULTIHEAD and kind in BLOCK[:3]:
        return 0.0 if bias else math.sqrt(2 / (4 * W))
    if name in MULTIHEAD and kind == "out" and bias:
        return 0.0
    return 1 / math.sqrt(3 * n)


RECIPES = {
    "gpt2": (recipes.gpt2(8), normal(0.02, 0.02 / 4)),
    "llama": (recipes.llama(2, std=0.01), normal(0.01, 0.005)),
    "gpt_neox": (recipes.gpt_neox(8, W), normal(math.sqrt(2 / 320), 2 / (8 * 8))),
    "bert": (recipes.bert(), normal(0.02 * CUT, 0.02 * CUT)),
    "t5": (recipes.t5(16), t5),
    "torch": (recipes.torch_default(), torch),
    "deepnorm": (recipes.deepnorm(2), xavier(0.5, 1 / 8)),
    "t_fixup": (recipes.t_fixup(4), xavier(0.67 * 4**-0.25, 36**-0.25 / 8)),
}


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", SCHEMES)
def test_transformers_by_any_names(name, recipe):
    rows = SCHEMES[name]
    rules, expected = RECIPES[recipe]
    table = preview(tree({path: row[1] for path, row in rows.items()}), rules)
    assigned = {row.path: row for row in table.rows}
    assert len(assigned) == len(rows)
    for path, (role, _, fan_in, fan_out) in rows.items():
        row = assigned[path.replace("|", "/")]
        std = expected(role, fan_in, fan_out, name)
        assert row.std == pytest.approx(std, rel=1e-5), path
        assert role != "gain" or row.law == 1.0, path


def vit(**modules):
    """Returns a vision transformer of other names, as Hugging Face's by default."""
    patches = modules.get("patches", "embeddings|patch_embeddings|projection")
    head = modules.get("head", "classifier")
    rows = {
        path: row[1] for path, row in SCHEMES["hf vit"].items() if "wte" not in path
    }
    rows |= {f"{patches}|kernel": (16, 16, 3, W), f"{patches}|bias": (W,)}
    rows |= {"embeddings|position_embeddings": (1, T, W)}
    rows |= {"embeddings|cls_token": (1, 1, W)}
    return tree(rows | {f"{head}|kernel": (W, 10), f"{head}|bias": (10,)})


PATCHES = "embeddings/patch_embeddings/projection"
LAYER = "vit/encoder/layer/0"


@pytest.mark.parametrize(
    ("scheme", "kernel", "patches", "head", "bias"),
    [
        ("", 0.02, 1 / math.sqrt(3 * 768), 0.02, 0.0),
        ("jax", math.sqrt(2 / (W + H)), 768**-0.5, 0.0, 1e-6),
        ("jax_nlhb", math.sqrt(2 / (W + H)), 768**-0.5, 0.0, 1e-6),
        ("moco", math.sqrt(2 / (W + H)), math.sqrt(2 / (768 + W)), None, 0.0),
    ],
)
def test_vit_of_hugging_face(scheme, kernel, patches, head, bias):
    found = stds(vit(), recipes.vit(scheme))
    head = math.sqrt(2 / (W + 10)) if head is None else head
    assert found["classifier/kernel"] == pytest.approx(head)
    assert found[f"{PATCHES}/kernel"] == pytest.approx(patches)
    assert found[f"{PATCHES}/bias"] == pytest.approx(0.0 if scheme else patches)
    for name in ("intermediate", "output"):
        assert found[f"{LAYER}/{name}/dense/kernel"] == pytest.approx(kernel)
        assert found[f"{LAYER}/{name}/dense/bias"] == pytest.approx(bias)
    assert found[f"{LAYER}/attention/output/dense/bias"] == 0
    assert found["embeddings/position_embeddings"] == pytest.approx(0.02)


def test_moco_patches_by_the_numbers_of_its_code():
    rows = {"patch_embed|proj|kernel": (16, 16, 3, 384), "attn|qkv|kernel": (384, 1152)}
    found = stds(tree(rows), recipes.vit("moco"))
    assert found["patch_embed/proj/kernel"] == pytest.approx(0.0417, rel=1e-3)
    assert found["attn/qkv/kernel"] == pytest.approx(math.sqrt(2 / 768))


def test_nothing_that_defines_a_recipe_is_missed_in_silence():
    block = tree({path: row[1] for path, row in SCHEMES["linen"].items()})
    convolutions = {f"a{i}|b|kernel": (3, 3, 8, 8) for i in range(2)}
    cases = [
        (
            vit(head="mine"),
            recipes.vit(),
            "vit finds no kernel of the classifier.*head=",
        ),
        (vit(patches="mine"), recipes.vit(), "embeds patches here.*patches="),
        (tree({"a|kernel": (8, 8)}), recipes.gpt2(2), "of attention here.*residual="),
        (tree(convolutions), recipes.fixup(2), "convolution number 2.*last="),
        (tree(convolutions), recipes.detection_head(), "bias of class sc.*classes="),
        (tree({"n|weight": (8,)}), recipes.bert(), "bert finds no kernel here"),
        (tree({"a|b|kernel": (8, 8)}), recipes.t5(2), "kernel of queries.*query="),
        (block, recipes.resnet(), "last norm of a block.*last_norm="),
        (
            block,
            recipes.gpt2(2, residual="**/wout/kernel"),
            "that fits ..*/wout/kernel",
        ),
        (
            block | tree({"a|kern": (8, 8)}),
            recipes.gpt2(2),
            "no rule for a/kern, of siz",
        ),
        (
            block | {"a": sizes(1, 4)},
            recipes.deepnorm(2),
            r"no rule for a, of sizes \(1",
        ),
    ]
    for params, rules, message in cases:
        with pytest.raises(ValueError, match=message):
            reinit(jax.random.key(0), params, rules)
        with pytest.raises(ValueError, match=message):
            preview(params, [("none", None), *rules][1:], strict=True)
        if "class sc" not in message and "bert" not in message:
            preview(params, rules, strict=False)


def test_what_the_user_takes_counts_as_found():
    params = tree({path: row[1] for path, row in SCHEMES["linen"].items()})
    first = ("**/MlpBlock_0/**", None)
    found = preview(params, [first, *recipes.gpt2(2)], strict=True)
    assert {row.law for row in found.rows if "Mlp" in row.path} == {None}
    preview(params, recipes.gpt2(2, residual=()), strict=True)
    without = [rule for rule in recipes.gpt2(2) if "output" not in str(rule)]
    assert len(without) == len(recipes.gpt2(2)) - 2
    assert not any("output" in row.pattern for row in preview(params, without).rows)


@pytest.mark.parametrize("head", ["Dense_0", "out", "head"])
@pytest.mark.parametrize("rules", [recipes.deepnorm(2), recipes.t_fixup(2)])
def test_the_output_layer_is_not_scaled(rules, head):
    params = tree({"Block_0|Dense_0|kernel": (64, 256), f"{head}|kernel": (64, 100)})
    found = stds(params, rules)
    assert found[f"{head}/kernel"] == pytest.approx(math.sqrt(2 / 164))
    assert found["Block_0/Dense_0/kernel"] < 0.9 * math.sqrt(2 / 320)


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_t_fixup_embeddings_of_both_parts(part):
    rows = SCHEMES["linen"]
    params = tree({path: row[1] for path, row in rows.items()})
    found = stds(params, recipes.t_fixup(6, part=part))
    assert found["Embed_0/embedding"] == pytest.approx(54**-0.25 / 8)


@pytest.mark.parametrize("many", [10**13, 10**400])
@pytest.mark.parametrize(
    "call",
    [
        *(recipes.gpt2, recipes.llama, recipes.t5, recipes.deepnorm, recipes.t_fixup),
        *(recipes.fixup, recipes.deepnorm_alpha),
        lambda many: recipes.gpt_neox(2, many),
        lambda many: recipes.gpt_neox(many, 2),
        lambda many: recipes.deepnorm(2, decoder_layers=many),
        lambda many: recipes.fixup(2, convolutions=many),
    ],
)
def test_huge_counts_are_refused(call, many):
    with pytest.raises(ValueError, match="must be 1000000000000 or below"):
        call(many)


def test_messages_of_arguments():
    with pytest.raises(ValueError, match=r"vit\(qkv='x'\): qkv is not used by the sc"):
        recipes.vit("jax", qkv="x")
    with pytest.raises(ValueError, match="std must be finite"):
        recipes.gpt2(2, std=10**400)
    with pytest.raises(TypeError, match=r"recipes.bert\(std='a'\): std must be a real"):
        recipes.bert(std="a")
    with pytest.raises(ValueError, match="mode must be one of 'fan_in', 'fan_out'"):
        recipes.fixup(2, mode="fan_avg")
    (bias, _), *_ = recipes.detection_head(1e-320)
    assert bias.__name__ == "class scores"
    assert math.isfinite(recipes.detection_head(1e-320)[0][1])


def test_dots_part_modules_as_slashes_do():
    """In the keys of torch's ``state_dict``."""
    shapes = {path: row[1] for path, row in SCHEMES["torch"].items()}
    dotted = {path.replace("|", "."): sizes(*x) for path, x in shapes.items()}
    for rules, _ in RECIPES.values():
        nested = stds(tree(shapes), rules)
        found = stds(dotted, rules)
        assert {path.replace(".", "/"): std for path, std in found.items()} == nested
        assert set(found) == set(dotted)  # paths, and so keys, are the tree's


def test_t5_tables_in_both_layouts():
    """Heads are the last axis of Hugging Face's and torch's table, the first of T5X's.

    4 heads of 16 outputs: 1 / sqrt(64).
    """
    tables = {
        "0|SelfAttention|relative_attention_bias|embedding": (32, 4),
        "1.SelfAttention.relative_attention_bias.weight": (32, 4),
        "relpos_bias|rel_embedding": (4, 32),
    }
    params = tree(tables | {"attention|q_proj|kernel": (64, 64)})
    found = stds(params, recipes.t5(16))
    for path in tables:
        assert found[path.replace("|", "/")] == 1 / 8
    found = stds(params, recipes.torch_default(), strict=False)
    assert found["1.SelfAttention.relative_attention_bias.weight"] == 1
