"""Rules and recipes by role: a model's program tells what each parameter is."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import slow_but
from other_models import hugging_face

import jaxinit as ji
from jaxinit import recipes

KEY = jax.random.key(0)
D, H, F, V, L = 8, 2, 24, 50, 3  # width, heads, width of the MLP, words, blocks
IDS = np.arange(10).reshape(2, 5) % V
NAMES = ("q", "k", "v", "o", "up", "down")


def sizes(flip):
    """Returns the shapes of a transformer's kernels, (out, in) or (in, out)."""
    shapes = dict.fromkeys(NAMES, (D, D)) | {"up": (D, F), "down": (F, D)}
    return {name: shape[::-1] if flip else shape for name, shape in shapes.items()}


def transformer(rename=lambda name: name, flip=False):
    """Makes a pre-norm transformer of plain functions, under any names and layout."""

    def init(key):
        block = {rename(n): jnp.zeros(s) for n, s in sizes(flip).items()}
        block |= {rename("b"): jnp.zeros(F), rename("g"): jnp.ones(D)}
        tables = {
            rename("table"): jnp.zeros((V, D)),
            rename("places"): jnp.zeros((5, D)),
        }
        head = {rename("head"): jnp.zeros((V, D) if flip else (D, V))}
        blocks = {rename(f"block{i}"): block for i in range(L)}
        return {**tables, **head, **blocks}

    def norm(x, gain):
        return x / jnp.sqrt(jnp.mean(x**2, -1, keepdims=True) + 1e-6) * gain

    def apply(params, ids):
        def multiply(x, w):
            return x @ (w.T if flip else w)

        x = params[rename("table")][ids] + params[rename("places")]
        for i in range(L):
            w = {n: params[rename(f"block{i}")][rename(n)] for n in (*NAMES, "b", "g")}
            y = norm(x, w["g"])
            q, k, v = (
                multiply(y, w[n]).reshape(*ids.shape, H, D // H)
                for n in ("q", "k", "v")
            )
            p = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k))
            mixed = jnp.einsum("bhqk,bkhd->bqhd", p, v).reshape(x.shape)
            x = x + multiply(mixed, w["o"])
            x = x + multiply(jax.nn.gelu(multiply(x, w["up"]) + w["b"]), w["down"])
        return multiply(x, params[rename("head")])

    return init, apply


def scramble(name):
    """Renames, so that no name tells anything."""
    return f"z{sum(map(ord, name)) * 7919 % 9973}"


