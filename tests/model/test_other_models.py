"""Models by other people: filled, checked, and initialized by recipes.

Standard deviations stand here as numbers worked out by hand for width 32, MLPs of 64,
two heads of 16, two layers, 50 tokens, 3 classes and patches of 8 × 8 × 3 numbers.
"""

import functools
import re

import equinox
import jax
import numpy as np
import pytest
from marks import slow_but
from other_models import NAMES, equinox_mlp, haiku_transformer, hugging_face

import jaxinit
from jaxinit import recipes

pytestmark = pytest.mark.usefixtures("standard_promotion")
KEY = jax.random.key(0)


def assert_equal_bits(made, expected):
    assert jax.tree.structure(made) == jax.tree.structure(expected)
    for ours, theirs in zip(*map(jax.tree.leaves, (made, expected)), strict=True):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        assert np.array_equal(np.asarray(ours), np.asarray(theirs))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_hugging_face_is_filled_as_by_jit(name):
    model, inputs = hugging_face()[name]
    made = jaxinit.jit_init(model.init)(KEY, *inputs)
    assert_equal_bits(made, jax.jit(model.init)(KEY, *inputs))


@pytest.mark.slow
def test_equinox_and_haiku_are_filled_as_by_jit():
    mlp, _ = equinox_mlp()
    made, expected = (
        [layer.weight for layer in how(mlp)(KEY).layers]
        for how in (jaxinit.jit_init, lambda f: f)
    )
    # Equinox draws eagerly here: uniform bounds are exact in either.
    assert_equal_bits(made, expected)
    net, (ids,) = haiku_transformer()
    made = jaxinit.jit_init(net.init)(KEY, ids)
    assert_equal_bits(made, jax.jit(net.init)(KEY, ids))


def stds(params, rules, **options):
    """Returns the standard deviation of each matrix by path, numbers of layers out."""
    rows = jaxinit.preview(params, rules, **options).rows
    found = {}
    for row in rows:
        if len(row.shape) > 1:
            path = re.sub(r"(?<=/)\d+/|_\d+(?=/)", "", row.path.removeprefix("params/"))
            found.setdefault(path, set()).add(f"{row.std:.3g}")
    return {path: one for path, (one, *more) in found.items() if not more}


