"""Three recipes on every architecture with attention, in the table of structures.

What a recipe must give is computed here from role and fans, which stand in the table by
hand, and from the number of kernels that write into the residual stream.
"""

import functools
import math
import sys
from pathlib import Path

import jax
import pytest

import jaxinit as ji
from jaxinit import recipes

sys.path.append(str(Path(__file__).parents[1] / "structure"))

from architecture import ids, make  # noqa: E402
from same_block import MODELS, X  # noqa: E402
from test_architectures import TABLE, fits, look_up  # noqa: E402

QKV = ("query", "key", "value")
JOINT = "query+key+value"
# Kernels that write into the residual stream, 2 L; 4 stand for any number if there are
# none. Where other kernels attend, what is attended to has another width.
WRITES = {name: 4 for name in TABLE} | {
    "transformer, NNX, with a bias of positions": 1,
    "transformer, Equinox, with a convolution": 3,
    "a learned query": 1,
    "attention by cosines": 1,
    "attention, latent": 1,
    "attention, by distance": 1,
    "Linformer": 1,
    "T5X, scanned, remat, logical axes": 6,
}
# Read as attention, which they are in part: they mix by products of data. The gate in
# the Evoformer's attention is scaled as those of MLPs, and what the first attention of
# DETR mixes, which is zeros, is no value.
OTHERS = {"capsules", "Mamba-2 in chunks", "DETR"}
OTHERS |= {"Evoformer: pair bias, triangles, outer products"}
CROSS = {"attention, to another input", "learned latents", "attention, latent"}
FIRST = (
    "*/up/kernel",
    "*/wi0/kernel",
    "*/wi1/kernel",
    "*/gate/kernel",
    "feed/layers/0/weight",
)  # of an MLP
# Projections behind attention, beside those of which the path says so.
BEHIND = ("*/o/kernel", "*/out/kernel", "*/output_proj/weight", "*/linear/w", "g", "o")
WIDTHS = {"T5X, scanned, remat, logical axes": 10}  # of residual streams; 12 of others


def list_attentive():
    """Lists the architectures of which a parameter makes values."""
    roles = {
        name: [x if isinstance(x, str) else x[0] for x in each.expected.values()]
        for name, each in TABLE.items()
    }
    attentive = [name for name, each in roles.items() if {"value", JOINT} & {*each}]
    return [name for name in attentive if name not in OTHERS]


def give_gpt2(name, path, role, fans, of):
    """Returns the standard deviation that GPT-2's law gives, by hand."""
    if fans is not None:
        return 0.02 / math.sqrt(WRITES[name]) if role == "residual" else 0.02
    return {"table": None}.get(role, 0.0)


def give_torch(name, path, role, fans, of):
    """As torch's layers: attention as MultiheadAttention, all else as Linear."""
    if role == "bias":
        attends = of[0] in (*QKV, JOINT) or ends_attention(name, of[2])
        return 0.0 if attends else 1 / math.sqrt(3 * of[1][0])
    if fans is None:
        return {"table": None}.get(role, 0.0)
    if "embedding" in role:
        return 1.0
    inputs, outputs = fans
    if role in QKV:
        return math.sqrt(2 / (inputs + (1 if name in CROSS else 3) * outputs))
    if role == JOINT:
        return math.sqrt(2 / (inputs + 3 * outputs))
    return 1 / math.sqrt(3 * inputs)


def give_deepnorm(name, path, role, fans, of):
    """Xavier's law, times beta for values, outputs and the MLP."""
    if fans is None:
        return {"table": None}.get(role, 0.0)
    if "embedding" in role:
        return 1 / math.sqrt(WIDTHS.get(name, 12))
    xavier, beta = math.sqrt(2 / sum(fans)), (8 * WRITES[name] / 2) ** -0.25
    if role == JOINT:
        return xavier * math.sqrt((2 + beta**2) / 3)
    first = any(fits(path, each) for each in FIRST)
    return xavier * (beta if role in ("value", "residual") or first else 1)


def ends_attention(name, path):
    only = name.startswith("attention") and path == "out"
    return only or any(fits(path, each) for each in BEHIND)


BY_HAND = {
    "gpt2": give_gpt2,
    "torch_default": give_torch,
    "deepnorm": give_deepnorm,
}


