"""Rules: `reinit` and `preview`, on trees of every kind."""

import re
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
from marks import slow_but

import jaxinit
from jaxinit import preview, reinit
from jaxinit._law import chunks
from jaxinit._paths import key_of

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))  # bench is no part of the installed package

from bench import models  # noqa: E402

KEY = jax.random.key(3)
PARAMS = {
    "encoder": {
        "attention": {
            "query": {"kernel": jnp.ones((8, 4)), "bias": jnp.ones(4)},
            "out": {"kernel": jnp.ones((4, 8)), "bias": jnp.ones(8)},
        },
        "norm": {"scale": jnp.ones(8), "bias": jnp.ones(8)},
    },
    "conv": {"kernel": jnp.ones((3, 3, 8, 4)), "bias": jnp.ones(4)},
    "steps": jnp.zeros((), jnp.int32),
}


def laws(rules, params=PARAMS, **options):
    return {row.path: row.law for row in preview(params, rules, **options).rows}


def changed(rules, params=PARAMS):
    return {path for path, law in laws(rules, params).items() if law is not None}


# patterns


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("conv/kernel", {"conv/kernel"}),
        ("*/kernel", {"conv/kernel"}),
        (
            "**/kernel",
            {
                "conv/kernel",
                "encoder/attention/query/kernel",
                "encoder/attention/out/kernel",
            },
        ),
        (
            "**/attention/*/kernel",
            {"encoder/attention/query/kernel", "encoder/attention/out/kernel"},
        ),
        ("encoder/**/scale", {"encoder/norm/scale"}),
        ("encoder/norm/**", {"encoder/norm/scale", "encoder/norm/bias"}),
        ("scale", {"encoder/norm/scale"}),
        ("s?ale", {"encoder/norm/scale"}),
        (
            re.compile(r"(query|out)/b"),
            {f"encoder/attention/{n}/bias" for n in ("query", "out")},
        ),
        (re.compile("^conv"), {"conv/kernel", "conv/bias"}),
        ((None, None), {f"encoder/attention/{n}/kernel" for n in ("query", "out")}),
        ((3, 3, ...), {"conv/kernel"}),
        ((..., 8, 4), {"conv/kernel", "encoder/attention/query/kernel"}),
        ((3, ..., 4), {"conv/kernel"}),
        ((8, ..., 8, 8), None),
        ((4,), {"conv/bias", "encoder/attention/query/bias"}),
        (lambda path, leaf: leaf.ndim == 4, {"conv/kernel"}),
        (lambda path, leaf: path.endswith("scale"), {"encoder/norm/scale"}),
    ],
)
def test_patterns(pattern, paths):
    if paths is None:
        with pytest.raises(ValueError, match="matches no parameter"):
            changed([(pattern, 0.0)])
    else:
        assert changed([(pattern, 0.0)]) == paths


def test_the_first_rule_wins():
    found = laws([("conv/bias", 1.0), ("bias", 2.0), ("**/bias", 3.0)])
    assert found["conv/bias"] == 1.0 and found["encoder/norm/bias"] == 2.0
    assert preview(PARAMS, [("bias", 2.0), ("**/bias", 3.0)]).unused == ("**/bias",)


# what a rule gives


def test_every_form_of_a_rule():
    array = np.arange(8.0).reshape(8, 1) * np.ones((8, 4))

    def bias(path, leaf, siblings):
        return 1 / siblings["kernel"].shape[-2] if "kernel" in siblings else None

    rules = [
        ("**/query/kernel", array),
        ("**/out/kernel", jax.nn.initializers.he_normal()),
        ("conv/kernel", "he_normal(gain='gelu')"),
        ("bias", bias),
        ("scale", jnp.float32(0.5)),
    ]
    made = reinit(KEY, PARAMS, rules)
    attention = made["encoder"]["attention"]
    np.testing.assert_array_equal(attention["query"]["kernel"], array)
    key = key_of(KEY, "encoder/attention/out/kernel")
    expected = jax.jit(
        lambda key: jax.nn.initializers.he_normal()(key, (4, 8), jnp.float32)
    )(key)
    np.testing.assert_array_equal(attention["out"]["kernel"], expected)
    key = key_of(KEY, "conv/kernel")
    expected = jaxinit.he_normal(gain="gelu")(key, (3, 3, 8, 4))
    np.testing.assert_array_equal(made["conv"]["kernel"], expected)
    assert float(attention["query"]["bias"][0]) == 1 / 8
    assert float(made["conv"]["bias"][0]) == 1 / 8
    assert made["encoder"]["norm"]["bias"] is PARAMS["encoder"]["norm"]["bias"]
    assert float(made["encoder"]["norm"]["scale"][0]) == 0.5
    assert made["steps"] is PARAMS["steps"]
    assert jax.tree.structure(made) == jax.tree.structure(PARAMS)


def test_a_rule_of_a_path_may_give_a_spec():
    found = laws([("kernel", lambda path, leaf, siblings: f"normal({len(path)})")])
    assert found["conv/kernel"] == jaxinit.normal(11)