TABLES = {
    # Conv1D stores (out, in): 1 / √(3 · 32) = .102, 1 / √(3 · 128) = .051.
    ("gpt2", "torch_default"): {
        "transformer/h/attn/c_attn/kernel": ".102",
        "transformer/h/attn/c_proj/kernel": ".102",
        "transformer/h/mlp/c_fc/kernel": ".102",
        "transformer/h/mlp/c_proj/kernel": ".051",
        "transformer/wpe/embedding": "1",
        "transformer/wte/embedding": "1",
    },
    # .02, and .02 / √(2 · 2) into the residual stream.
    ("gpt2", "gpt2"): {
        "transformer/h/attn/c_attn/kernel": ".02",
        "transformer/h/attn/c_proj/kernel": ".01",
        "transformer/h/mlp/c_fc/kernel": ".02",
        "transformer/h/mlp/c_proj/kernel": ".01",
        "transformer/wpe/embedding": ".02",
        "transformer/wte/embedding": ".02",
    },
    # √(2 / (5 · 32)), and 2 / (2 √32) into the residual stream.
    ("gpt2", "gpt_neox"): {
        "transformer/h/attn/c_attn/kernel": ".112",
        "transformer/h/attn/c_proj/kernel": ".177",
        "transformer/h/mlp/c_fc/kernel": ".112",
        "transformer/h/mlp/c_proj/kernel": ".177",
        "transformer/wpe/embedding": ".112",
        "transformer/wte/embedding": ".112",
    },
    # Cut off at two standard deviations, a normal law keeps .88 of its own.
    ("bert", "bert"): {
        "bert/embeddings/position_embeddings/embedding": ".0176",
        "bert/embeddings/token_type_embeddings/embedding": ".0176",
        "bert/embeddings/word_embeddings/embedding": ".0176",
        "bert/encoder/layer/attention/output/dense/kernel": ".0176",
        "bert/encoder/layer/attention/self/key/kernel": ".0176",
        "bert/encoder/layer/attention/self/query/kernel": ".0176",
        "bert/encoder/layer/attention/self/value/kernel": ".0176",
        "bert/encoder/layer/intermediate/dense/kernel": ".0176",
        "bert/encoder/layer/output/dense/kernel": ".0176",
        "bert/pooler/dense/kernel": ".0176",
        "classifier/kernel": ".0176",
    },
    # Xavier √(2 / (in + out)), halved by β = (8 · 2)^(-1/4) in v, out and MLP.
    ("bert", "deepnorm"): {
        "bert/embeddings/position_embeddings/embedding": ".177",
        "bert/embeddings/token_type_embeddings/embedding": ".177",
        "bert/embeddings/word_embeddings/embedding": ".177",
        "bert/encoder/layer/attention/output/dense/kernel": ".0884",
        "bert/encoder/layer/attention/self/key/kernel": ".177",
        "bert/encoder/layer/attention/self/query/kernel": ".177",
        "bert/encoder/layer/attention/self/value/kernel": ".0884",
        "bert/encoder/layer/intermediate/dense/kernel": ".0722",
        "bert/encoder/layer/output/dense/kernel": ".0722",
        "bert/pooler/dense/kernel": ".177",
        "classifier/kernel": ".239",
    },
    # 1 / √fan_in; queries a further 1 / √16; the table 1 / √(2 · 16).
    ("t5", "t5"): {
        **{
            f"{part}/block/layer/SelfAttention/{name}": std
            for part in ("encoder", "decoder")
            for name, std in {
                "q/kernel": ".0442",
                "k/kernel": ".177",
                "v/kernel": ".177",
                "o/kernel": ".177",
                "relative_attention_bias/embedding": ".177",
            }.items()
        },
        **{
            f"decoder/block/layer/EncDecAttention/{name}/kernel": std
            for name, std in zip("qkvo", (".0442", ".177", ".177", ".177"), strict=True)
        },
        **{
            f"{part}/block/layer/DenseReluDense/{name}/kernel": std
            for part in ("encoder", "decoder")
            for name, std in (("wi", ".177"), ("wo", ".125"))
        },
        "shared/embedding": "1",
    },
    # Patches: 1 / √192. Others Xavier. timm's head is zero.
    ("vit", "vit"): {
        "classifier/kernel": "0",
        "vit/embeddings/cls_token": "0",
        "vit/embeddings/patch_embeddings/projection/kernel": ".0722",
        "vit/embeddings/position_embeddings": ".02",
        "vit/encoder/layer/attention/attention/key/kernel": ".177",
        "vit/encoder/layer/attention/attention/query/kernel": ".177",
        "vit/encoder/layer/attention/attention/value/kernel": ".177",
        "vit/encoder/layer/attention/output/dense/kernel": ".177",
        "vit/encoder/layer/intermediate/dense/kernel": ".144",
        "vit/encoder/layer/output/dense/kernel": ".144",
    },
    ("llama", "llama"): {
        "lm_head/kernel": ".02",
        "model/embed_tokens/embedding": ".02",
        "model/layers/mlp/down_proj/kernel": ".01",
        "model/layers/mlp/gate_proj/kernel": ".02",
        "model/layers/mlp/up_proj/kernel": ".02",
        "model/layers/self_attn/k_proj/kernel": ".02",
        "model/layers/self_attn/o_proj/kernel": ".01",
        "model/layers/self_attn/q_proj/kernel": ".02",
        "model/layers/self_attn/v_proj/kernel": ".02",
    },
    ("clip", "torch_default"): {
        **{
            f"{part}/encoder/layers/{name}/kernel": std
            for part in ("text_model", "vision_model")
            for name, std in {
                "mlp/fc1": ".102",
                "mlp/fc2": ".0722",
                "self_attn/k_proj": ".102",
                "self_attn/out_proj": ".102",
                "self_attn/q_proj": ".102",
                "self_attn/v_proj": ".102",
            }.items()
        },
        "text_model/embeddings/position_embedding/embedding": "1",
        "text_model/embeddings/token_embedding/embedding": "1",
        "text_projection/kernel": ".102",
        "vision_model/embeddings/patch_embedding/kernel": ".0417",
        "vision_model/embeddings/position_embedding/embedding": "1",
        "visual_projection/kernel": ".102",
    },
}
RECIPES = {
    "torch_default": recipes.torch_default(),
    "gpt2": recipes.gpt2(2),
    "gpt_neox": recipes.gpt_neox(2, 32),
    "bert": recipes.bert(),
    "deepnorm": recipes.deepnorm(2),
    "t5": recipes.t5(16),
    "vit": recipes.vit(),
    "llama": recipes.llama(2),
    "resnet": recipes.resnet(),
    "fixup": recipes.fixup(2),
    "t_fixup": recipes.t_fixup(2),
}


