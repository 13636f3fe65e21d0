"""`structure` as a call: what it takes, refuses, returns, and that nothing is run."""

import json
import logging

import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import pytest
from architecture import data, ids, make
from flax import nnx

from jaxinit import structure
from jaxinit._structure.roles import ROLES

X = data(2, 8)
MODEL = nn.Sequential([nn.Dense(16), nn.relu, nn.Dense(4)])


class Noisy(nn.Module):
    """Draws noise and masks, and has statistics, if it is told to train."""

    @nn.compact
    def __call__(self, x, train):
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(16)(x))
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(4)(x + jax.random.normal(self.make_rng("noise"), x.shape))


@pytest.mark.parametrize(
    ("kind", "message", "call"),
    [
        (TypeError, r"\(model='a'\): must be a Flax mod", lambda: structure("a", X)),
        (TypeError, r"\(model=None\): must be a Flax", lambda: structure(None, X)),
        (ValueError, "is a Linen class: pass a mod", lambda: structure(nn.Dense, X)),
        (ValueError, r"is the pair \(init_fn, app", lambda: structure((len,), X)),
        (
            ValueError,
            "model has no parameter",
            lambda: structure(nn.Sequential([nn.relu]), X),
        ),
        (
            ValueError,
            r"\(model=.*is a method of a Linen module: pass the module itself\.",
            lambda: structure(MODEL.init, X),
        ),
        (
            TypeError,
            r"\(model, inputs=\(2, 8\)\): inputs must be data, not a shape. Write jax",
            lambda: structure(MODEL, (2, 8)),
        ),
        (
            TypeError,
            r"\(model, inputs='ab'\): inputs must be an array",
            lambda: structure(MODEL, "ab"),
        ),
        (TypeError, "inputs must be an array", lambda: structure(MODEL, object())),
        (
            TypeError,
            r"arguments=\[1\]\): arguments must be a dictionary of keywords",
            lambda: structure(MODEL, X, arguments=[1]),
        ),
        (
            TypeError,
            "arguments must be a dictionary of keywords",
            lambda: structure(MODEL, X, arguments={1: 2}),
        ),
        (
            TypeError,
            r"train='yes'\): train must be True or False",
            lambda: structure(MODEL, X, train="yes"),
        ),
        (
            ValueError,
            "call has no argument of these: train, training, is_training, determin",
            lambda: structure(MODEL, X, train=True),
        ),
        (
            TypeError,
            r"streams=3\): streams must be a name, or several in a tuple",
            lambda: structure(MODEL, X, streams=3),
        ),
        (
            TypeError,
            r"axis_name=\[3\]\): axis_name must be a name, or several",
            lambda: structure(MODEL, X, axis_name=[3]),
        ),
        (
            ValueError,
            r"find\(role='hiden'\): role must be one of .*Did you mean 'hidden'\?",
            lambda: structure(MODEL, X).find("hiden"),
        ),
    ],
)
def test_misuse(kind, message, call):
    with pytest.raises(kind, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_model_that_fails_raises_its_own_error():
    def fail(params, x):
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="^mine"):
        structure((make(w=(8, 4)), fail), X)


@pytest.mark.parametrize("train", [True, False])
def test_modes_streams_and_statistics(train):
    rows = structure(Noisy(), X, train=train, streams=("dropout", "noise"))
    roles = {path: row.role for path, row in rows.items()}
    assert roles == {
        "BatchNorm_0/bias": "offset",
        "BatchNorm_0/scale": "gain",
        "Dense_0/bias": "bias",
        "Dense_0/kernel": "input",
        "Dense_1/bias": "bias",
        "Dense_1/kernel": "readout",
    }