def test_other_layers_change_no_draw():
    rules = [("kernel", jaxinit.he_normal()), ("bias", jaxinit.normal(0.1))]
    small = {"b": PARAMS["conv"]}
    large = {"a": PARAMS["conv"], "b": PARAMS["conv"], "c": PARAMS["conv"]}
    one, three = reinit(KEY, small, rules), reinit(KEY, large, rules)
    np.testing.assert_array_equal(one["b"]["kernel"], three["b"]["kernel"])
    assert (three["a"]["kernel"] != three["b"]["kernel"]).all()
    assert (
        one["b"]["kernel"] != reinit(jax.random.key(4), small, rules)["b"]["kernel"]
    ).all()


def test_within_jit_and_under_vmap():
    rules = [("kernel", jaxinit.he_normal())]
    expected = reinit(KEY, PARAMS, rules)["conv"]["kernel"]
    jitted = jax.jit(lambda key, params: reinit(key, params, rules))(KEY, PARAMS)
    np.testing.assert_array_equal(jitted["conv"]["kernel"], expected)
    many = jax.vmap(lambda key: reinit(key, PARAMS, rules))(KEY[None])
    np.testing.assert_array_equal(many["conv"]["kernel"][0], expected)


def test_a_preview_traces_equal_laws_once():
    """A law that is refused is refused all the same."""
    runs = []

    def law(key, shape, dtype):
        runs.append(shape)
        return jnp.zeros(shape if shape[0] < 9 else (1,), dtype)

    layers = {str(i): {"kernel": np.ones((2 + i % 2, 3), "f4")} for i in range(50)}
    made = preview(layers, [("kernel", law)])
    assert runs == [(2, 3), (3, 3)] and len(made.rows) == 50
    layers["49"]["kernel"] = np.ones((9, 3), "f4")
    with pytest.raises(
        ValueError, match=r"49/kernel \(9, 3\) by the rule kernel: the in"
    ):
        preview(layers, [("kernel", law)])


def test_drawing_again_compiles_nothing():
    assignments = preview(PARAMS, [("kernel", jaxinit.he_normal())])
    first = assignments.draw(KEY)
    with jax.no_tracing():
        second = assignments.draw(jax.random.key(4))
    assert (first["conv"]["kernel"] != second["conv"]["kernel"]).all()


def test_equal_laws_compile_once(monkeypatch):
    """In another call, for another tree of such sizes, and another scale."""
    monkeypatch.setattr(chunks, "KEPT", chunks.Kept())
    one = {"kernel": jnp.ones((16, 32)), "bias": jnp.ones(64)}
    two = {f"layer_{i}": {"kernel": jnp.ones((24, 20)), "b": i} for i in range(3)}
    first = reinit(KEY, one, [("*", jaxinit.normal(0.5))])
    monkeypatch.setattr(chunks, "compiled", None)
    again = reinit(KEY, one, [("*", jaxinit.normal(1.0))])
    np.testing.assert_array_equal(first["kernel"] * 2, again["kernel"])
    assert reinit(KEY, two, [("kernel", jaxinit.normal(0.5))])["layer_1"]["b"] == 1
    with pytest.raises(TypeError):  # of another law
        reinit(KEY, one, [("kernel", jaxinit.uniform(0.5))])


def test_few_programs_are_kept():
    kept = chunks.Kept(most=2)
    for number in range(3):
        kept.add(number, str(number))
        kept.find(0)
    assert [kept.find(number) for number in range(3)] == ["0", None, "2"]
    kept.forget()
    assert kept.find(0) is None


DTYPES = [jnp.bfloat16, jnp.float64, jnp.complex64]


@pytest.mark.parametrize("dtype", slow_but(DTYPES[:1], DTYPES))
def test_dtypes_stay(x64, dtype):
    params = jax.tree.map(lambda x: x.astype(dtype), PARAMS["conv"])
    made = reinit(KEY, params, [("kernel", jaxinit.he_normal()), ("bias", 1.5)])
    assert made["kernel"].dtype == made["bias"].dtype == dtype


def test_shardings_stay():
    mesh = jax.make_mesh((8,), ("x",))
    cut = NamedSharding(mesh, PartitionSpec("x"))
    params = {"kernel": jax.device_put(jnp.ones((16, 4)), cut), "bias": jnp.ones(4)}
    rules = [("kernel", jaxinit.normal(1.0)), ("bias", 2.0)]
    made = reinit(KEY, params, rules)
    assert made["kernel"].sharding.is_equivalent_to(cut, 2)
    whole = reinit(KEY, jax.tree.map(np.asarray, params), rules)
    np.testing.assert_array_equal(made["kernel"], whole["kernel"])


# trees