FORMS = {
    "by names": transformer(),
    "without names": transformer(scramble),
    "(outputs, inputs)": transformer(flip=True),
    "neither": transformer(scramble, flip=True),
}
RENAMED = {"by names": str, "(outputs, inputs)": str}
XAVIER = {"up": math.sqrt(2 / (D + F)), "down": math.sqrt(2 / (D + F))}
BETA = (8 * L) ** -0.25
EXPECTED = {  # standard deviations, by hand
    "gpt2": (
        recipes.gpt2,
        dict.fromkeys(("q", "k", "v", "up", "head", "table", "places"), 0.02)
        | dict.fromkeys(("o", "down"), 0.02 / math.sqrt(2 * L))
        | {"b": 0.0, "g": 0.0},
    ),
    "gpt_neox": (
        recipes.gpt_neox,
        dict.fromkeys(("q", "k", "v", "up", "head"), math.sqrt(2 / (5 * D)))
        | dict.fromkeys(("o", "down"), 2 / (L * math.sqrt(D))),
    ),
    "bert": (recipes.bert, dict.fromkeys((*NAMES, "head"), 0.8796256610342398 * 0.02)),
    "torch_default": (
        recipes.torch_default,
        dict.fromkeys(("q", "k", "v"), math.sqrt(2 / (D + 3 * D)))
        | dict.fromkeys(("o", "up", "head", "b"), 1 / math.sqrt(3 * D))
        | {"down": 1 / math.sqrt(3 * F), "table": 1.0, "g": 0.0},
    ),
    "deepnorm": (
        recipes.deepnorm,
        dict.fromkeys(("q", "k"), 1 / math.sqrt(D))
        | dict.fromkeys(("v", "o"), BETA / math.sqrt(D))
        | {name: BETA * std for name, std in XAVIER.items()}
        | {"head": math.sqrt(2 / (D + V)), "table": 1 / math.sqrt(D)},
    ),
    "t5": (
        lambda: recipes.t5(D // H),
        dict.fromkeys(("k", "v", "o", "up", "head"), 1 / math.sqrt(D))
        | {"q": 1 / math.sqrt(D * (D // H)), "down": 1 / math.sqrt(F), "table": 1.0},
    ),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", EXPECTED)
def test_recipes_need_no_names(name, form):
    rename = RENAMED.get(form, scramble)
    init, apply = FORMS[form]
    make, expected = EXPECTED[name]
    structure = ji.structure((init, apply), IDS)
    assert structure.branches == 2 * L
    found = {
        row.path: row.std
        for row in ji.preview(
            init(KEY), [*make(), ("role:table", 0.0)], structure=structure
        ).rows
    }
    for part, std in expected.items():
        paths = [path for path in found if path.split("/")[-1] == rename(part)]
        assert len(paths) == (L if part in (*NAMES, "b", "g") else 1), part
        for path in paths:
            assert found[path] == pytest.approx(std, rel=1e-6), path


def by_torch(row):
    """Returns the standard deviation of torch's default for a kernel, by hand."""
    inputs, outputs = row.fans
    if {"query", "key", "value"} & {*row.roles}:
        return math.sqrt(2 / (inputs + 3 * outputs))
    return 1 / math.sqrt(3 * inputs)


@pytest.mark.parametrize(
    "model", slow_but(["gpt2", "clip"], ["gpt2", "bert", "llama", "vit", "clip"])
)
@pytest.mark.usefixtures("standard_promotion")
def test_models_by_others(model):
    """By role, gpt2 and torch_default give what they give by hand."""
    module, inputs = hugging_face()[model]
    structure = ji.structure(module, *inputs)
    params = jax.eval_shape(module.init, KEY, *inputs)
    rules = [("role:table", None), *recipes.gpt2()]
    seen = set()
    for row in ji.preview(params, rules, structure=structure).rows:
        if len(row.shape) > 1 and row.role != "table":
            writes = row.role == "residual"
            layers = 4 if model == "clip" else 2
            seen.add(writes)
            expected = 0.02 / math.sqrt(2 * layers) if writes else 0.02
            assert row.std == pytest.approx(expected), row.path
    assert seen == {True, False}
    rules = [("role:table", None), *recipes.torch_default()]
    for row in ji.preview(params, rules, structure=structure).rows:
        known = structure[row.path.removeprefix("params/")]
        if known.is_kernel and "embedding" not in known.roles:
            assert row.std == pytest.approx(by_torch(known)), row.path
            inputs, outputs = known.fans
            fans = inputs, outputs * known.groups  # of c_attn, the three of one
            flipped = fans[::-1] if model == "gpt2" else fans
            assert len(known.shape) > 2 or flipped == known.shape


def test_rules_by_role():
    init, apply = FORMS["neither"]
    structure = ji.structure((init, apply), IDS)
    rules = [
        ("role:residual", ji.zeros()),
        ("role:embedding", ji.normal(0.02)),
        ("role:kernel", ji.he_normal()),
        ("role:bias", 0.5),
    ]
    rows = ji.preview(init(KEY), rules, structure=structure).rows
    by_role = {row.role: row for row in rows}
    assert by_role["hidden"].fans == (D, F) and by_role["hidden"].shape == (F, D)
    assert by_role["hidden"].law == ji.he_normal(in_axis=1, out_axis=0)
    assert by_role["residual"].std == 0.0 and by_role["bias"].law == 0.5
    assert by_role["gain"].rule is None and by_role["table"].rule is None
    drawn = ji.reinit(KEY, init(KEY), rules, structure=structure)
    assert jax.tree.structure(drawn) == jax.tree.structure(init(KEY))
    text = str(ji.preview(init(KEY), rules, structure=structure))
    assert "role:residual" in text and "query" in text


def test_laws_read_the_axes_of_the_program():
    """Those that name axes of their own are left alone."""
    init, apply = FORMS["(outputs, inputs)"]
    structure = ji.structure((init, apply), IDS)

    def law_of(law):
        rules = [("up", law)]
        rows = ji.preview(init(KEY), rules, structure=structure).rows
        return next(row.law for row in rows if row.path.endswith("/up"))

    assert law_of(ji.lecun_normal()) == ji.lecun_normal(in_axis=1, out_axis=0)
    assert law_of(ji.orthogonal()) == ji.orthogonal(column_axis=0)
    turned = ji.lecun_normal(in_axis=1, out_axis=0)
    assert law_of(ji.masked(ji.lecun_normal() * 2, True) / 3) == (
        ji.masked(turned * 2, True) / 3
    )
    own = ji.lecun_normal(in_axis=0, out_axis=1)
    assert law_of(own) == own
    assert law_of(ji.normal(0.1)) == ji.normal(0.1)


@pytest.mark.slow
def test_loops_need_not_be_named():
    """What `nn.scan` stacks is drawn layer by layer."""
    import flax.linen as nn

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return x + nn.Dense(D)(nn.relu(nn.Dense(F)(x))), None

    class Stack(nn.Module):
        @nn.compact
        def __call__(self, x):
            scan = nn.scan(
                Block,
                variable_axes={"params": 0},
                split_rngs={"params": True},
                length=L,
            )
            x, _ = scan(name="layers")(x, None)
            return nn.Dense(3)(x)

    x = jnp.ones((4, D))
    structure = ji.structure(Stack(), x)
    assert structure.branches == L
    params = jax.eval_shape(Stack().init, KEY, x)
    rules = [("role:kernel", ji.he_normal()), ("role:bias", 0.0)]
    drawn = ji.reinit(KEY, params, rules, structure=structure)
    named = ji.reinit(
        KEY,
        params,
        [("kernel", ji.he_normal()), ("bias", 0.0)],
        stacked={"**/layers/**": 0},
    )
    jax.tree.map(np.testing.assert_array_equal, drawn, named)
    rules = [*recipes.gpt2()]
    rows = ji.preview(params, rules, structure=structure, strict=False).rows
    # One write in each of the L blocks: 2 L of gpt2 is L here.
    write = next(row for row in rows if row.role == "residual")
    assert write.std == pytest.approx(0.02 / math.sqrt(L))


def test_a_function_sees_what_belongs_together():
    init, apply = FORMS["neither"]
    structure = ji.structure((init, apply), IDS)
    seen = {}

    def bias(path, leaf, siblings):
        seen[path] = siblings
        return 1 / siblings["role:kernel"].shape[1] ** 0.5

    rows = ji.preview(init(KEY), [("role:bias", bias)], structure=structure).rows
    assert {row.law for row in rows if row.role == "bias"} == {1 / D**0.5}
    for siblings in seen.values():
        assert siblings["role:hidden"].shape == (F, D)


def test_misuse():
    init, apply = FORMS["neither"]
    params, structure = init(KEY), ji.structure((init, apply), IDS)
    with pytest.raises(ValueError, match=r"role='residul'.*Did you mean 'residual'"):
        ji.preview(params, [("role:residul", 0.0)], structure=structure)
    with pytest.raises(
        ValueError, match=r"pass structure=jaxinit.structure\(model, x\)"
    ):
        ji.preview(params, [("role:residual", 0.0)])
    with pytest.raises(
        ValueError, match=r"another model: the tree has no [\w/]+. Paths are such as w"
    ):
        ji.preview({"w": jnp.ones((3, 4))}, [("w", 0.0)], structure=structure)
    grown = jax.tree.map(lambda leaf: jnp.ones((9, *leaf.shape[1:])), params)
    with pytest.raises(
        ValueError, match=r"of another model: .* in the tree, and .* in the structure"
    ):
        ji.preview(grown, [("role:residual", 0.0)], structure=structure)
    with pytest.raises(TypeError, match="must be what jaxinit.structure"):
        ji.preview(params, [("role:residual", 0.0)], structure={})
    with pytest.raises(ValueError, match=r"recipes.gpt2 needs layers here"):
        ji.preview({"attn": {"out": {"kernel": jnp.ones((8, 8))}}}, recipes.gpt2())
