"""What a `Scale` gives: a table, rules, and what all results give."""

import importlib.util
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import Perceptron, Scanned, X
from test_growth import compare, give, numbers, read, read_joint, tie

import jaxinit
from jaxinit import recipes, scaling

pytestmark = pytest.mark.usefixtures("quick_compiler")
ALL = [scaling.mup, scaling.standard, scaling.ntk, scaling.mean_field]
ALL += [scaling.spectral, scaling.completep, scaling.depth_mup, scaling.u_mup]


@pytest.mark.parametrize("how", ALL, ids=lambda how: how.__name__)
def test_nothing_changes_where_nothing_grows(how):
    for pair in (
        (read("transformer"),) * 2,
        (read("scanned", 8, 2),) * 2,
        (tie()[0],) * 2,
    ):
        scale = how(*pair)
        assert scale.parameterization == how.__name__ and not scale.forward
        for row in scale.values():
            assert numbers(row) == (1,) * 6 and not row.grown and row.base == row.path


def test_it_prints_as_a_table_with_equal_layers_in_a_line():
    scale = compare(read("transformer"), read("transformer", 4, blocks=4))
    assert repr(scale) == f"Scale(mup, {len(scale)} parameters, width ×4, depth ×4)"
    lines = str(scale).splitlines()
    assert max(map(len, lines)) < 130 and len(lines) < 25
    (line,) = (line for line in lines if line.startswith("block_0–3/attend/q/kernel"))
    cells = re.split(r"  +", line)
    assert cells[1:] == [
        "query, as hidden",
        "in ×4, out ×4, layers ×4, heads ×4",
        *("0.5", "1", "0.25", "1", "0.25", "4"),
    ]
    assert "Factors on what the base model has." in lines
    assert lines[-1].startswith("Residual branches grow 4-fold, by which nothing is s")
    plain = scale.to_dict()
    assert plain["parameterization"] == "mup" and len(plain["parameters"]) == len(scale)
    assert plain["parameters"][0]["lr"].keys() == {"sgd", "adam", "muon"}
    assert scale == compare(read("transformer"), read("transformer", 4, blocks=4))
    assert scale != compare(read("transformer"), read("transformer", 4))


def test_forward_prints_as_code():
    small, large = read("transformer"), read("transformer", 4, blocks=4)
    scale = scaling.completep(small, large, forward="model")
    assert "The model has to multiply: print(scale.forward)." in str(scale)
    assert " forward " in str(scale).splitlines()[0]
    lines = str(scale.forward).splitlines()
    assert lines[:2] == [
        "# readout: head/kernel",
        "logits = h @ readout * 0.25  # before a bias is added",
    ]
    assert lines[2].startswith("# branch: block_0–3/") and lines[3].endswith("* 0.25")
    assert len(scale.forward) == 1 + 4 * 4 and "head/kernel" in repr(scale.forward)
    ntk = scaling.ntk(give(8, 8), give(32, 32), forward="model")
    assert str(ntk.forward).splitlines()[::2] == ["# product: b", "# readout: c"]
    nine = scaling.mup(give(8, 8), give(32, 32), forward="model", form=9)
    assert dict(nine.forward) == {"a": 2.0, "c": 0.5}


def preview(scale, target, rules):
    """Returns the standard deviations that rules give the target."""
    tree = {p: jax.ShapeDtypeStruct(row.shape, row.dtype) for p, row in target.items()}
    found = jaxinit.preview(tree, scale.rules(rules), structure=target)
    return {row.path: row for row in found.rows}


def test_rules_of_a_recipe():
    """GPT-2's law with the base's layers, times what the table says."""
    small, large = read("transformer"), read("transformer", 4, blocks=4)
    scale = scaling.mup(small, large)
    rows = preview(scale, large, recipes.gpt2())
    residual = 0.02 / math.sqrt(2 * 1)  # one block, not four
    for path, std in {
        "table/embedding": 0.02,
        "block_3/attend/q/kernel": 0.02 / 2,
        "block_3/Dense_0/kernel": 0.02 / 2,
        "block_3/down/kernel": residual / 2,
        "block_3/attend/o/kernel": residual / 2,
        "head/kernel": 0.02 / 4,
        "last/scale": 0,
        "block_0/down/bias": 0,
    }.items():
        assert rows[path].std == pytest.approx(std), path
    assert repr(rows["block_3/attend/q/kernel"].law) == "normal(stddev=0.02) * 0.5"
    assert rows["table/embedding"].law == jaxinit.normal(0.02)
    assert rows["last/scale"].law == 1.0
    model = preview(scaling.completep(small, large), large, recipes.gpt2())
    assert model["block_3/down/kernel"].std == pytest.approx(residual / 2 / 4)


