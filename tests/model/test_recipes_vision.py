"""Recipes of vision: heads, branches, last norms, and positions that are fixed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from shapes import stds, tree

from jaxinit import preview, recipes, reinit

W, T = 64, 16  # width, places


def test_heads_with_and_without_the_collection():
    params = tree({"Dense_0|kernel": (64, 10), "Conv_0|kernel": (3, 3, 3, 16)})
    for rules, std in ((recipes.resnet(), 0.01), (recipes.fixup(2), 0.0)):
        assert stds(params, rules)["Dense_0/kernel"] == std
        assert stds({"params": params}, rules)["params/Dense_0/kernel"] == std


@pytest.mark.parametrize("name", ["Conv_{}", "conv{}", "block0_conv{}"])
@pytest.mark.parametrize("count", [2, 3])
def test_the_last_convolution_of_a_branch_is_zero(name, count):
    first = 0 if "_{" in name and "conv" not in name else 1
    names = [name.format(first + i) for i in range(count)]
    prefix = "" if "block" in name else "Block_0|"
    rows = {f"{prefix}{x}|kernel": (3, 3, 8, 8) for x in names}
    params = tree(rows | {"head|kernel": (8, 10)})
    found = list(stds(params, recipes.fixup(4, convolutions=count)).values())
    small = (2 / 72) ** 0.5 * 4 ** (-1 / (2 * count - 2))
    assert found == pytest.approx([*[small] * (count - 1), 0, 0])
    with pytest.raises(ValueError, match=rf"{count} convolutions stand .*skip="):
        preview(params, recipes.fixup(4, convolutions=5 - count))


def test_fixup_by_fan_out_and_beside_branches():
    rows = {f"Block_0|Conv_{i}|kernel": (3, 3, 8, 16) for i in range(3)}
    params = tree(rows | {"head|kernel": (8, 10), "stem|kernel": (3, 3, 3, 8)})
    rules = recipes.fixup(4, mode="fan_out", skip="**/Conv_2/kernel")
    found = stds(params, rules)
    he = (2 / 144) ** 0.5
    expected = {"Conv_0": he / 2, "Conv_1": 0, "Conv_2": he}
    for name, std in expected.items():
        assert found[f"Block_0/{name}/kernel"] == pytest.approx(std)
    assert found["stem/kernel"] == pytest.approx((2 / 72) ** 0.5)


@pytest.mark.parametrize("norms", [("bn1", "bn2"), ("BatchNorm_0", "BatchNorm_1")])
def test_the_last_norm_of_a_block_of_two_is_zero(norms):
    rows = {f"layer1|0|{name}|scale": (8,) for name in norms}
    rows |= {"layer1|0|conv1|kernel": (3, 3, 8, 8), "fc|kernel": (8, 10)}
    laws = {row.path: row.law for row in preview(tree(rows), recipes.resnet()).rows}
    assert [laws[f"layer1/0/{name}/scale"] for name in norms] == [1.0, 0.0]
    rows |= {f"layer1|1|{name}3|scale": (8,) for name in ("bn", "BatchNorm_")}
    rows |= {"layer1|1|bn2|scale": (8,), "layer1|1|bn1|scale": (8,)}
    rows |= {"layer1|1|conv1|kernel": (3, 3, 8, 8)}
    with pytest.raises(ValueError, match="last norm of a block.*last_norm="):
        preview(tree(rows), recipes.resnet())  # two and three: which is a shortcut's?


def sines(places, width, interleaved=False):
    angles = np.arange(places)[:, None] * 100.0 ** -np.linspace(0, 1, width // 2)
    pairs = np.sin(angles), np.cos(angles)
    table = np.stack(pairs, -1) if interleaved else np.concatenate(pairs, -1)
    return table.reshape(places, width).astype(np.float32)


@pytest.mark.parametrize("interleaved", [False, True])
def test_fixed_tables_of_sines_stay(interleaved):
    fixed = sines(T, W, interleaved)
    token = np.concatenate([np.zeros((1, W), np.float32), fixed])[None]
    learned = np.random.default_rng(0).normal(0, 0.02, (T, W)).astype(np.float32)
    params = {"pos_embed": fixed, "pos": token, "position": learned}
    params["x"] = {"kernel": np.ones((8, 8), np.float32)}
    params["pos_table"] = {"embedding": jnp.asarray(fixed)}
    made = reinit(jax.random.key(0), params, recipes.bert())
    assert made["pos_embed"] is fixed and made["pos"] is token
    assert made["pos_table"]["embedding"] is params["pos_table"]["embedding"]
    assert not np.isclose(made["position"], learned).all()
    asked = reinit(jax.random.key(0), params, [("pos*", 0.0), *recipes.bert()])
    assert not asked["pos_embed"].any()


# names of other frameworks

BLOCKS = {  # a block with a norm in its shortcut, which must not be zero
    "torchvision": (
        "layer2|0|{}|weight",
        ("bn1", "bn2", "downsample|1"),
        ("conv1", "conv2", "downsample|0"),
        "fc|weight",
    ),
    "haiku": (
        "net|~|block_group_0|~|block_0|~|{}|w",
        ("batchnorm_0", "batchnorm_1", "shortcut_batchnorm"),
        ("conv_0", "conv_1", "shortcut_conv"),
        "net|~|logits|w",
    ),
    "sequence": (
        "blocks|0|layers|{}|kernel",
        ("1", "4", "skip"),
        ("0", "3", "conv_skip"),
        "classifier|1|kernel",
    ),
}


def block_of(name):
    """Returns a tree of one block, and the paths of norms and classifier."""
    form, norms, convolutions, head = BLOCKS[name]
    module, _, kernel = form.rpartition("|")
    gain = "weight" if kernel == "weight" else "scale"
    shift = "offset" if kernel == "w" else "bias"
    wide = (1, 1, 1, 8) if name == "haiku" else (8,)
    window = (8, 8, 3, 3) if kernel == "weight" else (3, 3, 8, 8)
    rows = {form.format(x): window for x in convolutions}
    rows |= {f"{module.format(x)}|{y}": wide for x in norms for y in (gain, shift)}
    rows[head] = (10, 8) if kernel == "weight" else (8, 10)
    scales = [f"{module.format(x)}|{gain}".replace("|", "/") for x in norms]
    return tree(rows), scales, head.replace("|", "/")


@pytest.mark.parametrize("name", BLOCKS)
def test_only_the_last_norm_of_the_branch_is_zero(name):
    params, scales, head = block_of(name)
    rows = {row.path: row for row in preview(params, recipes.resnet()).rows}
    assert [rows[path].law for path in scales] == [1.0, 0.0, 1.0]
    assert rows[head].std == 0.01
    shifts = [row.law for row in rows.values() if row.path.endswith(("bias", "offset"))]
    assert shifts == [0.0] * 3


def test_a_stem_or_a_whole_sequence_is_no_block():
    stem = {"stem|0|kernel": (4, 4, 3, 8), "stem|1|scale": (8,)}
    sequence = {f"features|{i}|weight": (8, 8, 3, 3) for i in (0, 3)}
    sequence |= {f"features|{i}|weight": (8,) for i in (1, 4)}
    for rows in (stem, sequence):
        params = tree(rows | {"head|kernel": (8, 10)})
        with pytest.raises(ValueError, match="last norm of a block.*last_norm="):
            preview(params, recipes.resnet())


def test_the_last_of_a_sequence_is_the_classifier():
    rows = {f"classifier|{i}|kernel": (8, 8) for i in (0, 3)}
    params = tree(rows | {"classifier|6|kernel": (8, 10), "a|kernel": (3, 3, 8, 8)})
    found = stds(params, recipes.resnet(), strict=False)
    assert [found[f"classifier/{i}/kernel"] == 0.01 for i in (0, 3, 6)] == [0, 0, 1]


@pytest.mark.parametrize("path", ["ls1|gamma", "gamma", "layer_scale1|scale"])
def test_factors_of_branches_are_no_scales_of_norms(path):
    rows = {f"blocks|0|{path}": (8,), "blocks|0|norm|gamma": (8,)}
    rows |= {"blocks|0|pwconv|kernel": (8, 8)}
    laws = {row.path: row.law for row in preview(tree(rows), recipes.bert()).rows}
    assert laws["blocks/0/norm/gamma"] == 1.0
    assert laws["blocks/0/" + path.replace("|", "/")] is None