def test_models_with_an_axis_name():
    class Synchronous(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.BatchNorm(False, axis_name="batch")(nn.Dense(16)(x))
            return nn.Dense(4)(x)

    rows = structure(Synchronous(), X, axis_name="batch")
    assert rows["Dense_0/kernel"].role == "input"


INPUTS = {
    "arrays": lambda: (X, ids(2)),
    "arrays of JAX": lambda: (jnp.asarray(X), jnp.asarray(ids(2))),
    "shapes": lambda: (
        jax.ShapeDtypeStruct((2, 8), jnp.float32),
        jax.ShapeDtypeStruct((2,), jnp.int32),
    ),
    "mixed": lambda: (jax.ShapeDtypeStruct((2, 8), jnp.float32), ids(2)),
    "lists of numbers": lambda: ([[0.0] * 8] * 2, [1, 2]),
}


@pytest.mark.parametrize("inputs", INPUTS)
def test_inputs_of_every_kind(inputs):
    def call(params, x, y):
        return x @ params["w"] + params["table"][y]

    rows = structure((make(w=(8, 4), table=(9, 4)), call), *INPUTS[inputs]())
    assert {path: row.role for path, row in rows.items()} == {
        "w": "readout",
        "table": "embedding",
    }


def test_inputs_may_be_trees():
    def call(params, batch):
        return batch["x"][0] @ params["w"]

    x = jax.ShapeDtypeStruct((2, 8), jnp.float32)
    rows = structure((make(w=(8, 4)), call), {"x": [x, 1, None, True]})
    assert rows["w"].role == "readout"


def test_shapes_of_any_size():
    """Their entries, 64 GiB, are never made; and tracers are inputs too."""
    x = jax.ShapeDtypeStruct((2**31, 8), jnp.float32)
    expected = structure(MODEL, X)
    assert structure(MODEL, x) == expected

    def run(x):
        assert structure(MODEL, x) == expected
        return x

    jax.eval_shape(run, X)


def test_nothing_is_compiled_and_no_weight_is_drawn(caplog):
    drawn = []

    def draw(key, shape, dtype=jnp.float32):
        value = jax.random.normal(key, shape, dtype)
        drawn.append(value)
        return value

    model = nn.Sequential([nn.Dense(17, kernel_init=draw), nn.gelu, nn.Dense(4)])
    haiku = hk.transform(lambda x: hk.nets.MLP([13, 4])(x))
    with jax.log_compiles(), caplog.at_level(logging.DEBUG, "jax"):
        structure(model, X)
        structure(haiku, X)
        structure(lambda rngs: nnx.Linear(8, 4, rngs=rngs), X)
    logged = [record.getMessage() for record in caplog.records]
    assert not [text for text in logged if "ompil" in text and "XLA" in text]
    assert drawn and all(isinstance(value, jax.core.Tracer) for value in drawn)


def test_a_compilation_would_be_logged(caplog):
    with jax.log_compiles(), caplog.at_level(logging.DEBUG, "jax"):
        jax.jit(lambda x: x * 3 + 1).lower(jnp.ones(7)).compile()
    logged = [record.getMessage() for record in caplog.records]
    assert [text for text in logged if "ompil" in text and "XLA" in text]


def test_it_is_a_mapping_with_rows():
    rows = structure(MODEL, X)
    assert list(rows) == [row.path for row in rows.rows] and len(rows) == 4
    assert rows["layers_0/kernel"].fans == (8, 16) and "kernel" not in rows
    assert rows.get("kernel") is None
    with pytest.raises(KeyError, match="kernel"):
        rows["kernel"]
    assert [row.path for row in rows.find("bias")] == ["layers_0/bias", "layers_2/bias"]
    assert rows.find("query") == ()
    assert repr(rows) == "Structure(4 parameters, 0 branches)"
    assert repr(rows.rows[1]) == "TracedParameter('layers_0/kernel', input)"
    assert rows["layers_0/bias"].of == ("layers_0/kernel",)


def test_equality():
    rows = structure(MODEL, X)
    assert rows == structure(MODEL, data(5, 8)) and rows != structure(MODEL, data(2, 9))
    assert rows != 3 and rows != dict(rows)
    with pytest.raises(TypeError, match="unhashable"):
        hash(rows)


def test_plain_values():
    rows = structure(MODEL, X)
    plain = rows.to_dict()
    assert plain["branches"] == 0 and len(plain["parameters"]) == 4
    kernel = plain["parameters"][1]
    assert kernel == {
        "path": "layers_0/kernel",
        "shape": [8, 16],
        "dtype": "float32",
        "roles": ["input"],
        "in_axis": [0],
        "out_axis": [1],
        "batch_axis": [],
        "window": [],
        "groups": 1,
        "activation": "relu",
        "norm": "",
        "order": 0,
        "depth": 1,
        "branch": 0,
        "loops": [],
        "uses": 1,
        "of": [],
        "before": [],
        "reason": "",
        "fans": [8, 16],
        "layout": "(inputs, outputs)",
    }
    assert json.loads(rows.to_json()) == plain


def test_the_table_and_its_reasons():
    def call(params, x):
        return jnp.sort(x @ params["w"] * jnp.sort(params["odd"]) + 0 * x[:, :4])

    rows = structure((make(w=(8, 4), odd=(4,), idle=(3,)), call), X)
    text = str(rows)
    assert text.splitlines()[0].split()[:4] == ["path", "shape", "role", "fans"]
    assert "idle: the output does not depend on it" in text
    assert "8 → 4" in text and "8 → 4" in rows._repr_html_()
    assert rows["idle"].order is None and rows["idle"].uses == 0


def test_a_result_by_itself():
    """It meets no data, as the log deviation of an actor: that is said."""

    def call(params, x):
        return x @ params["w"], params["log_std"]

    rows = structure((make(w=(8, 4), log_std=(4,)), call), X)
    assert rows["log_std"].reason == "is a result by itself: it meets no data"


def test_the_outline_sets_branches_apart():
    class Blocks(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Dense(8, name="first")(x)
            for i in range(2):
                h = nn.gelu(nn.Dense(16, name=f"up_{i}")(nn.LayerNorm()(x)))
                x = x + nn.Dense(8, name=f"down_{i}")(h)
            return nn.Dense(4, name="last")(x)

    assert structure(Blocks(), X).outline().splitlines() == [
        "│ first/kernel  input",
        "├─ up_0/kernel  hidden → gelu",
        "│  down_0/kernel  residual",
        "├─ up_1/kernel  hidden → gelu",
        "│  down_1/kernel  residual",
        "│ last/kernel  readout",
    ]


def test_the_docstring_lists_the_roles():
    for role, meaning in ROLES.items():
        assert f"    {role:<11}{meaning}\n" in structure.__doc__