def test_rules_of_fans_follow_by_themselves():
    """What a law of fans does anyway needs no factor; stacked or not."""
    small, large = read("scanned", 8, 2), read("scanned", 32, 8)
    rules = [
        ("role:kernel", jaxinit.he_normal()),
        ("**/bias", 0.0),
        ("**/scale", 1.0),
    ]
    rows = preview(scaling.mup(small, large), large, rules)
    assert rows["stack/up/kernel"].std == pytest.approx((2 / 32) ** 0.5)
    assert "* " not in repr(rows["stack/up/kernel"].law)
    assert rows["final/kernel"].std == pytest.approx((2 / 8) ** 0.5 / 4)
    assert rows["first/kernel"].std == pytest.approx((2 / 6) ** 0.5)
    scale = scaling.completep(small, large)
    down = preview(scale, large, rules)["stack/down/kernel"]
    assert down.std == pytest.approx((2 / 16) ** 0.5 * scale["stack/down/kernel"].std)


@pytest.mark.slow
def test_drawing_twice_is_drawing_once():
    """Rules fit variables of Linen, whether or not loops are named."""
    large = Scanned(32, 4)
    scale = scaling.completep(read("scanned", 8, 2), read("scanned", 32, 4))
    read_large = read("scanned", 32, 4)
    rules = scale.rules(
        [
            ("kernel", jaxinit.lecun_normal()),
            ("**/bias", jaxinit.uniform()),
            ("scale", 1),
        ]
    )
    key = jax.random.key(0)
    variables = large.init(key, X)
    once = jaxinit.reinit(key, variables, rules, structure=read_large)
    twice = jaxinit.reinit(key, once, rules, structure=read_large)
    assert all(jax.tree.leaves(jax.tree.map(jnp.array_equal, once, twice)))
    down = once["params"]["stack"]["down"]["kernel"]
    assert float(down.std()) == pytest.approx(16**-0.5 / 2 / 2, rel=0.1)
    plain = jaxinit.preview(variables, rules).rows
    named = jaxinit.preview(variables, rules, structure=read_large).rows
    assert [row.std for row in plain] == pytest.approx([row.std for row in named])


def test_rules_by_paths_of_the_base():
    """Torch's bias has the law of its kernel in the base."""
    target = read("perceptron", 32, 4)
    scale = scaling.standard(Perceptron(8, 2), target, X)
    rules = [("params/Dense_2/kernel", jaxinit.normal(0.3)), ("kernel", 0.5)]
    rules += [("**/bias", jaxinit.uniform(low=-0.1, high=0.1))]
    rows = preview(scale, target, rules)
    assert rows["Dense_3/kernel"].std == pytest.approx(0.15)
    assert rows["Dense_4/kernel"].law == jaxinit.normal(0.3) * 0.5
    assert rows["Dense_1/kernel"].law == 0.25 and rows["Dense_0/kernel"].law == 0.5
    assert rows["Dense_3/bias"].law == jaxinit.uniform(low=-0.1, high=0.1)
    biases = preview(scale, target, recipes.torch_default())
    assert biases["Dense_2/bias"].std == pytest.approx((1 / 3 / 8) ** 0.5)
    assert biases["Dense_2/kernel"].std == pytest.approx((1 / 3 / 32) ** 0.5)