@functools.cache
def shapes(name):
    model, inputs = hugging_face()[name]
    return jax.eval_shape(model.init, KEY, *inputs)


@pytest.mark.parametrize(("name", "recipe"), TABLES)
def test_recipes_give_the_numbers_worked_out_by_hand(name, recipe):
    found = stds(shapes(name), RECIPES[recipe])
    expected = TABLES[name, recipe]
    assert {path: float(std) for path, std in found.items()} == {
        path: float(std) for path, std in expected.items()
    }


# What each recipe says of a model that it is not for.
REFUSALS = {
    ("gpt2", "t5"): "finds no kernel of queries here",
    ("gpt2", "deepnorm"): "finds no kernel of values here",
    ("gpt2", "resnet"): "finds no last norm of a block here",
    ("bert", "vit"): "finds no kernel that embeds patches here",
    ("t5", "fixup"): "finds no convolution number 2 of a branch here",
    ("vit", "gpt2"): "has no rule for params/vit/embeddings/cls_token",
    ("llama", "resnet"): "finds no last norm of a block here",
    ("llama", "vit"): "has no rule for params/model/embed_tokens/embedding",
}


@pytest.mark.parametrize(("name", "recipe"), REFUSALS)
def test_recipes_for_other_models_say_what_they_miss(name, recipe):
    with pytest.raises(ValueError, match=REFUSALS[name, recipe]):
        jaxinit.preview(shapes(name), RECIPES[recipe])


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", slow_but(["llama", "vit"], NAMES))
def test_no_recipe_is_silent(name, recipe):
    """Every matrix has a rule, or the recipe says what is missing."""
    try:
        rows = jaxinit.preview(shapes(name), RECIPES[recipe]).rows
    except ValueError as error:
        assert re.search(r"recipes\.\w+ (finds no|has no rule)", str(error))
        assert re.search(r"Name it: recipes|Give it one of its own", str(error))
    else:
        assert all(row.rule is not None for row in rows if len(row.shape) > 1)


def test_haiku_by_recipe():
    """`hk.Linear` 0 and 2 write into the residual stream, 1 and 3 stand before them."""
    net, (ids,) = haiku_transformer()
    shapes = jax.eval_shape(net.init, KEY, ids)
    rows = jaxinit.preview(shapes, recipes.gpt2(2)).rows
    residual = {"linear/w", "linear_2/w"}
    residual |= {f"multi_head_attention{i}/linear/w" for i in ("", "_1")}
    for row in rows:
        if len(row.shape) > 1:
            assert row.std == pytest.approx(0.01 if row.path in residual else 0.02)
        else:
            assert row.law == (1.0 if row.path.endswith("/scale") else 0.0)


def test_equinox_by_recipe():
    mlp, _ = equinox_mlp()
    params = equinox.filter_eval_shape(mlp, KEY)
    rows = jaxinit.preview(params, recipes.torch_default()).rows
    for row in rows:
        fan_in = 8 if row.path.startswith("layers/0/") else 32
        assert row.std == pytest.approx((3 * fan_in) ** -0.5)
