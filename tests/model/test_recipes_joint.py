"""Recipes on kernels that make queries, keys and values at once: numbers by hand.

The parts of each kernel are cut out here as the model cuts its outputs, in NumPy.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxinit as ji
from jaxinit import recipes

pytestmark = pytest.mark.usefixtures("quick_compiler")

KEY = jax.random.key(0)
D, H, S, F, L = 64, 4, 16, 128, 2  # width, heads, size of one, the MLP's width, blocks
G = 2  # heads of keys and values, where queries have more
POSITIONS = 5


def transformer(shape, split):
    """Makes a transformer of blocks whose joint kernel has a shape.

    Args:
      shape: of the joint kernel.
      split: returns queries, keys and values from data and the joint kernel.
    """

    def init(key):
        sizes = {"qkv": shape, "o": (H * S, D), "up": (D, F), "down": (F, D)}
        block = {name: jnp.zeros(size) for name, size in sizes.items()}
        ends = {"first": jnp.zeros((7, D)), "head": jnp.zeros((D, 9))}
        return {**ends, **{f"block{i}": block for i in range(L)}}

    def apply(params, x):
        x = x @ params["first"]
        for i in range(L):
            w = params[f"block{i}"]
            q, k, v = (
                y.reshape(*x.shape[:2], y.size // x[..., 0].size // S, S)
                for y in split(x, w["qkv"])
            )
            k, v = (jnp.repeat(y, H // y.shape[2], 2) for y in (k, v))
            weights = jax.nn.softmax(jnp.einsum("bqhs,bkhs->bhqk", q, k))
            y = jnp.einsum("bhqk,bkhs->bqhs", weights, v)
            x = x + y.reshape(*x.shape[:2], H * S) @ w["o"]
            x = x + jax.nn.relu(x @ w["up"]) @ w["down"]
        return x @ params["head"]

    return init, apply


def turn(x):
    """Rotates pairs of features, as rotary embeddings do."""
    one, two = jnp.split(x, 2, -1)
    angle = jnp.arange(1.0, POSITIONS + 1)[:, None, None]
    return jnp.concatenate(
        [one * jnp.cos(angle) - two * jnp.sin(angle), two * jnp.cos(angle)], -1
    )


def in_three(x, w):
    return jnp.split(x @ w, 3, -1)


def turned(x, w):
    q, k, v = (y.reshape(*y.shape[:2], -1, S) for y in unequal(x, w))
    return turn(q), turn(k), v


def unequal(x, w):
    return jnp.split(x @ w, [H * S, (H + G) * S], -1)


def grouped(x, w):
    y = (x @ w).reshape(*x.shape[:2], G, H // G + 2, S)
    return y[..., : H // G, :], y[..., -2, :], y[..., -1, :]


def convolve(x, w):
    numbers = ("NWC", "WIO", "NWC")
    y = lax.conv_general_dilated(x, w, (1,), "SAME", dimension_numbers=numbers)
    return jnp.split(y, 3, -1)


EQUAL, GROUPS = (H * S,) * 3, (H * S, G * S, G * S)
# The kernel's shape; how the model uses it; how NumPy cuts it, into parts with an axis
# of outputs; the outputs of queries, keys and values.
LAYOUTS = {
    "GPT-2: side by side": (
        (D, 3 * D),
        in_three,
        lambda w: np.split(w, 3, 1),
        EQUAL,
    ),
    "torch: (outputs, inputs)": (
        (3 * D, D),
        lambda x, w: jnp.split(x @ w.T, 3, -1),
        lambda w: np.split(w.T, 3, 1),
        EQUAL,
    ),
    "timm: three, then heads": (
        (D, 3 * D),
        lambda x, w: (x @ w).reshape(*x.shape[:2], 3, H, S).transpose(2, 0, 1, 3, 4),
        lambda w: w.reshape(D, 3, D).swapaxes(0, 1),
        EQUAL,
    ),
    "GPT-NeoX: heads, then three": (
        (D, 3 * D),
        lambda x, w: jnp.split((x @ w).reshape(*x.shape[:2], H, 3 * S), 3, -1),
        lambda w: np.moveaxis(w.reshape(D, H, 3, S), 2, 0).reshape(3, D, D),
        EQUAL,
    ),
    "einsum with an axis of three": (
        (D, 3, H, S),
        lambda x, w: jnp.einsum("bld,dchk->cblhk", x, w),
        lambda w: w.swapaxes(0, 1).reshape(3, D, D),
        EQUAL,
    ),
    "einsum, three first": (
        (3, D, H, S),
        lambda x, w: jnp.einsum("bld,cdhk->cblhk", x, w),
        lambda w: w.reshape(3, D, D),
        EQUAL,
    ),
    "three products of one kernel": (
        (D, 3 * D),
        lambda x, w: [(x @ w)[..., i * D : (i + 1) * D] for i in range(3)],
        lambda w: np.split(w, 3, 1),
        EQUAL,
    ),
    "three parts of one kernel": (
        (D, 3 * D),
        lambda x, w: [x @ part for part in jnp.split(w, 3, 1)],
        lambda w: np.split(w, 3, 1),
        EQUAL,
    ),
    "a convolution": (
        (1, D, 3 * D),
        convolve,
        lambda w: np.split(w[0], 3, 1),
        EQUAL,
    ),
    "values first": (
        (D, 3 * D),
        lambda x, w: (lambda v, q, k: (q, k, v))(*in_three(x, w)),
        lambda w: np.split(w, 3, 1)[1:] + np.split(w, 3, 1)[:1],
        EQUAL,
    ),
    "shared heads side by side": (
        (D, (H + 2 * G) * S),
        unequal,
        lambda w: np.split(w, [H * S, (H + G) * S], 1),
        GROUPS,
    ),
    "shared heads, rotated": (
        (D, (H + 2 * G) * S),
        turned,
        lambda w: np.split(w, [H * S, (H + G) * S], 1),
        GROUPS,
    ),
    "shared heads beside their queries": (
        (D, (H + 2 * G) * S),
        grouped,
        lambda w: [
            part.reshape(D, -1)
            for part in np.split(w.reshape(D, G, -1, S), [H // G, H // G + 1], 2)
        ],
        GROUPS,
    ),
}
RECIPES = {  # the law, and the gain of values, by hand
    "deepnorm": ("normal", (8 * L) ** -0.25),
    "t_fixup": ("uniform", 0.67 * L**-0.25),
    "magneto": ("normal", math.sqrt(math.log(2 * L))),
}


def read(name):
    shape, split, *_ = LAYOUTS[name]
    model = transformer(shape, split)
    x = np.zeros((2, POSITIONS, 7), np.float32)
    return model[0](KEY), ji.structure(model, x)


@pytest.mark.parametrize("name", LAYOUTS)
def test_each_part_has_its_own_gain(name):
    """Within five standard errors, of a law whose kurtosis is 3 at most."""
    shape, _, cut, outputs = LAYOUTS[name]
    params, structure = read(name)
    assert structure["block0/qkv"].roles == ("query", "key", "value")
    for recipe, (law, gain) in RECIPES.items():
        rules = getattr(recipes, recipe)()
        preview = ji.preview(params, rules, structure=structure)
        xavier = [math.sqrt(2 / (D + each)) for each in outputs]
        expected = [xavier[0], xavier[1], gain * xavier[2]]
        row = next(row for row in preview.rows if row.path == "block0/qkv")
        square = sum(n * std**2 for n, std in zip(outputs, expected, strict=True))
        assert row.std == pytest.approx(math.sqrt(square / sum(outputs))), recipe
        if recipe != "deepnorm" and name != "GPT-2: side by side":
            continue  # one recipe is drawn in every layout, and each in one
        drawn = np.asarray(preview.draw(KEY)["block0"]["qkv"], np.float64)
        assert drawn.shape == shape
        for part, std, size in zip(cut(drawn), expected, outputs, strict=True):
            assert part.shape == (D, size)
            error = 5 / math.sqrt(2 * part.size)
            assert np.std(part) == pytest.approx(std, rel=error), recipe
            if law == "uniform":
                assert np.abs(part).max() <= math.sqrt(3) * std * (1 + 1e-6)


def test_where_parts_lie():
    """By hand: the axis, entries of it for each part, how often they follow."""
    qkv = ("query", "key", "value")
    expected = {
        "GPT-2: side by side": (qkv, 1, (D, D, D), 1),
        "torch: (outputs, inputs)": (qkv, 0, (D, D, D), 1),
        "GPT-NeoX: heads, then three": (qkv, 1, (S, S, S), H),
        "einsum with an axis of three": (qkv, 1, (1, 1, 1), 1),
        "einsum, three first": (qkv, 0, (1, 1, 1), 1),
        "a convolution": (qkv, 2, (D, D, D), 1),
        "values first": (("value", "query", "key"), 1, (D, D, D), 1),
        "shared heads, rotated": (qkv, 1, GROUPS, 1),
        "shared heads beside their queries": (qkv, 1, (2 * S, S, S), G),
    }
    for name, each in expected.items():
        joint = read(name)[1]["block1/qkv"].joint
        assert (joint.roles, joint.axis, joint.sizes, joint.repeats) == each, name


@pytest.mark.slow
def test_parts_in_a_loop():
    """Of a stack, each layer is drawn in parts."""
    init, _ = transformer((D, 3 * D), in_three)
    blocks = jax.tree.map(lambda *x: jnp.stack(x), *[init(KEY)["block0"]] * 3)

    def apply(params, x):
        def step(x, w):
            q, k, v = in_three(x, w["qkv"])
            x = x + jax.nn.softmax(q @ k.mT) @ v @ w["o"]
            return x + jax.nn.relu(x @ w["up"]) @ w["down"], None

        x, _ = lax.scan(step, x @ params["first"], params["blocks"])
        return x @ params["head"]

    def stack(key):
        return {**{n: init(key)[n] for n in ("first", "head")}, "blocks": blocks}

    structure = ji.structure((stack, apply), np.zeros((2, POSITIONS, 7), np.float32))
    drawn = ji.reinit(KEY, stack(KEY), recipes.deepnorm(), structure=structure)
    _, _, values = np.split(np.asarray(drawn["blocks"]["qkv"]), 3, 2)
    expected = (8 * 3) ** -0.25 / math.sqrt(D)
    assert np.std(values) == pytest.approx(expected, rel=5 / math.sqrt(2 * values.size))


def test_parts_that_cannot_be_told():
    """Queries that hold keys too, and a kernel whose rest is something else."""

    def mixed(x, w):
        q, k, v = in_three(x, w)
        return q + k, k, v

    def beside(x, w):
        return in_three(x, w[:, 3 * D :])

    for shape, split in (((D, 3 * D), mixed), ((D, 6 * D), beside)):
        model = transformer(shape, split)
        structure = ji.structure(model, np.zeros((2, POSITIONS, 7), np.float32))
        assert structure["block0/qkv"].joint is None
        for recipe in RECIPES:
            rule = rf"recipes.{recipe} finds no kernel of values.*{recipe}\(scaled="
            with pytest.raises(ValueError, match=rule):
                rules = getattr(recipes, recipe)()
                ji.preview(model[0](KEY), rules, structure=structure)


@pytest.mark.slow
def test_the_law_of_parts():
    """Each part has the key of its place, and bounds and moments are those of all."""
    laws = [ji.normal(0.5), ji.uniform(low=-0.25, high=0.25), ji.normal(2.0)]
    law = ji.concatenated(laws, 1, (2, 3, 5))
    keys = [jax.random.fold_in(KEY, i) for i in range(3)]
    parts = [
        each(key, (4, size))
        for each, key, size in zip(laws, keys, (2, 3, 5), strict=True)
    ]
    np.testing.assert_array_equal(law(KEY, (4, 10)), np.concatenate(parts, 1))
    dealt = ji.concatenated(laws[:2], 0, (1, 1), repeats=3)(KEY, (6, 4))
    np.testing.assert_array_equal(dealt[1::2], laws[1](keys[1], (3, 4)))
    variance = (2 * 0.25 + 3 * 0.25**2 / 3 + 5 * 4) / 10
    assert law.moments((4, 10)).variance == pytest.approx(variance)
    assert (
        law
        == ji.concatenated(laws, 1, (2, 3, 5))
        != ji.concatenated(laws, 1, (3, 2, 5))
    )
    assert law(KEY, (4, 10), jnp.bfloat16).dtype == jnp.bfloat16
    with pytest.raises(ValueError, match=r"axis 1 must be made up of parts, of sizes"):
        law(KEY, (4, 9))
    unknown = ji.concatenated([ji.orthogonal(), lambda_law()], 0, (4, 4))
    assert unknown.moments((8, 8)) is None
    with pytest.raises(ValueError, match="weights of the size 1e-30 round to 0"):
        ji.concatenated([ji.normal(1e-30)] * 2, 0, (1, 1))(KEY, (2, 2), jnp.float16)


def lambda_law():
    """Returns an initializer without moments."""
    return ji.stacked(jax.random.normal)