def make_sines(n):
    """Returns a model whose positions are a fixed table, by their values."""
    turns = np.arange(5)[:, None] * 0.3 ** np.arange(n // 2)
    table = np.concatenate([np.sin(turns), np.cos(turns)], -1).astype(np.float32)
    params = {"embedding": np.ones((9, n), np.float32), "kernel": np.ones((n, 9))}
    params["pos_embedding"] = table

    def apply(p, tokens):
        return (p["embedding"][tokens] + p["pos_embedding"]) @ p["kernel"]

    return params, (lambda key: jax.tree.map(jnp.float32, params), apply)


def test_values_of_the_base_count_if_given():
    params, small = make_sines(8)
    scale = scaling.mup(small, make_sines(16)[1], np.zeros((2, 5), np.int32))
    known, unknown = (
        {
            pattern.path: law
            for pattern, law in scale.rules(recipes.gpt2(1, residual=()), given)
        }
        for given in (params, None)
    )
    assert known["pos_embedding"] is None and unknown["pos_embedding"] is not None


def plain(key, shape, dtype=jnp.float32):
    return jnp.zeros(shape, dtype)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([("a", 1.0)], "b: its standard deviation must be 0.5 times that of b, and no"),
        ([("*", plain)], "a: its standard deviation must be 1 times .* is a function"),
        ([("b", np.ones((8, 8)))], r"b: an array of sizes \(8, 8\) cannot fill \(32, "),
        ([("z", 1.0)], r"Scale.rules\(rules=...\): z matches no parameter"),
        ([1], r"Scale.rules\(rules=...\): a rule is a pair"),
    ],
)
def test_rules_that_cannot_be_scaled(rules, message):
    scale = scaling.mup(give(8, 8), give(32, 32))
    with pytest.raises((ValueError, TypeError), match=message):
        scale.rules(rules)


@pytest.mark.skipif(
    importlib.util.find_spec("jaxinit.scaling._transforms") is None,
    reason="transformations of optax are not there yet",
)
def test_optimizers():
    scale = scaling.mup(give(8, 8), give(32, 32))
    params = {p: jnp.ones(row.traced.shape) for p, row in scale.items()}
    update = scale.lr("adam")
    moved, _ = update.update(params, update.init(params), params)
    assert {p: float(w.ravel()[0]) for p, w in moved.items()} == {
        p: row.lr["adam"] for p, row in scale.items()
    }
    for make in (scale.sgd, scale.adamw, scale.lion, scale.muon):
        make(1e-3).init(params)


def test_parts_of_a_joint_kernel_keep_their_laws():
    small, large = (read_joint(n) for n in (8, 32))
    scale = scaling.mup(small, large)
    parts = [jaxinit.normal(std) for std in (0.1, 0.2, 0.3)]
    joint = jaxinit.concatenated(parts, sizes=(8, 8, 8))
    rules = [("qkv", joint), ("*", jaxinit.lecun_normal())]
    law = preview(scale, large, rules)["qkv"].law
    assert law == jaxinit.concatenated(parts, sizes=(32, 32, 32)) * 0.5


def test_rules_of_kernels_in_groups():
    """As many groups as the target has, whether or not the base's divide its sizes."""

    def call(p, x):
        numbers = ("NWC", "WIO", "NWC")
        for name in ("in", "mix"):
            x = jnp.tanh(
                jax.lax.conv_general_dilated(
                    x,
                    p[name],
                    (1,),
                    "SAME",
                    dimension_numbers=numbers,
                    feature_group_count=x.shape[-1] // p[name].shape[1],
                )
            )
        return x.mean(1) @ p["head"]

    def read(n, groups, wide):
        sizes = {"in": (3, 2, n), "mix": (3, n // groups, wide), "head": (wide, 5)}
        init = lambda key: {k: jnp.ones(size) for k, size in sizes.items()}  # noqa: E731
        return jaxinit.structure((init, call), np.zeros((2, 8, 2), np.float32))

    cases = [((16, 16, 16), (24, 24, 24)), ((16, 4, 16), (48, 6, 48))]
    cases += [((16, 16, 32), (24, 24, 72)), ((16, 8, 16), (24, 24, 24))]
    for law in (jaxinit.he_normal(), jaxinit.glorot_uniform() * 0.5):
        rules = [("role:kernel", law)]
        for base, target in cases:
            small, large = read(*base), read(*target)
            scale = scaling.spectral(small, large)
            (before, after) = (
                next(row for row in found.rows if row.path == "mix")
                for found in (
                    jaxinit.preview(shapes(each), rule, structure=each)
                    for each, rule in ((small, rules), (large, scale.rules(rules)))
                )
            )
            assert after.std == pytest.approx(before.std * scale["mix"].std, rel=1e-6)
            assert f"groups={target[1]}" in repr(after.law)


def shapes(structure):
    return {
        path: jax.ShapeDtypeStruct(row.shape, row.dtype)
        for path, row in structure.items()
    }