@pytest.mark.slow
def test_nnx_models_and_states():
    abstract = nnx.eval_shape(lambda: models.ResNet(nnx.Rngs(0), (1, 1), 4, 3))
    graph, shapes = nnx.split(abstract)
    model = nnx.merge(graph, jax.tree.map(lambda x: np.ones(x.shape, x.dtype), shapes))
    rules = [("**/conv2/kernel", 0.0), ("kernel", jaxinit.he_normal())]
    made = reinit(KEY, model, rules)
    assert isinstance(made, models.ResNet)
    assert not made.blocks[0].conv2.kernel[...].any()
    out = nnx.eval_shape(lambda made, x: made(x), made, jnp.ones((1, 32, 32, 3)))
    assert out.shape == (1, 3)
    state = reinit(KEY, nnx.state(model, nnx.Param), rules)
    nnx.update(model, state)
    np.testing.assert_array_equal(model.head.kernel[...], made.head.kernel[...])
    assert "blocks/0/conv1/kernel" in laws(rules, model)


def test_boxes_of_linen():
    class Boxed(nn.Module):
        @nn.compact
        def __call__(self, x):
            init = nn.with_partitioning(nn.initializers.he_normal(), (None, "model"))
            return nn.Dense(8, kernel_init=init)(x)

    variables = Boxed().init(KEY, jnp.ones((1, 4)))
    made = reinit(KEY, variables, [("params/Dense_0/kernel", 2.0)])
    kernel = made["params"]["Dense_0"]["kernel"]
    assert isinstance(kernel, nn.Partitioned) and float(kernel.value[0, 0]) == 2


@pytest.mark.slow
def test_haiku_names_and_what_is_no_array():
    params = {
        "mlp/~/linear_0": {"w": jnp.ones((4, 4)), "b": jnp.ones(4)},
        "f": jnp.tanh,
    }
    made = reinit(KEY, params, [("**/linear_*/w", jaxinit.orthogonal()), ("b", 0.0)])
    assert made["f"] is jnp.tanh and not made["mlp/~/linear_0"]["b"].any()
    gram = made["mlp/~/linear_0"]["w"].T @ made["mlp/~/linear_0"]["w"]
    np.testing.assert_allclose(gram, np.eye(4), atol=1e-5)


def test_abstract_parameters():
    shapes = jax.eval_shape(lambda: {"kernel": jnp.ones((4, 4)), "bias": jnp.ones(4)})
    made = reinit(KEY, shapes, [("kernel", jaxinit.he_normal()), ("bias", 0.0)])
    assert made["kernel"].shape == (4, 4)
    with pytest.raises(ValueError, match=r"reinit\(params=...\): bias has no value th"):
        reinit(KEY, shapes, [("kernel", jaxinit.he_normal())])


# messages


@pytest.mark.parametrize(
    ("rules", "kind", "message"),
    [
        ([3], TypeError, r"reinit\(rules=...\): a rule is a pair .*, not 3"),
        ([({}, 1.0)], TypeError, r"a pattern is a glob, re.compile.*, not {}"),
        ([("", 1.0)], TypeError, r"a pattern is a glob"),
        ([((..., 3, ...), 1.0)], TypeError, r"a pattern is a glob"),
        ([("kernal", 1.0)], ValueError, r"kernal matches no parameter that is left"),
        ([], ValueError, r"reinit\(rules=...\): there is no rule"),
        (
            [("kernel", "he_norm()")],
            ValueError,
            r"kernel: parse.*Did you mean 'he_normal'",
        ),
        ([("kernel", object())], TypeError, r"conv/kernel by the rule kernel: <object"),
        (
            [("kernel", np.ones(3))],
            TypeError,
            r"conv/kernel by the rule kernel: <ndarray",
        ),
        (
            [("bias", jaxinit.he_normal())],
            ValueError,
            r"conv/bias by the rule bias: he_n",
        ),
        (
            [("bias", jax.nn.initializers.he_normal())],
            ValueError,
            r"conv/bias \(4,\) by the rule bias: ",
        ),
        (
            [("bias", lambda key, shape, dtype: jnp.ones(3))],
            ValueError,
            r"conv/bias \(4,\) by the rule bias: the initializer returned an array of ",
        ),
    ],
)
def test_messages(rules, kind, message):
    with pytest.raises(kind, match=message):
        reinit(KEY, PARAMS, rules)


def test_messages_of_keys_and_trees():
    with pytest.raises(TypeError, match=r"reinit\(key=3\): key must be a PRNG key"):
        reinit(3, PARAMS, [("bias", 0.0)])
    with pytest.raises(
        ValueError, match=r"preview\(params=...\): there is no array in"
    ):
        preview({"a": "text"}, [("bias", 0.0)])


def test_strict():
    whole = [("kernel", 1.0), ("bias", 0.0), ("scale", None)]
    preview(PARAMS, whole, strict=True)
    with pytest.raises(
        ValueError, match=r"no rule matches encoder/norm/scale\. To leav"
    ):
        preview(PARAMS, whole[:2], strict=True)
    with pytest.raises(ValueError, match=r"biass matches no parameter .* such as conv"):
        preview(PARAMS, [*whole, ("biass", 0.0)], strict=True)


def test_the_table():
    table = str(preview(PARAMS, [("kernel", jaxinit.he_normal()), ("gone", 1.0)]))
    assert "conv/kernel" in table and "he_normal()" in table and "stays" in table
    assert table.endswith("rules without a parameter: gone")