@pytest.mark.parametrize("name", list_attentive())
def test_three_recipes(name):
    each = TABLE[name]
    with jax.numpy_dtype_promotion("standard"):
        structure = ji.structure(each.model, *each.inputs, **each.keywords)
    params = {
        path: jax.ShapeDtypeStruct(row.shape, row.dtype)
        for path, row in structure.items()
    }
    given = {path: each.expected[look_up(path, each.expected)] for path in params}
    known = {p: x if isinstance(x, tuple) else (x, None) for p, x in given.items()}
    for recipe, by_hand in BY_HAND.items():
        more = {} if recipe == "torch_default" or each.branches else {"layers": 2}
        rules = [("role:table", None), *getattr(recipes, recipe)(**more)]
        preview = ji.preview(params, rules, structure=structure, strict=False)
        for row in preview.rows:
            role, fans = known[row.path]
            if role == "other" or (role == "gain" and row.rule is None):
                continue  # that of a norm, or a temperature
            of = [(*known[path], path) for path in structure[row.path].of]
            std = by_hand(name, row.path, role, fans, (of or [None])[0])
            assert row.std == (None if std is None else pytest.approx(std)), (
                recipe,
                row.path,
            )


def test_there_are_enough():
    assert len(list_attentive()) == 31


TRANSFORMERS = {
    "bert": recipes.bert,
    "deepnorm": recipes.deepnorm,
    "ds_init": recipes.ds_init,
    "gemma": recipes.gemma,
    "gpt2": recipes.gpt2,
    "gpt_neox": recipes.gpt_neox,
    "llama": recipes.llama,
    "magneto": recipes.magneto,
    "megatron": recipes.megatron,
    "ngpt": recipes.ngpt,
    "olmo": recipes.olmo,
    "olmo llama": lambda: recipes.olmo("llama"),
    "olmo llama_depth": lambda: recipes.olmo("llama_depth"),
    "olmo normalized": lambda: recipes.olmo("normalized"),
    "olmo fan_in": lambda: recipes.olmo("fan_in"),
    "t5": lambda: recipes.t5(6),
    "t_fixup": recipes.t_fixup,
    "torch_default": recipes.torch_default,
    "vit": recipes.vit,
    "vit jax": lambda: recipes.vit("jax"),
    "vit moco": lambda: recipes.vit("moco"),
}


def test_one_architecture_in_every_framework():
    """The same standard deviations, whatever the names and layouts of a block."""
    found = {name: {} for name in MODELS}
    for name, model in MODELS.items():
        with jax.numpy_dtype_promotion("standard"):
            structure = ji.structure(model, *X)
        params = {
            path: jax.ShapeDtypeStruct(row.shape, row.dtype)
            for path, row in structure.items()
        }

        def tell(path, structure=structure):
            row = structure[path]
            of = [structure[each] for each in row.of]
            return row.role, row.fans, *((each.role, each.fans) for each in of)

        for recipe, build in TRANSFORMERS.items():
            rows = ji.preview(params, build(), structure=structure).rows
            each = found[name][recipe] = {}
            for row in rows:
                std = None if row.std is None else round(row.std, 9)
                each.setdefault(tell(row.path), []).append(std)
    first, *others = found.values()
    for other in others:
        assert other == first
    query = first["gpt2"][("query", (12.0, 12.0))]
    out = first["gpt2"][("residual", (48.0, 12.0))]
    assert (query, out) == ([0.02], [round(0.02 / math.sqrt(2), 9)])  # of two writes


def test_tables_in_any_layout():
    """An embedding has the standard deviation of its width, wherever that stands."""

    def apply(params, ids):
        x = params["table"][:, ids].transpose(1, 2, 0)
        x = x + jax.nn.relu(x @ params["up"]) @ params["down"]
        return x @ (params["table"] if "head" not in params else params["head"])

    sizes = {"table": (12, 20), "up": (12, 48), "down": (48, 12)}
    for more in ({}, {"head": (12, 20)}):
        init = make(**sizes, **more)
        structure = ji.structure((init, apply), ids(3, 5))
        for recipe in ("deepnorm", "t_fixup", "ds_init", "olmo normalized"):
            build = TRANSFORMERS[recipe]
            if recipe == "ds_init":  # it counts blocks with attention
                build = functools.partial(build, blocks={"up": 1, "down": 1})
            params, options = init(jax.random.key(0)), {"strict": False}
            rows = ji.preview(params, build(), structure=structure, **options).rows
            (table,) = (row for row in rows if row.path == "table")
            factor = (9 / 2) ** -0.25 if recipe == "t_fixup" else 1
            assert table.std == pytest.approx(factor / math.sqrt(12)), recipe
